//! A router's port table: the content of its maps, and the writes that lead from one
//! content to another. Nothing here touches the kernel.

mod capacity;
mod edit;
mod image;
mod partial;
mod plan;

pub use capacity::{Capacity, TooManyRules};
pub use edit::{Edit, Write};
pub use image::Image;
pub use partial::{Amendment, PartialTable, TakesMore};
pub use plan::{fill, plan};

use std::collections::BTreeMap;

use conntrack_ebpf::abi::Destination;

/// The helper mark that packets for each destination should get.
pub type Wanted = BTreeMap<Destination, u32>;
