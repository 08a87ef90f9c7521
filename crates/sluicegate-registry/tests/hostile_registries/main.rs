//! Registries that lie, break off, lead astray or never end: each refusal stands beside the same request without the fault.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

mod blobs;
mod held_image;
mod leading_astray;
mod manifests;
mod referrers;
#[path = "../support/mod.rs"]
mod support;
mod tokens;
mod waiting;
mod writing;
