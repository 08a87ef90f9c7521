#![forbid(unsafe_code)]
//! The verbs: what Sluicegate does, over ports. Reading this folder is reading the product.
//!
//! [`run`] executes a pipeline and proves it, [`verify`] follows an image to its evidence, [`promote`] asks the gate and moves
//! an image only with the gate's permit, [`evidence`] records and checks what was recorded. Nothing here names an engine; [`Ports`] is filled by the one wiring file.

pub mod admit;
pub mod assemble;
pub mod attest;
pub mod attest_by_hand;
mod built;
pub mod compat;
pub mod copy;
mod describe;
pub mod doctor;
mod error;
pub mod evidence;
pub mod fetch;
pub mod folders;
pub mod gate;
pub mod gateway;
pub mod image_tree;
mod in_parallel;
pub mod known_scans;
mod named_folders;
pub mod pin;
pub mod plan;
mod prepare;
pub mod promote;
mod prove;
pub mod prune;
pub mod push;
pub mod replay;
pub mod reuse;
pub mod run;
pub mod scan;
pub mod scan_database;
mod shared;
mod shared_caches;
pub mod sign;
pub mod steps;
mod survey;
mod together;
pub mod try_step;
pub mod verify;
pub mod verify_file;
pub mod verify_index;

use sluicegate_ports::{
    Clock, evidence::EvidenceLog, images::ImagePlaces, ledger::Ledger, sign::TransparencyLog, store::ContentStore,
    trees::TreePacker,
};

pub use error::{Error, Failure, StepFault};

/// What can be done without any key: nothing that has only this signs, logs or records.
#[derive(Clone, Copy)]
pub struct Workbench<'a> {
    /// Where a moment comes from.
    pub clock: &'a dyn Clock,
    /// Bytes by digest.
    pub store: &'a dyn ContentStore,
    /// OCI layouts and registries.
    pub places: &'a dyn ImagePlaces,
    /// Deterministic tars.
    pub packer: &'a dyn TreePacker,
    /// Tells a person what is happening; one line at a time.
    pub tell: &'a dyn Fn(&str),
}

impl<'a> Ports<'a> {
    /// What of it needs no key.
    pub fn workbench(&self) -> Workbench<'a> {
        Workbench { clock: self.clock, store: self.store, places: self.places, packer: self.packer, tell: self.tell }
    }
}

/// Everything the verbs share.
pub struct Ports<'a> {
    /// Where a moment comes from.
    pub clock: &'a dyn Clock,
    /// Bytes by digest.
    pub store: &'a dyn ContentStore,
    /// OCI layouts.
    pub places: &'a dyn ImagePlaces,
    /// Deterministic tars.
    pub packer: &'a dyn TreePacker,
    /// The transparency log.
    pub log: &'a dyn TransparencyLog,
    /// Records.
    pub evidence: &'a dyn EvidenceLog,
    /// One leaf for each record. Verbs record with [`evidence::record`], never with either port alone.
    pub ledger: &'a dyn Ledger,
    /// Tells a person what is happening; one line at a time.
    pub tell: &'a dyn Fn(&str),
    /// Tells a person what must not be missed.
    pub warn: &'a dyn Fn(&str),
}
