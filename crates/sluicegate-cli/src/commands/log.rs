use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use serde_json::json;
use sluicegate_flow::Error;
use sluicegate_ports::{served_log::ServedLog, sign::SignError};
use sluicegate_server::{Limits, serve_log};
use sluicegate_sigstore::logs_of;
use sluicegate_types::{Digest, LogUrl};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    arguments::{Log, LogCommand},
    gateway_folder,
    home::Home,
    passphrase, wire,
    words::{Problem, Words},
};

/// `log serve`, `log checkpoint` and `log verify`.
pub(crate) fn log(words: &Words, arguments: &Log) -> Result<ExitCode, Problem> {
    match &arguments.command {
        LogCommand::Serve { listen, plain_http_beyond_loopback } => serve(words, *listen, *plain_http_beyond_loopback),
        LogCommand::Checkpoint => checkpoint(words),
        LogCommand::Verify { url: None, .. } => verify(words),
        LogCommand::Verify { url: Some(url), trust_root } => verify_elsewhere(words, url, trust_root.as_deref()),
    }
}

fn serve(words: &Words, listen: SocketAddr, beyond_loopback: bool) -> Result<ExitCode, Problem> {
    if !listen.ip().to_canonical().is_loopback() && !beyond_loopback {
        return Err(Problem::usage(
            format!("{listen} is reached from other machines, and the log is served without TLS"),
            "listen on 127.0.0.1 and put a proxy with TLS before it, or say --plain-http-beyond-loopback",
        ));
    }
    let home = Home::open()?;
    let log = wire::log(&home, &wire::keys(&home), &passphrase::ask(false)?)?;
    let nowhere = |error: std::io::Error| {
        Problem::lost(format!("cannot listen on {listen}: {error}"), "name another address or port with --listen")
    };
    let listener = TcpListener::bind(listen).map_err(nowhere)?;
    let url = format!("http://{}", listener.local_addr().map_err(nowhere)?);
    let origin = log.public().origin.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::lost(format!("cannot begin to serve: {error}"), "try again"))?;
    let said = *words;
    runtime.block_on(async {
        let failed = |error: std::io::Error| Problem::lost(format!("cannot wait for signals: {error}"), "try again");
        // Before anybody is told that it serves: from then on a signal ends it as it should.
        let mut interrupted = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminated = signal(SignalKind::terminate()).map_err(failed)?;
        began(words, &url, &origin);
        let report = Arc::new(move |line: &str| said.warn(line));
        let asked = async {
            tokio::select! {
                _ = interrupted.recv() => {}
                _ = terminated.recv() => {}
            }
            said.tell("ending: what waits is logged first");
        };
        let ended = serve_log(listener, Arc::new(log), Limits::default(), report, asked).await;
        ended.map_err(|error| {
            Problem::bug(
                error.to_string(),
                &std::error::Error::source(&error).map_or_else(String::new, ToString::to_string),
            )
        })
    })?;
    words.tell("ended");
    Ok(ExitCode::SUCCESS)
}

fn began(words: &Words, url: &str, origin: &str) {
    words.tell(&format!("the log {origin} is served at {url}"));
    words.tell(&format!("  for cosign, once:  sluicegate trust export trust --log-url {url}"));
    words.tell(
        "  then:              cosign attest-blob --yes --key KEY --signing-config trust/signing_config.json --trusted-root \
         trust/trusted_root.json --bundle BUNDLE --type TYPE --predicate FILE BLOB",
    );
    words.tell(&format!("  for monitors:      {url}/api/v2/checkpoint and {url}/api/v2/tile/…"));
    words.tell("  SIGINT or SIGTERM ends it");
    if words.json() {
        words.document(&json!({"schemaVersion": 1, "url": url, "origin": origin}));
    }
}

fn checkpoint(words: &Words) -> Result<ExitCode, Problem> {
    let log = wire::log_reader(&Home::read()?)?;
    let note = log.checkpoint().map_err(damaged)?;
    if words.json() {
        let mut lines = note.lines().skip(1);
        let size = lines.next().and_then(|size| size.parse::<u64>().ok());
        let root = lines.next();
        words.document(&json!({
            "schemaVersion": 1, "origin": log.public().origin, "size": size, "root": root, "checkpoint": note,
        }));
    } else {
        words.line(note.trim_end_matches('\n'));
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(words: &Words) -> Result<ExitCode, Problem> {
    let log = wire::log_reader(&Home::read()?)?;
    let (size, root) = log.check().map_err(damaged)?;
    whole(words, &log.public().origin, size, &root);
    Ok(ExitCode::SUCCESS)
}

/// Reads a log elsewhere as anybody can, and compares all of it with what its key signs.
fn verify_elsewhere(words: &Words, url: &LogUrl, trust_root: Option<&Path>) -> Result<ExitCode, Problem> {
    let path = match trust_root {
        Some(path) => path.to_owned(),
        None => wire::trusted_root(&Home::read()?),
    };
    let remedy = "name the trusted_root.json of that log with --trust-root";
    let bytes = gateway_folder::read(&path)
        .map_err(|error| Problem::named("read the trusted root", &path, &error).or(remedy))?;
    let unread = |reason: String| Problem::usage(format!("{}: {reason}", path.display()), remedy);
    // What verify would not read is not read here either.
    sluicegate_verify::TrustRoot::parse(&bytes).map_err(|error| unread(error.to_string()))?;
    let logs = logs_of(&bytes).map_err(unread)?;
    if logs.is_empty() {
        return Err(unread("it has no log with an Ed25519 key, and others are not in this version".to_owned()));
    }
    let read = wire::log_elsewhere(url)?.check(&logs);
    let (origin, size, root) = read.map_err(|error| {
        let remedy = match &error {
            SignError::Unproved { .. } => "ask whoever runs the log; what it says from now on proves nothing",
            SignError::Stranger { .. } => "name the trusted_root.json of that log with --trust-root, or another --url",
            _ => "try again when all of it is served",
        };
        Problem::from(Error::from(error)).or(remedy)
    })?;
    whole(words, &origin, size, &root);
    Ok(ExitCode::SUCCESS)
}

fn whole(words: &Words, origin: &str, size: u64, root: &Digest) {
    if words.json() {
        words.document(&json!({"schemaVersion": 1, "origin": origin, "size": size, "root": root}));
    } else {
        let entries = if size == 1 { "entry" } else { "entries" };
        words.line(format!("{}  {size} {entries} in {origin}, root {root}", words.good("WHOLE")));
    }
}

/// What the log itself says is wrong with it is a matter of signatures and digests, not of something that is away for a while.
fn damaged(error: SignError) -> Problem {
    match error {
        SignError::Log { .. } => {
            Problem::wrong(error.to_string(), "nothing is appended to it as it is; restore the home from a backup")
        }
        other => Error::from(other).into(),
    }
}
