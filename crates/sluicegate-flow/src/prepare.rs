//! Turns a step into what is executed, once everything that it reads is named by digest, and into the key of its result.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use sluicegate_attestation::provenance::{StepParameters, UnverifiedCache};
use sluicegate_pipeline::{
    cache_key::KeyParts,
    pipeline::{InputSource, Network as Reach, Reuse, SecretSource, Step},
};
use sluicegate_ports::execute::{
    Egress, Input, InputAccess, Limits, Network, OutputRequest, OutputRole, Product, SharedCache, StepExecutor,
    StepRequest, Stop,
};
use sluicegate_types::{Content, ContentKind, Destination, Digest, OutputName, Secret, StepName};

use crate::{
    Error, Workbench,
    pin::{Epochs, PinnedBase, PinnedImages, PinnedSource},
    shared_caches::CachePlace,
};

/// Bytes of one step's log.
pub(crate) const LOG_LIMIT: u64 = 256 * 1024 * 1024;
/// Bytes of one step's outputs together.
pub(crate) const OUTPUT_LIMIT: u64 = 16 * 1024 * 1024 * 1024;
/// What the executor calls a step's report among the outputs; the pipeline file refuses an output of this name beside it.
pub(crate) const REPORT: &str = "junit";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What steps run on.
pub(crate) const PLATFORM: &str = "linux/amd64";

/// What all steps of one run share.
pub(crate) struct Surroundings<'a> {
    pub(crate) images: &'a PinnedImages,
    pub(crate) sources: &'a BTreeMap<OutputName, PinnedSource>,
    pub(crate) epochs: &'a Epochs,
    /// `PARAM_NAME` and what it was set to.
    pub(crate) arguments: &'a BTreeMap<String, String>,
    pub(crate) secrets: &'a BTreeMap<SecretSource, Secret>,
    /// Private places that the gateway lists.
    pub(crate) private: &'a [Destination],
    pub(crate) executor: &'a dyn StepExecutor,
    /// Whose results count: the trust domain (trust model 9).
    pub(crate) domain: Digest,
    pub(crate) pipeline: &'a StepName,
    /// Whose shared caches are; there is one if a step has any.
    pub(crate) cache_place: Option<&'a CachePlace>,
    /// Whether steps find in them what runs left, and runs what they leave; else they begin empty and are thrown away.
    pub(crate) keeps_caches: bool,
    pub(crate) observe: bool,
    pub(crate) stop: Stop,
}

/// A step with everything that it reads named by digest.
pub(crate) struct Prepared {
    pub(crate) request: StepRequest,
    /// The image that it runs in.
    pub(crate) image: Digest,
    /// What is written down of its environment: all but secrets.
    pub(crate) env: BTreeMap<String, String>,
    /// Mount point to what stands there.
    pub(crate) inputs: BTreeMap<PathBuf, (InputSource, Content)>,
    /// What it shares with other runs.
    pub(crate) caches: Vec<UnverifiedCache>,
    pub(crate) parts: KeyParts,
    pub(crate) key: Digest,
}

impl Prepared {
    /// What its provenance says was asked for, had it ended with this code.
    pub(crate) fn parameters(&self, pipeline: &StepName, step: &Step, exit_code: i32) -> StepParameters {
        let (network, allow) = match &step.network {
            Reach::None => ("none", Vec::new()),
            Reach::Host => ("host", Vec::new()),
            Reach::Allow(list) => ("allow", list.iter().map(ToString::to_string).collect()),
        };
        let reuse_key = match &step.reuse {
            Reuse::Key(files) => files.iter().map(|file| file.display().to_string()).collect(),
            Reuse::Auto | Reuse::Never => Vec::new(),
        };
        StepParameters {
            pipeline: pipeline.clone(),
            step: step.name.clone(),
            run: step.argv.clone(),
            env: self.env.clone(),
            workdir: step.workdir.display().to_string(),
            inputs: step.inputs.iter().map(|(at, what)| (at.display().to_string(), what.to_string())).collect(),
            outputs: step.outputs.iter().map(|(name, at)| (name.to_string(), at.display().to_string())).collect(),
            reports: step.junit.iter().map(|at| (REPORT.to_owned(), at.display().to_string())).collect(),
            needs: step.needs.clone(),
            limits: limit_parameters(&self.request.limits),
            network: network.to_owned(),
            allow,
            caches: step.caches.iter().map(|(name, at)| (name.to_string(), at.display().to_string())).collect(),
            secrets: step.secrets.keys().cloned().collect(),
            reuse_key,
            accept_exit: step.accept_exit.iter().copied().collect(),
            platform: PLATFORM.to_owned(),
            exit_code,
        }
    }
}

/// Prepares a step; `None` if something that it reads is not known yet. `product` gives what an earlier step left.
pub(crate) fn prepare(
    bench: &Workbench<'_>,
    around: &Surroundings<'_>,
    step: &Step,
    product: impl Fn(&StepName, &OutputName) -> Option<Product>,
) -> Result<Option<Prepared>, Error> {
    let image = around.images.of_step(step)?;
    let (mut mounts, mut inputs) = (Vec::new(), BTreeMap::new());
    for (mount_point, source) in &step.inputs {
        let (content, executable) = match source {
            InputSource::Source(name) => {
                let source = around.sources.get(name).ok_or_else(|| Error::Bug(format!("no source {name}")))?;
                (source.content, false)
            }
            InputSource::Output(from, output) => match product(from, output) {
                Some(product) => (product.content, product.executable),
                None => return Ok(None),
            },
        };
        inputs.insert(mount_point.clone(), (source.clone(), content));
        mounts.push(Input { mount_point: mount_point.clone(), content, executable, access: InputAccess::CopyOnWrite });
    }
    let reaches = network(step, around);
    let env = environment(step, image, around, &reaches)?;
    let secrets = secrets(step, around)?;
    let report: OutputName = REPORT.parse().map_err(|error| Error::Bug(format!("{error}")))?;
    let kept = |name: &OutputName, path: &PathBuf, role| OutputRequest { name: name.clone(), path: path.clone(), role };
    let outputs = step.outputs.iter().map(|(name, path)| kept(name, path, OutputRole::Product));
    let reports = step.junit.iter().map(|path| kept(&report, path, OutputRole::Report));
    let limits = Limits {
        timeout: step.timeout,
        memory: step.memory,
        pids: step.pids,
        cpu_millis: step.cpu_millis,
        log_bytes: LOG_LIMIT,
        output_bytes: OUTPUT_LIMIT,
    };
    let mut whole_env: Vec<(String, String)> = env.clone().into_iter().collect();
    let mut masked = Vec::new();
    for (name, value) in secrets {
        let text = String::from_utf8(value.expose().to_vec())
            .map_err(|_| Error::Usage(format!("steps.{}.secrets.{name}: its value is no text", step.name)))?;
        whole_env.push((name, text));
        masked.push(value);
    }
    let caches = caches(around, step)?;
    let shared = step.caches.iter().zip(&caches).map(|((name, mount_point), cache)| SharedCache {
        name: name.clone(),
        mount_point: mount_point.clone(),
        scope: around.keeps_caches.then_some(cache.scope),
    });
    let request = StepRequest {
        step: step.name.clone(),
        layers: image.layers.clone(),
        argv: step.argv.clone(),
        env: whole_env,
        workdir: step.workdir.clone(),
        user: image.user().to_owned(),
        inputs: mounts,
        caches: shared.collect(),
        outputs: outputs.chain(reports).collect(),
        limits,
        epoch: around.epochs.of(&step.name),
        network: reaches,
        masked,
        observe: around.observe,
        stop: around.stop.clone(),
    };
    let mut parts = parts(bench, around, step, image, &request, &env, &inputs)?;
    // Of one scope alone: what was made with the cache of another branch is not taken for this one. What is in it is in no key.
    for ((name, at), cache) in step.caches.iter().zip(&caches) {
        parts.add(format!("cache.{name}"), format!("{} of {}", at.display(), cache.scope));
    }
    let key = parts.key();
    Ok(Some(Prepared { request, image: image.digest, env, inputs, caches, parts, key }))
}

/// The shared caches of a step, in the order of their names.
fn caches(around: &Surroundings<'_>, step: &Step) -> Result<Vec<UnverifiedCache>, Error> {
    let cache = |name: &OutputName| {
        let place = around.cache_place.ok_or_else(|| Error::Bug("nobody looked whose a cache is".to_owned()))?;
        place.cache(&around.domain, around.pipeline, &step.name, name)
    };
    step.caches.keys().map(cache).collect()
}

fn network(step: &Step, around: &Surroundings<'_>) -> Network {
    match &step.network {
        Reach::None => Network::None,
        Reach::Host => Network::Host,
        Reach::Allow(list) => {
            let destinations: Vec<Destination> = list.iter().cloned().collect();
            let private = around.private.iter().filter(|one| destinations.contains(one)).cloned().collect();
            Network::Allow(Egress { destinations, private })
        }
    }
}

/// The whole environment but secrets, with what the executor would add for the network.
fn environment(
    step: &Step,
    image: &PinnedBase,
    around: &Surroundings<'_>,
    network: &Network,
) -> Result<BTreeMap<String, String>, Error> {
    let home = match step.env.get("HOME").map(String::as_str).or_else(|| image.variable("HOME")) {
        Some(home) => home.to_owned(),
        // What the image's own files say of its user.
        None => around.executor.account(&step.name, &image.layers, image.user(), &around.stop)?.home,
    };
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), image.variable("PATH").unwrap_or(DEFAULT_PATH).to_owned()),
        ("HOME".to_owned(), home),
        ("SOURCE_DATE_EPOCH".to_owned(), around.epochs.of(&step.name).to_string()),
    ]);
    env.extend(around.arguments.clone());
    env.extend(step.env.clone());
    let so_far: Vec<(String, String)> = env.clone().into_iter().collect();
    env.extend(network.variables_beside(&so_far));
    Ok(env)
}

fn secrets(step: &Step, around: &Surroundings<'_>) -> Result<Vec<(String, Secret)>, Error> {
    let value = |(name, source): (&String, &SecretSource)| {
        let value = around.secrets.get(source).cloned();
        value.map(|value| (name.clone(), value)).ok_or_else(|| {
            let from = match source {
                SecretSource::Env(variable) => format!("the variable {variable} is not set"),
                SecretSource::File(path) => format!("{} was not read", path.display()),
            };
            Error::Usage(format!("steps.{}.secrets.{name}: {from}", step.name))
        })
    };
    step.secrets.iter().map(value).collect()
}

fn limit_parameters(limits: &Limits) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::from([("timeoutSeconds".to_owned(), limits.timeout.as_secs())]);
    let optional =
        [("memoryBytes", limits.memory), ("pids", limits.pids), ("cpuMillis", limits.cpu_millis.map(u64::from))];
    out.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    out
}

/// Everything that can change the result. The time limit is not among it: a step that ended within it ended all the same.
fn parts(
    bench: &Workbench<'_>,
    around: &Surroundings<'_>,
    step: &Step,
    image: &PinnedBase,
    request: &StepRequest,
    env: &BTreeMap<String, String>,
    inputs: &BTreeMap<PathBuf, (InputSource, Content)>,
) -> Result<KeyParts, Error> {
    let mut parts = KeyParts::default();
    parts.add("sluicegate", env!("CARGO_PKG_VERSION"));
    let executor = around.executor.identity();
    parts.add("executor", format!("{} {}", executor.name, executor.version));
    parts.add("domain", around.domain);
    // It is the container's host name.
    parts.add("step", &step.name);
    parts.add("image", image.digest);
    parts.add("platform", PLATFORM);
    parts.add("workdir", step.workdir.display());
    parts.add("epoch", around.epochs.of(&step.name));
    parts.add("run", format!("{} arguments", step.argv.len()));
    for (nth, argument) in step.argv.iter().enumerate() {
        parts.add(format!("run.{nth}"), argument);
    }
    for (name, value) in env {
        parts.add(format!("env.{name}"), value);
    }
    for name in step.secrets.keys() {
        parts.add(format!("secret.{name}"), "given");
    }
    for (name, path) in &step.outputs {
        parts.add(format!("output.{name}"), path.display());
    }
    if let Some(path) = &step.junit {
        parts.add(format!("report.{REPORT}"), path.display());
    }
    match &request.network {
        Network::None => parts.add("network", "none"),
        Network::Host => parts.add("network", "host"),
        Network::Allow(egress) => {
            let list = |all: &[Destination]| {
                let mut all: Vec<String> = all.iter().map(|one| format!("{} {}", one.host, one.port)).collect();
                all.sort();
                all.join(", ")
            };
            parts.add("network", format!("allow {}", list(&egress.destinations)));
            parts.add("network.private", list(&egress.private));
        }
    }
    let limits = limit_parameters(&request.limits);
    for (name, value) in limits.iter().filter(|(name, _)| *name != "timeoutSeconds") {
        parts.add(format!("limit.{name}"), value);
    }
    for code in &step.accept_exit {
        parts.add(format!("accept_exit.{code}"), "accepted");
    }
    let key_files = match &step.reuse {
        Reuse::Key(files) => Some(files.iter().map(|file| step.workdir.join(file)).collect::<Vec<_>>()),
        Reuse::Auto | Reuse::Never => None,
    };
    let executable = |at: &Path| request.inputs.iter().any(|input| input.mount_point == at && input.executable);
    for (at, (source, content)) in inputs {
        if let (Some(files), InputSource::Source(_)) = (&key_files, source) {
            let listed = bench.packer.files(*content)?;
            for file in files {
                let Ok(inside) = file.strip_prefix(at) else { continue };
                let Some(entry) = listed.iter().find(|entry| Path::new(&entry.path) == inside) else { continue };
                let kind = if entry.executable { "executable" } else { "file" };
                parts.add(format!("file.{}", file.display()), format!("{kind} {}", entry.digest));
            }
            parts.add(format!("input.{}", at.display()), "a source, by the files of reuse.key");
            continue;
        }
        let kind = match (content.kind, executable(at)) {
            (ContentKind::Directory, _) => "directory",
            (ContentKind::File, false) => "file",
            (ContentKind::File, true) => "executable",
        };
        parts.add(format!("input.{}", at.display()), format!("{kind} {}", content.digest));
    }
    let is_missing = |file: &&PathBuf| parts.get(&format!("file.{}", file.display())).is_none();
    if let Some(missing) = key_files.iter().flatten().find(is_missing).map(|file| file.display()) {
        return Err(Error::Usage(format!(
            "steps.{}.reuse.key: {missing} is no file of a source among the inputs; name files of the working folder that come from a source",
            step.name
        )));
    }
    Ok(parts)
}
