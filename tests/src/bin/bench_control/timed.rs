//! A kernel that takes the time of what it is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use conntrack_agent::kernel::Error;
use conntrack_agent::model::{Destination, RouterId};
use conntrack_agent::port_table::PartialTable;
use conntrack_agent::reconcile::{Effect, Kernel, Observed};

/// The kernel, and what it took since that was asked.
pub(crate) struct Timed<K> {
    kernel: K,
    taken: Taken,
}

/// Where the time went.
#[derive(Default)]
pub(crate) struct Taken {
    /// All observations.
    pub(crate) observing: Duration,
    /// All effects of one kind, by the kind.
    pub(crate) writing: BTreeMap<&'static str, Duration>,
}

impl<K> Timed<K> {
    pub(crate) fn new(kernel: K) -> Self {
        let taken = Taken::default();
        Self { kernel, taken }
    }

    /// What it took since the last call.
    pub(crate) fn taken(&mut self) -> Taken {
        std::mem::take(&mut self.taken)
    }
}

const fn kind(effect: &Effect) -> &'static str {
    match effect {
        Effect::LoadInstance(..) => "load",
        Effect::WriteTable(_) => "table",
        Effect::Bind { .. } => "bind",
        Effect::Attach { .. } => "attach",
        _ => "other",
    }
}

impl<K: Kernel> Kernel for Timed<K> {
    fn routers(&self) -> Result<BTreeSet<RouterId>, Error> {
        self.kernel.routers()
    }

    fn observe(&mut self, router: RouterId) -> Result<Observed, Error> {
        let start = Instant::now();
        let observed = self.kernel.observe(router);
        self.taken.observing += start.elapsed();
        observed
    }

    fn partial(
        &mut self,
        router: RouterId,
        destinations: &BTreeSet<Destination>,
    ) -> Result<Option<PartialTable>, Error> {
        let start = Instant::now();
        let partial = self.kernel.partial(router, destinations);
        self.taken.observing += start.elapsed();
        partial
    }

    fn run(&mut self, router: RouterId, effect: &Effect) -> Result<Option<Effect>, Error> {
        let start = Instant::now();
        let undo = self.kernel.run(router, effect);
        *self.taken.writing.entry(kind(effect)).or_default() += start.elapsed();
        undo
    }

    fn vanished(&self, router: RouterId) -> Option<String> {
        self.kernel.vanished(router)
    }

    fn present(&self) -> Result<BTreeSet<RouterId>, Error> {
        self.kernel.present()
    }

    fn settled(&mut self, router: RouterId, has_rules: bool) {
        self.kernel.settled(router, has_rules);
    }

    fn release(&mut self, router: RouterId) {
        self.kernel.release(router);
    }
}
