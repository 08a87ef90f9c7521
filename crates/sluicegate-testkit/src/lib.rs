#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "only tests use this crate, and a test stops at the first thing that is not as it should be"
)]
//! The world in memory, for tests: keys from seed names, a log, a store, layouts, a registry, a clock, a scanner, an executor;
//! and what stands between a client and a server.
//!
//! Everything but certificates is deterministic and nothing waits. Each fake does what its port promises and has knobs for the faults that a test wants.
//! What it signs is signed and logged for real, so that the code under test verifies it for real.

mod build;
mod clock;
mod disposable;
mod evidence;
mod executor;
mod fetcher;
mod image;
mod key_files;
mod ledger;
mod log;
mod merkle;
mod packer;
mod places;
mod registry;
mod scanner;
mod signer;
mod store;
mod tls;

pub use build::{JUNIT, PARTS, SignedBuild, VirtualBuild, findings, step_image, vulns};
pub use clock::FixedClock;
pub use disposable::MemoryThings;
pub use evidence::MemoryEvidence;
pub use executor::FakeExecutor;
pub use fetcher::FakeFetcher;
pub use image::{VirtualImage, VirtualIndex};
pub use key_files::reseal_cheaply;
pub use ledger::MemoryLedger;
pub use log::VirtualLog;
pub use packer::FakePacker;
pub use places::MemoryPlaces;
pub use registry::{
    Answer, Auth, Behaviour, Fault, Links, Logged, Payload, TestRegistry, Then, TokenRefusal, When, http_date,
    large_index,
};
pub use scanner::FakeScanner;
pub use signer::{VirtualSigner, sign_payload, sign_statement};
pub use store::MemoryStore;
pub use tls::{ConnectProxy, TestAuthority, TlsFront};

use sluicegate_types::UnixTime;

/// The moment at which everything happens unless a test says otherwise: 2026-01-02T00:00:00Z.
pub fn today() -> UnixTime {
    "2026-01-02T00:00:00Z".parse().unwrap()
}
