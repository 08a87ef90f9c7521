//! Layouts and registries that do as they should, and those that do not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

mod attachers;
mod credentials;
mod field_registries;
mod layouts_of_indexes;
mod odd_registries;
mod support;
mod taking_over;
mod tls_and_proxies;
