//! Builds OCI layout folders for tests.

use std::{io::Write, path::Path};

use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use sluicegate_attestation::identifiers::{LAYER_TAR, LAYER_TAR_GZIP, LAYER_TAR_ZSTD};
use sluicegate_ports::execute::Compression;
use sluicegate_types::Digest;

/// One entry of a layer.
pub(crate) struct TestEntry {
    header: tar::Header,
    path: String,
    data: Vec<u8>,
    pax: Option<String>,
    raw_path: Option<Vec<u8>>,
}

impl TestEntry {
    /// Gives it a path that need not be text, of at most 100 bytes.
    pub(crate) fn set_raw_path(&mut self, path: &[u8]) {
        self.raw_path = Some(path.to_vec());
    }

    /// Gives it these permission bits.
    pub(crate) fn set_mode(&mut self, mode: u32) {
        self.header.set_mode(mode);
    }

    /// Its path.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

/// A regular file.
pub(crate) fn file(path: &str, data: &[u8]) -> TestEntry {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    TestEntry { header, path: path.to_owned(), data: data.to_vec(), pax: None, raw_path: None }
}

/// A regular file that may be executed.
pub(crate) fn executable(path: &str, data: &[u8]) -> TestEntry {
    let mut entry = file(path, data);
    entry.header.set_mode(0o755);
    entry
}

/// Another name of a file.
pub(crate) fn hard_link(path: &str, target: &str) -> TestEntry {
    let mut entry = link(path, target);
    entry.header.set_entry_type(tar::EntryType::Link);
    entry
}

/// A symbolic link.
pub(crate) fn link(path: &str, target: &str) -> TestEntry {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_link_name(target).unwrap();
    TestEntry { header, path: path.to_owned(), data: Vec::new(), pax: None, raw_path: None }
}

/// A regular file before which a pax header says another size.
pub(crate) fn pax_size(path: &str, data: &[u8], size: u64) -> TestEntry {
    let record = format!("size={size}\n");
    TestEntry { pax: Some(format!("{} {record}", record.len() + 3)), ..file(path, data) }
}

/// A layout folder with one image.
pub(crate) struct TestImage {
    folder: tempfile::TempDir,
    pub(crate) digest: Digest,
    pub(crate) config: Digest,
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) layers: Vec<Digest>,
}

impl TestImage {
    /// An image of gzip layers.
    pub(crate) fn new(layers: &[Vec<TestEntry>]) -> Self {
        Self::compressed(layers, Compression::Gzip)
    }

    /// An image of layers with this compression.
    pub(crate) fn compressed(layers: &[Vec<TestEntry>], compression: Compression) -> Self {
        let blob = |entries: &Vec<TestEntry>| {
            let tar = tar_of(entries);
            let diff_id = Digest::of(&tar);
            let (media_type, bytes) = match compression {
                Compression::None => (LAYER_TAR, tar),
                Compression::Gzip => (LAYER_TAR_GZIP, gzip(&tar)),
                Compression::Zstd => (LAYER_TAR_ZSTD, zstd(&tar)),
            };
            (media_type, bytes, diff_id)
        };
        Self::of_blobs(layers.iter().map(blob).collect())
    }

    /// An image of these layers: their media types, their bytes, and the digests of their tars.
    pub(crate) fn of_blobs(layers: Vec<(&str, Vec<u8>, Digest)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        let put = |bytes: &[u8]| {
            let digest = Digest::of(bytes);
            std::fs::write(folder.path().join("blobs/sha256").join(digest.hex()), bytes).unwrap();
            digest
        };
        let (mut diff_ids, mut blobs, mut descriptors) = (Vec::new(), Vec::new(), Vec::new());
        for (media_type, bytes, diff_id) in layers {
            let digest = put(&bytes);
            diff_ids.push(diff_id);
            blobs.push(digest);
            descriptors.push(serde_json::json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}));
        }
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config_bytes = config.to_string();
        let config = put(config_bytes.as_bytes());
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_bytes.len()},
            "layers": descriptors,
        })
        .to_string();
        let digest = put(manifest.as_bytes());
        let index = serde_json::json!({
            "schemaVersion": 2, "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": manifest.len(),
            }],
        });
        std::fs::write(folder.path().join("index.json"), index.to_string()).unwrap();
        std::fs::write(folder.path().join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
        Self { folder, digest, config, diff_ids, layers: blobs }
    }

    /// The layout folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}

/// One frame.
pub(crate) fn zstd(tar: &[u8]) -> Vec<u8> {
    compress_to_vec(tar, CompressionLevel::Fastest)
}

/// The entries and the end of a tar.
pub(crate) fn tar_of(entries: &[TestEntry]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        if let Some(pax) = &entry.pax {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::XHeader);
            header.set_size(pax.len() as u64);
            header.set_cksum();
            tar.append(&header, pax.as_bytes()).unwrap();
        }
        let mut header = entry.header.clone();
        if entry.path.len() > 100 {
            let name = format!("{}\0", entry.path);
            let mut long = tar::Header::new_gnu();
            long.set_entry_type(tar::EntryType::GNULongName);
            long.set_size(name.len() as u64);
            long.set_cksum();
            tar.append(&long, name.as_bytes()).unwrap();
        }
        let path = entry.raw_path.as_deref().unwrap_or(entry.path.as_bytes());
        let kept = path.len().min(100);
        header.as_old_mut().name[..kept].copy_from_slice(&path[..kept]);
        header.set_cksum();
        tar.append(&header, entry.data.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}
