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
mod execute;
pub mod fetch;
pub mod folders;
pub mod gate;
pub mod gateway;
pub mod image_tree;
mod in_parallel;
pub mod pin;
pub mod promote;
pub mod push;
pub mod replay;
pub mod run;
pub mod scan;
pub mod scan_database;
pub mod sign;
mod survey;
pub mod verify;
pub mod verify_file;
pub mod verify_index;

use sluicegate_ports::{
    Clock, evidence::EvidenceLog, images::ImagePlaces, ledger::Ledger, sign::TransparencyLog, store::ContentStore,
    trees::TreePacker,
};

pub use error::{Error, Failure, StepFault};

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
