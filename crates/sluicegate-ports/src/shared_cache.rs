//! Results of steps that machines share. Whoever keeps them is believed in nothing: what comes from there is hashed before it is stored,
//! and judged afterwards as if it had been made here.

use sluicegate_types::{Digest, StepName};

/// A place that several machines read from and write to. Whatever goes wrong there costs time and nothing else: the step is executed.
pub trait SharedCache: Send + Sync {
    /// What is said there about the work of this key.
    fn origin(&self, key: &Digest) -> Said;

    /// Brings content of at most `limit` bytes into the content store. Nothing is stored whose bytes are not the digest's.
    fn bring(&self, content: &Digest, limit: u64) -> Result<(), String>;

    /// How many bytes are said to be there of this content. Nothing comes of it but the number, which nobody has checked.
    fn size(&self, content: &Digest) -> Result<u64, String>;

    /// Says to a person that what was there for this step does not count.
    fn refused(&self, step: &StepName, reason: &str);

    /// Hands over what a step left, for other machines. It returns at once; what can't be kept is told to a person.
    fn offer(&self, result: SharedResult);

    /// Waits until everything that was handed over is there, or is not to be.
    fn settle(&self);
}

/// What a shared place says about the work of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Nothing.
    Nothing,
    /// This bundle proves it.
    Bundle(Digest),
    /// Something that is no bundle's name, and why not.
    Nonsense(String),
    /// It cannot be asked, and why not.
    Unknown(String),
}

/// What a step left, in the content store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedResult {
    /// The step.
    pub step: StepName,
    /// The key of its result.
    pub key: Digest,
    /// The bundle that proves it.
    pub bundle: Digest,
    /// Its outputs, its log, and its raw report of tests.
    pub content: Vec<Digest>,
}
