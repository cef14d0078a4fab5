//! The only code that touches the kernel. It does what it is told, asks what
//! there is, and decides nothing.

mod attachment;
mod binding;
mod bpffs;
mod capabilities;
mod carrier;
mod conntrack;
mod edition;
mod error;
mod events;
mod instance;
mod interface;
mod legacy;
mod loading;
mod netfilter;
mod netlink;
mod netns;
mod nft;
mod object;
#[cfg(feature = "ebpf-log")]
mod packet_log;
mod pins;
mod ruleset;
mod shared;
mod sys;
mod wait;
mod watch;

pub use attachment::{
    Attachment, Hooks, Ingress, Occupant, OnHook, Pin, Way, XdpMode, XdpOutcome, XdpPin,
    XdpProgram, unpin,
};
pub use binding::{Binding, BindingState, TABLE_PREFIX, remove_binding_of};
pub use bpffs::{ensure_mounted, is_bpffs, is_unused, require_mounted};
pub use capabilities::{Missing, missing, reduce};
pub use carrier::{Carrier, MarkBits, Reads, name as carrier_name};
pub use conntrack::{Conntrack, Flow, Fullness, Tracked, Usage};
pub use edition::Edition;
pub use error::Error;
pub use events::{Events, Inherited, Opened, Tally, Unreadable};
pub use instance::{Instance, Usable, matched, program_names, programs_in};
pub use interface::{Interface, Kind};
pub use loading::load_again;
pub use netns::{Identity, Netns, NetnsFolder, names_of};
pub use nft::Nft;
pub use object::{AgentId, Object};
pub use pins::Pins;
pub(crate) use pins::remove_if_empty;
pub use ruleset::{Chain, Deed, Entrance, Rule, Ruleset, TableName, ruleset_of};
pub(crate) use sys::share_heaps;
pub(crate) use wait::wait_for_programs;
pub use watch::{Keeper, News, Places, Watch, WatchError};
