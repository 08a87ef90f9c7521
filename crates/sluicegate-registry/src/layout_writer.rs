//! Writing an OCI layout folder that holds one image.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use sluicegate_attestation::identifiers::IMAGE_INDEX;
use sluicegate_ports::{
    images::{Descriptor, ImagePlaceError, ImageTarget, Occupant, Publication},
    store::ContentStore,
};
use sluicegate_types::{
    Digest, EnvironmentName, Hasher, Place, TagName,
    checks::{Check, is_on},
};

use crate::{
    at_a_time::several_at_a_time,
    layout::{LayoutSource, blob_path, images, open_lock, open_regular},
    layout_index::{
        COSIGN_IMAGE, COSIGN_KIND, ENVIRONMENT, Index, LAYOUT_FILE, MAX_ENTRIES, MAX_MANIFEST, REF_NAME, tag_of,
    },
};

/// How often, and after which pause each, the lock of a layout is tried: half a minute in all.
const LOCK_TRIES: u32 = 600;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Blobs that are written at a time. Most of a small one is waiting until the disk has it, and a file system brings as many there with one
/// write of its journal as wait at that moment: of 2000, sixteen at a time take a third of what one after the other takes.
const AT_A_TIME: usize = 16;

/// How files are called before they are whole.
const TEMPORARY: &str = ".sluicegate-tmp-";

pub(crate) struct LayoutTarget {
    folder: PathBuf,
}

impl LayoutTarget {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn place(&self) -> Place {
        Place::Layout(self.folder.clone())
    }

    fn io(&self, action: &'static str, path: &Path) -> impl Fn(io::Error) -> ImagePlaceError + use<> {
        let path = path.to_owned();
        move |source| ImagePlaceError::Io { action, path: path.clone(), source }
    }
}

impl ImageTarget for LayoutTarget {
    fn current(&self, _: Option<&TagName>) -> Result<Option<Occupant>, ImagePlaceError> {
        let Some(index) = Index::read(&self.folder)? else { return Ok(None) };
        let images = images(&self.folder, &index)?;
        let Some(first) = images.first() else { return Ok(None) };
        if images.iter().any(|d| d.digest != first.digest) {
            return Err(ImagePlaceError::NotALayout {
                path: self.folder.clone(),
                reason: "it holds several images; a layout that is written to holds one".to_owned(),
            });
        }
        Ok(Some(Occupant {
            image: first.digest,
            tags: images.iter().filter_map(|d| tag_of(d)).collect(),
            environment: index.annotations.get(ENVIRONMENT).cloned(),
        }))
    }

    fn publish(&self, publication: &Publication, store: &dyn ContentStore) -> Result<(), ImagePlaceError> {
        if publication.tags.len().max(1) + publication.referrers.len() > MAX_ENTRIES {
            return Err(ImagePlaceError::NotALayout {
                path: self.folder.clone(),
                reason: format!("an index of more than {MAX_ENTRIES} manifests would not be read again"),
            });
        }
        let blobs = self.folder.join("blobs/sha256");
        fs::create_dir_all(&self.folder).map_err(self.io("create", &self.folder))?;
        for part in ["blobs", "blobs/sha256"] {
            self.make_folder(&self.folder.join(part))?;
        }
        let _lock = self.lock()?;
        self.remove_abandoned();
        let attached = publication.referrers.iter().chain(&publication.children).map(|d| d.digest);
        let manifests = attached.chain([publication.image.digest]);
        self.write_blobs(publication.blobs.iter().chain(&publication.evidence).copied().chain(manifests), store)?;
        self.write_file(&self.folder.join("oci-layout"), LAYOUT_FILE.as_bytes())?;
        let occupant = self.current(None)?;
        let environment = occupant.as_ref().and_then(|occupant| occupant.environment.clone());
        if is_on(Check::EnvironmentMark)
            && let Some(environment) = environment
            && publication.environment.as_ref().map(EnvironmentName::as_str) != Some(environment.as_str())
        {
            return Err(ImagePlaceError::OfEnvironment { place: self.place(), environment });
        }
        let found = occupant.map(|occupant| occupant.image);
        if is_on(Check::TagMoved) && found != publication.expected {
            let name = |digest: Option<Digest>| digest.map_or_else(|| "no image".to_owned(), |d| d.to_string());
            return Err(ImagePlaceError::Moved {
                place: self.place(),
                expected: name(publication.expected),
                found: name(found),
            });
        }
        let index = serde_json::to_vec(&index_of(publication))
            .map_err(|error| ImagePlaceError::NotALayout { path: self.folder.clone(), reason: error.to_string() })?;
        sync_folder(&blobs).map_err(self.io("sync", &blobs))?;
        self.write_file(&self.folder.join("index.json"), &index)
    }

    fn attach(
        &self,
        image: &Digest,
        referrers: &[Descriptor],
        blobs: &[Digest],
        store: &dyn ContentStore,
    ) -> Result<(), ImagePlaceError> {
        // Asked before anything is made, and again under the lock: nothing is left where there is no image.
        self.holds(image)?;
        let _lock = self.lock()?;
        self.holds(image)?;
        let folder = self.folder.join("blobs/sha256");
        for part in ["blobs", "blobs/sha256"] {
            self.make_folder(&self.folder.join(part))?;
        }
        self.write_blobs(blobs.iter().copied().chain(referrers.iter().map(|d| d.digest)), store)?;
        let index = self.index_with(referrers)?;
        sync_folder(&folder).map_err(self.io("sync", &folder))?;
        self.write_file(&self.folder.join("index.json"), &index)
    }
}

impl LayoutTarget {
    /// One writer at a time; the lock dies with its holder.
    fn lock(&self) -> Result<File, ImagePlaceError> {
        let path = self.folder.join(".sluicegate.lock");
        let lock = open_lock(&path).map_err(self.io("create", &path))?;
        let mut left = LOCK_TRIES;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                // Whoever may open the file may hold it, for ever: nobody waits longer than this.
                Err(TryLockError::WouldBlock) if left == 0 => {
                    let held = io::Error::new(io::ErrorKind::TimedOut, "another process holds it; nothing was written");
                    return Err(self.io("lock", &path)(held));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(self.io("lock", &path)(error)),
            }
            left -= 1;
        }
    }

    /// What a writer left behind that was killed; asked for under the lock, so it is nobody's who is still at it. What can't be removed
    /// is in nobody's way.
    fn remove_abandoned(&self) {
        for folder in [self.folder.join("blobs/sha256"), self.folder.clone()] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }

    fn holds(&self, image: &Digest) -> Result<(), ImagePlaceError> {
        let none = |hint: &str| ImagePlaceError::NoImage {
            place: self.place(),
            selector: image.to_string(),
            hint: hint.to_owned(),
        };
        let index = Index::read(&self.folder)?.ok_or_else(|| none("; there is no OCI layout"))?;
        if images(&self.folder, &index)?.iter().any(|held| held.digest == *image) {
            return Ok(());
        }
        // What an index here names is here as well.
        match LayoutSource::open(&self.folder)?.below(image)? {
            Some(_) => Ok(()),
            None => Err(none("; nothing is attached to what is not there")),
        }
    }

    /// The bytes of the present index with these referrers at its end. Everything else in it stays, whoever wrote it and whether this
    /// version knows it or not.
    fn index_with(&self, referrers: &[Descriptor]) -> Result<Vec<u8>, ImagePlaceError> {
        let fault = |reason: String| ImagePlaceError::NotALayout { path: self.folder.clone(), reason };
        let mut index = Index::read_as_it_is(&self.folder)?;
        let entries = index.get_mut("manifests").and_then(serde_json::Value::as_array_mut);
        let entries = entries.ok_or_else(|| fault("index.json names no manifests".to_owned()))?;
        for referrer in referrers {
            let digest = serde_json::Value::String(referrer.digest.to_string());
            if !entries.iter().any(|entry| entry.get("digest") == Some(&digest)) {
                let entry = Descriptor { annotations: BTreeMap::new(), ..referrer.clone() };
                entries.push(serde_json::to_value(entry).map_err(|error| fault(error.to_string()))?);
            }
        }
        let count = entries.len();
        let bytes = serde_json::to_vec(&index).map_err(|error| fault(error.to_string()))?;
        if count > MAX_ENTRIES || bytes.len() as u64 > MAX_MANIFEST {
            return Err(fault(format!(
                "an index of more than {MAX_ENTRIES} manifests or {MAX_MANIFEST} bytes would not be read again"
            )));
        }
        Ok(bytes)
    }

    /// Makes a folder of the layout. A link in its place would lead what is written somewhere else.
    fn make_folder(&self, path: &Path) -> Result<(), ImagePlaceError> {
        match fs::create_dir(path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let metadata = fs::symlink_metadata(path).map_err(self.io("look at", path))?;
                if metadata.is_dir() {
                    Ok(())
                } else {
                    let reason = format!("{} is no folder", path.display());
                    Err(ImagePlaceError::NotALayout { path: self.folder.clone(), reason })
                }
            }
            Err(error) => Err(self.io("create", path)(error)),
        }
    }

    /// Writes each blob; when this ends, the disk has all of them.
    fn write_blobs(
        &self,
        blobs: impl Iterator<Item = Digest>,
        store: &dyn ContentStore,
    ) -> Result<(), ImagePlaceError> {
        // Each once: two threads would be in each other's way.
        let blobs: Vec<Digest> = blobs.collect::<BTreeSet<_>>().into_iter().collect();
        several_at_a_time(AT_A_TIME, &blobs, |digest| self.write_blob(digest, store))
    }

    /// Copies a blob from the store and hashes what it copies, unless the store gives its own file; what is there already is hashed again,
    /// not trusted.
    fn write_blob(&self, digest: &Digest, store: &dyn ContentStore) -> Result<(), ImagePlaceError> {
        let path = blob_path(&self.folder, digest);
        if let Ok(mut present) = open_regular(&path)
            && Digest::of_reader(&mut present).is_ok_and(|(found, _)| found == *digest)
        {
            return Ok(());
        }
        let parent = self.folder.join("blobs/sha256");
        let not_given = || io::Error::from(io::ErrorKind::Unsupported);
        let given = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .make_in(&parent, |path| store.give(digest, path).ok_or_else(not_given));
        if let Ok(given) = given {
            return self.persist(given, &path);
        }
        let mut source = store.open(digest)?;
        let mut temporary = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(&parent)
            .map_err(self.io("create a file in", &parent))?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let n = io::Read::read(&mut source, &mut buffer).map_err(self.io("read for", &path))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            temporary.write_all(&buffer[..n]).map_err(self.io("write", &path))?;
        }
        let found = hasher.finish();
        if found != *digest {
            return Err(sluicegate_ports::store::StoreError::Corrupt { digest: *digest, found }.into());
        }
        self.persist(temporary, &path)
    }

    fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), ImagePlaceError> {
        let mut temporary = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(&self.folder)
            .map_err(self.io("create a file in", &self.folder))?;
        temporary.write_all(bytes).map_err(self.io("write", path))?;
        self.persist(temporary, path)?;
        sync_folder(&self.folder).map_err(self.io("sync", &self.folder))
    }

    fn persist(&self, temporary: tempfile::NamedTempFile, path: &Path) -> Result<(), ImagePlaceError> {
        use std::os::unix::fs::PermissionsExt;
        let file = temporary.as_file();
        // Layouts are for others to read; the umask of whoever writes does not decide that.
        file.set_permissions(fs::Permissions::from_mode(0o644)).map_err(self.io("set the mode of", path))?;
        file.sync_all().map_err(self.io("sync", path))?;
        temporary.persist(path).map_err(|error| self.io("rename to", path)(error.error))?;
        Ok(())
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn index_of(publication: &Publication) -> Index {
    let entry = |tag: Option<&TagName>| {
        let mut annotations = BTreeMap::from([(COSIGN_KIND.to_owned(), COSIGN_IMAGE.to_owned())]);
        annotations.extend(tag.map(|tag| (REF_NAME.to_owned(), tag.to_string())));
        Descriptor { annotations, ..publication.image.clone() }
    };
    let mut manifests: Vec<Descriptor> = match publication.tags.as_slice() {
        [] => vec![entry(None)],
        tags => tags.iter().map(|tag| entry(Some(tag))).collect(),
    };
    manifests.extend(publication.referrers.iter().map(|d| Descriptor { annotations: BTreeMap::new(), ..d.clone() }));
    let mark = publication.environment.iter().map(|name| (ENVIRONMENT.to_owned(), name.to_string()));
    Index {
        schema_version: 2,
        media_type: Some(IMAGE_INDEX.to_owned()),
        manifests,
        annotations: mark.collect(),
        may_hold_more: false,
    }
}
