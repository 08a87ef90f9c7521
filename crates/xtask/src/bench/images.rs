//! Layouts that are made to be copied: large layers, no layer at all, many small attachments. What one of them holds is known by digest, so
//! that it can be looked for wherever it was copied to.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::commands;
use crate::failure::{Failure, Outcome};
use crate::json::Json;

/// The tag of the image of each layout.
pub(super) const TAG: &str = "v";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const NOTE: &str = "application/vnd.sluicegate.bench.note.v1";
/// A block of a tar file, and the two empty ones at its end.
const BLOCK: u64 = 512;
const TAR_END: u64 = 2 * BLOCK;
/// Bytes of an attachment.
const NOTE_SIZE: usize = 1024;

/// A blob or a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    /// 64 hexadecimal digits.
    pub hex: String,
    /// Bytes.
    pub size: u64,
}

/// What a layout folder with one image holds.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The image's manifest.
    pub image: Blob,
    /// Configurations, layers and what is attached, each once.
    pub blobs: Vec<Blob>,
    /// Manifests attached to the image.
    pub attached: Vec<Blob>,
}

/// Hashes files with SHA-256, by openssl: it is as fast at it as this machine is.
#[derive(Clone, Debug)]
pub(super) struct Hasher {
    openssl: PathBuf,
}

impl Blob {
    /// `sha256:` and its digits.
    #[must_use]
    pub(super) fn digest(&self) -> String {
        format!("sha256:{}", self.hex)
    }

    fn descriptor(&self, media_type: &str, more: Vec<(String, Json)>) -> Json {
        let own = [
            ("mediaType", Json::text(media_type)),
            ("digest", Json::text(self.digest())),
            ("size", Json::Number(self.size.to_string())),
        ];
        Json::Object(own.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(more).collect())
    }
}

impl Layout {
    /// An image of `layers` uncompressed layers that do not compress, of `size` bytes each, a multiple of 512.
    pub(super) fn with_layers(folder: &Path, hasher: &Hasher, layers: u64, size: u64) -> Outcome<Self> {
        let mut writer = Writer::new(folder, hasher)?;
        let files = (0..layers).map(|number| writer.layer(number, size)).collect::<Outcome<Vec<_>>>()?;
        let layers = writer.put(files)?;
        let (image, blobs) = writer.image(layers)?;
        writer.index(&image, &[])?;
        Ok(Self { image, blobs, attached: Vec::new() })
    }

    /// An image without layers and `count` manifests of one small part each that have it as their subject.
    pub(super) fn with_attachments(folder: &Path, hasher: &Hasher, count: u64) -> Outcome<Self> {
        let mut writer = Writer::new(folder, hasher)?;
        let (image, mut blobs) = writer.image(Vec::new())?;
        let empty = writer.write(vec![b"{}".to_vec()])?.remove(0);
        let notes = writer.write((0..count).map(note).collect())?;
        let subject = image.descriptor(MANIFEST, Vec::new());
        let manifest = |note: &Blob| {
            Json::object([
                ("schemaVersion", Json::Number("2".to_owned())),
                ("mediaType", Json::text(MANIFEST)),
                ("artifactType", Json::text(NOTE)),
                ("config", empty.descriptor(EMPTY, Vec::new())),
                ("layers", Json::List(vec![note.descriptor(NOTE, Vec::new())])),
                ("subject", subject.clone()),
            ])
        };
        let attached = writer.write(notes.iter().map(|note| manifest(note).to_string().into_bytes()).collect())?;
        writer.index(&image, &attached)?;
        blobs.push(empty);
        blobs.extend(notes);
        Ok(Self { image, blobs, attached })
    }

    /// Everything that it holds: image, attachments, and what these are made of.
    pub(super) fn all(&self) -> impl Iterator<Item = &Blob> {
        self.manifests().chain(&self.blobs)
    }

    /// The image and what is attached to it.
    pub(super) fn manifests(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.image).chain(&self.attached)
    }

    /// Bytes of all of it.
    #[must_use]
    pub(super) fn bytes(&self) -> u64 {
        self.all().map(|blob| blob.size).sum()
    }

    /// Fails unless the layout in `folder` has this image and every byte of it, and gives the bytes.
    pub(super) fn is_in_layout(&self, hasher: &Hasher, folder: &Path) -> Outcome<u64> {
        let path = folder.join("index.json");
        let text = fs::read_to_string(&path).map_err(Failure::while_doing(format!("read {}", path.display())))?;
        let index = Json::parse(&text).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        let digest = self.image.digest();
        if !index.get("manifests").list().iter().any(|entry| entry.get("digest").as_text() == Some(&digest)) {
            return Err(Failure::new(format!("{} does not list {digest}", path.display())));
        }
        self.are_these(hasher, |blob| file(folder, blob))
    }

    /// Fails unless each file is what its blob should be, and gives the bytes of all of them.
    pub(super) fn are_these(&self, hasher: &Hasher, file: impl Fn(&Blob) -> PathBuf) -> Outcome<u64> {
        let files: Vec<PathBuf> = self.all().map(file).collect();
        let mut bytes = 0;
        for ((found, path), blob) in hasher.hash(&files)?.iter().zip(&files).zip(self.all()) {
            let size = fs::metadata(path).map_err(Failure::while_doing(format!("look at {}", path.display())))?.len();
            if *found != blob.hex || size != blob.size {
                return Err(Failure::new(format!(
                    "{} has {size} bytes with the SHA-256 {found} and not {} with {}",
                    path.display(),
                    blob.size,
                    blob.hex
                )));
            }
            bytes += size;
        }
        Ok(bytes)
    }
}

impl Hasher {
    /// With this openssl.
    pub(super) fn new(openssl: &Path) -> Self {
        Self { openssl: openssl.to_owned() }
    }

    /// The digits of each file, in this order.
    fn hash(&self, files: &[PathBuf]) -> Outcome<Vec<String>> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let mut openssl = Command::new(&self.openssl);
        let told = commands::output(openssl.args(["dgst", "-sha256", "-r"]).args(files))?;
        let digits: Vec<String> =
            told.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
        if digits.len() == files.len() && digits.iter().all(|digits| digits.len() == 64) {
            Ok(digits)
        } else {
            Err(Failure::new(format!("openssl gave {} checksums of {} files", digits.len(), files.len())))
        }
    }
}

/// A layout in the making.
struct Writer<'a> {
    folder: PathBuf,
    hasher: &'a Hasher,
    /// Files made so far that have no name of their own yet.
    next: u64,
}

impl<'a> Writer<'a> {
    fn new(folder: &Path, hasher: &'a Hasher) -> Outcome<Self> {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(Failure::while_doing(format!("make {}", blobs.display())))?;
        let marker = folder.join("oci-layout");
        fs::write(&marker, r#"{"imageLayoutVersion":"1.0.0"}"#)
            .map_err(Failure::while_doing(format!("write {}", marker.display())))?;
        Ok(Self { folder: folder.to_owned(), hasher, next: 0 })
    }

    fn nameless(&mut self) -> PathBuf {
        self.next += 1;
        self.folder.join(format!("new-{}", self.next))
    }

    /// A tar file of one file of random bytes, always the same ones for the same number.
    fn layer(&mut self, number: u64, size: u64) -> Outcome<PathBuf> {
        let path = self.nameless();
        let failed = || format!("write {}", path.display());
        let mut file = BufWriter::new(File::create(&path).map_err(Failure::while_doing(failed()))?);
        let content = size.saturating_sub(BLOCK + TAR_END);
        file.write_all(&tar_header(&format!("random-{number}"), content)).map_err(Failure::while_doing(failed()))?;
        let mut state = number;
        for _ in 0..content / 8 {
            file.write_all(&random(&mut state).to_le_bytes()).map_err(Failure::while_doing(failed()))?;
        }
        file.write_all(&[0; TAR_END as usize]).map_err(Failure::while_doing(failed()))?;
        file.into_inner().map_err(|error| Failure::new(format!("cannot {}: {error}", failed())))?;
        Ok(path)
    }

    /// Gives files the names of their digests.
    fn put(&self, files: Vec<PathBuf>) -> Outcome<Vec<Blob>> {
        let digits = self.hasher.hash(&files)?;
        files
            .iter()
            .zip(digits)
            .map(|(path, hex)| {
                let failed = || format!("name {}", path.display());
                let size = fs::metadata(path).map_err(Failure::while_doing(failed()))?.len();
                let blob = Blob { hex, size };
                fs::rename(path, file(&self.folder, &blob)).map_err(Failure::while_doing(failed()))?;
                Ok(blob)
            })
            .collect()
    }

    fn write(&mut self, contents: Vec<Vec<u8>>) -> Outcome<Vec<Blob>> {
        let mut files = Vec::new();
        for content in contents {
            let path = self.nameless();
            fs::write(&path, content).map_err(Failure::while_doing(format!("write {}", path.display())))?;
            files.push(path);
        }
        self.put(files)
    }

    /// An image of these layers, and all blobs that it names.
    fn image(&mut self, layers: Vec<Blob>) -> Outcome<(Blob, Vec<Blob>)> {
        let ids = layers.iter().map(|layer| Json::text(layer.digest())).collect();
        let config = Json::object([
            ("architecture", Json::text("amd64")),
            ("os", Json::text("linux")),
            ("config", Json::Object(Vec::new())),
            ("rootfs", Json::object([("type", Json::text("layers")), ("diff_ids", Json::List(ids))])),
        ]);
        let config = self.write(vec![config.to_string().into_bytes()])?.remove(0);
        let manifest = Json::object([
            ("schemaVersion", Json::Number("2".to_owned())),
            ("mediaType", Json::text(MANIFEST)),
            ("config", config.descriptor(CONFIG, Vec::new())),
            ("layers", Json::List(layers.iter().map(|layer| layer.descriptor(LAYER, Vec::new())).collect())),
        ]);
        let image = self.write(vec![manifest.to_string().into_bytes()])?.remove(0);
        Ok((image, std::iter::once(config).chain(layers).collect()))
    }

    fn index(&self, image: &Blob, attached: &[Blob]) -> Outcome {
        let names = Json::object([
            ("org.opencontainers.image.ref.name", Json::text(TAG)),
            ("kind", Json::text("dev.cosignproject.cosign/image")),
        ]);
        let image = image.descriptor(MANIFEST, vec![("annotations".to_owned(), names)]);
        let kind = || vec![("artifactType".to_owned(), Json::text(NOTE))];
        let entries =
            std::iter::once(image).chain(attached.iter().map(|attached| attached.descriptor(MANIFEST, kind())));
        let index = Json::object([
            ("schemaVersion", Json::Number("2".to_owned())),
            ("mediaType", Json::text("application/vnd.oci.image.index.v1+json")),
            ("manifests", Json::List(entries.collect())),
        ]);
        let path = self.folder.join("index.json");
        fs::write(&path, index.to_string()).map_err(Failure::while_doing(format!("write {}", path.display())))
    }
}

fn file(folder: &Path, blob: &Blob) -> PathBuf {
    folder.join("blobs/sha256").join(&blob.hex)
}

fn note(number: u64) -> Vec<u8> {
    let mut text = format!("note {number}\n").into_bytes();
    text.resize(NOTE_SIZE, b'.');
    text
}

/// The header of a regular file (POSIX ustar).
fn tar_header(name: &str, size: u64) -> [u8; BLOCK as usize] {
    let mut header = [0; BLOCK as usize];
    let mut field = |at: usize, bytes: &[u8]| {
        for (to, from) in header.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    field(0, name.as_bytes());
    field(100, b"0000644\0");
    field(108, b"0000000\0");
    field(116, b"0000000\0");
    field(124, format!("{size:011o}\0").as_bytes());
    field(136, b"00000000000\0");
    field(148, b"        ");
    field(156, b"0");
    field(257, b"ustar\x0000");
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    for (to, from) in header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").as_bytes()) {
        *to = *from;
    }
    header
}

/// The next of a row of numbers that no compression finds anything in (SplitMix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut number = *state;
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum;

    fn hasher() -> Option<Hasher> {
        let there = commands::works(Command::new("openssl").arg("version"));
        if !there {
            println!("skipped: there is no openssl");
        }
        there.then(|| Hasher::new(Path::new("openssl")))
    }

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("xtask-images-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_layer_is_a_tar_file_of_its_size_that_tar_reads() {
        let Some(hasher) = hasher() else { return };
        let folder = folder("layers");
        let layout = Layout::with_layers(&folder, &hasher, 2, 64 * 1024).unwrap();
        let [_, config, first, second] = &layout.all().collect::<Vec<_>>()[..] else { panic!("{layout:?}") };
        assert_eq!([first.size, second.size], [64 * 1024; 2]);
        assert_ne!(first.hex, second.hex);
        let listed = commands::output(Command::new("tar").arg("-tf").arg(file(&folder, first))).unwrap();
        assert_eq!(listed, "random-0\n");
        assert_eq!(checksum::sha256_of_file(&file(&folder, config)).unwrap(), config.hex);
        assert_eq!(layout.is_in_layout(&hasher, &folder).unwrap(), layout.bytes());

        fs::write(file(&folder, second), "other").unwrap();
        assert!(layout.is_in_layout(&hasher, &folder).is_err());
        fs::remove_file(file(&folder, second)).unwrap();
        assert!(layout.is_in_layout(&hasher, &folder).is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn attachments_name_the_image_and_are_listed_beside_it() {
        let Some(hasher) = hasher() else { return };
        let folder = folder("attachments");
        let layout = Layout::with_attachments(&folder, &hasher, 3).unwrap();
        assert_eq!((layout.attached.len(), layout.blobs.len()), (3, 1 + 1 + 3));
        let read = |path: &Path| Json::parse(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(read(&folder.join("index.json")).get("manifests").list().len(), 4);
        for attached in &layout.attached {
            let manifest = read(&file(&folder, attached));
            assert_eq!(manifest.get("subject").get("digest").as_text(), Some(&*layout.image.digest()));
        }
        layout.is_in_layout(&hasher, &folder).unwrap();
        fs::write(folder.join("index.json"), r#"{"manifests":[]}"#).unwrap();
        assert!(layout.is_in_layout(&hasher, &folder).is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_random_numbers_are_those_of_splitmix() {
        let mut state = 0;
        assert_eq!(random(&mut state), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random(&mut state), 0x6e78_9e6a_a1b9_65f4);
    }
}
