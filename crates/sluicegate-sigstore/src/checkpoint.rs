//! Checkpoints: signed notes that name a tree's size and root (C2SP tlog-checkpoint, signed-note).

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::signature::{ED25519, UnparsedPublicKey};
use sluicegate_types::Hasher;
use tlog_tiles::Hash;

use crate::{keys::LogKey, trust_root::LogPublic};

/// Bytes of a checkpoint file that are read.
pub(crate) const NOTE_LIMIT: u64 = 64 * 1024;
const SIGNATURE_LINES: usize = 32;
/// Far beyond what an embedded log holds; it keeps every computed index inside 64 bits.
const MAX_SIZE: u64 = 1 << 40;
const ED25519_KIND: u8 = 0x01;

/// A checkpoint whose signature was made or verified here.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    /// Entries.
    pub(crate) size: u64,
    /// The Merkle root over them.
    pub(crate) root: Hash,
    /// The whole signed note.
    pub(crate) note: String,
}

impl Checkpoint {
    /// Signs this size and root under `origin`.
    pub(crate) fn sign(origin: &str, size: u64, root: Hash, key: &LogKey) -> Self {
        let text = format!("{origin}\n{size}\n{}\n", STANDARD.encode(root.0));
        let mut signature = key_id(origin, key.public_key())[..4].to_vec();
        signature.extend(key.sign(text.as_bytes()));
        let note = format!("{text}\n\u{2014} {origin} {}\n", STANDARD.encode(signature));
        Self { size, root, note }
    }

    /// Reads a note and verifies this log's signature on it. Lines of other signers (witnesses) are passed over.
    pub(crate) fn verify(note: &str, log: &LogPublic) -> Result<Self, String> {
        if note.len() as u64 > NOTE_LIMIT {
            return Err(format!("the checkpoint is larger than {} KiB", NOTE_LIMIT / 1024));
        }
        let (head, signatures) = note.split_once("\n\n").ok_or("the checkpoint has no signature part")?;
        let mut lines = head.split('\n');
        let (Some(origin), Some(size), Some(root), None) = (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err("the checkpoint's text is not three lines: origin, size and root".into());
        };
        if origin != log.origin {
            return Err(format!("the checkpoint is of the log {:?}, not of {:?}", cut(origin), log.origin));
        }
        let parsed: u64 = size.parse().map_err(|_| format!("the checkpoint's size {:?} is not a number", cut(size)))?;
        if parsed.to_string() != size || parsed > MAX_SIZE {
            return Err(format!("the checkpoint's size {:?} is not a plain number up to {MAX_SIZE}", cut(size)));
        }
        let root: [u8; 32] = STANDARD
            .decode(root)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or("the checkpoint's root is not base64 of 32 bytes")?;
        let text = format!("{head}\n");
        if !signed_by(&text, signatures, log)? {
            return Err("the checkpoint has no valid signature of this log's key".into());
        }
        Ok(Self { size: parsed, root: Hash(root), note: note.to_owned() })
    }
}

/// The C2SP key id of an Ed25519 log key: SHA-256 over origin, a line feed, the byte 1 and the key. Its first four bytes are the hint
/// in a note, all of it is a bundle's `logId`.
pub(crate) fn key_id(origin: &str, public_key: &[u8; 32]) -> [u8; 32] {
    let mut hasher = Hasher::new();
    hasher.update(origin.as_bytes());
    hasher.update(&[b'\n', ED25519_KIND]);
    hasher.update(public_key);
    *hasher.finish().as_bytes()
}

fn signed_by(text: &str, signatures: &str, log: &LogPublic) -> Result<bool, String> {
    let hint = log.key_id();
    let mut found = false;
    let Some(lines) = signatures.strip_suffix('\n') else {
        return Err("the checkpoint's last line is cut".into());
    };
    for (number, line) in lines.split('\n').enumerate() {
        if number == SIGNATURE_LINES {
            return Err(format!("the checkpoint has more than {SIGNATURE_LINES} signatures"));
        }
        let Some((name, blob)) = line.strip_prefix("\u{2014} ").and_then(|rest| rest.split_once(' ')) else {
            return Err(format!("the checkpoint's signature line {} is not one", number + 1));
        };
        let blob = STANDARD
            .decode(blob)
            .map_err(|_| format!("the checkpoint's signature line {} is not base64", number + 1))?;
        if name != log.origin || !blob.starts_with(&hint[..4]) {
            continue;
        }
        if UnparsedPublicKey::new(&ED25519, &log.public_key).verify(text.as_bytes(), &blob[4..]).is_err() {
            return Ok(false);
        }
        found = true;
    }
    Ok(found)
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use sluicegate_types::Digest;

    use super::*;

    fn log() -> (LogKey, LogPublic) {
        let key = LogKey::from_seed([7; 32]);
        let public = LogPublic { origin: "log.example".into(), public_key: *key.public_key() };
        (key, public)
    }

    #[test]
    fn a_signed_checkpoint_is_read_back() {
        let (key, public) = log();
        let made = Checkpoint::sign("log.example", 5, Hash([9; 32]), &key);
        let read = Checkpoint::verify(&made.note, &public).unwrap();
        assert_eq!((read.size, read.root.0), (5, [9; 32]));
        let witnessed = format!("{}\u{2014} witness.example AAAAAAAAAAA=\n", made.note);
        assert_eq!(Checkpoint::verify(&witnessed, &public).unwrap().size, 5);
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let (key, public) = log();
        let note = Checkpoint::sign("log.example", 5, Hash([9; 32]), &key).note;
        assert!(Checkpoint::verify(&note, &public).is_ok());
        for (place, old) in note.char_indices() {
            let mut changed = note.clone();
            changed.replace_range(place..place + old.len_utf8(), if old == 'A' { "B" } else { "A" });
            assert!(Checkpoint::verify(&changed, &public).is_err(), "{changed}");
            assert!(Checkpoint::verify(&note[..place], &public).is_err(), "cut at {place}");
        }
    }

    #[test]
    fn another_log_another_key_and_odd_forms_are_refused() {
        let (key, public) = log();
        let refused = |note: &str, word: &str| {
            let reason = Checkpoint::verify(note, &public).unwrap_err();
            assert!(reason.contains(word), "{reason}");
        };
        refused(&Checkpoint::sign("other.example", 5, Hash([9; 32]), &key).note, "of the log");
        let stranger = LogKey::from_seed([8; 32]);
        refused(&Checkpoint::sign("log.example", 5, Hash([9; 32]), &stranger).note, "no valid signature");
        refused(&Checkpoint::sign("log.example", MAX_SIZE + 1, Hash([9; 32]), &key).note, "plain number");
        assert!(
            Checkpoint::verify(&Checkpoint::sign("log.example", MAX_SIZE, Hash([9; 32]), &key).note, &public).is_ok()
        );
        let note = Checkpoint::sign("log.example", 5, Hash([9; 32]), &key).note;
        refused(&note.replacen("\n5\n", "\n05\n", 1), "plain number");
        refused(&note.replacen("\n5\n", "\n5\nextension\n", 1), "three lines");
        let other = "\u{2014} witness.example AAAAAAAAAAA=\n";
        assert!(Checkpoint::verify(&format!("{note}{}", other.repeat(31)), &public).is_ok());
        refused(&format!("{note}{}", other.repeat(32)), "more than 32");
    }

    #[test]
    fn the_key_id_is_the_one_of_c2sp() {
        // Computed apart from this code: sha256 of "log.example\n\x01" and 32 bytes of 1.
        let input = [b"log.example\n\x01".as_slice(), &[1; 32]].concat();
        assert_eq!(key_id("log.example", &[1; 32]), *Digest::of(&input).as_bytes());
    }
}
