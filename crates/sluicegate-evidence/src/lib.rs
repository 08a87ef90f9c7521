#![forbid(unsafe_code)]
//! The evidence store: append-only, chained records in one SQLite file, the adapter behind `sluicegate_ports::evidence`.

mod record;
mod schema;
mod store;

pub use record::DEPTH_LIMIT;
pub use store::SqliteEvidence;
