//! Trivy's databases as registries hold them: one layer of an artifact, a gzip archive of its two files.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use sluicegate_ports::scan::ScanError;

use crate::database::{DATABASE, Kind, METADATA, METADATA_FILE};

/// Entries that an archive may have.
const ENTRIES: usize = 16;

/// Unpacks an archive of `metadata.json` and the database's own file into `folder`, which becomes visible whole or not at all. Anything else in it,
/// and a file of that name that is no regular file or larger than its limit, is refused. What the files say is for
/// [`crate::database::PinnedDatabase`] to judge, by their pinned digest.
pub fn unpack(kind: Kind, archive: impl Read, folder: &Path) -> Result<(), ScanError> {
    let refused = |reason: String| ScanError::Database { path: folder.to_owned(), reason };
    let io = |error: io::Error| refused(format!("its archive: {error}"));
    let parent = folder.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(io)?;
    let fresh = tempfile::Builder::new().prefix("database-").tempdir_in(parent).map_err(io)?;
    let mut archive = tar::Archive::new(MultiGzDecoder::new(archive));
    let mut missing = vec![(METADATA_FILE, METADATA), (kind.file(), DATABASE)];
    for entry in archive.entries().map_err(io)?.take(ENTRIES) {
        let entry = entry.map_err(io)?;
        let path = entry.path().map_err(io)?.into_owned();
        let name = path.strip_prefix(".").unwrap_or(&path).to_string_lossy().into_owned();
        let at = missing.iter().position(|(wanted, _)| *wanted == name);
        let at =
            at.ok_or_else(|| refused(format!("its archive has an entry {name:?} that it should not have, or twice")))?;
        let (name, limit) = missing.swap_remove(at);
        if !entry.header().entry_type().is_file() {
            return Err(refused(format!("{name} in its archive is no regular file")));
        }
        let mut file = File::create(fresh.path().join(name)).map_err(io)?;
        let written = io::copy(&mut entry.take(limit + 1), &mut file).map_err(io)?;
        if written > limit {
            return Err(refused(format!("{name} in its archive is larger than the limit of {limit} bytes")));
        }
        file.sync_all().map_err(io)?;
    }
    if let Some((name, _)) = missing.first() {
        return Err(refused(format!("its archive has no {name}")));
    }
    match fs::rename(fresh.path(), folder) {
        // Another process was quicker; both unpacked the same bytes.
        Err(_) if folder.is_dir() => Ok(()),
        renamed => renamed.map_err(io),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn archive(entries: &[(&str, tar::EntryType, u64)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, size) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_path(name).unwrap();
            header.set_entry_type(*kind);
            header.set_size(*size);
            header.set_mode(0o644);
            if *kind == tar::EntryType::Symlink {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            builder.append(&header, io::repeat(b'x').take(*size)).unwrap();
        }
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&builder.into_inner().unwrap()).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn the_two_files_are_unpacked_and_nothing_else_is() {
        use tar::EntryType::{Regular, Symlink};
        let place = tempfile::tempdir().unwrap();
        let unpacked = |name: &str, bytes: &[u8]| {
            unpack(Kind::Vulnerabilities, bytes, &place.path().join(name)).map_err(|error| error.to_string())
        };
        let good = archive(&[("metadata.json", Regular, 5), ("./trivy.db", Regular, METADATA + 1)]);
        unpacked("good", &good).unwrap();
        unpacked("good", &good).unwrap();
        assert_eq!(fs::read(place.path().join("good/metadata.json")).unwrap(), b"xxxxx");
        for (name, bytes, says) in [
            ("none", archive(&[("metadata.json", Regular, 5)]), "no trivy.db"),
            ("twice", archive(&[("metadata.json", Regular, 5), ("metadata.json", Regular, 5)]), "or twice"),
            ("more", archive(&[("metadata.json", Regular, 5), ("sub/trivy.db", Regular, 5)]), "should not have"),
            ("link", archive(&[("metadata.json", Symlink, 0), ("trivy.db", Regular, 5)]), "no regular file"),
            ("large", archive(&[("metadata.json", Regular, METADATA + 1), ("trivy.db", Regular, 5)]), "larger"),
            ("cut", good[..good.len() / 2].to_vec(), "its archive"),
            ("junk", b"no gzip".to_vec(), "its archive"),
        ] {
            let error = unpacked(name, &bytes).unwrap_err();
            assert!(error.contains(says) && !place.path().join(name).exists(), "{name}: {error}");
        }
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "nothing half done is left");
    }
}
