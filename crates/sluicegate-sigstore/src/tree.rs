//! The Merkle tree in memory (RFC 6962): every stored hash, and where each leaf stands.

use std::collections::HashMap;

use tlog_tiles::{
    EMPTY_HASH, Error, Hash, HashReader, stored_hash_count, stored_hash_index, stored_hashes_for_record_hash, tree_hash,
};

use crate::tiles::{Row, Tile};

/// A tree of leaf hashes.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    size: u64,
    /// In the order of [`stored_hash_index`].
    hashes: Vec<Hash>,
    places: HashMap<[u8; 32], u64>,
}

impl Tree {
    /// Leaves.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The root; that of no leaves is SHA-256 of nothing.
    pub(crate) fn root(&self) -> Result<Hash, String> {
        if self.size == 0 {
            return Ok(EMPTY_HASH);
        }
        tree_hash(self.size, self).map_err(|error| error.to_string())
    }

    /// Appends a leaf.
    pub(crate) fn push(&mut self, leaf: Hash) -> Result<(), String> {
        let added = stored_hashes_for_record_hash(self.size, leaf, self).map_err(|error| error.to_string())?;
        self.hashes.extend(added);
        // The first place counts: a log made elsewhere may hold a body twice.
        self.places.entry(leaf.0).or_insert(self.size);
        self.size += 1;
        Ok(())
    }

    /// Forgets every leaf from `size` on.
    pub(crate) fn truncate(&mut self, size: u64) {
        if size >= self.size {
            return;
        }
        self.size = size;
        self.hashes.truncate(usize::try_from(stored_hash_count(size)).unwrap_or(usize::MAX));
        self.places.retain(|_, place| *place < size);
    }

    /// Where this leaf stands first.
    pub(crate) fn find(&self, leaf: &Hash) -> Option<u64> {
        self.places.get(&leaf.0).copied()
    }

    /// The hashes that belong into `tile`; for a bundle of entries, their leaf hashes.
    pub(crate) fn tile(&self, tile: &Tile) -> Result<Vec<Hash>, String> {
        let level = match tile.row {
            Row::Entries => 0,
            Row::Hashes(level) => u8::try_from(8 * level).map_err(|error| error.to_string())?,
        };
        let indexes: Vec<u64> =
            (tile.first()..tile.first() + tile.width).map(|number| stored_hash_index(level, number)).collect();
        self.read_hashes(&indexes).map_err(|error| error.to_string())
    }
}

impl HashReader for Tree {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        let hash = |index: &u64| usize::try_from(*index).ok().and_then(|index| self.hashes.get(index)).copied();
        indexes.iter().map(|index| hash(index).ok_or(Error::IndexesNotInTree)).collect()
    }
}

#[cfg(test)]
mod tests {
    use tlog_tiles::record_hash;

    use super::*;

    /// RFC 6962 section 2.1, written down as it is read there.
    fn by_the_book(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => EMPTY_HASH,
            [one] => *one,
            many => {
                let half = 1 << (usize::BITS - 1 - (many.len() - 1).leading_zeros());
                tlog_tiles::node_hash(by_the_book(&many[..half]), by_the_book(&many[half..]))
            }
        }
    }

    #[test]
    fn the_root_is_the_one_of_rfc_6962_before_and_after_going_back() {
        let leaves: Vec<Hash> = (0..600_u32).map(|number| record_hash(&number.to_be_bytes())).collect();
        let mut tree = Tree::default();
        assert!(tree.root().unwrap() == EMPTY_HASH);
        for (count, leaf) in leaves.iter().enumerate() {
            tree.push(*leaf).unwrap();
            assert!(tree.root().unwrap() == by_the_book(&leaves[..=count]), "{count}");
            assert_eq!(tree.find(leaf), Some(count as u64));
        }
        tree.truncate(300);
        assert!(tree.size() == 300 && tree.root().unwrap() == by_the_book(&leaves[..300]));
        assert_eq!((tree.find(&leaves[299]), tree.find(&leaves[300])), (Some(299), None));
        tree.push(leaves[300]).unwrap();
        assert!(tree.root().unwrap() == by_the_book(&leaves[..301]));
        tree.truncate(0);
        assert!(tree.root().unwrap() == EMPTY_HASH);
    }
}
