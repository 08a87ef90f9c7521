#![forbid(unsafe_code)]
//! Not built yet.
