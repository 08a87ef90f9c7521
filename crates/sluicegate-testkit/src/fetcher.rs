use std::{collections::BTreeMap, sync::Mutex};

use sluicegate_ports::{
    execute::Stop,
    trees::{FetchedSource, SourceFetcher, TreeError},
};

/// A fetcher that gives what it was told to give.
#[derive(Default)]
pub struct FakeFetcher {
    published: BTreeMap<(String, String), FetchedSource>,
    asked: Mutex<Vec<(String, String)>>,
}

impl FakeFetcher {
    /// The same with this source at an address, under the reference and under its commit.
    pub fn publishes(mut self, url: &str, reference: &str, source: FetchedSource) -> Self {
        self.published.insert((url.to_owned(), source.commit.clone()), source.clone());
        self.published.insert((url.to_owned(), reference.to_owned()), source);
        self
    }

    /// What was asked for, in order: address and reference.
    pub fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().unwrap().clone()
    }
}

impl SourceFetcher for FakeFetcher {
    /// [`TreeError::Fetch`] for an address where nothing is, [`TreeError::Reference`] for a reference that is not there.
    fn fetch(&self, url: &str, reference: &str, stop: &Stop) -> Result<FetchedSource, TreeError> {
        if stop.is_raised() {
            return Err(TreeError::Stopped);
        }
        let asked = (url.to_owned(), reference.to_owned());
        self.asked.lock().unwrap().push(asked.clone());
        if let Some(source) = self.published.get(&asked) {
            return Ok(source.clone());
        }
        let known = self.published.keys().any(|(known, _)| known == url);
        let (url, reason) = (url.to_owned(), format!("there is no {reference}"));
        Err(if known { TreeError::Reference { url, reason } } else { TreeError::Fetch { url, reason } })
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_ports::trees::{EntryKind, TreeEntry};

    use super::*;

    #[test]
    fn what_is_published_is_given_by_name_and_by_commit_and_nothing_else_is() {
        let source = FetchedSource {
            commit: "1".repeat(40),
            reference: "refs/heads/main".to_owned(),
            commit_time: 1,
            entries: vec![TreeEntry { path: "file".into(), kind: EntryKind::Bytes(b"x".to_vec(), 0o644) }],
        };
        let fetcher = FakeFetcher::default().publishes("https://git.example/a", "main", source.clone());
        for reference in ["main", &source.commit] {
            assert_eq!(
                fetcher.fetch("https://git.example/a", reference, &Stop::default()).unwrap().commit,
                source.commit
            );
        }
        assert!(matches!(
            fetcher.fetch("https://git.example/a", "other", &Stop::default()),
            Err(TreeError::Reference { .. })
        ));
        assert!(matches!(
            fetcher.fetch("https://git.example/b", "main", &Stop::default()),
            Err(TreeError::Fetch { .. })
        ));
        assert_eq!(fetcher.asked().len(), 4);
    }
}
