//! A log elsewhere, with the real program: a home whose statements go to the log that another one serves, and a log that is read whole.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use integration::{PROMOTE, Project, can_run_steps, peer, ready, shared};
use serde_json::{Value, json};
use sluicegate_testkit::{ConnectProxy, TlsFront};

/// A folder as a static server gives it, below `/api/v2/`.
struct Static {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Static {
    fn serve(folder: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut first = String::new();
                reader.read_line(&mut first).unwrap();
                let mut line = String::new();
                while reader.read_line(&mut line).unwrap_or(0) > 2 {
                    line.clear();
                }
                let path = first.split(' ').nth(1).unwrap_or_default().trim_start_matches("/api/v2/").to_owned();
                log.lock().unwrap().push(path.clone());
                let (status, bytes) = fs::read(folder.join(path)).map_or((404, Vec::new()), |bytes| (200, bytes));
                let head =
                    format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", bytes.len());
                let _ = stream.write_all(&[head.as_bytes(), &bytes].concat());
            }
        });
        Self { url, asked }
    }
}

/// A trusted root with this one Ed25519 key of a log.
fn trusted_root(origin: &str, pem: &str) -> Value {
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let spki = BASE64_STANDARD.decode(&der).unwrap();
    let key_id = sluicegate_types::Digest::of(&[origin.as_bytes(), b"\n\x01", &spki[12..]].concat());
    json!({
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": [{
            "baseUrl": format!("https://{origin}"), "hashAlgorithm": "SHA2_256",
            "publicKey": {"rawBytes": der, "keyDetails": "PKIX_ED25519", "validFor": {"start": "2026-01-01T00:00:00Z"}},
            "logId": {"keyId": BASE64_STANDARD.encode(key_id.as_bytes())},
        }],
        "certificateAuthorities": [], "ctlogs": [], "timestampAuthorities": [],
    })
}

#[test]
fn tr_24_the_partial_tile_is_gone() {
    let Some(archive) = shared("field/trust.tar.gz", "tr_24_the_partial_tile_is_gone") else { return };
    let project = Project::empty();
    let unpacked = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(project.path(".")).status();
    assert!(unpacked.unwrap().success());
    let case = project.path("trust/log/TR-24-partial-gone");
    let pem = fs::read_to_string(case.join("log.pub")).unwrap();
    let root = trusted_root("tlog.gateway.internal", &pem);
    fs::write(project.path("root.json"), root.to_string()).unwrap();
    let served = Static::serve(case.join("api/v2"));
    let verify = || project.sluicegate(&["log", "verify", "--url", &served.url, "--trust-root", "root.json"]);
    verify().assert(0, "WHOLE  300 entries in tlog.gateway.internal");
    let asked = served.asked.lock().unwrap().join("\n");
    assert!(asked.contains("tile/0/001.p/44\ntile/0/001"), "{asked}");
    assert!(asked.contains("tile/entries/001.p/44\ntile/entries/001\n"), "{asked}");
    let arguments = ["log", "verify", "--url", &served.url, "--trust-root", "root.json"];
    let (code, document) = project.json(&arguments);
    assert_eq!((code, &document["size"], &document["origin"]), (0, &json!(300), &json!("tlog.gateway.internal")));
    for name in ["tile/0/001", "tile/entries/001"] {
        let path = case.join("api/v2").join(name);
        let good = fs::read(&path).unwrap();
        // The inputs may be read-only.
        fs::remove_file(&path).unwrap();
        verify().assert(5, &format!("{name}.p/44 or {name}"));
        let mut bad = good.clone();
        bad[20] ^= 1;
        fs::write(&path, &bad).unwrap();
        verify().assert(4, "is not to be believed");
        bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        fs::write(&path, &bad).unwrap();
        verify().assert(0, "WHOLE  300");
        fs::write(&path, &good).unwrap();
    }
    // A checkpoint of the grown tree needs an upper tile of two.
    fs::copy(case.join("checkpoint.now"), case.join("now")).unwrap();
    let checkpoint = case.join("api/v2/checkpoint");
    let old = fs::read(&checkpoint).unwrap();
    fs::remove_file(&checkpoint).unwrap();
    verify().assert(5, "it has no checkpoint");
    fs::rename(case.join("now"), &checkpoint).unwrap();
    verify().assert(0, "WHOLE  512 entries");
    fs::write(&checkpoint, "<!DOCTYPE html><title>Sign in</title>").unwrap();
    verify().assert(5, "what is there is no checkpoint");
    fs::write(&checkpoint, String::from_utf8(old).unwrap().replacen("\n300\n", "\n299\n", 1)).unwrap();
    verify().assert(4, "no valid signature");
    // Another root, no root, no URL.
    fs::write(project.path("other.json"), trusted_root("other.example", &pem).to_string()).unwrap();
    let ask = |url: &str, root: &str| project.sluicegate(&["log", "verify", "--url", url, "--trust-root", root]);
    ask(&served.url, "other.json").assert(2, "is none of the trusted root's");
    ask(&served.url, "missing.json").assert(2, "--trust-root");
    ask("http://log.example", "root.json").assert(2, "write https://");
    project.sluicegate(&["log", "verify", "--url", &served.url]).assert(2, "there is no home");
    project.sluicegate(&["log", "verify", "--trust-root", "root.json"]).assert(2, "--url");
}

/// `sluicegate log serve` of a home, killed if a test ends before it.
struct Served {
    child: Child,
    url: String,
}

impl Served {
    fn start(project: &Project) -> Self {
        let mut command = project.command(&["log", "serve", "--listen", "127.0.0.1:0"]);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let url = line.trim_end().split_once(" is served at ").unwrap_or_else(|| panic!("{line}")).1.to_owned();
        thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Self { child, url }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A home that serves its log.
fn owner() -> (Project, Served) {
    let owner = Project::empty();
    owner.must(&["init"]);
    let served = Served::start(&owner);
    (owner, served)
}

fn origin(project: &Project) -> String {
    let (_, document) = project.json(&["log", "checkpoint"]);
    document["origin"].as_str().unwrap().to_owned()
}

fn size(project: &Project) -> u64 {
    let (code, document) = project.json(&["log", "verify"]);
    assert_eq!(code, 0, "{document}");
    document["size"].as_u64().unwrap()
}

/// Makes a project log elsewhere and believe that log, and that one alone.
fn log_to(project: &Project, log: &str, root: &Path, origin: &str) {
    project.replace("gateway.yaml", "log: embedded", &format!("log: {log}"));
    let own = self::origin(project);
    project.replace("trust/trust.yaml", &own, origin);
    fs::write(project.path("trust/trusted_root.json"), fs::read(root).unwrap()).unwrap();
}

/// How many statements wait in a home.
fn waiting(project: &Project) -> usize {
    fs::read_dir(project.path("home/outbox")).unwrap().count()
}

/// Waits for a sign.
#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What stands between a home and a log, and does what it is told to.
#[derive(Clone, Default)]
struct Way {
    target: String,
    /// Nothing gets through.
    shut: Arc<AtomicBool>,
    /// Entries are taken and not passed on, and nobody hears of it.
    stalls: Arc<AtomicBool>,
    /// How many were.
    stalled: Arc<AtomicUsize>,
    /// Entries come back as those of another kind.
    lies: Arc<AtomicBool>,
    posts: Arc<AtomicUsize>,
    /// The entry whose answer is lost; from then on it is shut.
    last: Arc<AtomicUsize>,
}

impl Way {
    /// The way to `url`, and where it begins.
    fn to(url: &str) -> (Self, String) {
        let way = Self { target: url.trim_start_matches("http://").to_owned(), ..Self::default() };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let begins = format!("http://{}", listener.local_addr().unwrap());
        let passing = way.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let way = passing.clone();
                thread::spawn(move || way.pass(stream.unwrap()));
            }
        });
        (way, begins)
    }

    /// One request; what comes after it on the same connection is not taken.
    fn pass(&self, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let is_post = head.starts_with("POST");
        if is_post && self.stalls.load(Ordering::SeqCst) {
            self.stalled.fetch_add(1, Ordering::SeqCst);
            // Until whoever asks is gone.
            let _ = reader.read_to_end(&mut Vec::new());
            return None;
        }
        if self.shut.load(Ordering::SeqCst) {
            return None;
        }
        let mut upstream = TcpStream::connect(&self.target).ok()?;
        upstream.write_all(&[head.as_bytes(), b"connection: close\r\n\r\n", &body].concat()).ok()?;
        let mut answer = Vec::new();
        upstream.read_to_end(&mut answer).ok()?;
        if is_post {
            if self.posts.fetch_add(1, Ordering::SeqCst) + 1 == self.last.load(Ordering::SeqCst) {
                self.shut.store(true, Ordering::SeqCst);
                return None;
            }
            if self.lies.load(Ordering::SeqCst) {
                answer = String::from_utf8(answer).ok()?.replace("\"hashedrekord\"", "\"hashedrekorD\"").into_bytes();
            }
        }
        stream.write_all(&answer).ok()
    }
}

/// A project whose statements go to the log of another home, and the way between them.
fn log_behind_a_way(owner: &Project, served: &Served) -> (Project, Way) {
    let (way, url) = Way::to(&served.url);
    let project = Project::stranger();
    let root = owner.path("home/trust/trusted_root.json");
    log_to(&project, &format!("{{ rekor: \"{url}\" }}"), &root, &origin(owner));
    (project, way)
}

#[test]
fn two_homes_share_a_log_and_each_statement_is_in_it_once() {
    let test = "two_homes_share_a_log_and_each_statement_is_in_it_once";
    if !ready(test) {
        return;
    }
    let (owner, served) = owner();
    let project = Project::stranger();
    let own = origin(&project);
    let (theirs, root) = (origin(&owner), owner.path("home/trust/trusted_root.json"));
    // A log that the root does not name is refused before anything runs.
    let gateway = fs::read_to_string(project.path("gateway.yaml")).unwrap();
    project.replace("gateway.yaml", "log: embedded", &format!("log: {{ rekor: \"{}\" }}", served.url));
    project.sluicegate(&["run"]).assert(2, "is none of the trusted root's");
    fs::write(project.path("gateway.yaml"), gateway).unwrap();
    log_to(&project, &format!("{{ rekor: \"{}\" }}", served.url), &root, &theirs);
    project.replace("trust/trust.yaml", "authority_self: false", "authority_self: true");
    project.must(&["run"]);
    project.must(&PROMOTE);
    project.must(&["verify", "--offline", "oci:out/tiny"]);
    let (code, document) = project.json(&["verify", "--offline", "oci:env/production"]);
    assert_eq!(code, 0, "{document}");
    assert_eq!(waiting(&project), 0);
    // Both homes' logs: all of it is in the one, nothing in the other.
    assert_eq!(size(&project), 0, "{own}");
    let before = size(&owner);
    let listed: Vec<u64> = indexes(&document);
    assert!(!listed.is_empty() && listed.iter().all(|index| *index < before), "{listed:?}");
    // Every leaf is a different statement.
    let entries = bodies(&served.url, before);
    let different: std::collections::BTreeSet<_> = entries.iter().collect();
    assert_eq!(different.len() as u64, before);
    // The owner appends beside it, and the log stays one.
    owner
        .sluicegate(&["log", "verify", "--url", &served.url])
        .assert(0, &format!("WHOLE  {before} entries in {theirs}"));
    let arguments = ["log", "verify", "--url", &served.url, "--trust-root", "trust/trusted_root.json"];
    project.sluicegate(&arguments).assert(0, "WHOLE");
}

/// The places in the log that a verification lists.
fn indexes(document: &Value) -> Vec<u64> {
    let mut found = Vec::new();
    let mut open = vec![document];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                if let Some(index) = members.get("log").and_then(|log| log["index"].as_u64()) {
                    found.push(index);
                }
                open.extend(members.values());
            }
            Value::Array(members) => open.extend(members),
            _ => {}
        }
    }
    found
}

/// The entries of a small served log.
fn bodies(url: &str, size: u64) -> Vec<Vec<u8>> {
    assert!(size > 0 && size < 256);
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    write!(stream, "GET /api/v2/tile/entries/000.p/{size} HTTP/1.1\r\nhost: log\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let from = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let mut rest = &answer[from..];
    let mut entries = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk::<2>() {
        let (entry, more) = more.split_at(usize::from(u16::from_be_bytes(*length)));
        entries.push(entry.to_vec());
        rest = more;
    }
    entries
}

#[test]
fn what_is_signed_while_the_log_goes_away_is_logged_once_by_a_later_command() {
    let test = "what_is_signed_while_the_log_goes_away_is_logged_once_by_a_later_command";
    if !can_run_steps(test) {
        return;
    }
    let (owner, served) = owner();
    let (project, way) = log_behind_a_way(&owner, &served);
    // The second entry is logged and its answer is lost, and from then on nothing gets through.
    way.last.store(2, Ordering::SeqCst);
    let ended = project.sluicegate(&["run", "--no-scan"]);
    ended.assert(5, "1 signed statement waits in ");
    assert!(ended.stderr.contains("sends the same bytes first"), "{ended:?}");
    assert_eq!((waiting(&project), size(&owner)), (1, 2), "{ended:?}");
    assert!(!project.path("out/tiny").exists(), "nothing was pushed");
    // Still away: the next command says so before it begins.
    project.sluicegate(&["run", "--no-scan"]).assert(5, "1 signed statement waits in ");
    assert_eq!(size(&owner), 2);
    way.shut.store(false, Ordering::SeqCst);
    let ended = project.must(&["run", "--no-scan"]);
    let told = "signed before and not logged then, is logged now: entry 1 of ";
    assert_eq!(ended.stderr.matches(told).count(), 1, "{ended:?}");
    assert!(ended.stderr.contains("by builder, signed before"), "{ended:?}");
    project.must(&["verify", "--offline", "oci:out/tiny"]);
    assert_eq!(waiting(&project), 0);
    let all = bodies(&served.url, size(&owner));
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
    assert!(!project.must(&["run", "--no-scan"]).stderr.contains("signed before"));
}

#[test]
fn what_a_log_says_falsely_ends_a_run_before_anything_is_pushed() {
    let test = "what_a_log_says_falsely_ends_a_run_before_anything_is_pushed";
    if !can_run_steps(test) {
        return;
    }
    let (owner, served) = owner();
    let (project, way) = log_behind_a_way(&owner, &served);
    way.lies.store(true, Ordering::SeqCst);
    let ended = project.sluicegate(&["run", "--no-scan"]);
    ended.assert(4, "the entry's kindVersion is not what was asked for");
    assert!(!project.path("out/tiny").exists() && waiting(&project) == 1, "{ended:?}");
    way.lies.store(false, Ordering::SeqCst);
    let ended = project.must(&["run", "--no-scan"]);
    assert!(ended.stderr.contains("is logged now: entry 0 of ") && waiting(&project) == 0, "{ended:?}");
    // A log whose name trust.yaml does not take untimed would prove nothing.
    project.replace("trust/trust.yaml", &origin(&owner), "other.example");
    project.sluicegate(&["run", "--no-scan"]).assert(2, "under formats.untimed");
}

#[test]
fn a_process_that_is_killed_while_it_waits_for_the_log_leaves_what_it_signed() {
    let test = "a_process_that_is_killed_while_it_waits_for_the_log_leaves_what_it_signed";
    if !can_run_steps(test) {
        return;
    }
    let (owner, served) = owner();
    let (project, way) = log_behind_a_way(&owner, &served);
    way.stalls.store(true, Ordering::SeqCst);
    let mut child = project.command(&["run", "--no-scan"]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    until("an entry is on its way", || {
        assert!(child.try_wait().unwrap().is_none(), "it waits for the log");
        way.stalled.load(Ordering::SeqCst) > 0
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert_ne!(waiting(&project), 0, "what was sent to the log had been kept before");
    way.stalls.store(false, Ordering::SeqCst);
    let before = size(&owner);
    let ended = project.must(&["run", "--no-scan"]);
    assert!(ended.stderr.contains(&format!("is logged now: entry {before} of ")), "{ended:?}");
    assert_eq!(waiting(&project), 0);
    let all = bodies(&served.url, size(&owner));
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
}

#[test]
fn a_log_behind_tls_is_reached_with_its_authority_and_through_a_proxy() {
    let test = "a_log_behind_tls_is_reached_with_its_authority_and_through_a_proxy";
    if !can_run_steps(test) {
        return;
    }
    let (owner, served) = owner();
    let front = TlsFront::start(served.url.trim_start_matches("http://"), "log.test");
    let proxy = ConnectProxy::to(&front.host);
    let mut project = Project::stranger();
    let near = format!("https://{}", front.host);
    let root = owner.path("home/trust/trusted_root.json");
    log_to(&project, &format!("{{ rekor: \"{near}\" }}"), &root, &origin(&owner));
    let authority_of = |project: &Project, host: &str| project.path("home/trust/certs.d").join(host).join("ca.crt");
    let vouch = |project: &Project, host: &str, pem: &str| {
        let file = authority_of(project, host);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, pem).unwrap();
    };
    // An authority for another port is none for this one.
    vouch(&project, "127.0.0.1:1", &front.authority.pem);
    let ended = project.sluicegate(&["run", "--no-scan"]);
    ended.assert(5, "its certificate is not to be trusted (UnknownIssuer)");
    ended.assert(5, &authority_of(&project, &front.host).display().to_string());
    assert!(!project.path("out/tiny").exists() && (waiting(&project), size(&owner)) == (0, 0), "{ended:?}");
    // Where those words say; a proxy is none for this machine.
    project.set("HTTPS_PROXY", &format!("http://us:er@{}", proxy.host));
    vouch(&project, &front.host, &front.authority.pem);
    project.must(&["run", "--no-scan"]);
    project.must(&["verify", "--offline", "oci:out/tiny"]);
    let entries = size(&owner);
    assert!(entries > 0 && waiting(&project) == 0 && proxy.asked().is_empty());
    // The name is known to nobody but the proxy.
    let read = |project: &Project, url: &str| {
        project.sluicegate(&["log", "verify", "--url", url, "--trust-root", "trust/trusted_root.json"])
    };
    read(&project, &near).assert(0, &format!("WHOLE  {entries} entries"));
    let far = "https://log.test";
    read(&project, far).assert(5, &authority_of(&project, "log.test").display().to_string());
    vouch(&project, "log.test", &front.authority.pem);
    read(&project, far).assert(0, &format!("WHOLE  {entries} entries"));
    let heads = proxy.asked();
    assert!(!heads.is_empty() && heads.iter().all(|head| head.starts_with("CONNECT log.test:443 ")), "{heads:?}");
    // What cannot be used is said before anybody is asked.
    vouch(&project, "log.test", "nothing");
    read(&project, far).assert(2, "ca.crt: there is none in it");
    vouch(&project, "log.test", &front.authority.pem);
    project.set("HTTPS_PROXY", "socks5://us:er@127.0.0.1");
    let ended = read(&project, far);
    ended.assert(2, "the proxy's address (HTTPS_PROXY or ALL_PROXY)");
    assert!(!ended.stderr.contains("er@") && proxy.asked().len() == heads.len(), "{ended:?}");
    read(&project, &near).assert(0, "WHOLE");
}

#[test]
fn the_real_server_takes_our_statements() {
    let test = "the_real_server_takes_our_statements";
    if !can_run_steps(test) {
        return;
    }
    let Some(program) = peer("SLUICEGATE_REKOR", test) else { return };
    let project = Project::stranger();
    let store = project.path("rekor");
    fs::create_dir(&store).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(project.path("log.pem"));
    let made = openssl.stderr(Stdio::null()).status();
    assert!(made.is_ok_and(|status| status.success()), "openssl makes the log's key");
    let public =
        Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(project.path("log.pem")).output().unwrap();
    let root = trusted_root("rekor.local", &String::from_utf8(public.stdout).unwrap());
    fs::write(project.path("root.json"), root.to_string()).unwrap();
    let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let (http, grpc, metrics) = (port(), port(), port());
    let mut command = Command::new(program);
    command.args(["serve", "--hostname", "rekor.local", "--checkpoint-interval", "300ms", "--persistent-antispam"]);
    command.arg("--storage-dir").arg(&store).arg("--signer-filepath").arg(project.path("log.pem"));
    command.args(["--http-address", "127.0.0.1", "--grpc-address", "127.0.0.1"]);
    command.args(["--http-port", &http, "--grpc-port", &grpc, "--http-metrics-port", &metrics]);
    let log = fs::File::create(project.path("rekor.log")).unwrap();
    let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let server = Served { child, url: format!("http://127.0.0.1:{http}") };
    until("the real server answers", || {
        store.join("checkpoint").is_file() && TcpStream::connect(format!("127.0.0.1:{http}")).is_ok()
    });
    let files = Static::serve(store);
    let (way, url) = Way::to(&server.url);
    let place = format!("{{ rekor: \"{}\", read: \"{}\" }}", url, files.url);
    log_to(&project, &place, &project.path("root.json"), "rekor.local");
    // The answer to the second entry is lost: the server says later that it is there already, and its tiles prove it.
    way.last.store(2, Ordering::SeqCst);
    project.sluicegate(&["run", "--no-scan"]).assert(5, "1 signed statement waits in ");
    way.shut.store(false, Ordering::SeqCst);
    let ended = project.sluicegate(&["run", "--no-scan"]);
    assert_eq!(ended.code, 0, "{ended:?}\n{}", fs::read_to_string(project.path("rekor.log")).unwrap_or_default());
    assert!(ended.stderr.contains("is logged now: entry 1 of rekor.local"), "{ended:?}");
    project.must(&["verify", "--offline", "oci:out/tiny"]);
    let arguments = ["log", "verify", "--url", &files.url, "--trust-root", "root.json"];
    let (code, document) = project.json(&arguments);
    assert_eq!((code, &document["origin"]), (0, &json!("rekor.local")), "{document}");
    assert!(document["size"].as_u64().unwrap() >= 4 && waiting(&project) == 0, "{document}");
}
