//! A log elsewhere, read: its checkpoint, its tiles, proofs made of them, and all of it compared with what is signed (C2SP tlog-tiles).

use std::{
    cell::RefCell,
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use sluicegate_outbound::Outbound;
use sluicegate_ports::sign::SignError;
use sluicegate_types::{Digest, LogUrl};
use tlog_tiles::{Hash, HashReader, node_hash, prove_record, record_hash, split_stored_hash_index};

use crate::{
    checkpoint::{Checkpoint, NOTE_LIMIT},
    log_http::{Failed, LogHttp, RemoteLimits},
    tiles::{self, BUNDLE_LIMIT, Row, Tile, WIDTH},
    tree::Tree,
    trust_root::LogPublic,
};

/// Entries of a log that is read whole: half a gigabyte of memory.
const READ_WHOLE_LIMIT: u64 = 4 * 1024 * 1024;
/// Bytes of a full tile of hashes.
const HASHES_LIMIT: u64 = WIDTH * 32;

/// Where a log's checkpoint and tiles are read.
#[derive(Debug)]
pub struct RemoteLog {
    pub(crate) http: Arc<LogHttp>,
    url: LogUrl,
}

impl RemoteLog {
    /// The log that is read at `url`. Nothing is asked yet. [`SignError::Settings`] if this machine's settings lead to no server.
    pub fn new(url: LogUrl, outbound: Arc<Outbound>, limits: RemoteLimits) -> Result<Self, SignError> {
        Ok(Self { http: Arc::new(LogHttp::new(&url, outbound, limits)?), url })
    }

    /// Reads the whole log, every entry and every tile that its newest checkpoint covers, and returns which of `logs` it is, its size and
    /// its root. [`SignError::Unproved`] if anything is not what was signed, [`SignError::Remote`] if anything is missing.
    pub fn check(&self, logs: &[LogPublic]) -> Result<(String, u64, Digest), SignError> {
        let (log, checkpoint) = self.checkpoint_of(logs)?;
        if checkpoint.size > READ_WHOLE_LIMIT {
            let words =
                format!("{} entries, and at most {READ_WHOLE_LIMIT} are read whole in this version", checkpoint.size);
            return Err(self.remote(words));
        }
        let mut tree = Tree::default();
        let planned = tiles::grown(0, checkpoint.size);
        for tile in planned.iter().filter(|tile| tile.row == Row::Entries) {
            for entry in self.entries(tile)? {
                tree.push(record_hash(&entry)).map_err(|reason| self.unproved(reason))?;
            }
        }
        let root = tree.root().map_err(|reason| self.unproved(reason))?;
        for tile in planned.iter().filter(|tile| tile.row != Row::Entries) {
            let Some(hashes) = self.hashes_if_any(tile)? else {
                // They were computed from what is below anyway.
                if tile.row != Row::Hashes(0) && tile.width < WIDTH {
                    continue;
                }
                return Err(self.missing(tile));
            };
            if hashes != tree.tile(tile).map_err(|reason| self.unproved(reason))? {
                let entries = Tile { row: Row::Entries, ..*tile }.path();
                return Err(self.unproved(match tile.row {
                    Row::Hashes(0) if root != checkpoint.root => {
                        format!("{entries} and {} do not belong together", tile.path())
                    }
                    _ => format!("{} is not what the log signed", tile.path()),
                }));
            }
        }
        if root != checkpoint.root {
            let words = format!("its {} entries do not have the root that its checkpoint signs", checkpoint.size);
            return Err(self.unproved(words));
        }
        Ok((log.origin.clone(), checkpoint.size, Digest::from_bytes(root.0)))
    }

    /// The newest checkpoint, and which of `logs` signed it.
    pub(crate) fn checkpoint_of<'a>(&self, logs: &'a [LogPublic]) -> Result<(&'a LogPublic, Checkpoint), SignError> {
        self.checkpoint_if_any(logs)?.ok_or_else(|| self.remote("it has no checkpoint at /api/v2/checkpoint"))
    }

    /// The same; `None` if the server has no checkpoint.
    pub(crate) fn checkpoint_if_any<'a>(
        &self,
        logs: &'a [LogPublic],
    ) -> Result<Option<(&'a LogPublic, Checkpoint)>, SignError> {
        let Some(note) = self.note()? else { return Ok(None) };
        let log = self.author(&note, logs)?;
        Ok(Some((log, Checkpoint::verify(&note, log).map_err(|reason| self.unproved(reason))?)))
    }

    /// Which of `logs` a note says it is of.
    fn author<'a>(&self, note: &str, logs: &'a [LogPublic]) -> Result<&'a LogPublic, SignError> {
        let origin: String = note.lines().next().unwrap_or_default().chars().take(64).collect();
        let names = || logs.iter().map(|log| log.origin.as_str()).collect::<Vec<_>>().join(", ");
        logs.iter().find(|log| log.origin == origin).ok_or_else(|| SignError::Stranger {
            url: self.url.to_string(),
            reason: format!("its checkpoint is of {origin:?}, and those with an Ed25519 key are {}", names()),
        })
    }

    /// The newest checkpoint, unverified; `None` if the server has none.
    fn note(&self) -> Result<Option<String>, SignError> {
        let url = self.url.join("/api/v2/checkpoint");
        let answer = self.http.get(&url, NOTE_LIMIT).map_err(|failed| self.remote(failed.reason))?;
        match answer.status {
            200 => {
                let text = String::from_utf8(answer.body).ok().filter(|text| text.contains("\n\n\u{2014} "));
                text.map(Some).ok_or_else(|| self.remote(format!("GET {url}: what is there is no checkpoint")))
            }
            404 | 405 | 501 => Ok(None),
            _ => Err(self.remote(format!("GET {url}: {}", answer.said()))),
        }
    }

    /// The newest checkpoint of `log` that covers `index`; a cache may give an older one for a while.
    fn covering(&self, index: u64, log: &LogPublic) -> Result<Checkpoint, SignError> {
        let mut wrong = None;
        let found = self.http.again_and_again(|_| match self.checkpoint_of(std::slice::from_ref(log)) {
            Ok((_, checkpoint)) if checkpoint.size > index => Ok(checkpoint),
            Ok((_, checkpoint)) => Err(Failed::for_now(format!(
                "entry {index} is said to be there already, and the checkpoint has {} entries",
                checkpoint.size
            ))),
            Err(error) => {
                wrong = Some(error);
                Err(Failed::for_good(""))
            }
        });
        found.map_err(|failed| wrong.unwrap_or_else(|| self.remote(failed.reason)))
    }

    /// What stands at `index`, with hashes that lead to a signed checkpoint's root. They are not compared with it here.
    pub(crate) fn entry(&self, index: u64, log: &LogPublic) -> Result<(Vec<u8>, Vec<Hash>, Checkpoint), SignError> {
        let checkpoint = self.covering(index, log)?;
        let size = checkpoint.size;
        let tile =
            tiles::widest(Row::Entries, index / WIDTH, size).ok_or_else(|| self.remote("no tile has the entry"))?;
        let place = usize::try_from(index % WIDTH).unwrap_or(usize::MAX);
        let body = self.entries(&tile)?.into_iter().nth(place).ok_or_else(|| self.remote("no tile has the entry"))?;
        let reader = Reader { log: self, size, read: RefCell::default(), failed: RefCell::default() };
        let proof = prove_record(size, index, &reader);
        let failed = reader.failed.into_inner();
        let proof = proof.map_err(|error| failed.unwrap_or_else(|| self.unproved(error.to_string())))?;
        Ok((body, proof, checkpoint))
    }

    /// The entries of a tile.
    fn entries(&self, tile: &Tile) -> Result<Vec<Vec<u8>>, SignError> {
        self.cut(tile, BUNDLE_LIMIT, tiles::unbundle)?.ok_or_else(|| self.missing(tile))
    }

    /// The hashes of a tile. One that is not full may be gone, and the full one not there yet: each hash of an upper row is the root of a
    /// full tile below.
    fn hashes(&self, tile: &Tile) -> Result<Vec<Hash>, SignError> {
        match (self.hashes_if_any(tile)?, tile.row) {
            (Some(hashes), _) => Ok(hashes),
            (None, Row::Hashes(row @ 1..)) if tile.width < WIDTH => {
                let below = |number| Tile { row: Row::Hashes(row - 1), number, width: WIDTH };
                let numbers = tile.first()..tile.first() + tile.width;
                numbers.map(|number| self.hashes(&below(number)).and_then(|hashes| self.root_over(hashes))).collect()
            }
            _ => Err(self.missing(tile)),
        }
    }

    fn hashes_if_any(&self, tile: &Tile) -> Result<Option<Vec<Hash>>, SignError> {
        self.cut(tile, HASHES_LIMIT, tiles::hashes_of)
    }

    /// The root over a power of two of hashes.
    fn root_over(&self, mut hashes: Vec<Hash>) -> Result<Hash, SignError> {
        while let [_, _, ..] = hashes.as_slice() {
            hashes = hashes.chunks_exact(2).map(|pair| node_hash(pair[0], pair[1])).collect();
        }
        hashes.first().copied().ok_or_else(|| self.unproved("a tile has no hashes"))
    }

    /// What a tile holds, if there is one. A partial one may be gone once the full one is there: that is asked for then, and cut
    /// (tlog-tiles).
    fn cut<T>(
        &self,
        tile: &Tile,
        limit: u64,
        parse: impl Fn(&[u8], u64) -> Option<Vec<T>>,
    ) -> Result<Option<Vec<T>>, SignError> {
        for form in forms(tile) {
            let url = self.url.join(&format!("/api/v2/{}", form.path()));
            let answer = self.http.get(&url, limit).map_err(|failed| self.remote(failed.reason))?;
            match answer.status {
                200 => {
                    let mut found = parse(&answer.body, form.width)
                        .ok_or_else(|| self.unproved(format!("{} does not hold what its name says", form.path())))?;
                    found.truncate(usize::try_from(tile.width).unwrap_or(usize::MAX));
                    return Ok(Some(found));
                }
                404 | 410 => {}
                _ => return Err(self.remote(format!("GET {url}: {}", answer.said()))),
            }
        }
        Ok(None)
    }

    fn missing(&self, tile: &Tile) -> SignError {
        let names: Vec<_> = forms(tile).iter().map(Tile::path).collect();
        self.remote(format!("its checkpoint covers {}, and the server has no such tile", names.join(" or ")))
    }

    pub(crate) fn remote(&self, reason: impl Into<String>) -> SignError {
        SignError::Remote { url: self.url.to_string(), reason: reason.into() }
    }

    pub(crate) fn unproved(&self, reason: impl Into<String>) -> SignError {
        SignError::Unproved { url: self.url.to_string(), reason: reason.into() }
    }
}

/// The tile, and the full one that takes its place once there is one.
fn forms(tile: &Tile) -> Vec<Tile> {
    let full = Tile { width: WIDTH, ..*tile };
    if *tile == full { vec![full] } else { vec![*tile, full] }
}

/// The hashes of a tree of this size, taken out of tiles as they are asked for.
struct Reader<'a> {
    log: &'a RemoteLog,
    size: u64,
    read: RefCell<BTreeMap<(u32, u64), Vec<Hash>>>,
    failed: RefCell<Option<SignError>>,
}

impl Reader<'_> {
    fn hash(&self, index: u64) -> Result<Hash, SignError> {
        let absent = || self.log.unproved("no tile has a hash that its proofs need");
        let (level, number) = split_stored_hash_index(index);
        let (row, below) = (u32::from(level) / 8, u32::from(level) % 8);
        // The hash is the root over so many hashes of one tile.
        let first = number.checked_shl(below).ok_or_else(absent)?;
        let tile = tiles::widest(Row::Hashes(row), first / WIDTH, self.size).ok_or_else(absent)?;
        let mut read = self.read.borrow_mut();
        let hashes = match read.entry((row, tile.number)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(self.log.hashes(&tile)?),
        };
        let from = usize::try_from(first % WIDTH).map_err(|_| absent())?;
        let under = hashes.get(from..from + (1 << below)).ok_or_else(absent)?;
        self.log.root_over(under.to_vec())
    }
}

impl HashReader for Reader<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let hash = |index: &u64| {
            self.hash(*index).map_err(|error| {
                *self.failed.borrow_mut() = Some(error);
                tlog_tiles::Error::IndexesNotInTree
            })
        };
        indexes.iter().map(hash).collect()
    }
}
