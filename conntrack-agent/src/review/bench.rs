//! A mapping engine and a reconciler over a kernel in memory.

use std::{collections::BTreeMap, io, time::Instant};

use crate::{
    engine::{Change, Limits, Mapping, NewRule, Operation, Policy, Refusal},
    kernel::Error,
    model::{Helper, Origin, Port, Protocol, RouterId, RuleId, RuleTarget},
    port_table::Wanted,
    reconcile::{Memory, Reconciler, Summary, memory::MemoryNamespace},
};

pub(super) fn router(number: u8) -> RouterId {
    let text = format!("00000000-0000-4000-8000-0000000000{number:02x}");
    text.parse().unwrap()
}

pub(super) fn target(number: u8, port: i64) -> RuleTarget {
    RuleTarget {
        router: router(number),
        port: Port::try_from(port).unwrap(),
        helper: Helper::new("ftp", Protocol::Tcp).unwrap(),
    }
}

pub(super) fn create(number: u8, port: i64) -> Operation {
    Operation::Create(NewRule {
        id: RuleId::random(),
        target: target(number, port),
    })
}

/// A mapping engine and a kernel under it, with three routers that have a
/// namespace of two interfaces each.
pub(super) struct Bench {
    pub(super) mapping: Mapping,
    pub(super) policy: Policy,
    pub(super) kernel: Memory,
    pub(super) reconciler: Reconciler,
    pub(super) now: Instant,
}

impl Bench {
    pub(super) fn new() -> Self {
        let mut kernel = Memory::default();
        for number in 1..=3 {
            let interfaces = [(2, ("qr-1".into(), false)), (3, ("qg-1".into(), false))];
            let namespace = MemoryNamespace {
                binding: None,
                has_nat: false,
                interfaces: interfaces.into(),
                xdp: BTreeMap::new(),
            };
            let namespaces = &mut kernel.router(router(number)).namespaces;
            namespaces.insert(format!("qrouter-{}", router(number)), namespace);
        }
        Self {
            mapping: Mapping::default(),
            policy: Policy::new(Limits::default(), Helper::all(), Helper::all()),
            kernel,
            reconciler: Reconciler::default(),
            now: Instant::now(),
        }
    }

    /// With these rules of the API.
    pub(super) fn with(rules: &[Operation]) -> Self {
        let mut bench = Self::new();
        bench.api(rules);
        bench
    }

    /// A batch of the API that is done.
    #[track_caller]
    pub(super) fn api(&mut self, batch: &[Operation]) {
        self.ask(Origin::Api, batch).unwrap();
    }

    /// What a batch would change, or why not.
    pub(super) fn decide(
        &self,
        origin: Origin,
        batch: &[Operation],
    ) -> Result<Change, Vec<Refusal>> {
        self.mapping.decide(&self.policy, origin, batch)
    }

    /// As the daemon does it: decided, committed, applied; or all of it undone.
    pub(super) fn ask(&mut self, origin: Origin, batch: &[Operation]) -> Result<usize, String> {
        let change = self.decide(origin, batch).map_err(|refusals| {
            let reasons = refusals.iter().map(ToString::to_string);
            reasons.collect::<Vec<_>>().join("; ")
        })?;
        self.mapping.commit(&change);
        let (kernel, mapping) = (&mut self.kernel, &self.mapping);
        match self.reconciler.change(kernel, mapping, &change, self.now) {
            Ok(done) => Ok(done.effects.total()),
            Err(error) => {
                self.mapping.commit(&change.inverse());
                Err(error.to_string())
            }
        }
    }

    pub(super) fn pass(&mut self) -> Summary {
        let (kernel, mapping) = (&mut self.kernel, &self.mapping);
        self.reconciler
            .full_pass(kernel, mapping, self.now)
            .unwrap()
    }

    /// A look at the routers that are due.
    pub(super) fn look(&mut self) -> Summary {
        let (kernel, mapping) = (&mut self.kernel, &self.mapping);
        self.reconciler.look(kernel, mapping, self.now)
    }

    /// The namespaces that a router has in the kernel.
    pub(super) fn namespaces(&mut self, number: u8) -> &mut BTreeMap<String, MemoryNamespace> {
        &mut self.kernel.router(router(number)).namespaces
    }

    /// The ports that the kernel gives a helper to.
    pub(super) fn in_force(&mut self, number: u8) -> Vec<u16> {
        let instance = self.kernel.router(router(number)).instance.clone();
        let rules = instance.map_or_else(Wanted::new, |image| image.rules());
        rules.keys().map(|to| to.port).collect()
    }
}

pub(super) fn refused(errno: i32) -> Error {
    Error::File {
        path: "injected".into(),
        what: "written",
        source: io::Error::from_raw_os_error(errno),
    }
}
