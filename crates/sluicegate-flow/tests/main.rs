//! The verbs over a world in memory, and over the real store, ledger and places where it is their files that count.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

mod attest_by_hand;
mod copy;
mod copy_by_link;
mod evidence_fsck;
mod evidence_home;
mod fetch_limits;
mod gate_world;
mod hostile_indexes;
mod image_tree;
mod junk_and_removal;
mod pin;
mod promote;
mod promote_index;
mod prune;
mod recording;
mod scan_database;
mod signed_once;
mod trust_file;
mod verify;
