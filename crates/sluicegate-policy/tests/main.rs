//! Rules and verdicts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

mod beside_opa;
mod generated_policies;
mod refusals;
mod shipped_policies;
mod verdicts;
