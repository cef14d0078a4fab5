//! What is known of a packet before its rule is looked up.

use conntrack_ebpf::parse::Control;

/// A packet with a destination to look up.
pub struct Seen {
    /// Its EtherType.
    pub ethertype: u16,
    /// Where its network header starts, in bytes.
    pub network: usize,
    /// What it is looked up by.
    pub control: Control,
}
