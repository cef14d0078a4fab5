//! A router's port table: the content of its maps, and the writes that lead from one
//! content to another. Nothing here touches the kernel.

mod capacity;
mod edit;
mod excerpt;
mod image;
mod plan;

pub use capacity::{Capacity, TooManyRules};
pub use edit::{Edit, Write};
pub use excerpt::{Amendment, PartialTable, TakesMore};
pub use image::Image;
pub use plan::{Wanted, fill, plan};
