//! Plans when programs are attached to interfaces, and whether by tcx or by tc
//! filter.
//!
//! Making a tcx link ends with an RCU grace period, under the lock that every
//! change of a network on this host takes (`tcx_link_attach`,
//! kernel/bpf/tcx.c): at least 8 ms with 250 ticks a second, one link after the
//! other. A tc filter takes none. So a start that finds hundreds of interfaces
//! without a program, as after a reboot, gives most of them filters, and links
//! one router after the other when all are served.

use std::collections::BTreeSet;

use crate::{
    config::Attach,
    kernel::{AttachMode, Error, Ingress, Pin},
    model::RouterId,
};

/// The number of links that a start makes before it goes on with filters: the
/// time for these is not worth attaching twice.
const LINKS_OF_A_START: usize = 64;

/// The planner: the final way to attach, and the routers for which another way
/// is enough for now.
#[derive(Debug)]
pub(super) struct AttachPlanner {
    last: AttachMode,
    /// The number of links that a start that may use both ways still makes;
    /// `None` otherwise.
    links_left: Option<usize>,
    /// The routers whose filters are enough until their turn comes.
    waiting: BTreeSet<RouterId>,
}

impl AttachPlanner {
    /// Makes a planner for a start.
    ///
    /// # Errors
    /// [`Error::NoTcx`] if tcx is wanted and the kernel has none.
    pub(super) fn new(wanted: Attach, has_tcx: bool) -> Result<Self, Error> {
        let (last, links_left) = match (wanted, has_tcx) {
            (Attach::Tcx, false) => return Err(Error::NoTcx),
            (Attach::Tcx, true) => (AttachMode::Tcx, None),
            (Attach::Auto, true) => (AttachMode::Tcx, Some(LINKS_OF_A_START)),
            (Attach::Auto, false) | (Attach::Clsact, _) => (AttachMode::Clsact, None),
        };
        let waiting = BTreeSet::new();
        Ok(Self {
            last,
            links_left,
            waiting,
        })
    }

    /// Returns the way in which the next program is attached to an interface
    /// with this pin.
    pub(super) fn next(&mut self, pin: Pin) -> AttachMode {
        match &mut self.links_left {
            // An interface that has a filter keeps it for now.
            Some(_) if pin == Pin::Filter => AttachMode::Clsact,
            Some(0) => AttachMode::Clsact,
            Some(left) => {
                *left -= 1;
                self.last
            }
            None => self.last,
        }
    }

    /// Returns whether the program is on the router's interface in a way that
    /// is enough.
    pub(super) fn will_do(
        &self,
        router: RouterId,
        ingress: &Ingress,
        program: u32,
        pin: Pin,
    ) -> bool {
        let is_patient = self.links_left.is_some() || self.waiting.contains(&router);
        ingress.has(self.last, program, pin)
            || (is_patient && ingress.has(AttachMode::Clsact, program, pin))
    }

    /// Ends the start, with these routers on filters. Returns the routers that
    /// should have links in their place.
    pub(super) fn end_of_start(&mut self, with_filters: BTreeSet<RouterId>) -> BTreeSet<RouterId> {
        if self.links_left.take().is_some() {
            self.waiting.clone_from(&with_filters);
            return with_filters;
        }
        BTreeSet::new()
    }

    /// Gives this router its turn.
    pub(super) fn turn_of(&mut self, router: RouterId) {
        self.waiting.remove(&router);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_is_the_configured_one_or_what_the_kernel_has() {
        let first = |wanted, has_tcx| {
            AttachPlanner::new(wanted, has_tcx)
                .unwrap()
                .next(Pin::Absent)
        };
        assert_eq!(first(Attach::Auto, true), AttachMode::Tcx);
        assert_eq!(first(Attach::Auto, false), AttachMode::Clsact);
        assert_eq!(first(Attach::Tcx, true), AttachMode::Tcx);
        assert_eq!(first(Attach::Clsact, true), AttachMode::Clsact);
        assert_eq!(first(Attach::Clsact, false), AttachMode::Clsact);
        let refused = AttachPlanner::new(Attach::Tcx, false)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("no tcx"), "{refused}");
    }

    #[test]
    fn a_start_makes_so_many_links_and_no_more() {
        let mut attach_planner = AttachPlanner::new(Attach::Auto, true).unwrap();
        assert_eq!(
            attach_planner.next(Pin::Filter),
            AttachMode::Clsact,
            "found so"
        );
        for _ in 0..LINKS_OF_A_START {
            assert_eq!(attach_planner.next(Pin::Absent), AttachMode::Tcx);
        }
        assert_eq!(attach_planner.next(Pin::Absent), AttachMode::Clsact);
        let router = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab".parse().unwrap();
        let with_filters = BTreeSet::from([router]);
        assert_eq!(
            attach_planner.end_of_start(with_filters.clone()),
            with_filters
        );
        assert_eq!(
            attach_planner.next(Pin::Absent),
            AttachMode::Tcx,
            "one that comes later"
        );
        assert_eq!(attach_planner.next(Pin::Filter), AttachMode::Tcx);

        let mut links_alone = AttachPlanner::new(Attach::Tcx, true).unwrap();
        for _ in 0..=LINKS_OF_A_START {
            assert_eq!(links_alone.next(Pin::Absent), AttachMode::Tcx);
        }
        assert_eq!(links_alone.end_of_start(with_filters), BTreeSet::new());
    }
}
