//! The only code that touches the kernel. It does what it is told, asks what
//! there is, and decides nothing.

mod attachment;
mod binding;
mod bpffs;
mod capabilities;
mod carrier;
mod error;
mod instance;
mod interface;
mod netns;
mod nft;
mod object;
#[cfg(feature = "ebpf-log")]
mod packet_log;
mod pins;
mod sys;

pub use attachment::{Attachment, detach, replace};
pub use binding::{Binding, BindingState, TABLE_PREFIX, remove_binding_of};
pub use bpffs::{ensure_mounted, is_bpffs, is_unused};
pub use capabilities::{Missing, missing, reduce};
pub use carrier::Carrier;
pub use error::Error;
pub use instance::{Instance, Usable};
pub use interface::{Interface, Kind};
pub use netns::{Identity, Netns, NetnsFolder};
pub use nft::Nft;
pub use object::{AgentId, Object};
pub use pins::Pins;
pub(crate) use pins::remove_if_empty;
