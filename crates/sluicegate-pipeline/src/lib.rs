#![forbid(unsafe_code)]
//! Reads the files people write: `sluicegate.yaml`, `gateway.yaml`, `trust.yaml` and `waivers.yaml`, from text to types that hold only what
//! this version can do. Everything else is refused with its file and line, never ignored (DESIGN section 4).
//!
//! Opens nothing: text in, values out.

pub mod cache_key;
mod error;
pub mod gateway;
pub mod pipeline;
#[cfg(test)]
mod schemas;
pub mod shared_store;
mod spot;
pub mod trust;
pub mod units;
pub mod waivers;
mod yaml;

pub use error::Error;
pub(crate) use error::In;
pub use spot::Spot;
