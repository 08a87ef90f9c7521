//! Bundles, roles, thresholds and closed sets, each fault beside the same without it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

mod bundle_checks;
mod closed_set;
mod role_matrix;
mod scope;
mod thresholds;
mod world;
