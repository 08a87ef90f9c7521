//! OCI layout folders on disk: what is published is read back, what is broken is refused, what breaks off changes nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

mod attaching;
mod breaking_off;
mod choosing;
mod file_kinds;
mod index_limits;
mod published_layout;
mod publishing;
mod referrers;
