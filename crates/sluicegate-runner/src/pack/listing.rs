use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use sluicegate_ports::trees::FileEntry;
use sluicegate_types::Digest;
use tar::EntryType;

use super::{
    PackError,
    archive_entries::each_entry,
    retarget::{broken, inside, not_ours},
};

/// Every regular file of an archive that this module wrote (a directory product), hard links as the files that they lead to, sorted by
/// path. More than `max_files` is an error. The reader is read to its end.
pub(crate) fn list_files(reader: impl Read, max_files: usize) -> Result<Vec<FileEntry>, PackError> {
    let mut files: BTreeMap<PathBuf, (Digest, u64, bool)> = BTreeMap::new();
    each_entry(reader, |entry| {
        let path = inside(Path::new(""), &entry.path_bytes())?;
        let file = match entry.header().entry_type() {
            EntryType::Directory | EntryType::Symlink => return Ok(()),
            EntryType::Regular => {
                let announced = entry.size();
                let executable = entry.header().mode().map_err(|error| broken(&error))? & 0o111 != 0;
                let (digest, size) = Digest::of_reader(entry).map_err(|error| broken(&error))?;
                if size != announced {
                    return Err(not_ours(&path, "it is cut"));
                }
                (digest, size, executable)
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().ok_or_else(|| not_ours(&path, "a link without a target"))?;
                let target = inside(Path::new(""), &target)?;
                *files.get(&target).ok_or_else(|| not_ours(&path, "a hard link to what is no file before it"))?
            }
            _ => return Err(not_ours(&path, "neither file, folder nor link")),
        };
        if files.len() == max_files {
            return Err(PackError::TooMany { limit: max_files as u64 });
        }
        if files.insert(path.clone(), file).is_some() {
            return Err(not_ours(&path, "it stands in the archive twice"));
        }
        Ok(())
    })?;
    let mut out: Vec<_> = files
        .into_iter()
        .map(|(path, (digest, size, executable))| FileEntry {
            path: readable(path.as_os_str()),
            digest,
            size,
            executable,
        })
        .collect();
    out.sort();
    Ok(out)
}

/// The path as text; where it is not UTF-8, its other bytes as `\xNN`, so that two files never get one name by being replaced alike.
pub(super) fn readable(path: &OsStr) -> String {
    let mut out = String::new();
    for chunk in path.as_bytes().utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::{
        super::{PackOptions, pack_directory},
        *,
    };

    fn entry(path: &str, bytes: &[u8]) -> FileEntry {
        FileEntry { path: path.to_owned(), digest: Digest::of(bytes), size: bytes.len() as u64, executable: false }
    }

    fn product() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("d/empty")).unwrap();
        fs::write(dir.path().join("d/f"), "content").unwrap();
        fs::hard_link(dir.path().join("d/f"), dir.path().join("e")).unwrap();
        fs::write(dir.path().join("d.txt"), "").unwrap();
        std::os::unix::fs::symlink("/abs", dir.path().join("l")).unwrap();
        fs::write(dir.path().join(OsStr::from_bytes(b"odd\xff")), "odd").unwrap();
        let mut out = Vec::new();
        pack_directory(dir.path(), &mut out, &PackOptions::fixed(7, 1000)).unwrap();
        out
    }

    #[test]
    fn every_file_is_listed_with_its_hash_and_a_hard_link_as_the_file_it_leads_to() {
        let found = list_files(&product()[..], 4).unwrap();
        let expected =
            [entry("d.txt", b""), entry("d/f", b"content"), entry("e", b"content"), entry("odd\\xff", b"odd")];
        assert_eq!(found, expected);
        let dir = tempfile::tempdir().unwrap();
        let mut empty = Vec::new();
        pack_directory(dir.path(), &mut empty, &PackOptions::fixed(7, 1000)).unwrap();
        assert_eq!(list_files(&empty[..], 4).unwrap(), []);
    }

    #[test]
    fn a_file_that_may_be_executed_is_listed_as_one_and_so_is_a_hard_link_to_it() {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode) in [("plain", 0o644), ("tool", 0o755)] {
            fs::write(dir.path().join(name), name).unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::hard_link(dir.path().join("tool"), dir.path().join("tool2")).unwrap();
        let mut packed = Vec::new();
        pack_directory(dir.path(), &mut packed, &PackOptions::fixed(7, 1000)).unwrap();
        let found = list_files(&packed[..], 9).unwrap();
        let found: Vec<_> = found.iter().map(|file| (file.path.as_str(), file.executable)).collect();
        assert_eq!(found, [("plain", false), ("tool", true), ("tool2", true)]);
    }

    #[test]
    fn the_limit_holds_at_n_and_fails_at_n_plus_1() {
        assert!(list_files(&product()[..], 4).is_ok());
        assert!(matches!(list_files(&product()[..], 3), Err(PackError::TooMany { limit: 3 })));
    }

    fn raw(entries: &[(&[u8], EntryType, &[u8])]) -> Vec<u8> {
        let mut tar = Vec::new();
        for (path, kind, link) in entries {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path);
            header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(0);
            header.set_mtime(0);
            header.set_cksum();
            tar.extend(header.as_bytes());
        }
        tar.extend([0; 1024]);
        tar
    }

    #[test]
    fn an_archive_that_is_none_of_ours_is_refused() {
        let good: (&[u8], EntryType, &[u8]) = (b"a", EntryType::Regular, b"");
        assert!(list_files(&raw(&[good, (b"b", EntryType::Link, b"a")])[..], 9).is_ok());
        for bad in [
            (&b"a"[..], EntryType::Regular, &b""[..]),
            (b"../out", EntryType::Regular, b""),
            (b"/abs", EntryType::Regular, b""),
            (b"b", EntryType::Link, b"c"),
            (b"b", EntryType::Link, b"/etc/passwd"),
            (b"b", EntryType::Char, b""),
            (b"b", EntryType::GNUSparse, b""),
        ] {
            let name = String::from_utf8_lossy(bad.0).into_owned();
            assert!(list_files(&raw(&[good, bad])[..], 9).is_err(), "{name} {:?}", bad.1);
        }
        let whole = raw(&[good]);
        assert!(list_files(&whole[..300], 9).is_err());
    }

    #[test]
    fn a_file_that_is_cut_is_an_error() {
        let whole = product();
        let at = whole.windows(7).position(|bytes| bytes == b"content").unwrap();
        assert!(list_files(&whole[..at + 3], 9).is_err());
    }
}
