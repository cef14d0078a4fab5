//! The kernel layer, the only code that touches the kernel. It carries out orders and
//! answers questions; it decides nothing.

mod agent_id;
mod attachment;
mod binding;
mod bpffs;
mod build;
mod capabilities;
mod carrier;
mod conntrack;
mod error;
mod events;
mod foreign_rules;
mod instance;
mod interface;
mod loading;
mod netfilter;
mod netlink;
mod netns;
mod nft;
mod object;
#[cfg(feature = "ebpf-log")]
mod packet_log;
mod pins;
mod router_namespaces;
mod shared;
mod sys;
mod wait;
mod watch;
mod xdp;

pub use agent_id::AgentId;
pub use attachment::{AttachMode, Attachment, Hooks, Ingress, Occupant, OnHook, Pin, unpin};
pub use binding::{Binding, BindingState, TABLE_PREFIX, remove_binding_of};
pub(crate) use bpffs::remove_if_empty;
pub use bpffs::{ensure_mounted, is_bpffs, is_unused, require_mounted};
pub use build::Build;
pub use capabilities::{CapabilityError, MissingCapability, missing, reduce, require_capabilities};
pub use carrier::{BindingCarriers, Carrier, MarkBits, name as carrier_name};
pub use conntrack::{Conntrack, Fullness, OriginalTuple, Tracked, Usage};
pub use error::Error;
pub use events::{EventReader, Inherited, NewConnection, Tally, UnreadableEvent};
pub use foreign_rules::{
    Chain, ForeignRule, Hook, RuleAction, RuleScope, Ruleset, TableName, ruleset_of,
};
pub use instance::{Instance, Usable, matched, program_names, programs_in};
pub use interface::{Interface, LinkKind};
pub use loading::load_again;
pub use netns::{Netns, NetnsFolder, NetnsIdentity};
pub use nft::Nft;
pub use object::Object;
pub use pins::Pins;
pub use router_namespaces::RouterNamespaces;
pub(crate) use sys::share_heaps;
pub(crate) use wait::wait_for_programs;
pub use watch::{DirtyRouters, PinnedLinks, Places, Watch, WatchError};
pub use xdp::{XdpClassifier, XdpMode, XdpOutcome, XdpPin, XdpProgram};
