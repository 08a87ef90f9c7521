//! `sluicegate.yaml`, version 1, to an ordered plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, de::IgnoredAny};
use sluicegate_types::{ImageRef, NameError, NonEmpty, OutputName, Place, Platform, StepName, TagName};

use crate::{
    Error, In, units,
    yaml::{self, Given, Ordered},
};

/// A pipeline that can be run: its steps in an order in which every input exists before it is read.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Its name.
    pub name: StepName,
    /// What may be set from outside, by name.
    pub params: BTreeMap<OutputName, Param>,
    /// Source trees by name.
    pub sources: BTreeMap<OutputName, Source>,
    /// Steps, each after those it reads from or needs.
    pub steps: Vec<Step>,
    /// What is assembled from products; at least one.
    pub artifacts: Vec<Artifact>,
}

/// A value that is set from outside; steps see it as the variable `PARAM_NAME` and nowhere else.
#[derive(Clone, Debug)]
pub struct Param {
    /// What a value has to match as a whole; `None` takes any.
    pub pattern: Option<String>,
    /// The value where none is set; without one it must be set.
    pub default: Option<String>,
}

/// A source tree.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where its files come from.
    pub place: SourcePlace,
    /// Files outside of it that belong to it too, relative to its folder; each stands under its own name at its top.
    pub include: Vec<PathBuf>,
}

impl Source {
    /// The folder beside the pipeline file that it is, if it is one.
    pub fn folder(&self) -> Option<&Path> {
        match &self.place {
            SourcePlace::Folder(path) => Some(path),
            SourcePlace::Git { .. } => None,
        }
    }
}

/// Where a source's files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourcePlace {
    /// A folder, relative to the pipeline file, inside that file's folder.
    Folder(PathBuf),
    /// A commit that the executor fetches itself.
    Git {
        /// The repository.
        url: String,
        /// A branch, a tag or a commit.
        reference: String,
    },
}

/// What a step may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Nothing but itself.
    #[default]
    None,
    /// These, through the recording proxy.
    Allow(NonEmpty<Destination>),
    /// Everything that the machine reaches.
    Host,
}

/// A server and its port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// A name in lower case, or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl std::str::FromStr for Destination {
    type Err = String;

    /// `HOST:PORT`, `ADDRESS:PORT` or `[ADDRESS]:PORT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no server and port: write HOST:PORT, such as proxy.example:443");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?.to_string(),
            None => host.to_ascii_lowercase(),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_address = host.parse::<std::net::Ipv6Addr>().is_ok();
        if host.is_empty() || host.len() > 253 || (!is_address && !host.chars().all(plain)) {
            return Err(wrong());
        }
        Ok(Self { host, port })
    }
}

/// Where a secret's value comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretSource {
    /// A variable of the environment that `run` is called in.
    Env(String),
    /// A file, relative to the pipeline file; it is in no source.
    File(PathBuf),
}

/// When an earlier result of the same work is taken in place of doing it again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// If everything that can change the result is the same, and the step had no network and no secret.
    #[default]
    Auto,
    /// Never.
    Never,
    /// If these files, relative to the working folder and found in the inputs, are the same, whatever else the inputs hold; with a
    /// network and secrets too.
    Key(NonEmpty<PathBuf>),
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name.
    pub name: StepName,
    /// The image it runs in.
    pub image: ImageRef,
    /// What is executed: a text is given to `sh -c`, a list is executed as it is. Nothing is interpolated.
    pub argv: Vec<String>,
    /// An absolute path.
    pub workdir: PathBuf,
    /// Absolute mount point to what stands there.
    pub inputs: BTreeMap<PathBuf, InputSource>,
    /// Output name to absolute path.
    pub outputs: BTreeMap<OutputName, PathBuf>,
    /// Absolute path of the JUnit XML report that it writes about its inputs.
    pub junit: Option<PathBuf>,
    /// Variables beside PATH, HOME and SOURCE_DATE_EPOCH.
    pub env: BTreeMap<String, String>,
    /// Steps that must pass before it, beside those whose outputs it reads.
    pub needs: Vec<StepName>,
    /// Wall time.
    pub timeout: Duration,
    /// Bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// What it may reach.
    pub network: Network,
    /// Variables whose values are never written down.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Whether an earlier result may be taken.
    pub reuse: Reuse,
    /// How often it is tried again after it failed.
    pub retry: u32,
    /// Exit codes beside 0 with which it passes, recorded as they are.
    pub accept_exit: BTreeSet<i32>,
}

/// What an input is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputSource {
    /// A source tree.
    Source(OutputName),
    /// An output of an earlier step.
    Output(StepName, OutputName),
}

impl InputSource {
    /// The step that made it.
    pub fn step(&self) -> Option<&StepName> {
        match self {
            Self::Source(_) => None,
            Self::Output(step, _) => Some(step),
        }
    }
}

impl std::fmt::Display for InputSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Source(name) => write!(f, "{name}"),
            Self::Output(step, output) => write!(f, "{step}.{output}"),
        }
    }
}

/// An image to assemble.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Its name.
    pub name: OutputName,
    /// What it stands on; `None` is `scratch`.
    pub base: Option<ImageRef>,
    /// Absolute path in the image to the product that goes there.
    pub files: BTreeMap<PathBuf, (StepName, OutputName)>,
    /// How it starts.
    pub config: ImageConfig,
    /// Steps that must pass beside those that made its products.
    pub needs: Vec<StepName>,
    /// The OCI layout folder or repository that it is written to.
    pub repository: Place,
    /// Build tags; never moved from one digest to another.
    pub tags: Vec<TagName>,
    /// The machines that it is for; several make an index of an image for each.
    pub platforms: NonEmpty<Platform>,
}

/// How an image starts; what is left out comes from the base.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// What is executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Arguments that a user may replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The working folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Steps in one file.
const MAX_STEPS: usize = 1000;
/// Times that a step is tried again.
const MAX_RETRY: u32 = 10;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

impl Pipeline {
    /// What an artifact came from: the steps that made its products and those it needs, with all that these read from or need, in
    /// the order in which they run.
    pub fn closure(&self, artifact: &Artifact) -> Vec<&Step> {
        self.with_what_they_need(artifact.files.values().map(|(step, _)| step).chain(&artifact.needs))
    }

    /// These steps with all that they read from or need, in the order in which they run.
    pub fn with_what_they_need<'a>(&self, names: impl IntoIterator<Item = &'a StepName>) -> Vec<&Step> {
        let mut wanted: BTreeSet<&StepName> = names.into_iter().collect();
        // Steps stand in an order in which each comes after what it depends on.
        for step in self.steps.iter().rev() {
            if wanted.contains(&step.name) {
                wanted.extend(step.needs.iter().chain(step.inputs.values().filter_map(InputSource::step)));
            }
        }
        self.steps.iter().filter(|step| wanted.contains(&step.name)).collect()
    }

    /// The variables that steps see of its parameters, with these values set: `PARAM_NAME`.
    pub fn arguments(&self, set: &[(String, String)]) -> Result<BTreeMap<String, String>, Error> {
        let at = In("--set");
        let mut out = BTreeMap::new();
        for (name, _) in set {
            if !self.params.keys().any(|param| param.as_str() == name) {
                return Err(at.meaning(name, "the pipeline file declares no such parameter under params"));
            }
        }
        for (name, param) in &self.params {
            let given = set.iter().rev().find(|(given, _)| given == name.as_str()).map(|(_, value)| value);
            let value = given.or(param.default.as_ref());
            let value = value.ok_or_else(|| at.meaning(name.as_str(), "it has no default; set it"))?;
            out.insert(format!("PARAM_{}", name.as_str().to_ascii_uppercase().replace('-', "_")), value.clone());
        }
        Ok(out)
    }

    /// Reads a pipeline file; `file` is how errors call it.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let wire: WirePipeline = yaml::read(file, text)?;
        let at = In(file);
        at.version(wire.version)?;
        let params = params(&at, wire.params)?;
        at.absent("", "caches", wire.caches)?;
        let name = wire.name.parse().map_err(|e: NameError| at.meaning("name", e.of("pipeline name")))?;
        let sources = sources(&at, wire.sources)?;
        if wire.steps.0.len() > MAX_STEPS {
            return Err(at.meaning("steps", format!("more than {MAX_STEPS}")));
        }
        let mut steps = Vec::new();
        for (step, body) in wire.steps.0 {
            steps.push(step_of(&at, &step, body, &wire.defaults, &sources)?);
        }
        let steps = in_order(&at, steps)?;
        let artifacts = artifacts(&at, wire.artifacts, &steps)?;
        Ok(Self { name, params, sources, steps, artifacts })
    }
}

fn params(at: &In<'_>, wire: Ordered<WireParam>) -> Result<BTreeMap<OutputName, Param>, Error> {
    let mut out = BTreeMap::new();
    for (name, param) in wire.0 {
        let place = format!("params.{name}");
        if param.kind.as_deref().is_some_and(|kind| kind != "string") {
            return Err(at.later_but(format!("{place}.type"), "a parameter is a string"));
        }
        at.absent(&place, "pattern", Given(param.pattern.is_some()))?;
        let name = name.parse().map_err(|e: NameError| at.meaning(&place, e.of("parameter name")))?;
        out.insert(name, Param { pattern: param.pattern, default: param.default });
    }
    Ok(out)
}

fn sources(at: &In<'_>, wire: Ordered<WireSource>) -> Result<BTreeMap<OutputName, Source>, Error> {
    let mut out = BTreeMap::new();
    for (name, source) in wire.0 {
        let place = format!("sources.{name}");
        at.absent(&place, "include", source.include)?;
        at.absent(&place, "git", source.git)?;
        at.absent(&place, "ref", source.reference)?;
        let path = PathBuf::from(&source.path);
        if path.is_absolute() || path.components().any(|c| matches!(c, Component::ParentDir)) {
            return Err(at.meaning(format!("{place}.path"), "a source is a folder beside or below the pipeline file"));
        }
        let source = Source { place: SourcePlace::Folder(path), include: Vec::new() };
        out.insert(name.parse().map_err(|e: NameError| at.meaning(&place, e.of("source name")))?, source);
    }
    Ok(out)
}

fn step_of(
    at: &In<'_>,
    name: &str,
    wire: WireStep,
    defaults: &WireDefaults,
    sources: &BTreeMap<OutputName, Source>,
) -> Result<Step, Error> {
    let place = format!("steps.{name}");
    for (key, present) in
        [("caches", wire.caches.0), ("matrix", wire.matrix.0), ("services", wire.services.0), ("when", wire.when.0)]
    {
        if present {
            return Err(at.later(format!("{place}.{key}")));
        }
    }
    let network = match wire.network {
        None => Network::None,
        Some(WireNetwork::Word(word)) if word == "none" => Network::None,
        Some(WireNetwork::Word(word)) if word == "host" => Network::Host,
        Some(WireNetwork::Allow(WireAllow { allow })) => {
            let place = format!("{place}.network.allow");
            let parsed = allow.iter().map(|text| text.parse().map_err(|e: String| at.meaning(&place, e)));
            let parsed = parsed.collect::<Result<Vec<Destination>, _>>()?;
            Network::Allow(
                NonEmpty::try_from(parsed).map_err(|_| at.meaning(&place, "at least one, or network: none"))?,
            )
        }
        Some(_) => {
            return Err(at.meaning(format!("{place}.network"), "write none, host or { allow: [HOST:PORT] }"));
        }
    };
    let reuse = match wire.reuse {
        None => Reuse::Auto,
        Some(WireReuse::Word(word)) if word == "auto" => Reuse::Auto,
        Some(WireReuse::Word(word)) if word == "never" => Reuse::Never,
        Some(WireReuse::Key(WireKey { key })) => {
            let place = format!("{place}.reuse.key");
            let files: Vec<PathBuf> = key.iter().map(PathBuf::from).collect();
            if files.iter().any(|file| !file.components().all(|c| matches!(c, Component::Normal(_)))) {
                return Err(at.meaning(&place, "files relative to the working folder, without . or .. parts"));
            }
            Reuse::Key(NonEmpty::try_from(files).map_err(|_| at.meaning(&place, "at least one file, or reuse: never"))?)
        }
        Some(_) => return Err(at.meaning(format!("{place}.reuse"), "write auto, never or { key: [FILE] }")),
    };
    let mut secrets = BTreeMap::new();
    for (key, secret) in wire.secrets.0 {
        let place = format!("{place}.secrets.{key}");
        if !is_variable(&key) || RESERVED_VARIABLES.contains(&key.as_str()) || wire.env.contains_key(&key) {
            return Err(at.meaning(
                &place,
                "not a variable of its own: letters, digits and _, no digit first, not under env too",
            ));
        }
        let source = match (secret.env, secret.file) {
            (Some(variable), None) => SecretSource::Env(variable),
            (None, Some(file)) => SecretSource::File(PathBuf::from(file)),
            _ => return Err(at.meaning(&place, "write { env: VARIABLE } or { file: PATH }")),
        };
        secrets.insert(key, source);
    }
    if wire.retry.is_some_and(|retry| retry > MAX_RETRY) {
        return Err(at.meaning(format!("{place}.retry"), format!("at most {MAX_RETRY}")));
    }
    if wire.accept_exit.iter().any(|code| !(1..=123).contains(code)) {
        let reason = "codes from 1 to 123: 0 passes anyway, and those above are the system's and the signals'";
        return Err(at.meaning(format!("{place}.accept_exit"), reason));
    }
    let (image, image_place) = match (&wire.image, &defaults.image) {
        (Some(image), _) => (image, format!("{place}.image")),
        (None, Some(image)) => (image, "defaults.image".to_owned()),
        (None, None) => return Err(at.meaning(&place, "no image: name one here or under defaults")),
    };
    let argv = match wire.run {
        WireRun::Shell(text) if !text.trim().is_empty() => vec!["sh".to_owned(), "-c".to_owned(), text],
        WireRun::Argv(argv) if argv.first().is_some_and(|program| !program.is_empty()) => argv,
        _ => return Err(at.meaning(format!("{place}.run"), "nothing to execute")),
    };
    if argv.iter().any(|argument| argument.contains('\0')) {
        return Err(at.meaning(format!("{place}.run"), "an argument can't hold a zero byte"));
    }
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
            && !sources.contains_key(name)
        {
            return Err(at.meaning(&place, format!("no source is called {name}")));
        }
        let mount = absolute(&mount).map_err(|e| at.meaning(&place, e))?;
        if RESERVED.iter().any(|reserved| mount.starts_with(reserved)) || mount == Path::new("/") {
            return Err(at.meaning(&place, "this path belongs to the container itself"));
        }
        inputs.insert(mount, source);
    }
    for mount in inputs.keys() {
        if let Some(outer) = inputs.keys().find(|outer| *outer != mount && mount.starts_with(outer)) {
            return Err(at.later(format!("{place}.inputs: {} inside {}", mount.display(), outer.display())));
        }
    }
    let mut outputs = BTreeMap::new();
    for (output, path) in wire.outputs.0 {
        let place = format!("{place}.outputs.{output}");
        let path = kept(at, &place, &path)?;
        outputs.insert(output.parse().map_err(|e: NameError| at.meaning(&place, e.of("output name")))?, path);
    }
    let junit = junit(at, &place, wire.reports, &inputs, &outputs)?;
    for (key, value) in &wire.env {
        if !is_variable(key) || value.contains('\0') {
            return Err(
                at.meaning(format!("{place}.env.{key}"), "not a variable: letters, digits and _, no digit first")
            );
        }
        if RESERVED_VARIABLES.contains(&key.as_str()) {
            return Err(at.meaning(format!("{place}.env.{key}"), "this variable is set by the executor"));
        }
    }
    let (own, shared) = (wire.limits.as_ref(), defaults.limits.as_ref());
    // A limit that stands under defaults is wrong there, not in the step that took it.
    let limit_at = |is_own: bool, what: &str| {
        let place = if is_own { place.as_str() } else { "defaults" };
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
    let step = Step {
        name: name.parse().map_err(|e| at.meaning("steps", e))?,
        image: image.parse().map_err(|e| at.meaning(image_place, e))?,
        argv,
        workdir: absolute(wire.workdir.as_deref().unwrap_or("/"))
            .map_err(|e| at.meaning(format!("{place}.workdir"), e))?,
        inputs,
        outputs,
        junit,
        env: wire.env,
        needs: wire
            .needs
            .iter()
            .map(|need| need.parse().map_err(|e| at.meaning(format!("{place}.needs"), e)))
            .collect::<Result<_, _>>()?,
        timeout: timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
        memory,
        pids,
        cpu_millis: cpus.map(|cpus| (cpus * 1000.0) as u32),
        network,
        secrets,
        reuse,
        retry: wire.retry.unwrap_or_default(),
        accept_exit: wire.accept_exit.into_iter().collect(),
    };
    Ok(step)
}

/// The report of a step. It is about the step's inputs, so there must be one, and it is kept beside the outputs, not in one of them.
fn junit(
    at: &In<'_>,
    step: &str,
    reports: Ordered<WireReport>,
    inputs: &BTreeMap<PathBuf, InputSource>,
    outputs: &BTreeMap<OutputName, PathBuf>,
) -> Result<Option<PathBuf>, Error> {
    let mut junit = None;
    for (kind, report) in reports.0 {
        let place = format!("{step}.reports.{kind}");
        if kind != "junit" {
            return Err(at.later_but(place, "a report is junit: PATH"));
        }
        let WireReport::Path(path) = report else {
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
                return Err(at.meaning(&place, reason));
            }
        }
        junit = Some(path);
    }
    Ok(junit)
}

/// A path that is kept after its step.
fn kept(at: &In<'_>, place: &str, path: &str) -> Result<PathBuf, Error> {
    let path = absolute(path).map_err(|e| at.meaning(place, e))?;
    if RESERVED.iter().any(|reserved| path.starts_with(reserved)) || path == Path::new("/") {
        return Err(at.meaning(place, "this path is not kept after the step; choose another one, such as /out"));
    }
    Ok(path)
}

/// Paths that are the container's own: nothing that stands there is an input or kept.
const RESERVED: [&str; 4] = ["/proc", "/sys", "/dev", "/tmp"];
const RESERVED_VARIABLES: [&str; 1] = ["SOURCE_DATE_EPOCH"];

fn is_variable(key: &str) -> bool {
    !key.is_empty()
        && !key.starts_with(|c: char| c.is_ascii_digit())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Bytes of a path.
const MAX_PATH: usize = 1024;

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    let plain = path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain {
        return Err(format!("{text:?} is not an absolute path: it must begin with / and have no . or .. parts"));
    }
    if text.contains('\0') || text.len() > MAX_PATH {
        return Err(format!("a path is at most {MAX_PATH} bytes without a zero byte"));
    }
    Ok(path.components().collect())
}

/// Sorts so that each step comes after those it reads from or needs; between equals the file's order holds.
fn in_order(at: &In<'_>, steps: Vec<Step>) -> Result<Vec<Step>, Error> {
    let outputs: BTreeMap<StepName, BTreeSet<OutputName>> =
        steps.iter().map(|step| (step.name.clone(), step.outputs.keys().cloned().collect())).collect();
    let mut waiting: Vec<(Step, BTreeSet<StepName>)> = Vec::new();
    for step in steps {
        let place = format!("steps.{}", step.name);
        let mut before = BTreeSet::new();
        for need in &step.needs {
            if !outputs.contains_key(need) {
                return Err(at.meaning(format!("{place}.needs"), format!("no step is called {need}")));
            }
            before.insert(need.clone());
        }
        for source in step.inputs.values() {
            let InputSource::Output(from, output) = source else { continue };
            match outputs.get(from) {
                None => return Err(at.meaning(format!("{place}.inputs"), format!("no step is called {from}"))),
                Some(names) if !names.contains(output) => {
                    return Err(at.meaning(format!("{place}.inputs"), no_output(from, output, names)));
                }
                Some(_) => before.insert(from.clone()),
            };
        }
        waiting.push((step, before));
    }
    let mut done: BTreeSet<StepName> = BTreeSet::new();
    let mut ordered = Vec::new();
    while !waiting.is_empty() {
        let Some(next) = waiting.iter().position(|(_, before)| before.is_subset(&done)) else {
            let names: Vec<&str> = waiting.iter().map(|(step, _)| step.name.as_str()).collect();
            return Err(at.meaning("steps", format!("these wait for each other: {}", names.join(", "))));
        };
        let (step, _) = waiting.remove(next);
        done.insert(step.name.clone());
        ordered.push(step);
    }
    Ok(ordered)
}

fn no_output<'a>(step: &StepName, output: &OutputName, outputs: impl IntoIterator<Item = &'a OutputName>) -> String {
    let names: Vec<&str> = outputs.into_iter().map(OutputName::as_str).collect();
    let has = if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
    format!("the step {step} has no output {output}; {has}")
}

/// Platforms that one artifact may name.
const MAX_PLATFORMS: usize = 16;

fn platforms(at: &In<'_>, place: &str, written: Option<Vec<String>>) -> Result<NonEmpty<Platform>, Error> {
    let Some(written) = written else { return Ok(NonEmpty::one(Platform::of_steps())) };
    let mut platforms: Vec<Platform> = Vec::new();
    for text in written {
        let platform: Platform = text.parse().map_err(|error| at.meaning(place, error))?;
        if platforms.iter().any(|other| other.is_same(&platform)) {
            return Err(at.meaning(place, format!("{text} is named twice")));
        }
        platforms.push(platform);
    }
    if platforms.len() > MAX_PLATFORMS {
        return Err(at.meaning(place, format!("more than {MAX_PLATFORMS}")));
    }
    NonEmpty::try_from(platforms).map_err(|_| at.meaning(place, "at least one, or leave it out"))
}

fn artifacts(at: &In<'_>, wire: Ordered<WireArtifact>, steps: &[Step]) -> Result<Vec<Artifact>, Error> {
    let mut out: Vec<Artifact> = Vec::new();
    for (name, artifact) in wire.0 {
        let place = format!("artifacts.{name}");
        let platforms = platforms(at, &format!("{place}.platforms"), artifact.platforms)?;
        let mut files = BTreeMap::new();
        for (path, product) in artifact.files.0 {
            let place = format!("{place}.files.{path}");
            let (step, output) = product.split_once('.').ok_or_else(|| at.meaning(&place, "write STEP.OUTPUT"))?;
            let found = steps.iter().find(|s| s.name.as_str() == step);
            let found = found.ok_or_else(|| at.meaning(&place, format!("no step is called {step}")))?;
            let output: OutputName = output.parse().map_err(|e: NameError| at.meaning(&place, e.of("output name")))?;
            if !found.outputs.contains_key(&output) {
                return Err(at.meaning(&place, no_output(&found.name, &output, found.outputs.keys())));
            }
            let path = absolute(&path).map_err(|e| at.meaning(&place, e))?;
            if path == Path::new("/") {
                return Err(at.meaning(&place, "a path below / is needed"));
            }
            files.insert(path, (found.name.clone(), output));
        }
        if files.is_empty() {
            return Err(at.meaning(&place, "no files: an artifact is made of at least one product"));
        }
        let mut needs = Vec::new();
        for need in artifact.needs {
            let found = steps.iter().find(|s| s.name.as_str() == need);
            needs.push(
                found
                    .ok_or_else(|| at.meaning(format!("{place}.needs"), format!("no step is called {need}")))?
                    .name
                    .clone(),
            );
        }
        let base = match artifact.base.as_str() {
            "scratch" => None,
            text => Some(text.parse().map_err(|e| at.meaning(format!("{place}.base"), e))?),
        };
        let repository: Place =
            artifact.repository.parse().map_err(|e| at.meaning(format!("{place}.repository"), e))?;
        if repository.folder().is_some_and(|folder| folder.to_string_lossy().contains(['@', ':'])) {
            return Err(
                at.meaning(format!("{place}.repository"), "a folder without a tag or digest; tags stand under tags:")
            );
        }
        let mut tags = Vec::new();
        for tag in artifact.tags {
            if tag.contains('{') {
                return Err(at.later(format!("{place}.tags: {tag}")));
            }
            tags.push(tag.parse().map_err(|e| at.meaning(format!("{place}.tags"), e))?);
        }
        let leaves =
            |folder: &Path| folder.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir));
        if repository.folder().is_some_and(leaves) {
            return Err(at.meaning(format!("{place}.repository"), "a folder below the pipeline file's, without .."));
        }
        if out.iter().any(|other| other.repository == repository) {
            return Err(at.meaning(
                format!("{place}.repository"),
                "another artifact is written there: a layout holds one image, and each artifact has a repository of its own",
            ));
        }
        out.push(Artifact {
            name: name.parse().map_err(|e: NameError| at.meaning(&place, e.of("artifact name")))?,
            base,
            files,
            config: artifact.config,
            needs,
            repository,
            tags,
            platforms,
        });
    }
    if out.is_empty() {
        return Err(at.meaning("artifacts", "at least one is needed"));
    }
    Ok(out)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePipeline {
    version: u32,
    name: String,
    #[serde(default)]
    params: Ordered<WireParam>,
    #[serde(default)]
    caches: Given,
    #[serde(default)]
    sources: Ordered<WireSource>,
    #[serde(default)]
    defaults: WireDefaults,
    steps: Ordered<WireStep>,
    artifacts: Ordered<WireArtifact>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireParam {
    #[serde(rename = "type")]
    kind: Option<String>,
    pattern: Option<String>,
    default: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSource {
    path: String,
    #[serde(default)]
    include: Given,
    #[serde(default)]
    git: Given,
    #[serde(rename = "ref", default)]
    reference: Given,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireDefaults {
    image: Option<String>,
    limits: Option<WireLimits>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireLimits {
    timeout: Option<String>,
    memory: Option<String>,
    cpus: Option<f64>,
    pids: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireRun {
    Shell(String),
    Argv(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireReport {
    Path(String),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireNetwork {
    Word(String),
    Allow(WireAllow),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireAllow {
    allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireReuse {
    Word(String),
    Key(WireKey),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireKey {
    key: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSecret {
    env: Option<String>,
    file: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireStep {
    run: WireRun,
    image: Option<String>,
    #[serde(default)]
    inputs: Ordered<String>,
    workdir: Option<String>,
    #[serde(default)]
    outputs: Ordered<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    limits: Option<WireLimits>,
    #[serde(default)]
    needs: Vec<String>,
    network: Option<WireNetwork>,
    #[serde(default)]
    secrets: Ordered<WireSecret>,
    #[serde(default)]
    reports: Ordered<WireReport>,
    reuse: Option<WireReuse>,
    retry: Option<u32>,
    #[serde(default)]
    accept_exit: Vec<i32>,
    #[serde(default)]
    caches: Given,
    #[serde(default)]
    matrix: Given,
    #[serde(default)]
    services: Given,
    #[serde(default)]
    when: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireArtifact {
    base: String,
    files: Ordered<String>,
    #[serde(default)]
    config: ImageConfig,
    #[serde(default)]
    needs: Vec<String>,
    repository: String,
    #[serde(default)]
    tags: Vec<String>,
    platforms: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
version: 1
name: shop
sources: { app: { path: . } }
defaults: { image: oci:images/build, limits: { timeout: 10m } }
steps:
  package:
    run: [cp, -r, /in, /out/app]
    inputs: { /in: build.site }
    outputs: { app: /out/app }
  build:
    run: make
    inputs: { /src: app }
    workdir: /src
    outputs: { site: /out/site }
  test:
    needs: [build]
    run: make test
artifacts:
  shop:
    base: oci:images/base
    files: { /opt/shop: package.app }
    needs: [test]
    repository: oci:out/shop
"#;

    fn error(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from:?}");
        Pipeline::parse("p.yaml", &GOOD.replacen(from, to, 1)).unwrap_err().to_string()
    }

    #[test]
    fn steps_come_after_what_they_read() {
        let pipeline = Pipeline::parse("p.yaml", GOOD).unwrap();
        let names: Vec<&str> = pipeline.steps.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["build", "package", "test"]);
        assert_eq!(pipeline.steps[0].argv, ["sh", "-c", "make"]);
        assert_eq!(pipeline.steps[1].argv, ["cp", "-r", "/in", "/out/app"]);
    }

    #[test]
    fn what_is_not_built_yet_is_refused_by_name() {
        for (from, to) in [
            ("run: make test", "run: make test\n    reports: { sarif: /out/j.json }"),
            ("run: make test", "run: make test\n    reports: { sarif: { path: /out/j.json } }"),
            ("run: make test", "run: make test\n    matrix: { a: [1] }"),
            ("version: 1", "version: 2"),
            ("{ path: . }", "{ path: ., include: [../x] }"),
        ] {
            assert!(error(from, to).contains("not in this version"), "{to}: {}", error(from, to));
        }
        assert!(
            Pipeline::parse(
                "p.yaml",
                &GOOD.replace("run: make test", "run: make test\n    network: none\n    reuse: never")
            )
            .is_ok()
        );
    }

    #[test]
    fn an_artifact_is_for_the_platforms_that_it_names_each_once() {
        let with = |platforms: &str| {
            let text = GOOD.replace("repository: oci:out/shop", &format!("repository: oci:out/shop\n    {platforms}"));
            let platforms = Pipeline::parse("p.yaml", &text).map(|p| p.artifacts[0].platforms.clone());
            platforms.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>()).map_err(|e| e.to_string())
        };
        assert_eq!(with(""), Ok(vec!["linux/amd64".to_owned()]));
        let two = vec!["linux/arm64/v8".to_owned(), "linux/amd64".to_owned()];
        assert_eq!(with("platforms: [linux/arm64/v8, linux/amd64]"), Ok(two));
        for (platforms, says) in [
            ("platforms: []", "at least one"),
            ("platforms: [linux/arm64, linux/arm64]", "linux/arm64 is named twice"),
            ("platforms: [linux/arm64, linux/arm64/v8]", "linux/arm64/v8 is named twice"),
            ("platforms: [windows/amd64]", "other systems are not in this version"),
            ("platforms: [linux/x86_64]", "no architecture that is known"),
            ("platforms: [amd64]", "write linux/ARCHITECTURE"),
            ("platforms: linux/amd64", "expected sequence start"),
        ] {
            let found = with(platforms).unwrap_err();
            assert!(found.contains(says), "{platforms}: {found}");
        }
    }

    #[test]
    fn a_report_is_about_an_input_and_stands_apart_from_outputs() {
        let with = |lines: &str| {
            let text = GOOD.replace("run: make test", &format!("run: make test\n    {lines}"));
            Pipeline::parse("p.yaml", &text).map(|p| p.steps[2].junit.clone()).map_err(|e| e.to_string())
        };
        let report = Some(PathBuf::from("/out/junit.xml"));
        assert_eq!(with("inputs: { /src: app }\n    reports: { junit: /out/junit.xml }"), Ok(report.clone()));
        assert_eq!(with("inputs: { /s: build.site }\n    reports: { junit: /out/junit.xml }"), Ok(report.clone()));
        let apart = "inputs: { /src: app }\n    reports: { junit: /out/junit.xml }\n    outputs: { page: /out/junit }";
        assert_eq!(with(apart), Ok(report));
        assert_eq!(with("reports: {}"), Ok(None));
        for (lines, says) in [
            ("reports: { junit: /out/junit.xml }", "this step has no input"),
            ("inputs: { /src: app }\n    reports: { junit: out/junit.xml }", "not an absolute path"),
            ("inputs: { /src: app }\n    reports: { junit: /out/../junit.xml }", "not an absolute path"),
            ("inputs: { /src: app }\n    reports: { junit: /tmp/junit.xml }", "not kept after the step"),
            ("inputs: { /src: app }\n    reports: { junit: / }", "not kept after the step"),
            ("inputs: { /src: app }\n    reports: { junit: [/out/j.xml] }", "write the path"),
            ("inputs: { /src: app }\n    reports: { junit: /out/a, junit: /out/b }", "duplicate"),
            ("inputs: { /src: app }\n    reports: { junit: /o/j }\n    outputs: { junit: /out/a }", "called junit too"),
            ("inputs: { /src: app }\n    reports: { junit: /out/j }\n    outputs: { page: /out/j }", "overlap"),
            ("inputs: { /src: app }\n    reports: { junit: /out/j }\n    outputs: { page: /out }", "overlap"),
            ("inputs: { /src: app }\n    reports: { junit: /out }\n    outputs: { page: /out/a }", "overlap"),
        ] {
            let found = with(lines).unwrap_err();
            assert!(found.contains(says), "{lines}: {found}");
        }
    }

    #[test]
    fn what_dangles_or_contradicts_is_refused_with_its_place() {
        for (from, to, says) in [
            ("build.site", "build.nothing", "steps.package.inputs: the step build has no output nothing; it has site"),
            ("build.site", "test.site", "the step test has no output site; it has none"),
            (
                "package.app",
                "package.ap",
                "artifacts.shop.files./opt/shop: the step package has no output ap; it has app",
            ),
            ("image: oci:images/build", "image: images/build", "defaults.image: \"images/build\": oci: is missing"),
            ("run: make\n", "run: make\n    image: images/x\n", "steps.build.image: \"images/x\": oci: is missing"),
            ("build.site", "nobody.site", "no step is called nobody"),
            ("needs: [build]", "needs: [test]", "wait for each other"),
            ("/src: app", "/src: other", "no source is called other"),
            (
                "/src: app",
                "src: app",
                "\"src\" is not an absolute path: it must begin with / and have no . or .. parts",
            ),
            ("/out/site", "\"/out/\\0\"", "without a zero byte"),
            ("/src: app", "/proc/x: app", "belongs to the container"),
            ("/out/site", "/out/../site", "not an absolute path"),
            ("{ path: . }", "{ path: ../x }", "beside or below"),
            ("oci:out/shop", "oci:../out/shop", "below the pipeline file's"),
            ("oci:out/shop", "oci:/out/shop", "below the pipeline file's"),
            ("run: make\n", "run: []\n", "nothing to execute"),
            ("timeout: 10m", "timeout: 10", "p.yaml: defaults.limits.timeout: "),
            ("timeout: 10m", "timeout: 10", "not a duration"),
            ("timeout: 10m", "pids: 0", "p.yaml: defaults.limits.pids: at least 1"),
            ("run: make\n", "run: make\n    limits: { timeout: 10 }\n", "p.yaml: steps.build.limits.timeout: "),
            ("run: make\n", "run: make\n    limits: { cpus: 0 }\n", "p.yaml: steps.build.limits.cpus: between"),
            ("package.app", "package", "STEP.OUTPUT"),
            ("name: shop", "name: Shop", "p.yaml: name: pipeline name \"Shop\": lower-case"),
            ("  build:", "  Build:", "p.yaml: steps: step name \"Build\": lower-case"),
            ("  shop:\n", "  Shop:\n", "p.yaml: artifacts.Shop: artifact name \"Shop\": lower-case"),
            ("{ app: {", "{ App: {", "p.yaml: sources.App: source name \"App\": lower-case"),
            (
                "workdir: /src",
                "workdir: /src\n    wrokdir: /src",
                "p.yaml: line 15, column 5: unknown key \"wrokdir\"; did you mean workdir?",
            ),
        ] {
            assert!(error(from, to).contains(says), "{to}: {}", error(from, to));
        }
    }
}
