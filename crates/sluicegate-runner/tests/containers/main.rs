//! Steps and tools in real containers, as root, in an image made of this machine's own programs.

// What the tests share is no test to the lint.
#![allow(clippy::unwrap_used, clippy::panic)]

mod confinement;
mod content;
mod ending;
mod fixture;
mod limits;
mod network;
mod observation;
mod secrets;
mod shared_caches;
mod shell;
mod steps;
mod tools;
mod users;
