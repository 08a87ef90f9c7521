//! What the registry holds: blobs in files of a private folder, manifests and tags in memory, each repository for itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard},
};

use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

use super::digest::ContentDigest;

/// Everything that was put into the registry.
pub(super) struct Contents {
    folder: TempDir,
    repositories: Mutex<BTreeMap<String, Repository>>,
}

#[derive(Default)]
struct Repository {
    blobs: BTreeSet<ContentDigest>,
    manifests: BTreeMap<ContentDigest, StoredManifest>,
    tags: BTreeMap<String, ContentDigest>,
}

/// A manifest as it came.
#[derive(Clone)]
pub(super) struct StoredManifest {
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
}

/// What a request has put, so that it can be taken away again.
pub(super) enum Put {
    /// A blob.
    Blob { repository: String, digest: ContentDigest, new: bool },
    /// A manifest, and for each of its tags what the tag named before.
    Manifest { repository: String, digest: ContentDigest, new: bool, tags: Vec<(String, Option<ContentDigest>)> },
}

impl Contents {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), repositories: Mutex::default() }
    }

    /// A file to write a blob into before its digest is known.
    pub(super) fn new_file(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::new_in(self.folder.path())
    }

    /// Keeps a file whose digest has been compared.
    pub(super) fn put_blob(&self, repository: &str, digest: &ContentDigest, file: NamedTempFile) -> io::Result<Put> {
        file.persist(self.blob_path(digest))?;
        Ok(self.add_blob(repository, digest))
    }

    /// The repositories that have a blob.
    pub(super) fn holders(&self, digest: &ContentDigest) -> Vec<String> {
        let repositories = self.lock();
        let holders = repositories.iter().filter(|(_, repository)| repository.blobs.contains(digest));
        holders.map(|(name, _)| name.clone()).collect()
    }

    /// Lets a repository have a blob that another one has.
    pub(super) fn add_blob(&self, repository: &str, digest: &ContentDigest) -> Put {
        let new = self.lock().entry(repository.to_owned()).or_default().blobs.insert(digest.clone());
        Put::Blob { repository: repository.to_owned(), digest: digest.clone(), new }
    }

    /// Whether a repository has a blob.
    pub(super) fn has_blob(&self, repository: &str, digest: &ContentDigest) -> bool {
        self.lock().get(repository).is_some_and(|repository| repository.blobs.contains(digest))
    }

    /// A blob of a repository, and its size.
    pub(super) fn open_blob(&self, repository: &str, digest: &ContentDigest) -> Option<(File, u64)> {
        let file = self.has_blob(repository, digest).then(|| File::open(self.blob_path(digest)))?.ok()?;
        let size = file.metadata().ok()?.len();
        Some((file, size))
    }

    /// Takes a blob from a repository; whether it had it.
    pub(super) fn delete_blob(&self, repository: &str, digest: &ContentDigest) -> bool {
        self.lock().get_mut(repository).is_some_and(|repository| repository.blobs.remove(digest))
    }

    /// Keeps a manifest under its digest, and under tags.
    pub(super) fn put_manifest(
        &self,
        repository: &str,
        digest: &ContentDigest,
        tags: &[String],
        manifest: StoredManifest,
    ) -> Put {
        let mut repositories = self.lock();
        let held = repositories.entry(repository.to_owned()).or_default();
        let new = held.manifests.insert(digest.clone(), manifest).is_none();
        let tags = tags.iter().map(|tag| (tag.clone(), held.tags.insert(tag.clone(), digest.clone()))).collect();
        Put::Manifest { repository: repository.to_owned(), digest: digest.clone(), new, tags }
    }

    /// The manifest that a tag or a digest names.
    pub(super) fn manifest(&self, repository: &str, reference: &str) -> Option<(ContentDigest, StoredManifest)> {
        let repositories = self.lock();
        let held = repositories.get(repository)?;
        let digest = ContentDigest::parse(reference).or_else(|| held.tags.get(reference).cloned())?;
        held.manifests.get(&digest).map(|manifest| (digest.clone(), manifest.clone()))
    }

    /// Takes a tag away, or a manifest with every tag that names it; whether it was there.
    pub(super) fn delete_manifest(&self, repository: &str, reference: &str) -> bool {
        let mut repositories = self.lock();
        let Some(held) = repositories.get_mut(repository) else { return false };
        let Some(digest) = ContentDigest::parse(reference) else { return held.tags.remove(reference).is_some() };
        held.tags.retain(|_, tagged| *tagged != digest);
        held.manifests.remove(&digest).is_some()
    }

    /// The tags of a repository in order; `None` where nothing was ever put into it.
    pub(super) fn tags(&self, repository: &str) -> Option<Vec<String>> {
        self.lock().get(repository).map(|repository| repository.tags.keys().cloned().collect())
    }

    /// The manifests of a repository, by digest.
    pub(super) fn manifests(&self, repository: &str) -> Vec<(ContentDigest, StoredManifest)> {
        let repositories = self.lock();
        let manifests = repositories.get(repository).map(|repository| &repository.manifests);
        manifests.into_iter().flatten().map(|(digest, manifest)| (digest.clone(), manifest.clone())).collect()
    }

    /// The first thing that a manifest names and that its repository has not: such a manifest is refused.
    pub(super) fn missing_part(&self, repository: &str, manifest: &Value) -> Option<String> {
        let repositories = self.lock();
        let held = repositories.get(repository);
        let list = |name: &str| manifest[name].as_array().cloned().unwrap_or_default();
        let digest = |descriptor: &Value| descriptor["digest"].as_str().unwrap_or_default().to_owned();
        let elsewhere = |descriptor: &Value| {
            let media_type = descriptor["mediaType"].as_str().unwrap_or_default();
            media_type.contains("nondistributable") || media_type.contains(".foreign.") || !descriptor["urls"].is_null()
        };
        let configuration = Some(manifest["config"].clone()).filter(Value::is_object);
        let blobs = configuration.into_iter().chain(list("layers")).filter(|layer| !elsewhere(layer));
        let known = |name: &str, is_held: fn(&Repository, &ContentDigest) -> bool| {
            ContentDigest::parse(name).zip(held).is_some_and(|(digest, held)| is_held(held, &digest))
        };
        let missing_blob = blobs.map(|blob| digest(&blob)).find(|name| !known(name, |held, d| held.blobs.contains(d)));
        let children = list("manifests").into_iter().map(|child| digest(&child));
        missing_blob.or_else(|| {
            let mut children = children;
            children.find(|name| !known(name, |held, digest| held.manifests.contains_key(digest)))
        })
    }

    /// Takes away what a request has put.
    pub(super) fn undo(&self, put: Put) {
        let mut repositories = self.lock();
        let (Put::Blob { repository, .. } | Put::Manifest { repository, .. }) = &put;
        let Some(held) = repositories.get_mut(repository) else { return };
        match put {
            Put::Blob { digest, new: true, .. } => drop(held.blobs.remove(&digest)),
            Put::Blob { .. } => {}
            Put::Manifest { digest, new, tags, .. } => {
                held.point_tags_back(tags);
                if new {
                    held.manifests.remove(&digest);
                }
            }
        }
    }

    /// Lets the tags of a manifest that a request has put name again what they named before; the manifest stays.
    pub(super) fn undo_tags(&self, put: Put) {
        if let Put::Manifest { repository, tags, .. } = put
            && let Some(held) = self.lock().get_mut(&repository)
        {
            held.point_tags_back(tags);
        }
    }

    fn blob_path(&self, digest: &ContentDigest) -> PathBuf {
        self.folder.path().join(digest.file_name())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Repository>> {
        self.repositories.lock().unwrap()
    }
}

impl Repository {
    fn point_tags_back(&mut self, tags: Vec<(String, Option<ContentDigest>)>) {
        for (tag, before) in tags {
            match before {
                Some(digest) => self.tags.insert(tag, digest),
                None => self.tags.remove(&tag),
            };
        }
    }
}
