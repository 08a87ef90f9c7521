//! Which files stand in an image, by its layers' tars alone: nothing is unpacked, links are not followed.
//!
//! The layout folder is private to the caller, and every blob is hashed while it is read all the same: a blob, a layer's
//! uncompressed tar and the manifest must have the digests by which they are named.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use sluicegate_attestation::identifiers::{DOCKER_LAYER_GZIP, LAYER_TAR, LAYER_TAR_GZIP, LAYER_TAR_ZSTD};
use sluicegate_ports::{execute::Compression, scan::ScanError};
use sluicegate_types::{Digest, Hasher};
use sluicegate_zstd::{FRAME_MAGIC, MultiFrameDecoder};

use crate::{
    entry_names::{LongNames, normal},
    lock_files::{LOCK_FILE_BYTES, is_read_as_lock_file},
    own_system::{SystemText, TEXT_BYTES, is_text},
    package_files::{LIST_BYTES, is_list, may_be_merged},
};

/// Bytes of a manifest or configuration (DESIGN section 7).
const MANIFEST: u64 = 4 * 1024 * 1024;
/// Layers of one image.
const LAYERS: usize = 512;
/// Tar entries of all layers together (DESIGN section 7).
const ENTRIES: u64 = 1_000_000;
/// Uncompressed bytes for one compressed byte (DESIGN section 7); small layers may hold `RATIO_FREE` bytes whatever their ratio.
const RATIO: u64 = 200;
const RATIO_FREE: u64 = 16 * 1024 * 1024;
/// Bytes of all texts that say which system this is, those of all layers together.
const TEXTS: usize = 16 * 1024 * 1024;
/// Bytes of all lists of packages' files, those of all layers together.
const LISTS: usize = 64 * 1024 * 1024;
/// Bytes of all lock files, those of all layers together.
const LOCK_FILES: usize = 128 * 1024 * 1024;
/// The number of no layer.
const NO_LAYER: usize = usize::MAX;
/// How an ELF file begins.
const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
/// How gzip begins (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Media type of Docker's layers, not compressed.
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// An image of a layout folder, its manifest and configuration read and checked.
#[derive(Debug)]
pub(crate) struct Image {
    blobs: PathBuf,
    /// The digest of its manifest.
    pub(crate) digest: Digest,
    /// The digest of its configuration: what Trivy calls the image's id.
    pub(crate) config: Digest,
    /// The digests of the uncompressed layers, lowest first.
    pub(crate) diff_ids: Vec<Digest>,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    digest: Digest,
    size: u64,
    compression: Compression,
}

impl Image {
    /// Reads the manifest `image` and its configuration from the layout folder.
    pub(crate) fn open(layout: &Path, image: &Digest) -> Result<Self, ScanError> {
        let blobs = layout.join("blobs").join("sha256");
        let manifest: Manifest = document(&blobs, image)?;
        if manifest.manifests.is_some() {
            return Err(broken(image, "it is an index of several images: name one platform's image by its digest"));
        }
        let (Some(config), Some(descriptors)) = (manifest.config, manifest.layers) else {
            return Err(broken(image, "its manifest has no config or no layers"));
        };
        let parsed: ImageConfig = document(&blobs, &config.digest)?;
        if descriptors.len() != parsed.rootfs.diff_ids.len() || descriptors.len() > LAYERS {
            return Err(broken(
                image,
                "its configuration names another number of layers than its manifest, or too many",
            ));
        }
        let layers = descriptors.into_iter().map(layer).collect::<Result<Vec<_>, _>>()?;
        for layer in &layers {
            let mut begins = Vec::new();
            open_layer(&blobs, layer)?
                .take(4)
                .read_to_end(&mut begins)
                .map_err(|error| broken(&layer.digest, &error.to_string()))?;
            check_beginning(layer, &begins)?;
        }
        Ok(Self { blobs, digest: *image, config: config.digest, diff_ids: parsed.rootfs.diff_ids, layers })
    }

    /// The files for which `wanted` says yes, as they stand when all layers lie upon
    /// each other, whiteouts honoured, with the digest of their content. A symbolic link counts with the digest of its target's
    /// name: a list that is only linked is still a list that somebody meant to be there.
    pub(crate) fn files(&self, wanted: Wanted<'_>) -> Result<Files, ScanError> {
        self.files_with(wanted, RATIO_FREE)
    }

    fn files_with(&self, wanted: Wanted<'_>, free: u64) -> Result<Files, ScanError> {
        let mut files = BTreeMap::new();
        let mut below = BTreeMap::new();
        let mut anywhere = BTreeSet::new();
        let mut entries = 0;
        let mut taken = Taken::default();
        for (nth, (layer, diff_id)) in self.layers.iter().zip(&self.diff_ids).enumerate() {
            if nth + 1 == self.layers.len() {
                below = telling(&files);
            }
            let file = open_layer(&self.blobs, layer)?;
            let mut blob = Hashing::new(BufReader::with_capacity(128 * 1024, file), layer.size);
            let most = layer.size.saturating_mul(RATIO).max(free);
            let inside: Box<dyn Read> = match layer.compression {
                Compression::None => Box::new(&mut blob),
                Compression::Gzip => Box::new(MultiGzDecoder::new(&mut blob)),
                Compression::Zstd => Box::new(MultiFrameDecoder::new(BufReader::new(&mut blob))),
            };
            let mut tar = Hashing::new(inside, most);
            let added = one_layer(&mut tar, wanted, &mut files, &mut entries, &mut taken)
                .and_then(|added| io::copy(&mut tar, &mut io::sink()).map(|_| added))
                .map_err(|error| broken(&layer.digest, &format!("cannot read the layer's tar: {error}")))?;
            if tar.finish() != *diff_id {
                return Err(broken(
                    &layer.digest,
                    "its uncompressed content has another digest than the configuration names",
                ));
            }
            io::copy(&mut blob, &mut io::sink()).map_err(|error| broken(&layer.digest, &error.to_string()))?;
            if blob.finish() != layer.digest {
                return Err(broken(&layer.digest, "the blob has another digest than its name"));
            }
            anywhere.extend(added.iter().filter(|(_, kept)| kept.is_telling).map(|(path, _)| path.clone()));
            // What a scanner says of the first of two files of one name in one layer may be of either.
            let layer = |twice: bool| if twice { NO_LAYER } else { nth };
            files.extend(added.into_iter().map(|(path, kept)| (path, Kept { layer: layer(kept.is_twice), ..kept })));
        }
        // A list that an upper layer hides lists nothing.
        let stands = |list: &SystemText| files.get(&list.path).is_some_and(|kept| kept.digest == list.digest);
        let lists = taken.lists.list.into_iter().filter(stands).collect();
        let mut lock_files: Vec<SystemText> = taken.lock_files.list.into_iter().filter(stands).collect();
        lock_files.sort_by(|a, b| a.path.cmp(&b.path));
        let executables = files.iter().filter(|(_, kept)| kept.is_executable);
        let executables = executables.map(|(path, kept)| ExecutableFile { path: path.clone(), digest: kept.digest });
        Ok(Files {
            executables: executables.collect(),
            all: telling(&files),
            below,
            anywhere,
            lists: (!taken.lists.is_short).then_some(lists),
            lock_files,
            links: files
                .iter()
                .filter(|(path, _)| may_be_merged(path))
                .map(|(p, kept)| (p.clone(), kept.digest))
                .collect(),
            layers: files.iter().map(|(path, kept)| (path.clone(), kept.layer)).collect(),
            uppermost: self.layers.len().saturating_sub(1),
            texts: taken.texts.list,
        })
    }
}

/// A file that is kept of an image, and why.
#[derive(Clone, Copy, Debug)]
struct Kept {
    digest: Digest,
    is_telling: bool,
    is_executable: bool,
    /// Whether it begins like a script, which is executable only by its permissions.
    is_script: bool,
    /// Whether its layer has another file of that name before it.
    is_twice: bool,
    /// Which layer it is from, counted from the lowest.
    layer: usize,
}

fn telling(files: &BTreeMap<String, Kept>) -> BTreeMap<String, Digest> {
    files.iter().filter(|(_, kept)| kept.is_telling).map(|(path, kept)| (path.clone(), kept.digest)).collect()
}

/// Says by its path (`etc/os-release`, no slash in front) whether a file is asked for, and is told whether it is a symbolic link.
pub(crate) type Wanted<'a> = &'a dyn Fn(&str, bool) -> bool;

/// The files that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// As they stand when all layers lie upon each other.
    pub(crate) all: BTreeMap<String, Digest>,
    /// As they stand without the uppermost layer: in an image that a pipeline assembled, its base.
    pub(crate) below: BTreeMap<String, Digest>,
    /// Those of every layer, hidden ones too.
    pub(crate) anywhere: BTreeSet<String>,
    /// The content of each file that says which system this is ([`is_text`]), of each layer, lowest first, hidden ones too.
    pub(crate) texts: Vec<SystemText>,
    /// The lists of packages' files ([`is_list`]) as they stand; `None` if they are more than is read.
    pub(crate) lists: Option<Vec<SystemText>>,
    /// Lock files and what stands beside them ([`is_read_as_lock_file`]) as they stand, sorted by path, none
    /// longer than is read.
    pub(crate) lock_files: Vec<SystemText>,
    /// Links in the place of a folder that merged systems keep in `usr`, with the digest of the target's name.
    pub(crate) links: BTreeMap<String, Digest>,
    /// From which layer each file is that was kept for whatever reason, counted from the lowest.
    pub(crate) layers: BTreeMap<String, usize>,
    /// The number of the uppermost layer: in an image that a pipeline assembled, that of its products.
    pub(crate) uppermost: usize,
    /// What can be executed, as it stands, sorted by path.
    pub(crate) executables: Vec<ExecutableFile>,
}

/// A regular file that can be executed: an ELF file, whatever its permissions, or a script that may be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExecutableFile {
    pub(crate) path: String,
    pub(crate) digest: Digest,
}

/// Goes through one layer: takes away from `lower` what the layer hides, and returns what it adds.
fn one_layer(
    tar: &mut impl Read,
    wanted: Wanted<'_>,
    lower: &mut BTreeMap<String, Kept>,
    entries: &mut u64,
    taken: &mut Taken,
) -> io::Result<BTreeMap<String, Kept>> {
    let mut added = BTreeMap::new();
    let mut long = LongNames::default();
    // Raw entries: the library would read long names of any length into memory.
    for entry in tar::Archive::new(tar).entries()?.raw(true) {
        let mut entry = entry?;
        *entries += 1;
        if *entries > ENTRIES {
            return Err(io::Error::other(format!("more than {ENTRIES} entries in the image's layers")));
        }
        let kind = entry.header().entry_type();
        if long.take(kind, &mut entry)? {
            continue;
        }
        let names = std::mem::take(&mut long);
        if names.size.is_some_and(|size| entry.header().size().ok() != Some(size)) {
            return Err(io::Error::other("an entry with two sizes"));
        }
        let raw = names.path.unwrap_or_else(|| entry.header().path_bytes().into_owned());
        let path = normal(&raw)?;
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name == ".wh..wh..opq" {
            hide_below(lower, folder);
            continue;
        }
        if let Some(hidden) = name.strip_prefix(".wh.") {
            let hidden = if folder.is_empty() { hidden.to_owned() } else { format!("{folder}/{hidden}") };
            hide_below(lower, &hidden);
            lower.remove(&hidden);
            continue;
        }
        let directory = kind.is_dir() || raw.ends_with(b"/");
        if !directory {
            hide_below(lower, &path);
        }
        lower.remove(&path);
        let is_twice = added.remove(&path).is_some();
        if directory {
            continue;
        }
        let is_telling = wanted(&path, kind.is_symlink());
        let target = || names.link.clone().or_else(|| entry.header().link_name_bytes().map(|name| name.into_owned()));
        let plain = |digest| Kept { digest, is_telling, is_executable: false, is_script: false, is_twice, layer: 0 };
        // A mode that can't be read may be any.
        let may_be_run = !entry.header().mode().is_ok_and(|mode| mode & 0o111 == 0);
        if kind.is_symlink() {
            if is_telling || may_be_merged(&path) {
                added.insert(path, plain(Digest::of(&target().unwrap_or_default())));
            }
            continue;
        }
        if kind.is_hard_link() {
            let target = target().unwrap_or_default();
            let original = normal(&target)?;
            let original = added.get(&original).or_else(|| lower.get(&original)).copied();
            let is_executable = original.is_some_and(|kept| kept.is_executable || (kept.is_script && may_be_run));
            if is_telling || is_executable {
                let kept = original.unwrap_or_else(|| plain(Digest::of(&target)));
                added.insert(path, Kept { is_telling, is_executable, is_twice, ..kept });
            }
            continue;
        }
        let mut beginning = Vec::new();
        entry.by_ref().take(4).read_to_end(&mut beginning)?;
        let is_script = beginning.starts_with(b"#!");
        let is_executable = beginning == ELF_MAGIC || (may_be_run && is_script);
        if !(is_telling || is_executable || is_script || is_list(&path) || is_read_as_lock_file(&path)) {
            continue;
        }
        let mut content = beginning.as_slice().chain(&mut entry);
        let digest = if is_text(&path) {
            taken.texts.take(&path, TEXT_BYTES, &mut content)?
        } else if is_list(&path) {
            taken.lists.take_what_fits(&path, LIST_BYTES, &mut content)?
        } else if is_read_as_lock_file(&path) {
            taken.lock_files.take_what_fits(&path, LOCK_FILE_BYTES, &mut content)?
        } else {
            Digest::of_reader(&mut content)?.0
        };
        added.insert(path, Kept { is_executable, is_script, ..plain(digest) });
    }
    Ok(added)
}

/// What was kept of the contents of files.
struct Taken {
    texts: Texts,
    lists: Texts,
    lock_files: Texts,
}

impl Default for Taken {
    fn default() -> Self {
        let none = |most, what| Texts { list: Vec::new(), bytes: 0, most, what, is_short: false };
        Self {
            texts: none(TEXTS, "texts that say which system this is"),
            lists: none(LISTS, "lists of packages' files"),
            lock_files: none(LOCK_FILES, "lock files"),
        }
    }
}

/// The texts of one kind that were met so far and their bytes, paths included.
struct Texts {
    list: Vec<SystemText>,
    bytes: usize,
    most: usize,
    what: &'static str,
    /// Whether there are some that did not fit.
    is_short: bool,
}

impl Texts {
    /// Takes the first `most` bytes of a text, and one more if there are more.
    fn take(&mut self, path: &str, most: u64, entry: &mut impl Read) -> io::Result<Digest> {
        let text = text(path, most, entry)?;
        self.bytes += path.len() + text.bytes.len();
        if self.bytes > self.most {
            return Err(io::Error::other(format!("more than {} MiB of {}", self.most >> 20, self.what)));
        }
        let digest = text.digest;
        self.list.push(text);
        Ok(digest)
    }

    /// Takes a text if it is no longer than `most` bytes, and as long as there is room. What is not taken is not read, and said to be.
    fn take_what_fits(&mut self, path: &str, most: u64, entry: &mut impl Read) -> io::Result<Digest> {
        let text = text(path, most, entry)?;
        let (digest, bytes) = (text.digest, path.len() + text.bytes.len());
        if text.bytes.len() as u64 <= most && self.bytes + bytes <= self.most {
            self.bytes += bytes;
            self.list.push(text);
        } else {
            self.is_short = true;
        }
        Ok(digest)
    }
}

/// The first `most` bytes of a text, and one more if there are more, with the digest of all.
fn text(path: &str, most: u64, entry: &mut impl Read) -> io::Result<SystemText> {
    let mut bytes = Vec::new();
    entry.by_ref().take(most + 1).read_to_end(&mut bytes)?;
    let digest = Digest::of_reader(&mut bytes.as_slice().chain(entry))?.0;
    Ok(SystemText { path: path.to_owned(), digest, bytes })
}

/// Takes everything in `folder` away; the folder `""` is all.
fn hide_below(files: &mut BTreeMap<String, Kept>, folder: &str) {
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    while let Some(path) = files.range(prefix.clone()..).next().map(|(path, _)| path.clone()) {
        if !path.starts_with(&prefix) {
            return;
        }
        files.remove(&path);
    }
}

/// Hashes what is read and refuses more than `left` bytes.
struct Hashing<R> {
    inner: R,
    hasher: Hasher,
    left: u64,
}

impl<R: Read> Hashing<R> {
    fn new(inner: R, left: u64) -> Self {
        Self { inner, hasher: Hasher::new(), left }
    }

    fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(n as u64)
            .ok_or_else(|| io::Error::other("more bytes than its descriptor and the ratio limit of 200:1 allow"))?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

fn layer(descriptor: Descriptor) -> Result<Layer, ScanError> {
    let compression = match descriptor.media_type.as_str() {
        LAYER_TAR | DOCKER_LAYER => Compression::None,
        LAYER_TAR_GZIP | DOCKER_LAYER_GZIP => Compression::Gzip,
        LAYER_TAR_ZSTD => Compression::Zstd,
        other => {
            return Err(broken(&descriptor.digest, &format!("layers of type {other:?} are not read by this version")));
        }
    };
    Ok(Layer { digest: descriptor.digest, size: descriptor.size, compression })
}

fn open_layer(blobs: &Path, layer: &Layer) -> Result<File, ScanError> {
    File::open(blobs.join(layer.digest.hex()))
        .map_err(|error| broken(&layer.digest, &format!("cannot open the layer: {error}")))
}

/// Trivy goes by a layer's first bytes, whatever its type says (go-containerregistry, `PeekCompression`). Bytes can be made that are one
/// tar by their type and another by how they begin, for instance a zstd stream whose first frame, one to be skipped, is a tar.
fn check_beginning(layer: &Layer, begins: &[u8]) -> Result<(), ScanError> {
    // A frame to be skipped is 0x184D2A50 to 0x184D2A5F, little-endian (RFC 8878, section 3.1.2). containerd takes it for zstd, and Trivy
    // does not.
    if let [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] = begins {
        return Err(broken(
            &layer.digest,
            "its first bytes are a zstd frame to be skipped, which not everybody takes for zstd, and the scanner goes by these",
        ));
    }
    let seen = if begins.starts_with(&GZIP_MAGIC) {
        Compression::Gzip
    } else if begins.starts_with(&FRAME_MAGIC) {
        Compression::Zstd
    } else {
        Compression::None
    };
    if seen == layer.compression {
        return Ok(());
    }
    let reason = format!(
        "its type says that its compression is {:?}, its first bytes say {seen:?}, and the scanner goes by these",
        layer.compression
    );
    Err(broken(&layer.digest, &reason))
}

fn document<T: serde::de::DeserializeOwned>(blobs: &Path, digest: &Digest) -> Result<T, ScanError> {
    let path = blobs.join(digest.hex());
    let file = File::open(&path).map_err(|error| broken(digest, &format!("cannot open its blob: {error}")))?;
    let mut bytes = Vec::new();
    file.take(MANIFEST + 1).read_to_end(&mut bytes).map_err(|error| broken(digest, &error.to_string()))?;
    if bytes.len() as u64 > MANIFEST {
        return Err(broken(digest, "a manifest or configuration larger than 4 MiB"));
    }
    if Digest::of(&bytes) != *digest {
        return Err(broken(digest, "the blob has another digest than its name"));
    }
    serde_json::from_slice(&bytes).map_err(|error| broken(digest, &error.to_string()))
}

fn broken(digest: &Digest, reason: &str) -> ScanError {
    ScanError::Failed { reason: format!("cannot look into the image, {digest}: {reason}") }
}

#[derive(Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
    size: u64,
}

#[derive(Deserialize)]
struct ImageConfig {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_image::{TestImage, file, link, pax_size, tar_of};

    /// A tar and what real writers made of it.
    const LAYER: &[u8] = include_bytes!("../../../fixtures/zstd-layers/layer.tar");
    const LEVEL_19: &[u8] = include_bytes!("../../../fixtures/zstd-layers/level-19.zst");
    const CHUNKED: &[u8] = include_bytes!("../../../fixtures/zstd-layers/chunked.zst");
    const PZSTD: &[u8] = include_bytes!("../../../fixtures/zstd-layers/pzstd.zst");
    const WINDOW_28: &[u8] = include_bytes!("../../../fixtures/zstd-layers/window-28.zst");
    const DICTIONARY: &[u8] = include_bytes!("../../../fixtures/zstd-layers/dictionary.zst");

    /// All files of an image whose one layer has this type and these bytes, and the tar `tar`.
    fn files_of(media_type: &str, bytes: &[u8], tar: &[u8]) -> Result<Files, String> {
        let image = TestImage::of_blobs(vec![(media_type, bytes.to_vec(), Digest::of(tar))]);
        let files = Image::open(image.path(), &image.digest).and_then(|image| image.files(&|_, _| true));
        files.map_err(|error| error.to_string())
    }

    fn paths(image: &TestImage) -> Result<Vec<String>, ScanError> {
        let opened = Image::open(image.path(), &image.digest)?;
        Ok(opened.files(&|path, _| path.ends_with("Cargo.lock"))?.all.into_keys().collect())
    }

    #[test]
    fn files_are_seen_through_whiteouts_links_and_long_names() {
        let deep = format!("{}/Cargo.lock", "long".repeat(60));
        let image = TestImage::new(&[
            vec![
                file("a/Cargo.lock", b"a"),
                file("./b/c/Cargo.lock", b"b"),
                file("d/Cargo.lock", b"d"),
                file("e/Cargo.lock", b"e"),
            ],
            vec![
                file("b/.wh.c", b""),
                file("d/x/Cargo.lock", b"new"),
                file("d/.wh..wh..opq", b""),
                link("e", "elsewhere"),
                link("f/Cargo.lock", "../store/7"),
                file(&deep, b"deep"),
                file("g/other", b""),
            ],
        ]);
        assert_eq!(paths(&image).unwrap(), ["a/Cargo.lock", "d/x/Cargo.lock", "f/Cargo.lock", deep.as_str()]);
    }

    #[test]
    fn the_digest_is_the_files_own() {
        let image = TestImage::new(&[vec![file("a/Cargo.lock", b"content")]]);
        let opened = Image::open(image.path(), &image.digest).unwrap();
        assert_eq!(opened.files(&|_, _| true).unwrap().all["a/Cargo.lock"], Digest::of(b"content"));
    }

    #[test]
    fn the_texts_of_all_layers_are_kept_with_their_whole_digests() {
        let long = vec![b'x'; TEXT_BYTES as usize + 9];
        let image = TestImage::new(&[
            vec![file("./etc/debian_version", b"11\n"), file("etc/passwd", b"root"), link("etc/os-release", "x")],
            vec![file("etc/debian_version", b"12\n"), file("etc/lsb-release", &long)],
        ]);
        let files = Image::open(image.path(), &image.digest).unwrap().files(&|_, _| true).unwrap();
        let texts: Vec<_> =
            files.texts.iter().map(|text| (text.path.as_str(), text.bytes.len(), text.digest)).collect();
        assert_eq!(
            texts,
            [
                ("etc/debian_version", 3, Digest::of(b"11\n")),
                ("etc/debian_version", 3, Digest::of(b"12\n")),
                ("etc/lsb-release", TEXT_BYTES as usize + 1, Digest::of(&long)),
            ]
        );
        assert_eq!(files.all["etc/lsb-release"], Digest::of(&long));
        let many = || (0..150).map(|_| file("etc/lsb-release", &long)).collect::<Vec<_>>();
        let read = |image: TestImage| Image::open(image.path(), &image.digest).unwrap().files(&|_, _| true);
        assert_eq!(read(TestImage::new(&[many()])).unwrap().texts.len(), 150);
        let refused = read(TestImage::new(&[many(), many()])).unwrap_err().to_string();
        assert!(refused.contains("16 MiB of texts"), "{refused}");
    }

    #[test]
    fn a_blob_that_is_not_what_it_is_called_is_refused() {
        let image = TestImage::new(&[vec![file("a/Cargo.lock", b"a")]]);
        assert_eq!(paths(&image).unwrap().len(), 1);
        let layer = image.path().join("blobs/sha256").join(image.layers[0].hex());
        let mut bytes = std::fs::read(&layer).unwrap();
        bytes[4] ^= 1; // gzip's mtime: the tar inside stays the same
        std::fs::write(&layer, bytes).unwrap();
        assert!(paths(&image).unwrap_err().to_string().contains("another digest than its name"));
        let manifest = image.path().join("blobs/sha256").join(image.digest.hex());
        std::fs::write(manifest, "{}").unwrap();
        assert!(paths(&image).is_err());
    }

    #[test]
    fn hostile_tars_are_refused() {
        let refused = |entries, words: &str| {
            let text = paths(&TestImage::new(&[entries])).unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
        };
        refused(vec![file("a/../Cargo.lock", b"")], "..");
        refused(vec![pax_size("a/Cargo.lock", b"12345", 2)], "two sizes");
        assert!(paths(&TestImage::new(&[vec![pax_size("a/Cargo.lock", b"12345", 5)]])).is_ok());
    }

    #[test]
    fn a_layer_that_unpacks_to_far_more_than_itself_is_refused() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let image = TestImage::compressed(&[vec![file("zeros", &vec![0; 1024 * 1024])]], compression);
            let opened = Image::open(image.path(), &image.digest).unwrap();
            let tar = 1024 * 1024 + 512 + 1024;
            assert!(opened.files_with(&|_, _| true, tar).is_ok());
            let refused = opened.files_with(&|_, _| true, tar - 1).unwrap_err().to_string();
            assert!(refused.contains("ratio limit"), "{refused}");
        }
    }

    #[test]
    fn a_truncated_layer_is_an_error_and_never_a_panic() {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let image = TestImage::compressed(&[vec![file("a/Cargo.lock", b"a"), link("b", "c")]], compression);
            let layer = image.path().join("blobs/sha256").join(image.layers[0].hex());
            let whole = std::fs::read(&layer).unwrap();
            assert!(paths(&image).is_ok());
            for length in 0..whole.len() {
                std::fs::write(&layer, &whole[..length]).unwrap();
                assert!(paths(&image).is_err(), "{compression:?} cut at {length}");
            }
        }
    }

    #[test]
    fn zstd_layers_are_read_as_others_are() {
        let plain = files_of(LAYER_TAR, LAYER, LAYER).unwrap();
        assert_eq!(plain.texts.len(), 1);
        for bytes in [LEVEL_19, CHUNKED] {
            let files = files_of(LAYER_TAR_ZSTD, bytes, LAYER).unwrap();
            assert_eq!((&files.all, &files.texts), (&plain.all, &plain.texts));
        }
        let refused = |bytes: &[u8], words: &str| {
            let error = files_of(LAYER_TAR_ZSTD, bytes, LAYER).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        refused(WINDOW_28, "more than the limit of 134217728");
        refused(DICTIONARY, "dictionary");
        refused(&[LEVEL_19, b"x"].concat(), "cut off");
        refused(&[LEVEL_19, &[0; 4]].concat(), "bytes where a zstd frame should begin");
        refused(&LEVEL_19[..LEVEL_19.len() - 1], "cut off");
        refused(&[LEVEL_19, LEVEL_19].concat(), "another digest than the configuration names");
        let error = files_of("application/vnd.oci.image.layer.v1.tar+xz", LEVEL_19, LAYER).unwrap_err();
        assert!(error.contains("not read by this version"), "{error}");
    }

    /// What the scanner would take for another tar than the one that is run.
    #[test]
    fn a_layer_that_begins_as_another_type_is_refused() {
        let refused = |media_type: &str, bytes: &[u8], tar: &[u8]| {
            let error = files_of(media_type, bytes, tar).unwrap_err();
            assert!(error.contains("the scanner goes by these"), "{error}");
        };
        let named = |name: &[u8]| {
            let mut tar = tar_of(&[file("a name", b"content")]);
            let mut header = tar::Header::from_byte_slice(&tar[..512]).clone();
            header.as_old_mut().name[..name.len()].copy_from_slice(name);
            header.set_cksum();
            tar[..512].copy_from_slice(header.as_bytes());
            tar
        };
        let good = named(b"NAME");
        assert!(files_of(LAYER_TAR, &good, &good).is_ok());
        for magic in [GZIP_MAGIC.as_slice(), &FRAME_MAGIC] {
            let tar = named(magic);
            refused(LAYER_TAR, &tar, &tar);
        }
        refused(LAYER_TAR_GZIP, LEVEL_19, LAYER);
        refused(LAYER_TAR_ZSTD, LAYER, LAYER);
        // A tar in a frame to be skipped, whose magic number and length are the beginning of its first entry's name.
        let length = u32::try_from(LAYER.len()).unwrap() - 8;
        let tar = named(&[&[0x50, 0x2a, 0x4d, 0x18], length.to_le_bytes().as_slice()].concat());
        refused(LAYER_TAR, &tar, &tar);
        refused(LAYER_TAR_ZSTD, &[&tar, LEVEL_19].concat(), LAYER);
        refused(LAYER_TAR_ZSTD, PZSTD, LAYER);
    }
}
