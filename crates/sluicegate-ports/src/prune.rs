//! What `prune` asks of whoever keeps things in a home: what is there, since when nobody used it, and that it goes.
//!
//! A kind of things that can be made or fetched again is one [`Disposable`]: what comes to a home later, such as what was taken from a store
//! elsewhere, implements that and is named in the one wiring file.

use std::path::PathBuf;

use sluicegate_types::{Digest, UnixTime};

use crate::store::{ContentStore, StoreError};

/// A content store of which nobody else in the world uses anything while this is held: what it does not hold any more is missed by no
/// process that looked for it before.
pub trait PrunableStore: ContentStore {
    /// Everything in it.
    fn list(&self) -> Result<Listed, StoreError>;

    /// Removes a content; one that is not there is no error. What is no regular file in its place is not touched.
    fn remove(&self, digest: &Digest) -> Result<(), StoreError>;

    /// Removes what was being written and never got its name.
    fn remove_drafts(&self) -> Result<(), StoreError>;
}

/// What a store holds.
#[derive(Debug, Default)]
pub struct Listed {
    /// Each content once.
    pub contents: Vec<StoredContent>,
    /// How many files were begun and never got a name, by processes that are gone.
    pub drafts: u64,
    /// Bytes of these.
    pub draft_bytes: u64,
    /// What is no content of this store: links, folders, names that are no digest. None of it is ever removed.
    pub strangers: Vec<PathBuf>,
}

/// A content, by the name that it has; its bytes were not looked at.
#[derive(Clone, Copy, Debug)]
pub struct StoredContent {
    /// Its name.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// Things of one kind that can be made or fetched again, each by itself.
pub trait Disposable: Send + Sync {
    /// What they are, in the plural, for people and programs.
    fn what(&self) -> &'static str;

    /// All of them.
    fn things(&self) -> Result<Vec<Thing>, StoreError>;

    /// Removes one, never half of it under its own name: what is found there later is whole. One that is not there is no error.
    fn remove(&self, name: &str) -> Result<(), StoreError>;
}

/// One thing that can be made or fetched again.
#[derive(Clone, Debug)]
pub struct Thing {
    /// What [`Disposable::remove`] knows it by.
    pub name: String,
    /// Bytes, about.
    pub size: u64,
    /// When it was last used, as far as that is known: no earlier than it was made.
    pub used: UnixTime,
    /// What it has to do with the content store.
    pub tie: Tie,
}

/// What a disposable thing has to do with the content store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// It leads to this content, and to all that this names: while it is kept, so are they, and without them it is worth nothing. `None`
    /// says nothing of sense and is worth nothing already.
    LeadsTo(Option<Digest>),
    /// It was made from this content, which is looked for before it is: while it is kept, so is that, if it is there.
    MadeFrom(Digest),
    /// Nothing.
    Nothing,
}

/// Objects of a store that machines share, each by itself. Nobody has the store alone: objects come and go meanwhile.
pub trait AgedObjects: Send + Sync {
    /// What they are, in the plural, for people and programs.
    fn what(&self) -> &'static str;

    /// Shows all of them, some at a time, and ends with the first error of `show`. One that came meanwhile may be missing.
    fn for_some(&self, show: &mut dyn FnMut(&[AgedObject]) -> Result<(), StoreError>) -> Result<(), StoreError>;

    /// Removes one, by the name that it was shown with; one that is not there is no error.
    fn remove(&self, name: &str) -> Result<(), StoreError>;
}

/// An object of a store that machines share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgedObject {
    /// What [`AgedObjects::remove`] knows it by.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When it was put there, by the store's clock or whoever can write to it.
    pub put: UnixTime,
    /// Whether it is on its way there, as far as that can be seen: it has no name yet that leads to it.
    pub is_draft: bool,
}
