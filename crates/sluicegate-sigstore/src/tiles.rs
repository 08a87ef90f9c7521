//! Tiles on disk (C2SP tlog-tiles): which tile holds what, where it lies, and how entry bundles are read and written.

use std::{
    collections::BTreeSet,
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tlog_tiles::{HASH_SIZE, Hash};

/// Hashes or entries in a full tile.
pub(crate) const WIDTH: u64 = 256;
/// Bytes of one entry: its length is a 16-bit number in the bundle.
pub(crate) const ENTRY_LIMIT: usize = u16::MAX as usize;
const HEIGHT: u32 = 8;
/// Bytes of a full bundle of entries.
pub(crate) const BUNDLE_LIMIT: u64 = WIDTH * (2 + ENTRY_LIMIT as u64);

/// A tile of a tree of some size: a full one, or the partial one at the right edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    /// What it holds.
    pub(crate) row: Row,
    /// Its number in the row.
    pub(crate) number: u64,
    /// How many hashes or entries it holds, 1 to 256.
    pub(crate) width: u64,
}

/// A row of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// Hashes of complete subtrees of `256^level` entries.
    Hashes(u32),
    /// The entries themselves.
    Entries,
}

impl Tile {
    /// Where it lies below the log's folder: `tile/LEVEL/NUMBER` or `tile/entries/NUMBER`, partial ones with `.p/WIDTH`.
    pub(crate) fn path(&self) -> String {
        let partial = if self.width == WIDTH { String::new() } else { format!(".p/{}", self.width) };
        format!("{}{partial}", self.full_path())
    }

    /// The folder of the partial forms of this tile.
    pub(crate) fn partials(&self) -> String {
        format!("{}.p", self.full_path())
    }

    /// The number of its first hash or entry in the row.
    pub(crate) fn first(&self) -> u64 {
        self.number * WIDTH
    }

    fn full_path(&self) -> String {
        // 1234067 is written x001/x234/067.
        let mut number = format!("{:03}", self.number % 1000);
        let mut rest = self.number / 1000;
        while rest > 0 {
            number = format!("x{:03}/{number}", rest % 1000);
            rest /= 1000;
        }
        match self.row {
            Row::Hashes(level) => format!("tile/{level}/{number}"),
            Row::Entries => format!("tile/entries/{number}"),
        }
    }
}

/// The tiles which a tree of `to` entries has and one of `from` entries has not, or not as wide: entries first, then level by level.
pub(crate) fn grown(from: u64, to: u64) -> Vec<Tile> {
    rows(to).flat_map(|(row, shift)| tiles(row, from >> shift, to >> shift)).collect()
}

/// The last tile of every row: together they determine the root.
pub(crate) fn right_edge(size: u64) -> Vec<Tile> {
    rows(size).flat_map(|(row, shift)| tiles(row, (size >> shift).saturating_sub(1), size >> shift)).collect()
}

/// The tile with this place, as wide as a tree of `size` entries has it; `None` if it has none there.
pub(crate) fn widest(row: Row, number: u64, size: u64) -> Option<Tile> {
    let count = match row {
        Row::Entries => size,
        Row::Hashes(level) => HEIGHT.checked_mul(level).and_then(|shift| size.checked_shr(shift))?,
    };
    let width = count.checked_sub(number.checked_mul(WIDTH)?)?.min(WIDTH);
    (width > 0).then_some(Tile { row, number, width })
}

fn rows(size: u64) -> impl Iterator<Item = (Row, u32)> {
    let levels = (0..u64::BITS / HEIGHT).filter(move |level| size >> (HEIGHT * level) > 0);
    std::iter::once((Row::Entries, 0)).chain(levels.map(|level| (Row::Hashes(level), HEIGHT * level)))
}

fn tiles(row: Row, from: u64, to: u64) -> impl Iterator<Item = Tile> {
    let numbers = if from < to { from / WIDTH..to.div_ceil(WIDTH) } else { 0..0 };
    numbers.map(move |number| Tile { row, number, width: WIDTH.min(to - number * WIDTH) })
}

/// The bytes of a bundle of these entries.
pub(crate) fn bundle(entries: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for entry in entries {
        let length = u16::try_from(entry.len()).map_err(|_| too_long(entry.len()))?;
        bytes.extend(length.to_be_bytes());
        bytes.extend(entry);
    }
    Ok(bytes)
}

/// The words for an entry beyond [`ENTRY_LIMIT`].
pub(crate) fn too_long(length: usize) -> String {
    format!("an entry of {length} bytes: at most {ENTRY_LIMIT} fit")
}

/// Exactly `width` entries and nothing after them.
pub(crate) fn unbundle(mut bytes: &[u8], width: u64) -> Option<Vec<Vec<u8>>> {
    let mut entries = Vec::new();
    for _ in 0..width {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        entries.push(entry.to_vec());
        bytes = rest;
    }
    bytes.is_empty().then_some(entries)
}

/// Reads a bundle of entries; an error says which file and why.
pub(crate) fn read_entries(folder: &Path, tile: &Tile) -> Result<Vec<Vec<u8>>, String> {
    let bytes = read_bounded(&folder.join(tile.path()), BUNDLE_LIMIT).map_err(|error| unreadable(tile, &error))?;
    unbundle(&bytes, tile.width).ok_or_else(|| format!("{} does not hold {} entries", tile.path(), tile.width))
}

/// Reads a tile of hashes; an error says which file and why.
pub(crate) fn read_hashes(folder: &Path, tile: &Tile) -> Result<Vec<Hash>, String> {
    let bytes =
        read_bounded(&folder.join(tile.path()), WIDTH * HASH_SIZE as u64).map_err(|error| unreadable(tile, &error))?;
    hashes_of(&bytes, tile.width).ok_or_else(|| format!("{} does not hold {} hashes", tile.path(), tile.width))
}

/// Exactly `width` hashes and nothing after them.
pub(crate) fn hashes_of(bytes: &[u8], width: u64) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<HASH_SIZE>();
    (rest.is_empty() && hashes.len() as u64 == width).then(|| hashes.iter().copied().map(Hash).collect())
}

/// Reads the bytes of the first `width` hashes or entries of a tile; an error says which file and why.
pub(crate) fn read_prefix(folder: &Path, tile: &Tile, width: u64) -> Result<Vec<u8>, String> {
    match tile.row {
        Row::Entries => {
            let mut entries = read_entries(folder, tile)?;
            entries.truncate(usize::try_from(width).map_err(|error| error.to_string())?);
            bundle(&entries)
        }
        Row::Hashes(_) => {
            let hashes = read_hashes(folder, tile)?;
            Ok((0..width).zip(hashes).flat_map(|(_, hash)| hash.0).collect())
        }
    }
}

fn unreadable(tile: &Tile, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{} is missing", tile.path()),
        _ => format!("{} cannot be read: {error}", tile.path()),
    }
}

/// The whole file if it is at most `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// Writes files whole or not at all; they are durable after [`Writer::sync`].
pub(crate) struct Writer<'a> {
    root: &'a Path,
    /// Folders whose own names are durable already, from the root on.
    known: &'a BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

impl<'a> Writer<'a> {
    /// A writer below `root`, which exists. The names of `known` folders were made durable by this process before.
    pub(crate) fn new(root: &'a Path, known: &'a BTreeSet<PathBuf>) -> Self {
        Self { root, known, folders: BTreeSet::new() }
    }

    /// Writes `bytes` under a temporary name, syncs and renames; another file of that name is replaced.
    pub(crate) fn write(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.root.join(path);
        let folder = path.parent().unwrap_or(self.root);
        fs::create_dir_all(folder)?;
        let mut file =
            tempfile::Builder::new().prefix(".new-").permissions(Permissions::from_mode(0o644)).tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_data()?;
        file.persist(&path).map_err(|error| error.error)?;
        // With it every folder up to the root, unless this process did that before: one that a crashed process made may not be durable yet.
        let depth = if self.known.contains(folder) { 1 } else { usize::MAX };
        let above = folder.ancestors().take(depth).take_while(|above| above.starts_with(self.root));
        self.folders.extend(above.map(Path::to_owned));
        Ok(())
    }

    /// Makes the names durable, and returns the folders whose own names are durable by that.
    pub(crate) fn sync(self) -> io::Result<BTreeSet<PathBuf>> {
        self.folders.iter().try_for_each(|folder| File::open(folder)?.sync_all())?;
        Ok(self.folders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(tiles: &[Tile]) -> Vec<String> {
        tiles.iter().map(Tile::path).collect()
    }

    #[test]
    fn tiles_lie_where_c2sp_says() {
        let path = |row, number, width| Tile { row, number, width }.path();
        assert_eq!(path(Row::Hashes(0), 0, 256), "tile/0/000");
        assert_eq!(path(Row::Hashes(1), 5, 112), "tile/1/005.p/112");
        assert_eq!(path(Row::Entries, 999, 1), "tile/entries/999.p/1");
        assert_eq!(path(Row::Entries, 1000, 256), "tile/entries/x001/000");
        assert_eq!(path(Row::Hashes(2), 1_234_067, 256), "tile/2/x001/x234/067");
    }

    #[test]
    fn a_growing_tree_writes_what_changed() {
        assert_eq!(paths(&grown(0, 0)), [""; 0]);
        assert_eq!(paths(&grown(0, 1)), ["tile/entries/000.p/1", "tile/0/000.p/1"]);
        assert_eq!(paths(&grown(255, 256)), ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]);
        assert_eq!(paths(&grown(256, 257)), ["tile/entries/001.p/1", "tile/0/001.p/1"]);
        assert_eq!(
            paths(&grown(200, 600)),
            [
                "tile/entries/000",
                "tile/entries/001",
                "tile/entries/002.p/88",
                "tile/0/000",
                "tile/0/001",
                "tile/0/002.p/88",
                "tile/1/000.p/2"
            ]
        );
        assert_eq!(paths(&right_edge(600)), ["tile/entries/002.p/88", "tile/0/002.p/88", "tile/1/000.p/2"]);
        assert_eq!(paths(&right_edge(65_536)).last().unwrap(), "tile/2/000.p/1");
        // tlog-tiles' own example: a tree of 70 000 entries.
        assert!(paths(&grown(0, 70_000)).contains(&"tile/0/273.p/112".to_owned()));
        assert!(paths(&grown(0, 70_000)).contains(&"tile/1/001.p/17".to_owned()));
        assert!(paths(&grown(0, 70_000)).contains(&"tile/2/000.p/1".to_owned()));
    }

    #[test]
    fn bundles_hold_exactly_their_entries() {
        let entries = vec![b"one".to_vec(), Vec::new(), vec![7; ENTRY_LIMIT]];
        let bytes = bundle(&entries).unwrap();
        assert_eq!(unbundle(&bytes, 3), Some(entries));
        assert_eq!(unbundle(&bytes, 2), None);
        assert_eq!(unbundle(&bytes, 4), None);
        assert_eq!(unbundle(&bytes[..bytes.len() - 1], 3), None);
        assert!(bundle(&[vec![7; ENTRY_LIMIT + 1]]).unwrap_err().contains("65536 bytes"));
    }
}
