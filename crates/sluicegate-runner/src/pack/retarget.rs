use std::{
    borrow::Cow,
    ffi::OsStr,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use tar::{Archive, Entry, EntryType};

use super::{
    LayerWriter, MAX_DEPTH, PackError,
    layer_writer::{Attributes, Body},
};
use crate::metered::{Meter, Metered};

/// What is put somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    Folder,
    Link,
    File,
}

/// Decides where the entries of an archive go.
pub(super) trait Placing<W: Write> {
    /// Where an entry goes that is asked for at `path`; `None` if it is there already.
    fn place(&mut self, writer: &mut LayerWriter<W>, path: &Path, kind: Placed) -> Result<Option<PathBuf>, PackError>;

    /// Where an entry went that was asked for at `path`.
    fn placed(&self, path: PathBuf) -> PathBuf;
}

/// Everything goes where it is asked for.
pub(super) struct AsAsked;

impl<W: Write> Placing<W> for AsAsked {
    fn place(&mut self, _: &mut LayerWriter<W>, path: &Path, _: Placed) -> Result<Option<PathBuf>, PackError> {
        Ok(Some(path.to_owned()))
    }

    fn placed(&self, path: PathBuf) -> PathBuf {
        path
    }
}

/// Adds every entry of an archive below `prefix`.
pub(super) fn add_tar<W: Write>(
    writer: &mut LayerWriter<W>,
    prefix: &Path,
    reader: impl Read,
    placing: &mut dyn Placing<W>,
) -> Result<(), PackError> {
    let (metered, meter) = Metered::new(reader);
    let mut archive = Archive::new(metered);
    add_entries(writer, prefix, &mut archive, &meter, placing)?;
    // The padding after the end marker belongs to the content's digest, which the reader may be checking.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop).map_err(|error| broken(&error))
}

fn add_entries<W: Write, R: Read>(
    writer: &mut LayerWriter<W>,
    prefix: &Path,
    archive: &mut Archive<Metered<R>>,
    meter: &Meter,
    placing: &mut dyn Placing<W>,
) -> Result<(), PackError> {
    let mut entries = archive.entries().map_err(|error| broken(&error))?;
    loop {
        meter.begin_headers();
        let entry = entries.next();
        meter.begin_content();
        let Some(entry) = entry else { return Ok(()) };
        let mut entry = entry.map_err(|error| broken(&error))?;
        add_entry(writer, prefix, &mut entry, placing)?;
        io::copy(&mut entry, &mut io::sink()).map_err(|error| broken(&error))?;
    }
}

fn add_entry<W: Write, R: Read>(
    writer: &mut LayerWriter<W>,
    prefix: &Path,
    entry: &mut Entry<'_, R>,
    placing: &mut dyn Placing<W>,
) -> Result<(), PackError> {
    let path = inside(prefix, &entry.path_bytes())?;
    let header = entry.header().clone();
    let mut attributes = Attributes {
        mode: header.mode().map_err(|error| broken(&error))? & 0o7777,
        mtime: header.mtime().map_err(|error| broken(&error))?,
        capability: None,
    };
    if let Some(records) = entry.pax_extensions().map_err(|error| broken(&error))? {
        for record in records {
            let record = record.map_err(|error| broken(&error))?;
            if record.key_bytes() == b"SCHILY.xattr.security.capability" {
                attributes.capability = Some(record.value_bytes().to_vec());
            }
        }
    }
    let target =
        || entry.link_name_bytes().map(Cow::into_owned).ok_or_else(|| not_ours(&path, "a link without a target"));
    let kind = match header.entry_type() {
        EntryType::Directory => Placed::Folder,
        EntryType::Symlink => Placed::Link,
        _ => Placed::File,
    };
    let Some(at) = placing.place(writer, &path, kind)? else { return Ok(()) };
    match header.entry_type() {
        EntryType::Directory => writer.add(&at, &attributes, Body::Directory),
        EntryType::Regular => {
            let size = entry.size();
            writer.add(&at, &attributes, Body::File { reader: entry, size })
        }
        EntryType::Symlink => {
            let target = target()?;
            writer.add(&at, &attributes, Body::Symlink(Path::new(OsStr::from_bytes(&target))))
        }
        EntryType::Link => {
            let target = inside(prefix, &target()?)?;
            if target >= path {
                return Err(not_ours(&path, "a hard link to what comes later"));
            }
            writer.add(&at, &attributes, Body::HardLink(&placing.placed(target)))
        }
        _ => Err(not_ours(&path, "neither file, folder nor link")),
    }
}

pub(super) fn inside(prefix: &Path, name: &[u8]) -> Result<PathBuf, PackError> {
    let name = Path::new(OsStr::from_bytes(name));
    let refuse = |reason| Err(PackError::Path { path: name.to_owned(), reason });
    if name.as_os_str().is_empty() {
        return refuse("an entry needs a name");
    }
    if name.components().any(|component| !matches!(component, Component::Normal(_))) {
        return refuse("a path inside an archive is relative, without . and ..");
    }
    if name.components().count() > MAX_DEPTH + 1 {
        return refuse("more than 64 folders below each other");
    }
    Ok(prefix.components().chain(name.components()).collect())
}

pub(super) fn broken(error: &io::Error) -> PackError {
    PackError::Archive { reason: error.to_string() }
}

pub(super) fn not_ours(path: &Path, reason: &str) -> PackError {
    PackError::Archive { reason: format!("{path:?}: {reason}") }
}

#[cfg(test)]
mod tests {
    use super::{super::PackOptions, *};

    fn product() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/f"), "content").unwrap();
        std::fs::hard_link(dir.path().join("d/f"), dir.path().join("e")).unwrap();
        std::os::unix::fs::symlink("/abs", dir.path().join("l")).unwrap();
        let mut out = Vec::new();
        super::super::pack_directory(dir.path(), &mut out, &PackOptions::fixed(7, 1000)).unwrap();
        out
    }

    fn raw(path: &[u8], kind: EntryType, link: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(0);
        header.set_mtime(0);
        header.set_cksum();
        let mut tar = header.as_bytes().to_vec();
        tar.extend([0; 1024]);
        tar
    }

    fn add(tar: &[u8]) -> Result<Vec<u8>, PackError> {
        let mut layer = LayerWriter::new(Vec::new(), &PackOptions::fixed(7, 1000));
        layer.add_directory(Path::new("opt"), 0o755)?;
        layer.add_directory(Path::new("opt/app"), 0o755)?;
        layer.add_tar(Path::new("opt/app"), tar)?;
        layer.finish().map(|(out, _)| out)
    }

    #[test]
    fn a_product_moves_under_its_prefix_with_its_hard_links() {
        let out = add(&product()).unwrap();
        let names: Vec<_> = Archive::new(&out[..])
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let link = entry.link_name_bytes().unwrap_or_default().into_owned();
                format!("{} {}", String::from_utf8_lossy(&entry.path_bytes()), String::from_utf8_lossy(&link))
            })
            .collect();
        let expected = ["opt/ ", "opt/app/ ", "opt/app/d/ ", "opt/app/d/f ", "opt/app/e opt/app/d/f", "opt/app/l /abs"];
        assert_eq!(names, expected);
    }

    #[test]
    fn entries_that_would_leave_the_prefix_are_refused() {
        assert!(add(&raw(b"ok", EntryType::Regular, b"")).is_ok());
        for (path, kind, link) in [
            (&b"../out"[..], EntryType::Regular, &b""[..]),
            (b"/abs", EntryType::Regular, b""),
            (b"a/../../out", EntryType::Regular, b""),
            (b"link", EntryType::Link, b"../../etc/passwd"),
            (b"link", EntryType::Link, b"/etc/passwd"),
            (b"device", EntryType::Char, b""),
            (b".wh.x", EntryType::Regular, b""),
        ] {
            assert!(add(&raw(path, kind, link)).is_err(), "{}", String::from_utf8_lossy(path));
        }
    }

    #[test]
    fn a_cut_archive_is_an_error() {
        let whole = product();
        assert!(add(&whole).is_ok());
        let cut = whole.iter().position(|byte| *byte == b'c').map(|_| whole.len() - 3 * 512 - 1024 - 500).unwrap();
        assert!(add(&whole[..cut]).is_err());
    }
}
