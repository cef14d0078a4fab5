//! Our way: engine, store and kernel, as the daemon goes from one to the next.

use std::path::Path;
use std::time::Instant;

use conntrack_agent::config::Config;
use conntrack_agent::engine::{Limits, Mapping, Operation, Policy};
use conntrack_agent::kernel::{AgentId, Binding, Build, Hooks, Instance, LinkKind, Nft};
use conntrack_agent::kernel::{AttachMode, NetnsFolder, Pin, Pins, Usable};
use conntrack_agent::model::{Helper, Origin, RouterId};
use conntrack_agent::reconcile::{Host, Reconciler};
use conntrack_agent::store::Store;
use conntrack_tests::lab::Lab;
use uuid::Uuid;

use crate::rules;
use crate::run::Run;
use crate::timed::{Taken, Timed};

/// As many as the agent can be told to allow.
pub(crate) const LIMITS: Limits = Limits {
    rules_per_router: 65534,
    routers: 10,
};

pub(crate) fn policy() -> Policy {
    Policy::new(LIMITS, Helper::all(), Helper::all())
}

/// A router in a lab, and all that a running agent has in hand.
pub(crate) struct Ours {
    router: RouterId,
    config: Config,
    binding: Binding,
    hooks: Hooks,
    policy: Policy,
    mapping: Mapping,
    store: Store,
    kernel: Timed<Host>,
    reconciler: Reconciler,
}

impl Ours {
    /// With a router of three interfaces and no rule.
    pub(crate) fn new(lab: &Lab, state: &Path) -> Self {
        let id = Uuid::new_v4().to_string();
        let router = lab.netns(&format!("qrouter-{id}"));
        let beyond = lab.netns(&format!("beyond-{id}"));
        for (number, name) in ["qr-0", "qr-1", "qg-0"].into_iter().enumerate() {
            let at = beyond.path().display();
            router.ip(&format!(
                "link add {name} type veth peer name peer{number} netns {at}\nlink set {name} up\n"
            ));
        }
        let config = Config {
            bpffs_dir: lab.dir().agent_bpffs_dir(),
            netns_dir: lab.dir().netns_dir(),
            ..Config::default()
        };
        let agent = AgentId::random();
        let carrier = config.mark_bits;
        let nft = Nft::new(&config.nft);
        let binding = Binding::probe(nft, agent, carrier).expect("a binding");
        let mapping = Mapping::default();
        let mut host =
            Host::new(Build::built_in(), &config, agent, binding.clone()).expect("the host");
        // What a start does otherwise is none of what is measured.
        host.end_of_start().expect("the pins");
        Self {
            router: id.parse().expect("a router id"),
            policy: policy(),
            store: Store::create(state, &mapping).expect("a store"),
            kernel: Timed::new(host),
            reconciler: Reconciler::default(),
            mapping,
            binding,
            hooks: Hooks::probe(agent).expect("a kernel that can be asked"),
            config,
        }
    }

    pub(crate) fn router(&self) -> RouterId {
        self.router
    }

    /// All rules in one batch: onto one that is there, and then from nothing.
    pub(crate) fn fill(&mut self, count: usize, run: &mut Run) {
        let mut unheard = Run::new(count);
        let batch = rules::batch(self.router, count);
        if let [first, others @ ..] = batch.as_slice()
            && !others.is_empty()
        {
            self.request(std::slice::from_ref(first), "", &mut unheard);
            self.request(others, "more.", run);
            self.clear();
        }
        self.request(&batch, "batch.", run);
        assert_eq!(self.mapping.len(), count, "rules");
    }

    /// Back to nothing.
    pub(crate) fn clear(&mut self) {
        let mut unheard = Run::new(0);
        self.request(&[Operation::Clear(self.router)], "", &mut unheard);
    }

    /// One rule more, and away with it again: two changes.
    pub(crate) fn change(&mut self, of: &str, run: &mut Run) {
        let rule = rules::nth(self.router, self.mapping.len());
        self.request(&[Operation::Create(rule)], of, run);
        self.request(&[Operation::Delete(rule.id)], of, run);
    }

    /// What the daemon does with a request, and the time of each step.
    fn request(&mut self, batch: &[Operation], of: &str, run: &mut Run) {
        let start = Instant::now();
        let change = self.mapping.decide(&self.policy, Origin::Api, batch);
        let change = change.expect("a change that may be");
        let decided = Instant::now();
        self.store
            .commit(&self.mapping, &change)
            .expect("a durable change");
        let stored = Instant::now();
        self.mapping.commit(&change);
        let (kernel, mapping) = (&mut self.kernel, &self.mapping);
        let done = self.reconciler.change(kernel, mapping, &change, start);
        let end = Instant::now();
        assert!(
            done.expect("a change applied").effects.total() > 0,
            "effects"
        );
        let Taken { observing, writing } = self.kernel.taken();
        for (kind, time) in &writing {
            run.series(&format!("{of}write.{kind}")).add(*time);
        }
        let writing = writing.values().sum();
        let in_kernel = end - stored;
        for (part, time) in [
            ("ours", end - start),
            ("decide", decided - start),
            ("store", stored - decided),
            ("observe", observing),
            ("write", writing),
            ("rest", in_kernel.saturating_sub(observing + writing)),
        ] {
            run.series(&format!("{of}{part}")).add(time);
        }
    }

    /// What follows a change when it is answered: a look at all of the router.
    pub(crate) fn look(&mut self, run: &mut Run) {
        let due = self.reconciler.next_look().expect("a look that is due");
        let (kernel, mapping) = (&mut self.kernel, &self.mapping);
        let look = || self.reconciler.look(kernel, mapping, due);
        let summary = run.series("look").time(look);
        assert_eq!(
            (summary.effects.total(), summary.failed),
            (0, 0),
            "nothing to do"
        );
        drop(self.kernel.taken());
    }

    /// What an observation consists of, step by step.
    pub(crate) fn look_closely(&self, run: &mut Run) {
        let folder = NetnsFolder::new(&self.config.netns_dir);
        let pins = Pins::new(&self.config.bpffs_dir);
        let pinned = pins.instance(self.router);
        let name = format!("qrouter-{}", self.router);

        let instance = run
            .series("observe.pins")
            .time(|| Instance::open(&pinned).expect("what is pinned"));
        let Usable::Whole(instance) = instance else {
            panic!("no instance of the router");
        };
        let image = run
            .series("observe.maps")
            .time(|| instance.image().expect("the maps' content"));
        run.maps = Some(image.capacity());
        let netns = folder.open(&name).expect("the namespace").expect("one");
        run.series("observe.enter")
            .time(|| netns.enter(|| Ok(())).expect("the namespace"));
        let program = instance.program_id();
        run.series("observe.hooks").time(|| {
            let found = self.hooks.look(&netns).expect("the interfaces");
            for ingress in found {
                if ingress.interface.kind == LinkKind::Ethernet {
                    let path = pins.link(self.router, &name, ingress.interface.index);
                    let pin = Pin::at(&path).expect("the pin");
                    assert!(ingress.has(AttachMode::Tcx, program, pin), "attached");
                }
            }
        });
        run.series("observe.nft")
            .time(|| self.binding.observe(&netns).expect("the binding"));
    }
}
