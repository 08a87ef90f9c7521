#![forbid(unsafe_code)]
//! HTTP faces of the product. This version has one: the transparency log, in the API of Rekor v2 that cosign and the Sigstore client
//! libraries speak, with the C2SP tiles for whoever checks it.
//!
//! Plain HTTP/1.1 without TLS. Every request is bounded in bytes and in time, and so is the number of connections and of entries that wait.

mod answer;
mod connections;
mod entry_request;
mod group_commit;
mod limits;
mod log_api;
mod tile_path;

pub use limits::Limits;
pub use log_api::serve_log;

/// Why a server could not begin, or not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener does not work with the runtime.
    #[error("cannot listen")]
    Listen(#[source] std::io::Error),
    /// The part that writes the log broke off: a bug.
    #[error("the part of the server that appends to the log broke off")]
    Appender,
}
