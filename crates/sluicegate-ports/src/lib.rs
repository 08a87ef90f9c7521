#![forbid(unsafe_code)]
//! What `flow` asks of the outside: traits and the plain data that goes through them. No engine is named here.
//!
//! Every error type is a short list of what the caller can do something about; its text says what was being done and to what.

pub mod evidence;
pub mod execute;
pub mod images;
pub mod ledger;
pub mod prune;
pub mod scan;
pub mod served_log;
pub mod shared_cache;
pub mod sign;
pub mod step_cache;
pub mod store;
pub mod trees;

use sluicegate_types::UnixTime;

/// The one place a moment comes from; decisions take it as an argument.
pub trait Clock: Send + Sync {
    /// Now, in whole seconds.
    fn now(&self) -> UnixTime;
}
