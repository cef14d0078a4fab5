//! Counts effects by kind.

use std::ops::AddAssign;

use super::{Effect, XdpEffect};

/// The kind of an effect, without its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is named as the effect is")]
pub enum EffectKind {
    RebuildInstance,
    LoadInstance,
    RenewInstance,
    WriteTable,
    Bind,
    SetCarrier,
    Attach,
    TakeOver,
    Detach,
    AttachXdp,
    DetachXdp,
    ReapLink,
    Unbind,
    RemoveInstance,
    RemovePredecessor,
}

impl EffectKind {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 15] = [
        Self::RebuildInstance,
        Self::LoadInstance,
        Self::RenewInstance,
        Self::WriteTable,
        Self::Bind,
        Self::SetCarrier,
        Self::Attach,
        Self::TakeOver,
        Self::Detach,
        Self::AttachXdp,
        Self::DetachXdp,
        Self::ReapLink,
        Self::Unbind,
        Self::RemoveInstance,
        Self::RemovePredecessor,
    ];

    /// Returns the kind's name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RebuildInstance => "rebuild_instance",
            Self::LoadInstance => "load_instance",
            Self::RenewInstance => "renew_instance",
            Self::WriteTable => "write_table",
            Self::Bind => "bind",
            Self::SetCarrier => "carry",
            Self::Attach => "attach",
            Self::TakeOver => "take_over",
            Self::Detach => "detach",
            Self::AttachXdp => "attach_xdp",
            Self::DetachXdp => "detach_xdp",
            Self::ReapLink => "reap_link",
            Self::Unbind => "unbind",
            Self::RemoveInstance => "remove_instance",
            Self::RemovePredecessor => "remove_predecessor",
        }
    }
}

impl Effect {
    /// Returns the effect's kind.
    #[must_use]
    pub const fn kind(&self) -> EffectKind {
        match self {
            Self::RebuildInstance(..) => EffectKind::RebuildInstance,
            Self::LoadInstance(..) => EffectKind::LoadInstance,
            Self::RenewInstance(..) => EffectKind::RenewInstance,
            Self::WriteTable(..) => EffectKind::WriteTable,
            Self::Bind { .. } => EffectKind::Bind,
            Self::SetCarrier { .. } => EffectKind::SetCarrier,
            Self::Attach(_) => EffectKind::Attach,
            Self::TakeOver { .. } => EffectKind::TakeOver,
            Self::Detach(_) => EffectKind::Detach,
            Self::Xdp(XdpEffect::Attach { .. }) => EffectKind::AttachXdp,
            Self::Xdp(XdpEffect::Detach { .. }) => EffectKind::DetachXdp,
            Self::ReapLink(..) => EffectKind::ReapLink,
            Self::Unbind { .. } => EffectKind::Unbind,
            Self::RemoveInstance => EffectKind::RemoveInstance,
            Self::RemovePredecessor => EffectKind::RemovePredecessor,
        }
    }
}

/// The numbers of effects, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EffectTally([usize; EffectKind::ALL.len()]);

impl EffectTally {
    /// Counts these effects.
    #[must_use]
    pub fn of(effects: &[Effect]) -> Self {
        let mut tally = Self::default();
        for effect in effects {
            tally.0[effect.kind() as usize] += 1;
        }
        tally
    }

    /// Returns the number of effects of all kinds together.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    /// Returns the kinds that occurred, with their numbers.
    pub fn kinds(&self) -> impl Iterator<Item = (EffectKind, usize)> {
        let all = EffectKind::ALL.into_iter().zip(self.0);
        all.filter(|(_, count)| *count > 0)
    }
}

impl AddAssign for EffectTally {
    fn add_assign(&mut self, more: Self) {
        for (count, more) in self.0.iter_mut().zip(more.0) {
            *count += more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_place_and_a_name_of_its_own() {
        for (place, kind) in EffectKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
        let mut names = EffectKind::ALL.map(EffectKind::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), EffectKind::ALL.len());
    }

    #[test]
    fn tallies_add_up_kind_by_kind() {
        let mut tally = EffectTally::of(&[Effect::RemoveInstance, Effect::RemovePredecessor]);
        tally += EffectTally::of(&[Effect::RemoveInstance]);
        assert_eq!(tally.total(), 3);
        let kinds: Vec<_> = tally.kinds().collect();
        let expected = [
            (EffectKind::RemoveInstance, 2),
            (EffectKind::RemovePredecessor, 1),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(EffectTally::default().kinds().count(), 0);
    }
}
