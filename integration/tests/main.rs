//! The built program on real projects, with the real Trivy, cosign, registries and the others.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

mod attest;
mod command_line;
mod cosign;
mod daily_work;
mod decisions;
mod field_executor;
mod field_sources;
mod field_steps;
mod field_trust;
mod gate;
mod hostile_pipeline;
mod ledger;
mod log_elsewhere;
mod log_serve;
mod output_sboms;
mod platforms;
mod progress;
mod prune;
mod real_input;
mod registries;
mod registry_conformance;
mod registry_dies;
mod release_runs;
mod runs;
mod secrets;
mod shared_cache;
mod shared_caches;
mod shipped_layout;
mod slow_store;
mod source_rule;
mod step_cache;
mod stops;
mod test_results;
mod verify_is_offline;
mod verify_refuses;
