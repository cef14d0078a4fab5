//! What is compared.

use conntrack_agent::model::Protocol;

use crate::network::Translation;
use crate::rules::{self, COUNTS};
use crate::traffic::{Meeting, Stream};

/// Routers that are alike and do nothing, of each kind.
const BASES: usize = 4;
/// Routers that are alike of each kind that a target is about.
const COPIES: usize = 3;

/// What carries the helper mark, as the agent's configuration says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Auto,
    Mark,
    Priority,
}

/// How the agent's programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attach {
    Tcx,
    Clsact,
    /// By tcx, with XDP in front of it, in the veth's driver.
    Xdp,
    /// By tcx, with XDP in front of it, in the network stack.
    XdpGeneric,
}

/// Who looks at what the agent does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// The agent itself reads what the programs tell of new connections.
    ByItself,
    /// Not even that.
    Not,
    /// That, and those who scrape its metrics and follow its events.
    Closely,
}

/// One way to run the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ours {
    pub(crate) carrier: Carrier,
    pub(crate) attach: Attach,
    pub(crate) watched: Watched,
}

/// One of iptables' two implementations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    Legacy,
    Nft,
}

/// What gives a router's connections their helpers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Nothing.
    Nothing,
    /// Nothing any more: the streams' connections were given theirs by rules that are
    /// gone. Shows what the helpers themselves cost.
    Gone,
    /// Nothing: a tcx program that passes every packet on at once.
    Empty,
    /// Nothing: the agent's XDP program in the veth's driver, which leaves its metadata,
    /// without the tc program that reads it.
    XdpAlone,
    /// The agent.
    Ours(Ours),
    /// The chains that Neutron writes.
    Neutron(Variant),
    /// One nft rule with a map of all ports.
    Map,
}

/// One router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Configuration {
    pub(crate) way: Way,
    pub(crate) rules: usize,
    pub(crate) translation: Translation,
    /// Which of several routers that are alike.
    pub(crate) copy: usize,
}

impl Ours {
    /// As it is unless somebody says otherwise.
    pub(crate) const DEFAULT: Self = Self {
        carrier: Carrier::Auto,
        attach: Attach::Tcx,
        watched: Watched::ByItself,
    };

    pub(crate) const fn watched(watched: Watched) -> Self {
        Self {
            watched,
            ..Self::DEFAULT
        }
    }

    const fn by(carrier: Carrier) -> Self {
        Self {
            carrier,
            ..Self::DEFAULT
        }
    }

    const fn attached(attach: Attach) -> Self {
        Self {
            attach,
            ..Self::DEFAULT
        }
    }

    fn name(self) -> &'static str {
        match (self.attach, self.carrier) {
            _ if self.watched == Watched::Not => "ours, not watched",
            _ if self.watched == Watched::Closely => "ours, watched closely",
            (Attach::Tcx, Carrier::Auto) => "ours",
            (Attach::Tcx, Carrier::Mark) => "ours, by mark",
            (Attach::Tcx, Carrier::Priority) => "ours, by priority",
            (Attach::Clsact, _) => "ours, clsact",
            (Attach::Xdp, _) => "ours, native XDP",
            (Attach::XdpGeneric, _) => "ours, generic XDP",
        }
    }
}

impl Way {
    /// What the results call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Gone => "nothing, helpers given before",
            Self::Empty => "empty tcx program",
            Self::XdpAlone => "our native XDP, no tc program",
            Self::Ours(ours) => ours.name(),
            Self::Neutron(Variant::Legacy) => "iptables-legacy",
            Self::Neutron(Variant::Nft) => "iptables-nft",
            Self::Map => "nft map",
        }
    }
}

impl Configuration {
    /// The tc program on packets with the agent's metadata, and what is to be subtracted.
    pub(crate) const BEHIND_XDP: Self = Self::with(Way::Ours(Ours::attached(Attach::Xdp)), 10);
    pub(crate) const XDP_ALONE: Self = Self::with(Way::XdpAlone, 0);

    /// In a router with NAT.
    pub(crate) const fn with(way: Way, rules: usize) -> Self {
        Self {
            way,
            rules,
            translation: Translation::Masquerade,
            copy: 0,
        }
    }

    const fn without_nat(self) -> Self {
        Self {
            translation: Translation::None,
            ..self
        }
    }

    /// All of them.
    pub(crate) fn all() -> Vec<Self> {
        let ours = |ours, rules| Self::with(Way::Ours(ours), rules);
        let legacy = Way::Neutron(Variant::Legacy);
        let mut all: Vec<_> = Self::bases(Translation::Masquerade).collect();
        all.extend([
            Self::with(Way::Gone, 0),
            Self::with(Way::Empty, 0),
            ours(Ours::by(Carrier::Mark), 10),
            ours(Ours::by(Carrier::Priority), 10),
            ours(Ours::attached(Attach::Clsact), 10),
            ours(Ours::attached(Attach::XdpGeneric), 10),
        ]);
        // What a target is about.
        let [one, others @ ..] = COUNTS;
        let mut about = vec![
            ours(Ours::DEFAULT, 0),
            ours(Ours::watched(Watched::Not), 10),
            ours(Ours::watched(Watched::Closely), 10),
            Self::with(legacy, one),
            Self::BEHIND_XDP,
            Self::XDP_ALONE,
        ];
        for way in [Way::Ours(Ours::DEFAULT), Way::Map] {
            about.extend(COUNTS.map(|rules| Self::with(way, rules)));
        }
        all.extend(about.into_iter().flat_map(Self::copies));
        all.extend(others.map(|rules| Self::with(legacy, rules)));
        all.extend(COUNTS.map(|rules| Self::with(Way::Neutron(Variant::Nft), rules)));
        all.extend(Self::bases(Translation::None));
        let without_nat = [ours(Ours::by(Carrier::Mark), 1), Self::with(legacy, 1)];
        all.extend(without_nat.map(Self::without_nat));
        all
    }

    /// Several that are alike, of which the median counts: where the kernel has put
    /// what belongs to one of them is chance.
    fn copies(self) -> impl Iterator<Item = Self> {
        (0..COPIES).map(move |copy| Self { copy, ..self })
    }

    /// Whether it is one that others are compared with.
    pub(crate) fn is_base(&self) -> bool {
        self.way == Way::Nothing
    }

    /// Whether both are the same, wherever the kernel has put them.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let at_first = |of: &Self| Self { copy: 0, ..*of };
        at_first(self) == at_first(other)
    }

    /// What all others are compared with: some that are alike, since two routers are
    /// never quite, wherever the kernel has put what belongs to them. What they differ
    /// by is noise.
    pub(crate) fn bases(translation: Translation) -> impl Iterator<Item = Self> {
        (0..BASES).map(move |copy| Self {
            way: Way::Nothing,
            rules: 0,
            translation,
            copy,
        })
    }

    /// The helper that a stream's connection gets.
    pub(crate) fn helper(&self, stream: Stream) -> Option<&'static str> {
        let gives = match self.way {
            Way::Nothing | Way::Empty | Way::XdpAlone => false,
            Way::Gone => true,
            Way::Ours(_) | Way::Neutron(_) | Way::Map => self.has(stream.protocol),
        };
        (gives && stream.meeting == Meeting::Hit).then_some(rules::helper(stream.protocol))
    }

    /// Whether it shows something that a stream meets a rule here, or none: a single
    /// rule is for TCP.
    pub(crate) fn carries(&self, stream: Stream) -> bool {
        stream.meeting == Meeting::Miss || self.rules == 0 || self.has(stream.protocol)
    }

    fn has(&self, protocol: Protocol) -> bool {
        let port = rules::met(protocol);
        let rules = rules::rules(self.rules);
        rules
            .iter()
            .any(|rule| (rule.protocol, rule.port) == (protocol, port))
    }
}
