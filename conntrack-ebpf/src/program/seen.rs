//! The facts about a packet before its rule is looked up.

use conntrack_ebpf::parse::Control;

/// A packet with a destination to look up.
pub struct Seen {
    /// The packet's EtherType.
    pub ethertype: u16,
    /// The start of its network header, in bytes.
    pub network: usize,
    /// The destination to look up, and the place of the packet's other parts.
    pub control: Control,
}
