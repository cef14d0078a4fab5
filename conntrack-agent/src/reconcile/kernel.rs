//! The interface between the reconciler and a kernel.

use std::collections::BTreeSet;

use super::{Effect, Observed};
use crate::{
    kernel::Error,
    model::{Destination, RouterId},
    port_table::PartialTable,
};

/// A kernel, router by router. There are two implementations:
/// [`Host`](super::Host), and `Memory`, which does what the real kernel was
/// seen to do. One suite of tests runs against both.
pub trait Kernel {
    /// Returns every router that the agent has anything on.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't be asked.
    fn routers(&self) -> Result<BTreeSet<RouterId>, Error>;

    /// Returns every router that has a namespace here, as far as names tell,
    /// whether or not the agent has anything on it.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't be asked.
    fn present(&self) -> Result<BTreeSet<RouterId>, Error>;

    /// Observes the router as it is now. Its namespaces are held until
    /// [`Self::release`], so that effects go to those that were observed.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't be asked.
    fn observe(&mut self, router: RouterId) -> Result<Observed, Error>;

    /// Returns the part of the router's port table that concerns some
    /// destinations, without reading the rest. Returns `None` if a quick check
    /// finds that the rest is not as it was when the router was observed last:
    /// another namespace, or no whole instance. Then the router has to be
    /// observed.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't be asked.
    fn partial(
        &mut self,
        router: RouterId,
        destinations: &BTreeSet<Destination>,
    ) -> Result<Option<PartialTable>, Error>;

    /// Carries out one effect on a router that was observed. Returns the effect
    /// that undoes it, if there is one.
    ///
    /// # Errors
    /// [`Error`] if it was refused; then nothing of it has happened.
    fn run(&mut self, router: RouterId, effect: &Effect) -> Result<Option<Effect>, Error>;

    /// Returns a namespace of the router that went away since it was observed.
    fn vanished(&self, router: RouterId) -> Option<String>;

    /// Notes that the router is as it should be, with rules or without: what it
    /// has now is kept, and what it had before is let go.
    fn settled(&mut self, router: RouterId, has_rules: bool);

    /// Lets go of everything held since the router was observed.
    fn release(&mut self, router: RouterId);
}
