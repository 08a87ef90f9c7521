#![forbid(unsafe_code)]
//! Statements, envelopes and bundles: bytes to types and back. Nothing is verified here.
pub mod bundle;
