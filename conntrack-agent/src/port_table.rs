//! A router's port table, as the agent plans it: what the maps hold, what they
//! should hold, and the writes that lead from one to the other. Pure.

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
