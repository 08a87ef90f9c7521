use std::{path::Path, process::ExitCode};

use serde_json::{Value, json};
use sluicegate_sigstore::signing_config_json;
use sluicegate_types::UnixTime;

use super::{init::write_new, keys};
use crate::{
    arguments::{Trust, TrustCommand},
    gateway_folder,
    home::Home,
    wire,
    words::{Problem, Words},
};

const ROOT: &str = "trusted_root.json";
const CONFIG: &str = "signing_config.json";
/// Characters of a URL.
const URL_LIMIT: usize = 2048;

/// `trust export`.
pub(crate) fn trust(words: &Words, arguments: &Trust) -> Result<ExitCode, Problem> {
    match &arguments.command {
        TrustCommand::Export { folder, log_url } => export(words, folder, log_url.as_deref()),
    }
}

fn export(words: &Words, folder: &Path, log_url: Option<&str>) -> Result<ExitCode, Problem> {
    if let Some(url) = log_url {
        check_url(url)?;
    }
    let home = Home::read()?;
    let files = files(&home, log_url)?;
    // Found out before anything is written.
    for (name, bytes) in &files {
        let path = folder.join(name);
        match gateway_folder::read(&path) {
            Ok(found) if found == *bytes => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            _ => {
                return Err(Problem::usage(
                    format!("{} is there and differs; nothing was written", path.display()),
                    "name an empty folder, or move that file away",
                ));
            }
        }
    }
    let mut written = Vec::new();
    for (name, bytes) in &files {
        if write_new(&folder.join(name), bytes)? {
            written.push(name);
        }
    }
    if log_url.is_none() {
        words.tell("signing_config.json names no log: with --log-url URL cosign signs into the one that sluicegate log serve serves");
    }
    if words.json() {
        words.document(&json!({"schemaVersion": 1, "folder": folder, "written": written}));
    } else {
        words.line(format!("{}  {} files in {}", words.good("WRITTEN"), written.len(), folder.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// What is exported, each by its name.
fn files(home: &Home, log_url: Option<&str>) -> Result<Vec<(String, Vec<u8>)>, Problem> {
    let read = |path: &Path| gateway_folder::read(path).map_err(|error| Problem::io("read", path, &error));
    let root_path = wire::trusted_root(home);
    let root = read(&root_path)?;
    let damaged =
        |reason: String| Problem::wrong(format!("{}: {reason}", root_path.display()), "restore the home from a backup");
    let trust = sluicegate_verify::TrustRoot::parse(&root).map_err(|error| damaged(error.to_string()))?;
    let log = wire::log_reader(home)?;
    let origin = &log.public().origin;
    if !trust.origins().any(|known| known == origin) {
        return Err(damaged(format!("it does not name the home's own log {origin}")));
    }
    let config = signing_config_json(log_url, start(&root).map_err(damaged)?);
    let mut files = vec![(ROOT.to_owned(), root), (CONFIG.to_owned(), config)];
    for name in keys::names(home) {
        let file = format!("{name}.pub");
        let bytes = read(&home.part("keys").join(&file))?;
        files.push((file, bytes));
    }
    Ok(files)
}

/// Since when the log's key counts.
fn start(root: &[u8]) -> Result<UnixTime, String> {
    let root: Value = serde_json::from_slice(root).map_err(|error| error.to_string())?;
    let start =
        root["tlogs"][0]["publicKey"]["validFor"]["start"].as_str().ok_or("it says no start of its log's key")?;
    start.parse().map_err(|_| "the start of its log's key is no moment".to_owned())
}

/// A URL that a client adds a path to.
fn check_url(url: &str) -> Result<(), Problem> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic() && !br#""'<>\?#@"#.contains(&byte));
    if host.is_empty() || host.starts_with(':') || !plain || url.len() > URL_LIMIT || url.ends_with('/') {
        return Err(Problem::usage(
            "--log-url is no URL of a log",
            "write http:// or https://, a host and perhaps a port and a path, without user, question and last slash, such as \
             http://127.0.0.1:3003",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_log_is_one_that_a_path_can_be_added_to() {
        for good in ["http://127.0.0.1:3003", "https://log.example", "http://[::1]:3003", "https://log.example/rekor"] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "log.example",
            "ftp://log.example",
            "http://",
            "http:///path",
            "http://:3003",
            "http://a b",
            "http://a\n",
            "http://user@host",
            "http://host?x",
            "http://host#x",
            "http://host/",
            "HTTP://host",
            "http://h\u{f6}st",
        ] {
            assert!(check_url(bad).is_err(), "{bad:?}");
        }
        assert!(check_url(&format!("http://{}", "a".repeat(URL_LIMIT))).is_err());
    }
}
