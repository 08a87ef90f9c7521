//! What every command about a pipeline opens: its file, its judge, and what is put into it from outside.

use std::{
    collections::BTreeMap,
    env::VarError,
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use sluicegate_flow::{
    Error,
    folders::EnvironmentPlaces,
    gateway::{trust, trust_domain},
    plan::PlanRequest,
    run::{PinRequest, Selection},
};
use sluicegate_pipeline::{
    pipeline::{Pipeline, SecretSource, Step},
    shared_store::SharedPlace,
};
use sluicegate_ports::{execute::Stop, shared_cache::SharedCache};
use sluicegate_runner::{EmbeddedExecutor, GitSourceLister, PermittedFetcher, begins_as_private_key, check_secret};
use sluicegate_shared::SharedStore;
use sluicegate_store::FileStepCache;
use sluicegate_types::{Destination, Digest, Secret, UnixTime, utf8};
use sluicegate_verify::Trust;

use super::folder_of;
use crate::{
    arguments::{GatewayFlag, PipelineValues},
    gateway_folder::{GatewayFolder, read},
    home::Home,
    wire::{self, Wired},
    words::Problem,
};

/// Bytes of a secret.
const MAX_SECRET: usize = 64 * 1024;

/// A pipeline with everything about it that stands in files.
pub(crate) struct OpenedPipeline {
    pub(crate) pipeline: Pipeline,
    pub(crate) folder: PathBuf,
    pub(crate) arguments: BTreeMap<String, String>,
    pub(crate) epoch: Option<u64>,
    pub(crate) gateway: GatewayFolder,
    /// Places of environments, where nothing is built.
    pub(crate) environments: EnvironmentPlaces,
    pub(crate) trust: Trust,
    pub(crate) domain: Digest,
    pub(crate) private: Vec<Destination>,
    pub(crate) wired: Wired,
    pub(crate) executor: Arc<EmbeddedExecutor>,
    pub(crate) cache: FileStepCache,
    pub(crate) lister: GitSourceLister,
    pub(crate) fetcher: PermittedFetcher,
    /// What is in no source: the home, and the files of secrets.
    pub(crate) excluded: Vec<PathBuf>,
}

impl OpenedPipeline {
    /// Reads the files and opens the home.
    pub(crate) fn open(file: &Path, gateway: &GatewayFlag, values: &PipelineValues) -> Result<Self, Problem> {
        let text = read(file)
            .map_err(|error| Problem::named("read the pipeline file", file, &error).or(no_pipeline(folder_of(file))))?;
        let name = file.display().to_string();
        // Editors of Windows put a mark before it, which YAML lets them (1.2, section 5.2).
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&text).to_vec();
        let text = utf8(text).map_err(|error| Problem::usage(name.clone(), error.to_string()))?;
        let pipeline = Pipeline::parse(&name, &text).map_err(Error::from)?;
        let arguments = pipeline.arguments(&values.set).map_err(Error::from)?;
        let folder = folder_of(file).to_owned();
        let gateway = GatewayFolder::open(gateway.gateway.as_deref(), &folder)?;
        let (trust, _) = trust(&gateway.gateway, &gateway)?;
        let domain = trust_domain(&gateway.gateway, &gateway)?;
        let private: Vec<Destination> = gateway.gateway.private_destinations.iter().cloned().collect();
        let environments = EnvironmentPlaces::of(&gateway.gateway, &gateway.folder);
        let epoch = epoch()?;
        let wired = Wired::new(Home::open()?)?.judged_by(&gateway.gateway);
        let executor = wired.executor()?;
        let (cache, fetcher, lister) = (wired.step_cache(), wired.fetcher(&folder, &private), wire::lister());
        let secrets = pipeline.steps.iter().flat_map(|step| step.secrets.values());
        let files = secrets.filter_map(|source| match source {
            SecretSource::File(path) => Some(folder.join(path)),
            SecretSource::Env(_) => None,
        });
        let excluded = std::iter::once(wired.home.folder().to_owned()).chain(files).collect();
        Ok(Self {
            pipeline,
            folder,
            arguments,
            epoch,
            gateway,
            environments,
            trust,
            domain,
            private,
            wired,
            executor,
            cache,
            lister,
            fetcher,
            excluded,
        })
    }

    /// What finding out needs what it is made of.
    pub(crate) fn pin_request<'a>(&'a self, selection: Option<&'a Selection>, stop: &'a Stop) -> PinRequest<'a> {
        PinRequest {
            pipeline: &self.pipeline,
            folder: &self.folder,
            epoch: self.epoch,
            executor: self.executor.as_ref(),
            lister: &self.lister,
            fetcher: &self.fetcher,
            excluded: &self.excluded,
            environments: &self.environments,
            selection,
            stop,
        }
    }

    /// The store that machines share, if the gateway names one and earlier results are looked at.
    pub(crate) fn shared_store(&self, reuses: bool, stop: &Stop) -> Result<Option<SharedStore>, Problem> {
        if reuses { self.wired.shared_store(&self.gateway, stop) } else { Ok(None) }
    }

    /// What a plan of it needs; `shared` is [`OpenedPipeline::shared_store`].
    pub(crate) fn plan_request<'a>(
        &'a self,
        selection: Option<&'a Selection>,
        stop: &'a Stop,
        (reuses, shared): (bool, Option<&'a SharedStore>),
    ) -> PlanRequest<'a> {
        PlanRequest {
            pinning: self.pin_request(selection, stop),
            trust: &self.trust,
            arguments: &self.arguments,
            private: &self.private,
            cache: &self.cache,
            reuses,
            shared: shared.map(|shared| shared as &dyn SharedCache),
            domain: self.domain,
        }
    }

    /// The file of a secret. The pipeline file is whoever's wrote the project, so it names no other file of the machine than the project's
    /// own, and none of the home or with a private key of ours by any name (trust model 8).
    fn secret_file(&self, at: &str, path: &Path) -> Result<Vec<u8>, Problem> {
        let written = self.folder.join(path);
        let named = |error: &io::Error| Problem::named(&format!("read the secret of {at},"), &written, error);
        let refused = |reason: &str| {
            Problem::usage(
                format!("{at}: {} {reason}", written.display()),
                "give the secret as a variable: { env: NAME }",
            )
        };
        let project = fs::canonicalize(&self.folder).map_err(|error| named(&error))?;
        let real = fs::canonicalize(&written).map_err(|error| named(&error))?;
        if !real.starts_with(&project) {
            return Err(refused("lies outside of the pipeline file's folder, and no pipeline file names such a file"));
        }
        if is_in_git(path) || real.strip_prefix(&project).is_ok_and(is_in_git) || is_in_repository(&real, &project) {
            return Err(refused("belongs to git, which may keep tokens there, and no step gets it"));
        }
        let home = fs::canonicalize(self.wired.home.folder()).map_err(|error| named(&error))?;
        if real.starts_with(&home) {
            return Err(refused("is a file of the home, where keys and evidence are, and no step gets one"));
        }
        let bytes = read(&real).map_err(|error| named(&error))?;
        if begins_as_private_key(&bytes) {
            return Err(refused("is an encrypted signing key, and no step gets one"));
        }
        Ok(bytes)
    }

    /// Whether a variable has what this program itself shows to servers that steps have nothing to do with.
    fn is_the_machines(&self, variable: &str) -> bool {
        let shared = self.gateway.gateway.shared.as_ref().map(|shared| &shared.place);
        let of_the_store = matches!(shared, Some(SharedPlace::Bucket { .. })) && variable.starts_with("AWS_");
        of_the_store || PROXIES.contains(&variable.to_ascii_lowercase().as_str())
    }

    /// The values of these steps' secrets.
    pub(crate) fn secrets<'a>(
        &self,
        steps: impl IntoIterator<Item = &'a Step>,
    ) -> Result<BTreeMap<SecretSource, Secret>, Problem> {
        let mut secrets = BTreeMap::new();
        for step in steps {
            for (name, source) in &step.secrets {
                if secrets.contains_key(source) {
                    continue;
                }
                let at = format!("steps.{}.secrets.{name}", step.name);
                let bytes = match source {
                    SecretSource::Env(variable) if is_our_own(variable) => {
                        return Err(Problem::usage(
                            format!(
                                "{at}: {variable} is what opens our own keys or says where they are, and no step gets it"
                            ),
                            "give the step's secret a variable of its own",
                        ));
                    }
                    SecretSource::Env(variable) if self.is_the_machines(variable) => {
                        return Err(Problem::usage(
                            format!(
                                "{at}: {variable} is what this program shows to the shared store or to a proxy, and no step gets it"
                            ),
                            "give the step's secret a variable of its own",
                        ));
                    }
                    SecretSource::Env(variable) => {
                        std::env::var_os(variable).map(OsString::into_vec).ok_or_else(|| {
                            Problem::usage(
                                format!("{at}: the variable {variable} is not set"),
                                format!("set {variable} for this command"),
                            )
                        })?
                    }
                    SecretSource::File(path) => self.secret_file(&at, path)?,
                };
                // A line break at the end belongs to the file, not to the secret.
                let bytes = match bytes.strip_suffix(b"\n") {
                    Some(bytes) if matches!(source, SecretSource::File(_)) => bytes.to_vec(),
                    _ => bytes,
                };
                if bytes.len() > MAX_SECRET {
                    return Err(Problem::usage(
                        format!("{at}: larger than the limit of {MAX_SECRET} bytes"),
                        "name something smaller",
                    ));
                }
                if std::str::from_utf8(&bytes).is_err() || bytes.contains(&0) {
                    return Err(Problem::usage(
                        format!("{at}: its value is no text"),
                        "write it as text, such as base64, and let the step decode it",
                    ));
                }
                let secret = Secret::new(bytes);
                check_secret(&secret)
                    .map_err(|reason| Problem::usage(format!("{at} {reason}"), "nothing was run; set another value"))?;
                secrets.insert(source.clone(), secret);
            }
        }
        Ok(secrets)
    }
}

/// Variables that may hold the password of a proxy.
const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "all_proxy"];

fn is_in_git(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().eq_ignore_ascii_case(".git"))
}

/// Whether a file lies in what git takes for a repository without a work tree.
fn is_in_repository(file: &Path, project: &Path) -> bool {
    let folders = file.ancestors().skip(1).take_while(|folder| folder.starts_with(project));
    let is_one = |folder: &Path| ["HEAD", "objects", "refs"].iter().all(|part| folder.join(part).exists());
    folders.into_iter().any(is_one)
}

/// What to do where the pipeline file is not in this folder.
fn no_pipeline(folder: &Path) -> String {
    if folder.join("sluicegate.yaml").exists() {
        return "name one that is there with -f; without it, it is sluicegate.yaml".to_owned();
    }
    // init writes nothing into a project that it wrote before.
    match ["gateway.yaml", "trust/trust.yaml"].iter().find(|name| folder.join(name).exists()) {
        None => "sluicegate init writes one; -f names another".to_owned(),
        Some(other) => format!(
            "-f names another. As {other} is here, init writes none: sluicegate init NEW writes one into the folder NEW, to begin with; \
             copy it here"
        ),
    }
}

/// Whether a variable is one of those by which whoever starts this program says where its keys are, and opens them.
fn is_our_own(variable: &str) -> bool {
    variable.starts_with("SLUICEGATE_") || variable.starts_with("COSIGN_")
}

/// SOURCE_DATE_EPOCH, if it is set.
fn epoch() -> Result<Option<u64>, Problem> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text
            .parse()
            .ok()
            .filter(|seconds| i64::try_from(*seconds).is_ok_and(|seconds| seconds <= UnixTime::LAST.seconds()))
            .map(Some)
            .ok_or_else(|| {
                Problem::usage(format!("SOURCE_DATE_EPOCH is {text:?}"), "set it to seconds since 1970, or not at all")
            }),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => {
            Err(Problem::usage("SOURCE_DATE_EPOCH is no number", "set it to seconds since 1970, or not at all"))
        }
    }
}
