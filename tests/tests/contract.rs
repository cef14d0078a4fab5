//! What `trait Kernel` promises, checked on both implementations: what the
//! kernel in memory does was first seen on the real one.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;

use conntrack_agent::{
    config::{Interfaces, XdpEntry, XdpInterfaces},
    kernel::{Error, XdpMode},
    model::{Destination, Protocol, RouterId},
    port_table::{Amendment, Image, PartialTable, Wanted},
    reconcile::{Desired, Effect, InstanceState, Kernel, Observed, diff},
};
use conntrack_ebpf::abi::Slot;

/// Makes tests of checks on the real kernel, one for each way of attaching.
macro_rules! on_host {
    ($($check:ident)*) => {
        mod tcx {
            use conntrack_agent::config::Attach;
            $(#[test] fn $check() { super::$check(crate::host::Real::new(Attach::Tcx)); })*
        }
        mod clsact {
            use conntrack_agent::config::Attach;
            $(#[test] fn $check() { super::$check(crate::host::Real::new(Attach::Clsact)); })*
        }
    };
}

/// Makes tests of checks on both kernels.
macro_rules! on_both {
    ($($check:ident)*) => {
        mod in_memory {
            $(#[test] fn $check() { super::$check(crate::memory::InMemory::new()); })*
        }
        on_host! { $($check)* }
    };
}

#[path = "contract/carrier.rs"]
mod carrier;
#[path = "contract/host.rs"]
mod host;
#[path = "contract/interfaces.rs"]
mod interfaces;
#[path = "contract/memory.rs"]
mod memory;
#[path = "contract/renewal.rs"]
mod renewal;
#[path = "contract/rules.rs"]
mod rules;
#[path = "contract/upgrade.rs"]
mod upgrade;
#[path = "contract/xdp.rs"]
mod xdp;

/// A change that the agent process doesn't make: another program's, or the start
/// of another process with another configuration or program.
#[derive(Clone, Copy, Debug)]
enum Act {
    RemoveInterface(u32),
    RenameInterface(u32, &'static str),
    RemoveNamespace,
    DeleteTable,
    EditTable,
    DeleteLink(u32),
    DeleteXdpLink(u32),
    DeleteInstance,
    WriteSlot(u16, Slot),
    /// Gives the namespace NAT, or takes it away.
    SetNat(bool),
    /// Puts another owner's XDP program on interface 2, or takes it away.
    SetForeignXdp(bool),
    /// Configures the patterns of the classified interfaces.
    Classify(&'static [&'static str]),
    /// Configures the interfaces that get the XDP program too.
    ClassifyByXdp(&'static [(&'static str, XdpMode)]),
    /// Rebuilds the agent's program.
    Rebuild,
    /// Gives the agent the next ABI.
    NextAbi,
}

/// One router with one namespace of two interfaces, numbers 2 and 3.
const INTERFACES: [(u32, &str); 2] = [(2, "qr-1"), (3, "qg-1")];

/// A kernel with that router, and everything that can happen to it.
trait World {
    fn kernel(&mut self) -> (&mut dyn Kernel, RouterId);

    fn change(&mut self, change: Act);

    fn observe(&mut self) -> Observed {
        let (kernel, router) = self.kernel();
        kernel.observe(router).expect("an observation")
    }

    fn run(&mut self, effect: &Effect) -> Result<Option<Effect>, Error> {
        let (kernel, router) = self.kernel();
        kernel.run(router, effect)
    }

    fn partial(&mut self, of: &Amendment) -> Option<PartialTable> {
        let (kernel, router) = self.kernel();
        let destinations: BTreeSet<_> = of.keys().copied().collect();
        let partial = kernel.partial(router, &destinations);
        partial.expect("a part of the port table")
    }

    /// Whether the kernel has anything of the agent's for the router.
    fn is_known(&mut self) -> bool {
        let (kernel, router) = self.kernel();
        kernel.routers().expect("routers").contains(&router)
    }

    /// The effects that lead to rules on these ports.
    fn missing(&mut self, ports: impl IntoIterator<Item = u16>) -> Vec<Effect> {
        diff(&self.observe(), &desired(ports)).expect("a way there")
    }

    /// Carries out what is missing.
    fn reach(&mut self, ports: impl IntoIterator<Item = u16>) {
        for effect in self.missing(ports) {
            let done = self.run(&effect);
            done.unwrap_or_else(|error| panic!("{effect}: {error}"));
        }
    }

    /// Carries out what is missing, and checks that these rules are there, that
    /// the kernel knows the router if it has any, and that nothing is left to do.
    fn settle(&mut self, what: &str, ports: impl IntoIterator<Item = u16>) -> Observed {
        let desired = desired(ports);
        self.reach(desired.keys().map(|to| to.port));
        let observed = self.observe();
        let effects = diff(&observed, &desired).expect("a way there");
        assert_eq!(effects, [], "{what}: in {observed:?}");
        let is_here = !observed.namespaces.is_empty();
        let is_known = is_here && !desired.is_empty();
        assert_eq!(self.is_known(), is_known, "{what}");
        if is_here {
            assert_eq!(rules_of(&observed), desired, "{what}");
        }
        observed
    }

    /// Carries out those of these effects that can be taken back, takes them back,
    /// and checks that everything is as it was.
    fn assert_undone(&mut self, what: &str, effects: &[Effect]) {
        let before = self.observe();
        let reversible = effects.iter().filter(|effect| !effect.is_final());
        let undo: Vec<_> = reversible
            .map(|effect| self.run(effect).expect("an effect").expect("a way back"))
            .collect();
        for effect in undo.iter().rev() {
            self.run(effect).expect("a way back");
        }
        assert_eq!(self.observe(), before, "{what}");
    }
}

/// The names of effects.
fn kinds(effects: &[Effect]) -> Vec<String> {
    let name = |effect: &Effect| {
        let text = format!("{effect:?}").replacen("Xdp(", "Xdp", 1);
        let end = text.find(|c: char| !c.is_alphanumeric());
        text[..end.unwrap_or(text.len())].to_owned()
    };
    effects.iter().map(name).collect()
}

fn desired(ports: impl IntoIterator<Item = u16>) -> Desired {
    ports.into_iter().map(|port| (tcp(port), 1)).collect()
}

const fn tcp(port: u16) -> Destination {
    Destination {
        protocol: Protocol::Tcp,
        port,
    }
}

fn image(observed: &Observed) -> &Image {
    match &observed.instance {
        InstanceState::Current(image) => image,
        other => panic!("no current instance: {other:?}"),
    }
}

fn rules_of(observed: &Observed) -> Wanted {
    match &observed.instance {
        InstanceState::Absent => Wanted::new(),
        _ => image(observed).rules(),
    }
}

fn random_router() -> RouterId {
    uuid::Uuid::new_v4().to_string().parse().expect("a UUID")
}

fn interfaces(patterns: &[&str]) -> Interfaces {
    let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
    Interfaces::matching(&patterns).expect("good patterns")
}

fn xdp_interfaces(entries: &[(&str, XdpMode)]) -> XdpInterfaces {
    let entry = |(name, attach): &(&str, XdpMode)| XdpEntry {
        name: (*name).to_owned(),
        attach: *attach,
    };
    let entries: Vec<_> = entries.iter().map(entry).collect();
    XdpInterfaces::of(&entries).expect("good patterns")
}
