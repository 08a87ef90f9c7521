//! Over a folder, and over servers that do not do what they should; a real one is asked in `integration`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
};

use sluicegate_ports::prune::{AgedObject, AgedObjects};
use sluicegate_testkit::MemoryStore;

use super::*;

/// What a person was told.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn warn(&self) -> Warn {
        let heard = self.0.clone();
        Arc::new(move |line| heard.lock().unwrap().push(line.to_owned()))
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn limits() -> SharedLimits {
    SharedLimits {
        connect: Duration::from_millis(500),
        request: Duration::from_millis(500),
        question: Duration::from_secs(60),
        tries: 0,
        piece: 1024,
        pace: 1,
        pages: 3,
    }
}

fn settings(place: SharedPlace, heard: &Heard) -> SharedSettings {
    SharedSettings {
        place,
        shown: "HERE".to_owned(),
        push: true,
        outbound: Arc::default(),
        limits: limits(),
        stop: Stop::default(),
        warn: heard.warn(),
    }
}

fn over(folder: &Path, content: &Arc<MemoryStore>, heard: &Heard) -> SharedStore {
    let settings = settings(SharedPlace::Folder(folder.to_owned()), heard);
    SharedStore::open(settings, content.clone()).unwrap()
}

fn over_server(url: &str, content: &Arc<MemoryStore>, heard: &Heard) -> SharedStore {
    SharedStore::open(settings(SharedPlace::Bucket(bucket(url)), heard), content.clone()).unwrap()
}

fn bucket(url: &str) -> Bucket {
    let credentials = Credentials { key_id: "id".to_owned(), secret: Secret::new(b"a secret".to_vec()), session: None };
    Bucket {
        name: "bucket".to_owned(),
        prefix: "team".to_owned(),
        endpoint: Some(url.to_owned()),
        region: "us-east-1".to_owned(),
        credentials,
    }
}

fn nonsense(shared: &SharedStore, key: &Digest) -> String {
    match shared.origin(key) {
        Said::Nonsense(reason) => reason,
        said => panic!("{said:?}"),
    }
}

fn result(content: &MemoryStore, output: &[u8]) -> SharedResult {
    SharedResult {
        step: "build".parse().unwrap(),
        key: Digest::of(b"key"),
        bundle: content.put_bytes(b"a bundle").unwrap(),
        content: vec![content.put_bytes(output).unwrap(), content.put_bytes(b"").unwrap()],
    }
}

/// What another machine has put there.
fn put_there(folder: &Path, output: &[u8], heard: &Heard) -> SharedResult {
    let content = Arc::new(MemoryStore::default());
    let result = result(&content, output);
    let put = over(folder, &content, heard);
    put.offer(result.clone());
    put.settle();
    result
}

#[test]
fn what_one_machine_puts_another_one_gets_whole_or_not_at_all() {
    let (folder, heard) = (tempfile::tempdir().unwrap(), Heard::default());
    // Less than a piece, one, and several of which the last is short or full.
    for size in [0, 1, 1023, 1024, 1025, 4096, 5000] {
        let output: Vec<u8> = (0..size).map(|at: u32| at.to_le_bytes()[0]).collect();
        let ours = Arc::new(MemoryStore::default());
        let put = over(folder.path(), &ours, &heard);
        let result = result(&ours, &output);
        put.offer(result.clone());
        put.settle();
        let theirs = Arc::new(MemoryStore::default());
        let got = over(folder.path(), &theirs, &heard);
        assert_eq!(got.origin(&result.key), Said::Bundle(result.bundle));
        for content in result.content.iter().chain([&result.bundle]) {
            got.bring(content, 5000).unwrap();
        }
        assert_eq!(theirs.read(&result.content[0], 5000).unwrap(), output);
        if size > 0 {
            let elsewhere = Arc::new(MemoryStore::default());
            let got = over(folder.path(), &elsewhere, &heard);
            let limit = output.len() as u64 - 1;
            assert!(got.bring(&result.content[0], limit).unwrap_err().contains("larger than the limit"), "{size}");
            let file = folder.path().join("v1/sha256").join(result.content[0].hex());
            for (tampered, says) in [
                ([&output[..], b"x"].concat(), "has the digest"),
                (vec![b'x'; output.len()], "has the digest"),
                (output[..output.len() - 1].to_vec(), ""),
            ] {
                fs::write(&file, &tampered).unwrap();
                let error = over(folder.path(), &elsewhere, &heard).bring(&result.content[0], 6000).unwrap_err();
                assert!(error.contains(says), "{size}: {error}");
                assert!(elsewhere.open(&Digest::of(&tampered)).is_err(), "{size}: nothing else is stored");
            }
        }
    }
}

#[test]
fn a_record_is_a_digest_or_nothing() {
    let (folder, heard) = (tempfile::tempdir().unwrap(), Heard::default());
    let content = Arc::new(MemoryStore::default());
    let shared = over(folder.path(), &content, &heard);
    let key = Digest::of(b"key");
    assert_eq!(shared.origin(&key), Said::Nothing);
    let path = folder.path().join(record(&key));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    for (text, says) in [
        (&b"sha256:12"[..], "no digest"),
        (b"", "no digest"),
        (b"\xff", "no digest"),
        (&[b'a'; 129], "larger than the limit"),
    ] {
        fs::write(&path, text).unwrap();
        assert!(nonsense(&shared, &key).contains(says));
    }
    // A pipe is not waited for, nor a folder read.
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(nonsense(&shared, &key).contains("no regular file"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(nonsense(&shared, &key).contains("no regular file"));
    fs::remove_dir(&path).unwrap();
    let beside = folder.path().join("beside");
    fs::write(&beside, format!("{}\n", Digest::of(b"bundle"))).unwrap();
    std::os::unix::fs::symlink(&beside, &path).unwrap();
    assert!(nonsense(&shared, &key).contains("no regular file"));
    fs::remove_file(&path).unwrap();
    fs::write(&path, format!("{}\n", Digest::of(b"bundle"))).unwrap();
    assert_eq!(shared.origin(&key), Said::Bundle(Digest::of(b"bundle")));
    assert_eq!(heard.all(), [""; 0]);
}

#[test]
fn a_link_in_the_folder_leads_nothing_out_of_it_and_what_is_damaged_here_is_not_put_there() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let heard = Heard::default();
    let content = Arc::new(MemoryStore::default());
    let result = result(&content, b"output");
    std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("v1")).unwrap();
    let shared = over(folder.path(), &content, &heard);
    shared.offer(result.clone());
    shared.offer(result.clone());
    shared.settle();
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    let said = heard.all();
    assert!(said.len() == 1 && said[0].contains("is no folder") && said[0].contains("build"), "{said:?}");
    fs::remove_file(folder.path().join("v1")).unwrap();
    let shared = over(folder.path(), &content, &heard);
    let missing = SharedResult { content: vec![Digest::of(b"never stored")], ..result.clone() };
    shared.offer(missing);
    shared.settle();
    assert!(!folder.path().join(record(&result.key)).exists());
    assert!(heard.all()[1].contains("is not in the store"), "{:?}", heard.all());
    let shared = over(folder.path(), &content, &heard);
    shared.offer(result.clone());
    shared.settle();
    assert!(folder.path().join(record(&result.key)).exists() && heard.all().len() == 2);
}

#[test]
fn a_run_that_was_stopped_brings_nothing_more() {
    let (folder, heard) = (tempfile::tempdir().unwrap(), Heard::default());
    let result = put_there(folder.path(), b"output", &heard);
    let settings = settings(SharedPlace::Folder(folder.path().to_owned()), &heard);
    let (stop, theirs) = (settings.stop.clone(), Arc::new(MemoryStore::default()));
    let shared = SharedStore::open(settings, theirs.clone()).unwrap();
    shared.bring(&result.bundle, 99).unwrap();
    stop.raise();
    assert!(shared.bring(&result.content[0], 99).unwrap_err().contains("was stopped"));
    assert!(theirs.open(&result.content[0]).is_err());
    shared.refused(&result.step, "it was not brought");
    assert_eq!(heard.all(), [""; 0]);
}

#[test]
fn the_size_of_content_is_asked_for_and_nothing_is_brought() {
    let (folder, heard) = (tempfile::tempdir().unwrap(), Heard::default());
    let result = put_there(folder.path(), &[b'x'; 3000], &heard);
    let theirs = Arc::new(MemoryStore::default());
    let shared = over(folder.path(), &theirs, &heard);
    assert_eq!(shared.size(&result.content[0]), Ok(3000));
    assert!(theirs.open(&result.content[0]).is_err());
    // Of nothing nobody has to be asked.
    assert_eq!(shared.size(&Digest::of(b"")), Ok(0));
    assert!(shared.size(&Digest::of(b"another")).unwrap_err().contains("has not got it"));
    let file = folder.path().join(blob(&result.content[0]));
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    assert!(shared.size(&result.content[0]).unwrap_err().contains("no regular file"));
    assert_eq!(heard.all(), [""; 0]);
}

#[test]
fn a_run_that_was_stopped_puts_nothing_more() {
    let (folder, heard) = (tempfile::tempdir().unwrap(), Heard::default());
    let content = Arc::new(MemoryStore::default());
    let result = result(&content, b"output");
    let settings = settings(SharedPlace::Folder(folder.path().to_owned()), &heard);
    settings.stop.raise();
    let shared = SharedStore::open(settings, content).unwrap();
    shared.offer(result);
    shared.settle();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(heard.all()[0].contains("the run was stopped"), "{:?}", heard.all());
}

/// A server whose every answer is written by `answer`, which gets the first line of the request.
fn serve(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut line) = (String::new(), String::new());
            reader.read_line(&mut first).unwrap_or_default();
            while reader.read_line(&mut line).unwrap_or(0) > 2 {
                line.clear();
            }
            answer(&first, &mut stream);
        }
    });
    url
}

#[test]
fn a_server_that_says_too_much_too_little_or_nothing_costs_one_line() {
    type Answer = Box<dyn Fn(&str, &mut TcpStream) + Send>;
    let head = "HTTP/1.1 206 X\r\nlast-modified: Sun, 29 Nov 2026 09:00:00 GMT\r\netag: \"x\"\r\nconnection: close\r\n";
    let silent: Answer = Box::new(|_, stream| {
        // Held open until the client goes.
        let mut one = [0];
        let _ = std::io::Read::read(stream, &mut one);
    });
    let endless: Answer = Box::new(move |_, stream| {
        let _ = stream.write_all(format!("{head}content-range: bytes 0-127/71\r\n\r\n").as_bytes());
        while stream.write_all(&[b'a'; 4096]).is_ok() {}
    });
    let refusing: Answer = Box::new(|_, stream| {
        let body = format!("<Error><Message>{}</Message></Error>", "no ".repeat(10_000));
        let _ = stream.write_all(
            format!("HTTP/1.1 400 X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes(),
        );
    });
    let elsewhere: Answer = Box::new(|_, stream| {
        let _ = stream.write_all(
            b"HTTP/1.1 307 X\r\nlocation: http://169.254.169.254/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        );
    });
    for (what, answer) in [("silent", silent), ("endless", endless), ("refusing", refusing), ("elsewhere", elsewhere)] {
        let heard = Heard::default();
        let content = Arc::new(MemoryStore::default());
        let shared = over_server(&serve(answer), &content, &heard);
        for _ in 0..3 {
            assert!(matches!(shared.origin(&Digest::of(b"key")), Said::Unknown(_)), "{what}");
            assert!(shared.bring(&Digest::of(b"output"), 1024).is_err(), "{what}");
            assert!(shared.size(&Digest::of(b"output")).is_err(), "{what}");
        }
        shared.refused(&"build".parse().unwrap(), "it is not there");
        let said = heard.all();
        assert!(
            said.len() == 1 && said[0].contains("is not asked any more") && said[0].len() < 500,
            "{what}: {said:?}"
        );
        assert!(!said[0].contains("a secret"), "{what}: {said:?}");
    }
    // The same with a server that does what it should.
    let (heard, digest) = (Heard::default(), Digest::of(b"bundle"));
    let good = serve(move |_, stream| {
        let body = format!("{digest}");
        let end = body.len() - 1;
        let range =
            format!("content-range: bytes 0-{end}/{}\r\ncontent-length: {}\r\n\r\n{body}", body.len(), body.len());
        let _ = stream.write_all(format!("{head}{range}").as_bytes());
    });
    let shared = over_server(&good, &Arc::new(MemoryStore::default()), &heard);
    assert_eq!((shared.origin(&Digest::of(b"key")), heard.all().len()), (Said::Bundle(digest), 0));
}

/// An answer that lists objects by key, day and size, and goes on if there is a token.
fn listing(objects: &[(&str, &str, u64)], token: &str) -> String {
    let contents: String = objects
        .iter()
        .map(|(key, day, size)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>{day}T09:00:00.000Z</LastModified><Size>{size}</Size></Contents>"
            )
        })
        .collect();
    let token = format!("<NextContinuationToken>{token}</NextContinuationToken>");
    let body = format!("<ListBucketResult>{contents}{token}</ListBucketResult>");
    format!("HTTP/1.1 200 X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn status(line: &str) -> String {
    format!("HTTP/1.1 {line}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
}

fn results_over(answer: impl Fn(&str) -> String + Send + 'static) -> (BucketObjects, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = asked.clone();
    let url = serve(move |first, stream| {
        heard.lock().unwrap().push(first.trim_end().to_owned());
        let _ = stream.write_all(answer(first).as_bytes());
    });
    let mut bucket = bucket(&url);
    bucket.credentials.session = Some(Secret::new(b"a-session".to_vec()));
    let bucket = (bucket, "HERE".to_owned());
    (BucketObjects::open(bucket, (RESULTS, "results"), Arc::default(), limits()).unwrap(), asked)
}

fn shown(results: &BucketObjects) -> Result<Vec<AgedObject>, String> {
    let mut all = Vec::new();
    let done = results.for_some(&mut |some| {
        all.extend_from_slice(some);
        Ok(())
    });
    done.map(|()| all).map_err(|error| error.causes())
}

#[test]
fn what_a_server_lists_is_named_below_one_name_and_nothing_else_is_removed() {
    let (one, other) = (Digest::of(b"one").hex(), Digest::of(b"other").hex());
    let pages = {
        let (one, other) = (one.clone(), other.clone());
        move |first: &str| {
            if first.starts_with("DELETE") {
                return "HTTP/1.1 204 X\r\nconnection: close\r\n\r\n".to_owned();
            }
            let named = |digest: &str| format!("team/v1/results/{digest}");
            if first.contains("continuation-token=more%2B1") {
                let elsewhere = format!("elsewhere/{other}");
                return listing(&[(&elsewhere, "2026-11-02", 8), (&named(&other), "2026-11-02", 7)], "");
            }
            let strange = named("a&#9;b");
            listing(
                &[(&strange, "2026-11-01", 1), (&named(&one), "2026-11-01", 72), (&named("x"), "2026-11-01", 1)],
                "more+1",
            )
        }
    };
    let (results, asked) = results_over(pages);
    let found = shown(&results).unwrap();
    let object = |name: &String, size, put: &str| AgedObject {
        name: name.clone(),
        size,
        put: put.parse().unwrap(),
        is_draft: false,
    };
    assert_eq!(found, [object(&one, 72, "2026-11-01T09:00:00Z"), object(&other, 7, "2026-11-02T09:00:00Z")]);
    found.iter().for_each(|object| results.remove(&object.name).unwrap());
    for name in ["../x", "", "x"] {
        assert!(results.remove(name).is_err(), "{name}");
    }
    let asked = asked.lock().unwrap();
    assert!(asked[0].starts_with("GET /bucket?") && asked[0].contains("prefix=team%2Fv1%2Fresults%2F"), "{asked:?}");
    // What signs it stands in no address.
    assert!(!asked.iter().any(|asked| asked.contains("X-Amz")), "{asked:?}");
    let deleted: Vec<&String> = asked.iter().filter(|line| line.starts_with("DELETE")).collect();
    let expected = [&one, &other].map(|name| format!("DELETE /bucket/team/v1/results/{name} HTTP/1.1"));
    assert_eq!(deleted, expected.iter().collect::<Vec<_>>());
}

#[test]
fn a_server_that_lists_without_end_or_nonsense_deletes_nothing() {
    let says = |answer: String, words: &str| {
        let (results, asked) = results_over(move |_| answer.clone());
        let said = shown(&results).unwrap_err();
        assert!(said.contains("cannot list HERE, v1/results/") && said.contains(words), "{words}: {said}");
        asked.lock().unwrap().len()
    };
    assert_eq!(says(listing(&[], "more"), "the same again and again"), 2);
    let circle = |first: &str| listing(&[], if first.contains("token=a") { "b" } else { "a" });
    assert!(shown(&results_over(circle).0).unwrap_err().contains("the same again and again"));
    let count = Mutex::new(0);
    let (endless, _) = results_over(move |_| {
        *count.lock().unwrap() += 1;
        listing(&[], &count.lock().unwrap().to_string())
    });
    assert!(shown(&endless).unwrap_err().contains("does not come to an end with 3 answers"));
    says(status("403 X"), "(403)");
    says(status("401 X"), "(401)");
    says(status("302 X"), "302");
    says(status("500 X"), "500");
    let no_bucket = "<Error><Code>NoSuchBucket</Code></Error>";
    says(
        format!("HTTP/1.1 404 X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{no_bucket}", no_bucket.len()),
        "no such bucket",
    );
    says("HTTP/1.1 200 X\r\nconnection: close\r\ncontent-length: 4\r\n\r\n<a><".to_owned(), "list of objects");
    says(format!("HTTP/1.1 200 X\r\nconnection: close\r\n\r\n{}", " ".repeat(70_000)), "larger than the limit");
    let (refusing, _) = results_over(|_| status("403 X"));
    assert!(refusing.remove(&Digest::of(b"one").hex()).unwrap_err().causes().contains("(403)"));
    // What is gone already was to be gone.
    let (gone, _) = results_over(|_| status("404 X"));
    assert_eq!(gone.remove(&Digest::of(b"one").hex()).map_err(|error| error.causes()), Ok(()));
    // With one that does what it should, and says in an empty word that there is no more.
    let (good, asked) = results_over(|_| listing(&[], ""));
    assert_eq!(shown(&good), Ok(Vec::new()));
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[test]
fn a_store_that_takes_too_long_for_all_questions_is_asked_no_more() {
    let (folder, heard) = (tempfile::tempdir().unwrap(), Heard::default());
    let result = put_there(folder.path(), b"output", &heard);
    let none = SharedLimits { request: Duration::ZERO, question: Duration::ZERO, pace: u64::MAX, ..limits() };
    for (limits, answers) in [(limits(), true), (none, false)] {
        let mut settings = settings(SharedPlace::Folder(folder.path().to_owned()), &heard);
        settings.limits = limits;
        let shared = SharedStore::open(settings, Arc::new(MemoryStore::default())).unwrap();
        // Whatever the first one took.
        assert_eq!(shared.origin(&result.key), Said::Bundle(result.bundle));
        assert_eq!(shared.size(&result.bundle).is_ok(), answers);
        assert_eq!(shared.bring(&result.bundle, 99).is_ok(), answers);
        assert_eq!(
            heard.all().iter().filter(|line| line.contains("answers take too long")).count(),
            usize::from(!answers)
        );
    }
}

#[test]
fn a_file_in_the_place_of_the_folder_is_no_store() {
    let (folder, heard) = (tempfile::tempdir().unwrap(), Heard::default());
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let shared = over(&file, &Arc::default(), &heard);
    assert!(matches!(shared.origin(&Digest::of(b"key")), Said::Unknown(_)));
    assert!(heard.all().len() == 1 && heard.all()[0].contains("there is no folder"), "{:?}", heard.all());
}

/// What an error says with all its causes.
trait Causes {
    fn causes(&self) -> String;
}

impl Causes for sluicegate_ports::store::StoreError {
    fn causes(&self) -> String {
        let all = std::iter::successors(Some(self as &dyn std::error::Error), |error| error.source());
        all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }
}
