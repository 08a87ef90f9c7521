use std::process::ExitCode;

use serde_json::json;
use sluicegate_flow::Error;
use sluicegate_ports::sign::SignError;

use crate::{
    arguments::{Keys, KeysCommand},
    gateway_folder,
    home::Home,
    passphrase,
    wire::{self, LOG_KEY},
    words::{Problem, Words},
};

/// Names of keys that the home itself makes.
const RESERVED: [&str; 2] = [LOG_KEY, "ledger"];

/// `keys generate` and `keys show`.
pub(crate) fn keys(words: &Words, arguments: &Keys) -> Result<ExitCode, Problem> {
    match &arguments.command {
        KeysCommand::Generate { name } => generate(words, &Home::make()?, name),
        KeysCommand::Show { name } => show(words, &Home::read()?, name),
    }
}

fn generate(words: &Words, home: &Home, name: &str) -> Result<ExitCode, Problem> {
    if RESERVED.contains(&name) {
        return Err(Problem::usage(
            format!("{name} is the name of a key that the home makes itself"),
            "choose another name",
        ));
    }
    let keys = wire::keys(home);
    // Found out before a passphrase is asked for.
    if keys.has(name).map_err(Error::from)? {
        return Err(Problem::from(Error::from(SignError::KeyExists { name: name.to_owned() }))
            .or(format!("sluicegate keys show {name} prints its public half; generate one with another name")));
    }
    let first = !keys.has(LOG_KEY).map_err(Error::from)?;
    let passphrase = passphrase::ask(first)?;
    if !first {
        // One passphrase opens every key of a home; a key under another one could not be used beside the log's.
        keys.open_log_key(LOG_KEY, &passphrase).map_err(Error::from)?;
    }
    keys.generate(name, &passphrase).map_err(Error::from)?;
    let public = home.part("keys").join(format!("{name}.pub"));
    if words.json() {
        words.document(&json!({"schemaVersion": 1, "name": name, "publicKey": public}));
    } else {
        words.line(public.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The keys of a home whose public half can be shown, by name.
pub(crate) fn names(home: &Home) -> Vec<String> {
    let keys = wire::keys(home);
    let entries = std::fs::read_dir(home.part("keys")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".pub").map(str::to_owned))
        .filter(|name| keys.public_key(name).is_ok())
        .collect();
    names.sort();
    names
}

fn show(words: &Words, home: &Home, name: &str) -> Result<ExitCode, Problem> {
    // Read as a key first, so that what is printed is one.
    wire::keys(home).public_key(name).map_err(|error| {
        let missing = matches!(error, SignError::NoKey { .. });
        let problem = Problem::from(Error::from(error));
        if !missing {
            return problem;
        }
        let there = match names(home).as_slice() {
            [] => "there is none yet".to_owned(),
            names => format!("there are {}", names.join(", ")),
        };
        problem.or(format!("{there}; sluicegate keys generate {name} makes it"))
    })?;
    let path = home.part("keys").join(format!("{name}.pub"));
    let bytes = gateway_folder::read(&path).map_err(|error| Problem::io("read", &path, &error))?;
    let pem = String::from_utf8_lossy(&bytes);
    if words.json() {
        words.document(&json!({"schemaVersion": 1, "name": name, "pem": pem}));
    } else {
        words.line(pem.trim_end());
    }
    Ok(ExitCode::SUCCESS)
}
