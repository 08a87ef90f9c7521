#![forbid(unsafe_code)]
//! Signing keys on disk and the embedded logs: the transparency log, in the formats that cosign reads, and the ledger of the evidence
//! store. The adapters behind `sluicegate_ports::sign` and `sluicegate_ports::ledger`; two logs, one implementation (`tile_log`).

mod checkpoint;
mod key_file;
mod keys;
mod ledger;
mod log;
mod tile_log;
mod tiles;
mod tree;
mod trust_root;

pub use keys::{KeyFolder, LogKey, P256Signer};
pub use ledger::EmbeddedLedger;
pub use log::EmbeddedLog;
pub use trust_root::{LogPublic, new_ledger_origin, new_origin, signing_config_json, trusted_root_json};
