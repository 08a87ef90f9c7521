//! The checkpoint and the tiles, and nothing else of the folder.

use std::{fs, path::Path, sync::Arc};

use sluicegate_ports::sign::TransparencyLog;
use sluicegate_testkit::VirtualLog;

use super::{
    served_log_folder::{Answer, LogFolder, ORIGIN, Served},
    signed_entries::{body, request},
};
use crate::Limits;

#[test]
fn checkpoint_and_tiles_are_what_the_log_signed() {
    let log = LogFolder::new();
    let writer = Arc::new(log.open());
    writer.append(&(0..300).map(body).collect::<Vec<_>>()).unwrap();
    let served = Served::start(writer, Limits::default());
    let checkpoint = served.get("/api/v2/checkpoint");
    assert_eq!((checkpoint.status, checkpoint.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    assert_eq!(checkpoint.header("cache-control"), Some("no-cache"));
    assert_eq!(checkpoint.body, fs::read(log.path("checkpoint")).unwrap());
    for name in ["0/000", "0/001.p/44", "1/000.p/1", "entries/000", "entries/001.p/44"] {
        let tile = served.get(&format!("/api/v2/tile/{name}"));
        assert_eq!((tile.status, tile.header("content-type")), (200, Some("application/octet-stream")), "{name}");
        assert_eq!(tile.header("cache-control"), Some("public, max-age=31536000, immutable"));
        assert_eq!(tile.body, fs::read(log.path("tile").join(name)).unwrap(), "{name}");
    }
    // What an older checkpoint covered is there for whoever still has it.
    let (hashes, entries) = (served.get("/api/v2/tile/0/000").body, served.get("/api/v2/tile/entries/000").body);
    for width in [1, 7, 255] {
        assert_eq!(served.get(&format!("/api/v2/tile/0/000.p/{width}")).body, hashes[..32 * width]);
        let older = served.get(&format!("/api/v2/tile/entries/000.p/{width}")).body;
        assert!(entries.starts_with(&older) && older.len() == width * entries.len() / 256, "{width}");
    }
    // Nothing that no checkpoint covers, and nothing else of the folder.
    fs::write(log.path("tile/0/001"), [1; 8192]).unwrap();
    fs::create_dir_all(log.path("tile/0/002.p")).unwrap();
    fs::write(log.path("tile/0/002.p/1"), [1; 32]).unwrap();
    for path in [
        "/api/v2/tile/0/001",
        "/api/v2/tile/0/001.p/45",
        "/api/v2/tile/0/002.p/1",
        "/api/v2/tile/0/002",
        "/api/v2/tile/1/000",
        "/api/v2/tile/1/000.p/2",
        "/api/v2/tile/2/000.p/1",
        "/api/v2/tile/63/000",
        "/api/v2/tile/8/000.p/1",
        "/api/v2/tile/0/x999/x999/x999/x999/x999/999",
        "/api/v2/tile/entries/x001/000.p/1",
        "/api/v2/tile/0/000.p/256",
        "/api/v2/tile/0/000.p/0",
        "/api/v2/tile/0/000.p/01",
        "/api/v2/tile/00/000",
        "/api/v2/tile/0/0",
        "/api/v2/tile/",
        "/api/v2/tile",
        "/api/v2/tile/lock",
        "/api/v2/tile/../lock",
        "/api/v2/tile/0/../../lock",
        "/api/v2/tile/0/%2e%2e/000",
        "/api/v2/tile/%2e%2e/checkpoint",
        "/api/v2/tile/0/000%2ep/1",
        "/api/v2/tile/0%2f000",
        "/api/v2/tile/0/%30%30%30",
        "/api/v2/tile//0/000",
        "/api/v2//tile/0/000",
        "/api/v2/checkpoint/",
        "/checkpoint",
        "/lock",
        "/",
        "//etc/passwd",
        "/api/v2/tile/0/000.p",
        "/api/v2/tile/entries/000/",
        "/api/v2/tile/0/000;a",
        "/api/v2/tile/0/\u{664}",
    ] {
        let answer = served.get(path);
        assert!(answer.status == 404 || answer.status == 400, "{path}: {answer:?}");
        assert!(!answer.text().contains(ORIGIN), "{path}");
    }
    let missing = served.get("/api/v2/tile/0/009");
    assert_eq!(missing.text(), r#"{"code":5,"message":"Not Found","details":[]}"#);
    // A question about a tile does not hide another one behind a question mark.
    assert_eq!(served.get("/api/v2/tile/0/000?x=1").body, hashes);
    served.end();
}

/// Another implementation of the log, in memory and by the book, is the oracle of what is served.
#[test]
fn a_log_in_memory_is_served_with_the_same_tiles_and_proofs() {
    let folder = LogFolder::new();
    let on_disk = Served::start(Arc::new(folder.open()), Limits::default());
    let in_memory = Served::start(Arc::new(VirtualLog::new(ORIGIN)), Limits::default());
    // The log's key differs, so the checkpoint's last line does.
    let proof = |answer: Answer| {
        let mut entry = answer.json();
        let note = entry["inclusionProof"]["checkpoint"]["envelope"].take();
        entry["logId"].take();
        (answer.status, entry, note.as_str().map(|note| note.split("\n\n").next().unwrap().to_owned()))
    };
    for number in (0..260).chain([3]) {
        let (one, other) = (on_disk.post(&request(number)), in_memory.post(&request(number)));
        assert_eq!((one.header("x-log-index"), one.status), (other.header("x-log-index"), other.status));
        if !(40..=250).contains(&number) {
            assert_eq!(proof(one), proof(other), "{number}");
        }
    }
    for row in ["0", "1", "2", "entries"] {
        for number in ["000", "001", "002"] {
            for width in ["", ".p/1", ".p/2", ".p/4", ".p/5", ".p/255"] {
                let path = format!("/api/v2/tile/{row}/{number}{width}");
                let (one, other) = (on_disk.get(&path), in_memory.get(&path));
                assert_eq!((one.status, one.body), (other.status, other.body), "{path}");
            }
        }
    }
    let size = |served: &Served| served.get("/api/v2/checkpoint").text().lines().take(3).collect::<Vec<_>>().join("\n");
    assert_eq!(size(&on_disk), size(&in_memory));
    on_disk.end();
    in_memory.end();
}

#[test]
fn the_folder_is_only_read_through_the_log() {
    // A folder that holds no log: every question fails, none is answered with a file of it.
    let folder = LogFolder::new();
    let log = folder.open();
    fs::remove_dir_all(folder.path("")).unwrap();
    fs::create_dir_all(folder.path("tile/0")).unwrap();
    fs::write(folder.path("tile/0/000"), "secret").unwrap();
    let served = Served::start(Arc::new(log), Limits::default());
    for path in ["/api/v2/tile/0/000", "/api/v2/checkpoint"] {
        let answer = served.get(path);
        assert!(answer.status == 500 && !answer.text().contains("secret"), "{answer:?}");
    }
    served.end();
    assert!(Path::new(&folder.path("tile/0/000")).exists());
}
