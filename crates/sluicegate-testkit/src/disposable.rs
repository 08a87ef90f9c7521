use std::sync::Mutex;

use sluicegate_ports::{
    prune::{Disposable, Thing, Tie},
    store::StoreError,
};
use sluicegate_types::UnixTime;

/// Things of one kind that can be made again.
pub struct MemoryThings {
    what: &'static str,
    things: Mutex<Vec<Thing>>,
}

impl MemoryThings {
    /// None of this kind yet.
    pub fn new(what: &'static str) -> Self {
        Self { what, things: Mutex::new(Vec::new()) }
    }

    /// Adds one.
    pub fn add(&self, name: &str, size: u64, used: UnixTime, tie: Tie) {
        self.things.lock().unwrap().push(Thing { name: name.to_owned(), size, used, tie });
    }

    /// The names of those that are there.
    pub fn names(&self) -> Vec<String> {
        self.things.lock().unwrap().iter().map(|thing| thing.name.clone()).collect()
    }

    /// What those lead to that are there.
    pub fn ties(&self) -> Vec<Tie> {
        self.things.lock().unwrap().iter().map(|thing| thing.tie).collect()
    }
}

impl Disposable for MemoryThings {
    fn what(&self) -> &'static str {
        self.what
    }

    fn things(&self) -> Result<Vec<Thing>, StoreError> {
        Ok(self.things.lock().unwrap().clone())
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.things.lock().unwrap().retain(|thing| thing.name != name);
        Ok(())
    }
}
