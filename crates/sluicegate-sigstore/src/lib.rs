#![forbid(unsafe_code)]
//! Signing keys on disk and the logs: the embedded transparency log, in the formats that cosign reads, and the ledger of the evidence
//! store, two faces of one implementation (`tile_log`); and the transparency log of others, written to and read over HTTP (`rekor_log`,
//! `remote_log`). The adapters behind `sluicegate_ports::sign` and `sluicegate_ports::ledger`.

mod checkpoint;
mod key_file;
mod keys;
mod ledger;
mod log;
mod log_answer;
mod log_http;
mod outbox;
mod rekor_log;
mod remote_log;
mod tile_log;
mod tiles;
mod tree;
mod trust_root;

pub use keys::{KeyFolder, LogKey, P256Signer};
pub use ledger::EmbeddedLedger;
pub use log::EmbeddedLog;
pub use log_http::RemoteLimits;
pub use rekor_log::{RekorLog, RekorSettings, Settled, Settlement};
pub use remote_log::RemoteLog;
pub use trust_root::{LogPublic, logs_of, new_ledger_origin, new_origin, signing_config_json, trusted_root_json};
