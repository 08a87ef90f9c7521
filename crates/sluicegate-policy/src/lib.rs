#![forbid(unsafe_code)]
//! Decides: Rego over verified facts, then a verdict.
//!
//! [`facts::Facts`] come from verified bytes only, [`rego::evaluate`] asks the rules, [`judge::judge`] alone makes a
//! [`judge::Permit`]. Pure: nothing here opens a file, a socket or reads a clock.

mod answers;
mod builtins;
mod call_graph;
mod data_documents;
mod definedness;
pub mod exceptions;
mod expression_length;
pub mod facts;
pub mod judge;
mod limited_engine;
pub mod lint;
mod metadata;
mod negations;
#[cfg(test)]
mod opa_cases;
mod policy_error;
pub mod rego;
pub mod rego_tests;
mod rule_declarations;
mod shadowed_builtins;
pub mod shipped;
mod triggers;

pub use data_documents::read as read_data;
