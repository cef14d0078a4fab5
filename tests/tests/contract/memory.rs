//! The kernel in memory with a router.

use std::collections::BTreeSet;

use conntrack_agent::{
    kernel::BindingState,
    model::RouterId,
    port_table::Write,
    reconcile::{Kernel, Memory, MemoryXdp, memory},
};

use super::{Act, INTERFACES, World, interfaces, random_router, xdp_interfaces};

pub(super) struct InMemory {
    kernel: Memory,
    router: RouterId,
}

impl InMemory {
    pub(super) fn new() -> Self {
        let router = random_router();
        let mut kernel = Memory::default();
        let interfaces = INTERFACES.map(|(index, name)| (index, (name.to_owned(), false)));
        let namespace = memory::MemoryNamespace {
            interfaces: interfaces.into(),
            ..Default::default()
        };
        let name = format!("qrouter-{router}");
        kernel.router(router).namespaces.insert(name, namespace);
        Self { kernel, router }
    }

    fn state(&mut self) -> &mut memory::MemoryRouter {
        self.kernel.router(self.router)
    }

    fn namespace(&mut self) -> &mut memory::MemoryNamespace {
        let mut namespaces = self.state().namespaces.values_mut();
        namespaces.next().expect("the namespace")
    }

    fn interface(&mut self, index: u32) -> &mut (String, bool) {
        let interface = self.namespace().interfaces.get_mut(&index);
        interface.expect("the interface")
    }

    fn delete_instance(&mut self) {
        self.state().instance = None;
        self.state().carrier = None;
    }

    /// Has everything of the agent's be an older agent's.
    fn age(&mut self) {
        let mut links = BTreeSet::new();
        for (name, namespace) in &mut self.state().namespaces {
            for xdp in namespace.xdp.values_mut() {
                if let MemoryXdp::Own(mode) = *xdp {
                    *xdp = MemoryXdp::Older(mode);
                }
            }
            for (index, (_, attached)) in &mut namespace.interfaces {
                if std::mem::take(attached) {
                    links.insert((name.clone(), *index));
                }
            }
        }
        self.delete_instance();
        self.state().predecessor = Some(links);
    }
}

impl World for InMemory {
    fn kernel(&mut self) -> (&mut dyn Kernel, RouterId) {
        (&mut self.kernel, self.router)
    }

    fn change(&mut self, change: Act) {
        match change {
            Act::RemoveInterface(index) => self.kernel.remove_interface(self.router, index),
            Act::RenameInterface(index, name) => self.interface(index).0 = name.into(),
            Act::RemoveNamespace => {
                for (index, _) in INTERFACES {
                    self.kernel.remove_interface(self.router, index);
                }
                self.state().namespaces.clear();
            }
            Act::DeleteTable => self.namespace().binding = None,
            Act::EditTable => self.namespace().binding = Some(BindingState::Different),
            Act::DeleteLink(index) => self.interface(index).1 = false,
            Act::DeleteXdpLink(index) => drop(self.namespace().xdp.remove(&index)),
            Act::DeleteInstance => self.delete_instance(),
            Act::WriteSlot(index, slot) => {
                let instance = self.state().instance.as_mut();
                instance
                    .expect("an instance")
                    .apply(&Write::Slot { index, slot });
            }
            Act::SetNat(is_there) => self.namespace().has_nat = is_there,
            Act::SetForeignXdp(true) => {
                self.namespace().xdp.insert(2, MemoryXdp::Foreign);
            }
            Act::SetForeignXdp(false) => drop(self.namespace().xdp.remove(&2)),
            Act::Classify(patterns) => {
                self.kernel.classify(interfaces(patterns));
            }
            Act::ClassifyByXdp(entries) => {
                self.kernel.classify_by_xdp(xdp_interfaces(entries));
            }
            Act::Rebuild => self.state().is_outdated = true,
            Act::NextAbi => self.age(),
        }
    }
}
