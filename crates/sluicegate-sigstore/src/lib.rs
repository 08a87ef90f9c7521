#![forbid(unsafe_code)]
//! Signing keys on disk and the embedded transparency log, in the formats that cosign reads: the adapters behind
//! `sluicegate_ports::sign`.

mod checkpoint;
mod key_file;
mod keys;
mod log;
mod tiles;
mod tree;
mod trust_root;

pub use keys::{KeyFolder, LogKey, P256Signer};
pub use log::EmbeddedLog;
pub use trust_root::{LogPublic, new_origin, signing_config_json, trusted_root_json};
