//! The interface between the reconciler and a kernel.

use std::collections::BTreeSet;

use super::{Effect, Observed};
use crate::{
    kernel::Error,
    model::{Destination, RouterId},
    port_table::PartialTable,
};

/// A kernel, router by router. Two implementations: [`Host`](super::Host), and
/// `Memory`, which does what the real one was seen to do; one
/// suite of tests runs against both.
pub trait Kernel {
    /// Every router that the agent has anything on.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't be asked.
    fn routers(&self) -> Result<BTreeSet<RouterId>, Error>;

    /// Every router that has a namespace here, whether or not the agent has
    /// anything on it, as far as that is told by names.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't be asked.
    fn present(&self) -> Result<BTreeSet<RouterId>, Error>;

    /// What there is of the router now. Its namespaces are held until
    /// [`Self::release`]: effects go to those that were observed.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't be asked.
    fn observe(&mut self, router: RouterId) -> Result<Observed, Error>;

    /// The part of the router's port table that concerns some destinations,
    /// asked for without asking for all the rest; none where the rest is not as
    /// it was when the router was observed last, as far as is told at a glance:
    /// another namespace, no whole instance. Then it is to be observed.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't be asked.
    fn excerpt(
        &mut self,
        router: RouterId,
        destinations: &BTreeSet<Destination>,
    ) -> Result<Option<PartialTable>, Error>;

    /// Carries out one effect on a router that was looked at; gives the effect
    /// that takes it back, if there is one.
    ///
    /// # Errors
    /// [`Error`] if it was refused; then nothing of it has happened.
    fn run(&mut self, router: RouterId, effect: &Effect) -> Result<Option<Effect>, Error>;

    /// A namespace of the router that went away since it was observed.
    fn vanished(&self, router: RouterId) -> Option<String>;

    /// The router is as it should be, and has rules or none: what it has now is
    /// kept, what it had before is let go.
    fn settled(&mut self, router: RouterId, has_rules: bool);

    /// Lets go of what was held since the router was observed.
    fn release(&mut self, router: RouterId);
}
