//! The log of a home, served by the real program: an unmodified cosign signs into it, a run of the same home appends beside it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use integration::{Ended, PASSPHRASE, Project, can_run_steps, decode, peer};
use serde_json::{Value, json};

const PREDICATE: &str = r#"{"buildDefinition":{"buildType":"https://test.example/build","externalParameters":{}},
    "runDetails":{"builder":{"id":"https://test.example/builder"}}}"#;
const EXPORTED: [&str; 4] =
    ["--signing-config", "exported/signing_config.json", "--trusted-root", "exported/trusted_root.json"];

/// A home with its log, and no image.
fn initialised() -> Project {
    let project = Project::empty();
    project.must(&["init"]);
    fs::write(project.path("predicate.json"), PREDICATE).unwrap();
    project
}

/// `sluicegate log serve` on a port of the system's choice; killed if a test ends before it.
struct Server {
    child: Child,
    address: String,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Server {
    fn start(project: &Project) -> Self {
        let mut command = project.command(&["log", "serve", "--listen", "127.0.0.1:0"]);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let address =
            line.trim_end().split_once(" is served at http://").unwrap_or_else(|| panic!("{line}")).1.to_owned();
        Self { child, address, stderr }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Status, head and body of the answer.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: log\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
    }

    /// Sends a signal, and returns the exit code and what was said after the first line.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal, &pid]).status().unwrap().success()
        );
        let code = self.child.wait().unwrap().code();
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (code, said)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cosign(program: &Path, project: &Project, arguments: &[&str]) -> Ended {
    let mut command = Command::new(program);
    project.environment(&mut command);
    command.args(arguments).env("HOME", project.path("."));
    Ended::of(arguments, command.output().unwrap())
}

/// cosign signs an attestation about a file and logs it where the exported configuration says.
fn attest_blob(program: &Path, project: &Project, blob: &str) -> Value {
    let bundle = format!("{blob}.bundle");
    let mut arguments = vec!["attest-blob", "--yes", "--key", "home/keys/builder.key", "--bundle", &bundle];
    arguments.extend(["--type", "slsaprovenance1", "--predicate", "predicate.json"]);
    arguments.extend(EXPORTED);
    arguments.push(blob);
    cosign(program, project, &arguments).assert(0, "");
    serde_json::from_slice(&fs::read(project.path(&bundle)).unwrap()).unwrap()
}

#[test]
fn cosign_signs_into_the_served_log_and_believes_what_comes_of_it() {
    let test = "cosign_signs_into_the_served_log_and_believes_what_comes_of_it";
    let Some(program) = peer("SLUICEGATE_COSIGN", test) else { return };
    let project = initialised();
    let server = Server::start(&project);
    project.must(&["trust", "export", "exported", "--log-url", &server.url()]);
    fs::write(project.path("blob"), "what is signed\n").unwrap();
    fs::write(project.path("other"), "something else\n").unwrap();
    let bundle = attest_blob(&program, &project, "blob");
    let second = attest_blob(&program, &project, "other");
    // protojson leaves a zero out.
    let entry = |bundle: &Value| bundle["verificationMaterial"]["tlogEntries"][0].clone();
    assert_eq!((&entry(&bundle)["logIndex"], &entry(&second)["logIndex"]), (&Value::Null, &json!("1")));
    let verify = |key: &str, bundle: &str, blob: &str| {
        let mut arguments = vec!["verify-blob-attestation", "--key", key, "--bundle", bundle];
        arguments.extend(["--type", "slsaprovenance1", "--trusted-root", "exported/trusted_root.json", blob]);
        cosign(&program, &project, &arguments)
    };
    verify("exported/builder.pub", "blob.bundle", "blob").assert(0, "Verified OK");
    verify("exported/builder.pub", "other.bundle", "other").assert(0, "Verified OK");
    assert_ne!(verify("exported/builder.pub", "blob.bundle", "other").code, 0);
    assert_ne!(verify("exported/production.pub", "blob.bundle", "blob").code, 0);
    // The same again, word for word.
    let body = decode(entry(&bundle)["canonicalizedBody"].as_str().unwrap());
    let logged = &body["spec"]["hashedRekordV002"];
    let request = json!({"hashedRekordRequestV002": {
        "digest": logged["data"]["digest"], "signature": logged["signature"]}});
    let (status, head, answer) = server.ask("POST", "/api/v2/log/entries", &request.to_string());
    assert!(status == 409 && head.contains("\r\nx-log-index: 0"), "{head}");
    assert_eq!(
        answer,
        r#"{"code":6,"message":"an equivalent entry already exists in the transparency log with index 0","details":[]}"#
    );
    // What older versions of cosign ask for is refused in the words of the real server.
    let (status, _, answer) = server.ask("POST", "/api/v2/log/entries", r#"{"dsseRequestV002":{}}"#);
    assert_eq!(
        (status, answer.as_str()),
        (400, r#"{"code":3,"message":"invalid type, must be hashedrekord","details":[]}"#)
    );
    let (status, _, checkpoint) = server.ask("GET", "/api/v2/checkpoint", "");
    assert_eq!(status, 200);
    project.sluicegate(&["log", "checkpoint"]).assert(0, checkpoint.trim_end());
    let (status, _, tile) = server.ask("GET", "/api/v2/tile/entries/000.p/2", "");
    assert!(status == 200 && tile.contains(logged["data"]["digest"].as_str().unwrap()));
    let (code, said) = server.end("TERM");
    assert!(code == Some(0) && said.ends_with("ended\n"), "{said}");
    let (code, document) = project.json(&["log", "verify"]);
    assert_eq!((code, &document["size"]), (0, &json!(2)));
    let root = BASE64_STANDARD.decode(checkpoint.lines().nth(2).unwrap()).unwrap();
    let root: String = root.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(document["root"], format!("sha256:{root}"));
}

#[test]
fn a_run_of_the_same_home_and_the_server_share_the_log_without_loss() {
    let test = "a_run_of_the_same_home_and_the_server_share_the_log_without_loss";
    if !can_run_steps(test) {
        return;
    }
    let Some(program) = peer("SLUICEGATE_COSIGN", test) else { return };
    let project = Project::stranger();
    fs::write(project.path("predicate.json"), PREDICATE).unwrap();
    let server = Server::start(&project);
    project.must(&["trust", "export", "exported", "--log-url", &server.url()]);
    let ran = AtomicBool::new(false);
    let bundles: Vec<Value> = thread::scope(|scope| {
        let signer = scope.spawn(|| {
            let mut bundles = Vec::new();
            for number in 0.. {
                if number > 4 && ran.load(Ordering::SeqCst) {
                    break;
                }
                let blob = format!("blob{number}");
                fs::write(project.path(&blob), &blob).unwrap();
                bundles.push(attest_blob(&program, &project, &blob));
            }
            bundles
        });
        project.must(&["run", "--no-scan"]);
        ran.store(true, Ordering::SeqCst);
        signer.join().unwrap()
    });
    project.must(&["verify", "oci:out/tiny"]);
    assert_eq!(server.end("INT").0, Some(0));
    let (code, document) = project.json(&["log", "verify"]);
    let size = usize::try_from(document["size"].as_u64().unwrap()).unwrap();
    assert!(code == 0 && size > bundles.len(), "{size} entries, {} by cosign", bundles.len());
    // Each has its own place, and the places of the run are between them.
    let index = |bundle: &Value| {
        let index = &bundle["verificationMaterial"]["tlogEntries"][0]["logIndex"];
        index.as_str().map_or(0, |index| index.parse::<usize>().unwrap())
    };
    let places: Vec<usize> = bundles.iter().map(index).collect();
    assert!(places.is_sorted_by(|one, next| one < next) && places.iter().all(|place| *place < size), "{places:?}");
    for number in 0..bundles.len() {
        let blob = format!("blob{number}");
        let bundle = format!("{blob}.bundle");
        let arguments = ["verify-blob-attestation", "--key", "exported/builder.pub", "--bundle", &bundle];
        let arguments = [&arguments[..], &["--type", "slsaprovenance1", "--trusted-root", EXPORTED[3], &blob]].concat();
        cosign(&program, &project, &arguments).assert(0, "Verified OK");
    }
}

#[test]
fn a_log_is_not_served_where_it_should_not_be() {
    let project = initialised();
    let serve = |arguments: &[&str]| project.sluicegate(&[&["log", "serve"], arguments].concat());
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        serve(&["--listen", listen]).assert(2, "--plain-http-beyond-loopback");
    }
    serve(&["--listen", "localhost"]).assert(2, "invalid value");
    serve(&["--listen", "192.0.2.1:0", "--plain-http-beyond-loopback"]).assert(5, "cannot listen on 192.0.2.1:0");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    serve(&["--listen", &taken.local_addr().unwrap().to_string()]).assert(5, "cannot listen");
    let mut locked = project.command(&["log", "serve", "--listen", "127.0.0.1:0"]);
    locked.env("COSIGN_PASSWORD", format!("not {PASSPHRASE}"));
    Ended::of(&["log", "serve"], locked.output().unwrap()).assert(2, "wrong passphrase");
    let nowhere = Project::empty();
    for command in [&["log", "serve"][..], &["log", "verify"], &["log", "checkpoint"], &["trust", "export", "exported"]]
    {
        nowhere.sluicegate(command).assert(2, "there is no home");
    }
    assert!(!nowhere.path("home").exists() && !nowhere.path("exported").exists());
    for command in ["show", "update"] {
        project.sluicegate(&["trust", command]).assert(2, &format!("trust {command}: not in this version"));
    }
}

#[test]
fn a_program_learns_where_the_log_is_served() {
    let project = initialised();
    let mut command = project.command(&["log", "serve", "--listen", "127.0.0.1:0", "-o", "json", "-q"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut text = String::new();
    for line in lines {
        text.push_str(&line);
        if line == "}" {
            break;
        }
    }
    let document: Value = serde_json::from_str(&text).unwrap();
    let address = document["url"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    let server = Server { address, stderr: BufReader::new(child.stderr.take().unwrap()), child };
    let (status, _, checkpoint) = server.ask("GET", "/api/v2/checkpoint", "");
    assert_eq!((status, checkpoint.lines().next()), (200, document["origin"].as_str()));
    assert_eq!(server.end("TERM"), (Some(0), String::new()));
}

#[test]
fn log_verify_finds_what_is_not_as_it_was_signed() {
    let project = initialised();
    project.sluicegate(&["log", "verify"]).assert(0, "WHOLE  0 entries");
    let checkpoint = project.path("home/log/checkpoint");
    let good = fs::read_to_string(&checkpoint).unwrap();
    fs::write(&checkpoint, good.replacen("\n0\n", "\n1\n", 1)).unwrap();
    for command in [&["log", "verify"][..], &["log", "checkpoint"]] {
        project.sluicegate(command).assert(4, "no valid signature");
    }
    fs::remove_file(&checkpoint).unwrap();
    project.sluicegate(&["log", "verify"]).assert(4, "it has no checkpoint");
    project.sluicegate(&["log", "serve", "--listen", "127.0.0.1:0"]).assert(5, "it has no checkpoint");
    fs::write(&checkpoint, good).unwrap();
    let (code, document) = project.json(&["log", "checkpoint"]);
    assert_eq!((code, &document["size"], &document["schemaVersion"]), (0, &json!(0), &json!(1)));
}

#[test]
fn trust_export_writes_what_a_verifier_needs_and_overwrites_nothing() {
    let project = initialised();
    let export = |arguments: &[&str]| project.sluicegate(&[&["trust", "export", "exported"], arguments].concat());
    export(&["--log-url", "not a url"]).assert(2, "is no URL of a log");
    assert!(!project.path("exported").exists());
    let without = export(&[]);
    without.assert(0, "WRITTEN  7 files in exported");
    assert!(without.stderr.contains("names no log"), "{without:?}");
    let read = |name: &str| fs::read(project.path(name)).unwrap();
    assert_eq!(read("exported/trusted_root.json"), read("home/trust/trusted_root.json"));
    for key in ["builder", "recorder", "production", "log", "ledger"] {
        assert_eq!(read(&format!("exported/{key}.pub")), read(&format!("home/keys/{key}.pub")));
    }
    let config: Value = serde_json::from_slice(&read("exported/signing_config.json")).unwrap();
    assert_eq!(config["rekorTlogUrls"], json!([]));
    export(&[]).assert(0, "WRITTEN  0 files");
    // Another configuration under the same name is another file.
    export(&["--log-url", "http://127.0.0.1:3003"]).assert(2, "is there and differs; nothing was written");
    fs::remove_file(project.path("exported/signing_config.json")).unwrap();
    fs::write(project.path("exported/log.pub"), "x").unwrap();
    export(&["--log-url", "http://127.0.0.1:3003"]).assert(2, "log.pub is there and differs");
    assert!(!project.path("exported/signing_config.json").exists());
    fs::remove_file(project.path("exported/log.pub")).unwrap();
    export(&["--log-url", "http://127.0.0.1:3003"]).assert(0, "WRITTEN  2 files");
    let config: Value = serde_json::from_slice(&read("exported/signing_config.json")).unwrap();
    let root: Value = serde_json::from_slice(&read("exported/trusted_root.json")).unwrap();
    let log = &config["rekorTlogUrls"][0];
    assert_eq!((&log["url"], &log["majorApiVersion"]), (&json!("http://127.0.0.1:3003"), &json!(2)));
    assert_eq!(log["validFor"], root["tlogs"][0]["publicKey"]["validFor"]);
}
