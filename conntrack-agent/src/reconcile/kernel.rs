//! What the reconciler asks of a kernel.

use std::collections::BTreeSet;

use super::{Effect, Observed};
use crate::{kernel::Error, model::RouterId};

/// A kernel, router by router. Two implementations: [`Host`](super::Host), and
/// [`Memory`](super::Memory), which does what the real one was seen to do; one
/// suite of tests runs against both.
pub trait Kernel {
    /// Every router that the agent has anything on.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't be asked.
    fn routers(&self) -> Result<BTreeSet<RouterId>, Error>;

    /// What there is of the router now. Its namespaces are held until
    /// [`Self::release`]: effects go to those that were observed.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't be asked.
    fn observe(&mut self, router: RouterId) -> Result<Observed, Error>;

    /// Carries out one effect on a router that was observed; gives the effect
    /// that takes it back, if there is one.
    ///
    /// # Errors
    /// [`Error`] if it was refused; then nothing of it has happened.
    fn run(&mut self, router: RouterId, effect: &Effect) -> Result<Option<Effect>, Error>;

    /// A namespace of the router that went away since it was observed.
    fn vanished(&self, router: RouterId) -> Option<String>;

    /// Lets go of what was held since the router was observed.
    fn release(&mut self, router: RouterId);
}
