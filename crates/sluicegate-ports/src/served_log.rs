//! A transparency log as others see it through a server: appended to in groups, read as checkpoint and tiles (C2SP tlog-tiles).

use sluicegate_attestation::bundle::LogEntry;

use crate::sign::SignError;

/// A log that a server gives to others.
pub trait ServedLog: Send + Sync {
    /// Appends these canonical `hashedrekord` 0.0.2 bodies under one checkpoint and says of each whether this call added it. A body that
    /// is there already, also because it stands earlier in `bodies`, is not added again: its present place is returned. All of it is
    /// durable when this returns.
    fn append_new(&self, bodies: &[Vec<u8>]) -> Result<Vec<Placed>, SignError>;

    /// The newest signed checkpoint. Waits for no writer.
    fn checkpoint(&self) -> Result<String, SignError>;

    /// The bytes of a tile that the newest checkpoint covers, `None` if it covers no such tile; a partial one that is narrower than what
    /// there is now is cut from it. Waits for no writer.
    fn tile(&self, name: TileName) -> Result<Option<Vec<u8>>, SignError>;
}

/// An entry in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The entry, with its proof.
    pub entry: LogEntry,
    /// Whether the append that returned it added it.
    pub is_new: bool,
}

/// Which tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileName {
    /// Its row.
    pub row: TileRow,
    /// Its number in the row.
    pub number: u64,
    /// How many hashes or entries it is to hold, 1 to 256; 256 is a full tile.
    pub width: u16,
}

/// A row of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileRow {
    /// Hashes of complete subtrees of `256^level` entries.
    Hashes(u8),
    /// The entries themselves.
    Entries,
}
