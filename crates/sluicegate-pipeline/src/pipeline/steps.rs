//! Steps: what is executed, with what, and within which bounds.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use sluicegate_types::{Destination, NameError, NonEmpty, OutputName};

use super::{
    InputSource, Network, Param, Reuse, SecretSource, Source, Step,
    container_path::{absolute, is_reserved, kept},
    params::variable,
    wire::{WireAllow, WireArgv, WireDefaults, WireKey, WireLimits, WireOtherReport, WireStep},
};
use crate::{
    Error, In,
    spot::Aim,
    units,
    yaml::{Ordered, TextOr},
};

/// Times that a step is tried again.
const MAX_RETRY: u32 = 10;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);
/// Bytes of an argument, and of a variable with its name: the kernel's MAX_ARG_STRLEN without the zero byte at the end.
const MAX_ARGUMENT: usize = 128 * 1024 - 1;
/// Arguments of one command.
const MAX_ARGUMENTS: usize = 4096;
/// Shared caches of one step.
const MAX_CACHES: usize = 16;
/// Variables that are set by the executor.
const RESERVED_VARIABLES: [&str; 1] = ["SOURCE_DATE_EPOCH"];

pub(super) fn steps(
    at: &In<'_>,
    wire: Ordered<WireStep>,
    defaults: &WireDefaults,
    sources: &BTreeMap<OutputName, Source>,
    params: &BTreeMap<OutputName, Param>,
) -> Result<Vec<Step>, Error> {
    check_variables(at, "defaults", &defaults.env, params)?;
    let shared = Shared {
        defaults,
        sources,
        outputs: wire.0.iter().map(|(name, step)| (name.clone(), names(&step.outputs))).collect(),
        params,
        network: defaults.network.as_ref().map(|wire| network(at, "defaults", wire)).transpose()?,
        reuse: match &defaults.reuse {
            Some(TextOr::More(_)) => {
                return Err(
                    at.meaning("defaults.reuse", "write auto or never; files that are a key stand in their step")
                );
            }
            other => other.as_ref().map(|wire| reuse(at, "defaults", wire)).transpose()?,
        },
        retry: retry(at, "defaults", defaults.retry)?,
    };
    if let Some(image) = &defaults.image {
        image.parse::<sluicegate_types::ImageRef>().map_err(|e| at.meaning("defaults.image", e))?;
    }
    limits(at, "defaults", defaults.limits.as_ref(), None)?;
    wire.0.into_iter().map(|(name, body)| step_of(at, &name, body, &shared)).collect()
}

fn names<T>(all: &Ordered<T>) -> Vec<String> {
    all.0.iter().map(|(name, _)| name.clone()).collect()
}

/// What all steps share.
struct Shared<'a> {
    defaults: &'a WireDefaults,
    sources: &'a BTreeMap<OutputName, Source>,
    /// Names of each step's outputs.
    outputs: BTreeMap<String, Vec<String>>,
    params: &'a BTreeMap<OutputName, Param>,
    network: Option<Network>,
    reuse: Option<Reuse>,
    retry: Option<u32>,
}

fn step_of(at: &In<'_>, name: &str, wire: WireStep, shared: &Shared<'_>) -> Result<Step, Error> {
    let place = format!("steps.{name}");
    let name = name.parse().map_err(|e| at.name(&place, e))?;
    let defaults = shared.defaults;
    for (key, present) in [("matrix", wire.matrix.0), ("services", wire.services.0), ("when", wire.when.0)] {
        if present {
            return Err(at.later(format!("{place}.{key}")));
        }
    }
    let network = wire.network.as_ref().map(|wire| network(at, &place, wire)).transpose()?;
    let reuse = wire.reuse.as_ref().map(|wire| reuse(at, &place, wire)).transpose()?;
    let mut secrets = BTreeMap::new();
    for (key, secret) in wire.secrets.0 {
        let place = format!("{place}.secrets.{key}");
        check_variable(at, &place, &key, shared.params)?;
        if wire.env.contains_key(&key) {
            return Err(at.overlap(&place, Aim::Key, format!("{key} stands under env too; take one of them away")));
        }
        let source = match (secret.env, secret.file) {
            (Some(variable), None) if is_variable(&variable) => SecretSource::Env(variable),
            (None, Some(file)) if !file.is_empty() && !file.contains('\0') => SecretSource::File(PathBuf::from(file)),
            _ => return Err(at.meaning(&place, "write { env: VARIABLE } or { file: PATH }")),
        };
        secrets.insert(key, source);
    }
    let retry = retry(at, &place, wire.retry)?;
    if wire.accept_exit.iter().any(|code| !(1..=123).contains(code)) {
        let reason = "codes from 1 to 123: 0 passes anyway, and those above are the system's and the signals'";
        return Err(at.meaning(format!("{place}.accept_exit"), reason));
    }
    let (image, image_place) = match (&wire.image, &defaults.image) {
        (Some(image), _) => (image, format!("{place}.image")),
        (None, Some(image)) => (image, "defaults.image".to_owned()),
        (None, None) => return Err(at.name(&place, "no image: name one here or under defaults")),
    };
    let argv = argv(at, &format!("{place}.run"), wire.run)?;
    let mut inputs = BTreeMap::new();
    for (mount, source) in wire.inputs.0 {
        let place = format!("{place}.inputs.{mount}");
        let source = match source.split_once('.') {
            Some((step, output)) => InputSource::Output(
                step.parse().map_err(|e| at.meaning(&place, e))?,
                output.parse().map_err(|e: NameError| at.meaning(&place, e.of("output name")))?,
            ),
            None => {
                InputSource::Source(source.parse().map_err(|e: NameError| at.meaning(&place, e.of("source name")))?)
            }
        };
        if let InputSource::Source(name) = &source
            && !shared.sources.contains_key(name)
        {
            let sources = shared.sources.keys().map(OutputName::as_str);
            return Err(match shared.outputs.get(name.as_str()) {
                Some(outputs) => at.step_for_output(&place, name.as_str(), outputs.iter().map(String::as_str)),
                None => at.unknown(&place, "source", name.as_str(), sources),
            });
        }
        let mount = absolute(&mount).map_err(|e| at.name(&place, e))?;
        if is_reserved(&mount) {
            return Err(at.name(&place, "this path belongs to the container itself"));
        }
        if inputs.contains_key(&mount) {
            return Err(at.overlap(&place, Aim::Key, format!("two inputs would stand at {}", mount.display())));
        }
        // In this order a path comes after those that it lies in.
        inputs.insert(mount, source);
    }
    let mut outputs = BTreeMap::new();
    for (output, path) in wire.outputs.0 {
        let place = format!("{place}.outputs.{output}");
        let path = kept(at, &place, &path)?;
        let name: OutputName = output.parse().map_err(|e: NameError| at.name(&place, e.of("output name")))?;
        let inside = |other: &PathBuf| path.starts_with(other) || other.starts_with(&path);
        if let Some((other, _)) = outputs.iter().find(|(_, other)| inside(other)) {
            let reason = format!("the outputs {other} and {name} are one path, or one lies inside the other");
            return Err(at.overlap(&place, Aim::Value, reason));
        }
        outputs.insert(name, path);
    }
    let junit = junit(at, &place, wire.reports, &inputs, &outputs)?;
    let caches = caches(at, &place, wire.caches, &inputs, outputs.values().chain(&junit))?;
    check_variables(at, &place, &wire.env, shared.params)?;
    let mut env = defaults.env.clone();
    env.retain(|key, _| !secrets.contains_key(key));
    env.extend(wire.env);
    let limits = limits(at, &place, wire.limits.as_ref(), defaults.limits.as_ref())?;
    Ok(Step {
        name,
        image: image.parse().map_err(|e| at.meaning(image_place, e))?,
        argv,
        workdir: absolute(wire.workdir.as_deref().unwrap_or("/"))
            .map_err(|e| at.meaning(format!("{place}.workdir"), e))?,
        inputs,
        outputs,
        junit,
        env,
        needs: wire
            .needs
            .iter()
            .enumerate()
            .map(|(nth, need)| need.parse().map_err(|e| at.meaning(format!("{place}.needs[{nth}]"), e)))
            .collect::<Result<_, _>>()?,
        timeout: limits.timeout,
        memory: limits.memory,
        pids: limits.pids,
        cpu_millis: limits.cpu_millis,
        caches,
        network: network.or_else(|| shared.network.clone()).unwrap_or_default(),
        secrets,
        reuse: reuse.or_else(|| shared.reuse.clone()).unwrap_or_default(),
        retry: retry.or(shared.retry).unwrap_or_default(),
        accept_exit: wire.accept_exit.into_iter().collect(),
    })
}

/// Folders that runs share. What lies in one is in no output by its place alone, and what is mounted lies in none.
fn caches<'a>(
    at: &In<'_>,
    step: &str,
    wire: Ordered<String>,
    inputs: &BTreeMap<PathBuf, InputSource>,
    kept_paths: impl Iterator<Item = &'a PathBuf> + Clone,
) -> Result<BTreeMap<OutputName, PathBuf>, Error> {
    if wire.0.len() > MAX_CACHES {
        return Err(at.meaning(format!("{step}.caches"), format!("more than {MAX_CACHES}")));
    }
    let mut caches: BTreeMap<OutputName, PathBuf> = BTreeMap::new();
    for (name, path) in wire.0 {
        let place = format!("{step}.caches.{name}");
        let path = absolute(&path).map_err(|e| at.escapes(&place, e))?;
        if is_reserved(&path) {
            return Err(
                at.meaning(&place, "this path belongs to the container itself; choose another one, such as /cache")
            );
        }
        let overlap = |reason: String| Err(at.overlap(&place, Aim::Value, reason));
        let inside = |other: &PathBuf| path.starts_with(other) || other.starts_with(&path);
        if let Some((other, _)) = caches.iter().find(|(_, other)| inside(other)) {
            return overlap(format!("the caches {other} and {name} are one path, or one lies inside the other"));
        }
        if let Some(kept) = kept_paths.clone().find(|other| inside(other)) {
            return overlap(format!(
                "the cache overlaps {}, which is kept: what nobody vouches for would be in it; let the step copy what it needs",
                kept.display()
            ));
        }
        if let Some(mount) = inputs.keys().find(|mount| mount.starts_with(&path)) {
            return overlap(format!("the input at {} would stand inside the cache", mount.display()));
        }
        let name = name.parse().map_err(|e: NameError| at.name(&place, e.of("cache name")))?;
        caches.insert(name, path);
    }
    Ok(caches)
}

/// Limits as they hold.
struct Limits {
    timeout: Duration,
    memory: Option<u64>,
    pids: Option<u64>,
    cpu_millis: Option<u32>,
}

fn limits(at: &In<'_>, place: &str, own: Option<&WireLimits>, shared: Option<&WireLimits>) -> Result<Limits, Error> {
    // A limit that stands under defaults is wrong there, not in the step that took it.
    let limit_at = |is_own: bool, what: &str| {
        let place = if is_own { place } else { "defaults" };
        format!("{place}.limits.{what}")
    };
    let limit = |what: &str, of: fn(&WireLimits) -> Option<&String>, parse: fn(&str) -> Result<u64, String>| {
        let mine = own.and_then(of);
        let text = mine.or_else(|| shared.and_then(of));
        text.map(|text| parse(text).map_err(|e| at.meaning(limit_at(mine.is_some(), what), e))).transpose()
    };
    let timeout =
        limit("timeout", |limits| limits.timeout.as_ref(), |text| units::duration(text).map(|d| d.as_secs()))?;
    let memory = limit("memory", |limits| limits.memory.as_ref(), units::size)?;
    let own_pids = own.and_then(|limits| limits.pids);
    let pids = own_pids.or(shared.and_then(|limits| limits.pids));
    if pids == Some(0) {
        return Err(at.meaning(limit_at(own_pids.is_some(), "pids"), "at least 1"));
    }
    let own_cpus = own.and_then(|limits| limits.cpus);
    let cpus = own_cpus.or(shared.and_then(|limits| limits.cpus));
    if cpus.is_some_and(|cpus| !(0.001..=4096.0).contains(&cpus)) {
        return Err(at.meaning(limit_at(own_cpus.is_some(), "cpus"), "between 0.001 and 4096"));
    }
    Ok(Limits {
        timeout: timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
        memory,
        pids,
        cpu_millis: cpus.map(|cpus| (cpus * 1000.0) as u32),
    })
}

fn argv(at: &In<'_>, place: &str, wire: TextOr<WireArgv>) -> Result<Vec<String>, Error> {
    let argv = match wire {
        TextOr::Text(text) if !text.trim().is_empty() => vec!["sh".to_owned(), "-c".to_owned(), text],
        TextOr::More(WireArgv(argv)) if argv.first().is_some_and(|program| !program.is_empty()) => argv,
        _ => return Err(at.meaning(place, "nothing to execute")),
    };
    if argv.iter().any(|argument| argument.contains('\0')) {
        return Err(at.meaning(place, "an argument can't hold a zero byte"));
    }
    if let Some(long) = argv.iter().map(String::len).find(|length| *length > MAX_ARGUMENT) {
        return Err(at.meaning(
            place,
            format!(
                "a text of {long} bytes, and the kernel takes at most {MAX_ARGUMENT} in one argument (MAX_ARG_STRLEN); put the \
                 script into a file of a source and run that"
            ),
        ));
    }
    if argv.len() > MAX_ARGUMENTS {
        return Err(at.meaning(place, format!("more than {MAX_ARGUMENTS} arguments")));
    }
    Ok(argv)
}

fn network(at: &In<'_>, place: &str, wire: &TextOr<WireAllow>) -> Result<Network, Error> {
    let place = format!("{place}.network");
    match wire {
        TextOr::Text(word) if word == "none" => Ok(Network::None),
        TextOr::Text(word) if word == "host" => Ok(Network::Host),
        TextOr::Text(_) => Err(at.meaning(place, "write none, host or { allow: [HOST:PORT] }")),
        TextOr::More(WireAllow { allow }) => {
            let mut allowed: Vec<Destination> = Vec::new();
            for (nth, text) in allow.iter().enumerate() {
                let place = format!("{place}.allow[{nth}]");
                allowed.push(text.parse().map_err(|e: String| at.meaning(place, e))?);
            }
            let none = |_| at.meaning(format!("{place}.allow"), "at least one, or network: none");
            NonEmpty::try_from(allowed).map(Network::Allow).map_err(none)
        }
    }
}

fn reuse(at: &In<'_>, place: &str, wire: &TextOr<WireKey>) -> Result<Reuse, Error> {
    let place = format!("{place}.reuse");
    match wire {
        TextOr::Text(word) if word == "auto" => Ok(Reuse::Auto),
        TextOr::Text(word) if word == "never" => Ok(Reuse::Never),
        TextOr::Text(_) => Err(at.meaning(place, "write auto, never or { key: [FILE] }")),
        TextOr::More(WireKey { key }) => {
            let leads = |file: &String| {
                let mut components = Path::new(file).components();
                file.is_empty() || file.contains('\0') || !components.all(|c| matches!(c, Component::Normal(_)))
            };
            if let Some(nth) = key.iter().position(leads) {
                let place = format!("{place}.key[{nth}]");
                return Err(at.escapes(place, "files relative to the working folder, without . or .. parts"));
            }
            let none = |_| at.meaning(format!("{place}.key"), "at least one file, or reuse: never");
            NonEmpty::try_from(key.iter().map(PathBuf::from).collect::<Vec<_>>()).map(Reuse::Key).map_err(none)
        }
    }
}

fn retry(at: &In<'_>, place: &str, wire: Option<u32>) -> Result<Option<u32>, Error> {
    if wire.is_some_and(|retry| retry > MAX_RETRY) {
        return Err(at.meaning(format!("{place}.retry"), format!("at most {MAX_RETRY}")));
    }
    Ok(wire)
}

fn check_variables(
    at: &In<'_>,
    place: &str,
    env: &BTreeMap<String, String>,
    params: &BTreeMap<OutputName, Param>,
) -> Result<(), Error> {
    for (key, value) in env {
        let place = format!("{place}.env.{key}");
        check_variable(at, &place, key, params)?;
        if value.contains('\0') || key.len() + 1 + value.len() > MAX_ARGUMENT {
            let reason = format!("with its name at most {MAX_ARGUMENT} bytes (MAX_ARG_STRLEN), without a zero byte");
            return Err(at.meaning(place, reason));
        }
    }
    Ok(())
}

fn check_variable(at: &In<'_>, place: &str, key: &str, params: &BTreeMap<OutputName, Param>) -> Result<(), Error> {
    if !is_variable(key) {
        return Err(at.name(place, "not a variable: letters, digits and _, no digit first"));
    }
    if RESERVED_VARIABLES.contains(&key) {
        return Err(at.name(place, "this variable is set by the executor"));
    }
    if let Some(param) = params.keys().find(|param| variable(param) == key) {
        return Err(at.overlap(place, Aim::Key, format!("this variable is the parameter {param}")));
    }
    Ok(())
}

fn is_variable(key: &str) -> bool {
    !key.is_empty()
        && !key.starts_with(|c: char| c.is_ascii_digit())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The report of a step. It is about the step's inputs, so there must be one, and it is kept beside the outputs, not in one of them.
fn junit(
    at: &In<'_>,
    step: &str,
    reports: Ordered<TextOr<WireOtherReport>>,
    inputs: &BTreeMap<PathBuf, InputSource>,
    outputs: &BTreeMap<OutputName, PathBuf>,
) -> Result<Option<PathBuf>, Error> {
    let mut junit = None;
    for (kind, report) in reports.0 {
        let place = format!("{step}.reports.{kind}");
        if kind != "junit" {
            return Err(at.later_value(place, "", "a report is junit: PATH"));
        }
        let TextOr::Text(path) = report else {
            return Err(at.meaning(&place, "write the path of the report"));
        };
        let path = kept(at, &place, &path)?;
        if inputs.is_empty() {
            return Err(at.meaning(&place, "a report says something about what was tested; this step has no input"));
        }
        for (name, output) in outputs {
            if name.as_str() == kind {
                return Err(at.meaning(&place, format!("an output is called {kind} too; rename it")));
            }
            if path.starts_with(output) || output.starts_with(&path) {
                let reason = format!("the report and the output {name} overlap; a report is kept apart from outputs");
                return Err(at.overlap(&place, Aim::Value, reason));
            }
        }
        junit = Some(path);
    }
    Ok(junit)
}
