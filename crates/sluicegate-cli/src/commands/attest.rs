use std::{path::Path, process::ExitCode};

use serde_json::json;
use sluicegate_attestation::predicate::MAX_PREDICATE;
use sluicegate_flow::{
    Error,
    attest_by_hand::{ByHand, ByHandRequest, kind, prepare, sign},
    folders::EnvironmentPlaces,
    gateway::trust,
};
use sluicegate_pipeline::gateway::Gateway;

use crate::{
    arguments::Attest,
    gateway_folder::{GatewayFolder, read_within},
    home::Home,
    passphrase,
    wire::{Logging, NoLedger, NoLog, Wired},
    words::{Problem, Words, printable},
};

/// `attest`.
pub(crate) fn attest(words: &Words, arguments: &Attest) -> Result<ExitCode, Problem> {
    let kind = kind(&arguments.kind)?;
    let file = &arguments.predicate;
    let predicate = read_within(file, MAX_PREDICATE as u64).map_err(|error| {
        Problem::named("read the predicate", file, &error).or("name a file with one JSON object with --predicate")
    })?;
    let gateway = GatewayFolder::open(arguments.gateway.gateway.as_deref(), Path::new("."))?;
    let key = key(&gateway.gateway, arguments.signer.as_deref())?;
    let (trust, _) = trust(&gateway.gateway, &gateway)?;
    let wired = Wired::new(Home::open()?)?.judged_by(&gateway.gateway);
    let public_key =
        wired.keys().public_key(&key).map_err(|error| Problem::from(Error::from(error)).or(get_a_key(&key)))?;
    let environments = EnvironmentPlaces::of(&gateway.gateway, &gateway.folder);
    let tell = |line: &str| words.tell(line);
    let warn = |line: &str| words.warn(line);
    let request = ByHandRequest {
        reference: &arguments.image,
        folder: Path::new("."),
        environments: &environments,
        kind: &kind,
        predicate: &predicate,
        trust: &trust,
        key: &key,
        public_key: &public_key,
    };
    let prepared = prepare(&wired.ports(&NoLog, &NoLedger, &tell, &warn), &request)?;
    let passphrase = passphrase::ask(false)?;
    let logging = Logging { gateway: &gateway, trust: &trust, words };
    let (signer, log, ledger) = wired.signer_and_logs(&key, &passphrase, logging)?;
    let done = sign(&wired.ports(log.as_ref(), &ledger, &tell, &warn), prepared, signer.as_ref())?;
    print(words, &done);
    Ok(ExitCode::SUCCESS)
}

/// The key that signs: the one that was named, else the gateway's; never one that has another role there.
fn key(gateway: &Gateway, named: Option<&str>) -> Result<String, Problem> {
    let signing = &gateway.signing;
    let Some(key) = named.or(signing.manual.as_deref()) else {
        return Err(Problem::usage("the gateway file names no key for what is said by hand", get_a_key("NAME")));
    };
    if signing.decisions.values().chain([&signing.steps, &signing.records]).any(|other| other == key) {
        return Err(Problem::usage(
            format!("the key {key} has another role in the gateway file"),
            "what is said by hand needs a key of its own: sluicegate keys generate NAME",
        ));
    }
    Ok(key.to_owned())
}

/// How to get a key that is believed.
fn get_a_key(name: &str) -> String {
    format!(
        "sluicegate keys generate {name}; copy the printed file beside trust.yaml; add {name}: {{ key: {name}.pub, roles: [manual], \
         repositories: [\"*\"] }} to its signers and manual: key:{name} to signing of the gateway file"
    )
}

fn print(words: &Words, done: &ByHand) {
    let statement = &done.statement;
    let log = statement.log();
    if words.json() {
        words.document(&json!({
            "schemaVersion": 1,
            "image": done.image,
            "predicateType": statement.statement().predicate_type.uri(),
            "bundle": statement.bundle(),
            "referrer": done.referrer,
            "signer": statement.signer(),
            "keyId": statement.key_id(),
            "log": {"origin": log.origin, "index": log.index},
            "record": done.record,
        }));
        return;
    }
    words.line(format!("{}  {}", words.good("ATTESTED"), done.image));
    words.line(printable(&format!(
        "  {} by {}, log {} of {}",
        statement.statement().predicate_type,
        statement.signer(),
        log.index,
        log.origin
    )));
    words.line(format!("  bundle {}", statement.bundle()));
    words.line(format!("  recorded: sluicegate evidence show {}", done.record));
}
