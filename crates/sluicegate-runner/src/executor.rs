use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    net::{Shutdown, TcpListener},
    os::unix::fs::{OpenOptionsExt, symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use rustix::{fd::OwnedFd, process::Resource};
use sluicegate_ports::{
    execute::{
        Account, Contact, Ended, ExecuteError, ExecutorIdentity, Input, InputAccess, Layer, Limits, Network,
        Observation, OutputRequest, OutputRole, Product, StepExecutor, StepOutcome, StepRequest, Stop, Terminal,
    },
    store::{ContentStore, StoreError},
};
use sluicegate_types::{Content, ContentKind, Digest, StepName};

use crate::{
    account,
    cache::{Cache, CacheError, Stamp, Whole},
    cgroup,
    collect::RESULTS,
    conversation,
    egress::{Policy, Proxy, Upstream, UpstreamProxy},
    job::{Collected, Failure, JOB_FILE, Job, MountJob, MountKind, NetworkJob, Stage, Streams, SystemFile, Workload},
    masking::Forms,
    observe::Watch,
    plan::{self, Machine},
    run_folder::{self, RunFolder},
    shared_cache::{Held, SharedCaches},
    spawn::SealedProgram,
    supervise::{self, Ending, Killed, Listener, Output, Report},
    system_files,
};

/// The version of the engine that this crate is built with; part of every step's cache key.
const ENGINE_VERSION: &str = "0.7.0";

/// The dots stand for this very command, which only the caller knows.
const PRIVILEGED: &str = "run as root with every capability; in a container: docker run --privileged IMAGE …";

/// The folder of the seals of what is unpacked.
pub(crate) const SEALS: &str = "seals";

/// Where the executor works and with what.
#[derive(Clone)]
pub struct Config {
    /// An executable whose `main` first calls [`crate::container_process::enter_if_asked`]; it is copied to sealed memory when the first
    /// container starts.
    pub helper_program: PathBuf,
    /// Runs get a folder each below `run/` in here, and `seals/` says how what is in `layer_cache` was left; its file system has to take an overlay's upper folder (ext4, xfs, tmpfs).
    pub state_dir: PathBuf,
    /// Unpacked layers and inputs by digest; may be deleted whenever nothing runs.
    pub layer_cache: PathBuf,
    /// Folders that runs of one step share, by scope; each may be deleted by whoever can take its lock.
    pub shared_caches: PathBuf,
    /// Where layers and inputs come from and logs and outputs go to.
    pub store: Arc<dyn ContentStore>,
    /// The proxy by which this machine itself reaches the network, if it has one: steps with a list of servers are led through it.
    pub upstream_proxy: Option<UpstreamProxy>,
}

/// Runs steps and tools with libcontainer in a helper process, as root, on x86_64 Linux.
pub struct EmbeddedExecutor {
    program: PathBuf,
    /// The program's copy; made when the first container starts, as a run that only takes earlier results needs none.
    helper: OnceLock<SealedProgram>,
    runs: PathBuf,
    cache: Cache,
    shared: SharedCaches,
    store: Arc<dyn ContentStore>,
    upstream_proxy: Option<UpstreamProxy>,
    /// Whether a container was tried already.
    probed: OnceLock<()>,
    /// What is known of accounts, by an image's layers and its user.
    accounts: Mutex<BTreeMap<(Vec<Digest>, String), Account>>,
}

/// What a container runs, beside what stands in its root.
pub(crate) struct Launch<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) lowers: Vec<PathBuf>,
    pub(crate) mounts: Vec<MountJob>,
    pub(crate) system_files: Vec<SystemFile>,
    pub(crate) network: NetworkJob,
    pub(crate) workdir: &'a Path,
    pub(crate) owner: (u32, u32),
    pub(crate) groups: &'a [u32],
    pub(crate) workload: Workload,
    pub(crate) streams: Streams,
    pub(crate) outputs: &'a [OutputRequest],
    pub(crate) limits: &'a Limits,
    pub(crate) epoch: u64,
    pub(crate) ending: Ending<'a>,
    pub(crate) watch: Option<&'a Watch>,
}

impl EmbeddedExecutor {
    /// Prepares the folders, and removes what runs of dead processes left: folders, control groups,
    /// processes. [`ExecuteError::NotHere`] if any of that cannot be done.
    pub fn new(config: Config) -> Result<Self, ExecuteError> {
        let not_here = |what: String| {
            move |error: io::Error| ExecuteError::NotHere {
                reason: format!("cannot {what}: {error}"),
                remedy: "set SLUICEGATE_HOME to a folder of your own on a local disk".to_owned(),
            }
        };
        let runs = config.state_dir.join("run");
        let prepare = || {
            run_folder::make_private(&runs)?;
            fs::canonicalize(&runs)
        };
        let runs = prepare().map_err(not_here(format!("make the folder {}", runs.display())))?;
        run_folder::sweep(&runs).map_err(not_here(format!("remove old runs in {}", runs.display())))?;
        let cache = Cache::open(&config.layer_cache, &config.state_dir.join(SEALS), config.store.clone())
            .map_err(not_here(format!("open the cache {}", config.layer_cache.display())))?;
        Ok(Self {
            program: config.helper_program,
            helper: OnceLock::new(),
            runs,
            cache,
            shared: SharedCaches::new(config.shared_caches),
            store: config.store,
            upstream_proxy: config.upstream_proxy,
            probed: OnceLock::new(),
            accounts: Mutex::default(),
        })
    }

    /// The program that containers begin with.
    pub(crate) fn helper(&self) -> Result<&SealedProgram, ExecuteError> {
        if let Some(helper) = self.helper.get() {
            return Ok(helper);
        }
        let copy = SealedProgram::copy_of(&self.program).map_err(|error| ExecuteError::NotHere {
            reason: format!("cannot copy the helper {}: {error}", self.program.display()),
            remedy: "free some memory, and run it again".to_owned(),
        })?;
        Ok(self.helper.get_or_init(|| copy))
    }

    /// A folder for one run.
    pub(crate) fn run_folder(&self, step: &str) -> Result<RunFolder, ExecuteError> {
        RunFolder::new(&self.runs).map_err(engine(step, "make the folder of the run"))
    }

    /// Writes down what is to run, and runs it under watch. Outputs are left in the run's folder.
    pub(crate) fn launch(
        &self,
        step: &str,
        run: &RunFolder,
        launch: Launch<'_>,
        separate_streams: bool,
        mut listener: Listener<'_>,
    ) -> Result<Report, ExecuteError> {
        let ending = launch.ending;
        let watch = launch.watch.filter(|watch| watch.is_possible());
        Self::write_job(run, launch).map_err(engine(step, "write the helper's job"))?;
        let helper = self.helper()?;
        let start = || -> io::Result<_> {
            let (out, stdout) = io::pipe()?;
            let (streams, stderr) = if separate_streams {
                let (err, stderr) = io::pipe()?;
                (vec![out, err], stderr)
            } else {
                (vec![out], stdout.try_clone()?)
            };
            let (child, control) = helper.start(run.path(), stdout, stderr)?;
            if let Some(watch) = watch
                && watch.hand_over(&control).is_err()
            {
                // The helper says in its turn that it got nothing; one that is gone already is noticed where it is watched.
                let _ = control.shutdown(Shutdown::Write);
            }
            let streams = streams.into_iter().map(|stream| File::from(OwnedFd::from(stream))).collect();
            Ok((child, control, streams))
        };
        let (child, control, streams) = start().map_err(engine(step, "start the helper"))?;
        supervise::supervise(child, control, streams, ending, &mut listener).map_err(|reason| ExecuteError::Engine {
            step: step.to_owned(),
            action: "run the container",
            reason,
        })
    }

    pub(crate) fn write_job(run: &RunFolder, launch: Launch<'_>) -> io::Result<()> {
        let folder = run.path();
        let mut lowers = Vec::with_capacity(launch.lowers.len() + 1);
        // Short relative names: the options of an overlay can be read in the step.
        for (index, lower) in launch.lowers.iter().enumerate() {
            symlink(lower, folder.join(format!("l{index}")))?;
            lowers.push(format!("l{index}"));
        }
        if lowers.is_empty() {
            fs::create_dir(folder.join("empty"))?;
            lowers.push("empty".to_owned());
        }
        fs::create_dir(folder.join("state"))?;
        let machine = Machine {
            limits_swap: cgroup::limits_swap(),
            descriptors: rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
        };
        let (owner, groups) = (launch.owner, launch.groups);
        let config =
            plan::runtime_config(run.id(), launch.host_name, launch.workdir, owner, groups, launch.limits, machine);
        write_private(&folder.join("config.json"), &serde_json::to_vec(&config)?)?;
        let job = Job {
            id: run.id().to_owned(),
            lowers,
            mounts: launch.mounts,
            system_files: launch.system_files,
            network: launch.network,
            workdir: launch.workdir.to_owned(),
            owner: launch.owner,
            workload: launch.workload,
            streams: launch.streams,
            outputs: launch.outputs.iter().map(|output| output.path.clone()).collect(),
            output_bytes: launch.limits.output_bytes,
            epoch: launch.epoch,
            observe: launch.watch.is_some_and(Watch::is_possible),
        };
        write_private(&folder.join(JOB_FILE), &serde_json::to_vec(&job)?)
    }

    /// Judges the request and unpacks what it needs; `None` if it was stopped before that was done.
    fn prepare(&self, request: &StepRequest) -> Result<Option<Prepared>, ExecuteError> {
        let step = request.step.as_str();
        let refused = |reason| ExecuteError::Refused { step: step.to_owned(), reason };
        plan::check(request).map_err(refused)?;
        require_this_machine()?;
        let mut unpacked = self.lowers(step, &request.layers, &request.stop)?;
        if request.stop.is_raised() {
            return Ok(None);
        }
        let lowers = paths(&unpacked);
        let account = account::look_up(&lowers, &request.user).map_err(refused)?;
        let run = self.run_folder(step)?;
        let owner = (account.uid, account.gid);
        let mut mounts = match self.mounts(&run, request, owner, &mut unpacked) {
            Err(ExecuteError::Stopped { .. }) => return Ok(None),
            mounts => mounts?,
        };
        let held =
            request.caches.iter().enumerate().map(|(nth, cache)| self.shared.hold(run.path(), nth, cache, owner));
        let held = held.collect::<Result<Vec<_>, _>>().map_err(engine(step, "open a shared cache"))?;
        // Behind the inputs: one may lie in an input, and never around one.
        mounts.extend(held.iter().map(|held| {
            let (at, what) = held.mount();
            MountJob { at, what, read_only: false }
        }));
        let system_files =
            system_files::of_step(step, &request.network).map_err(engine(step, "read the system's files"))?;
        let env = request.env.iter().cloned().chain(request.network.variables_beside(&request.env)).collect();
        let prepared = Prepared { run, lowers, unpacked, mounts, held, system_files, env, account };
        Ok(if request.stop.is_raised() { None } else { Some(prepared) })
    }

    fn never_began(&self, request: &StepRequest) -> Result<StepOutcome, ExecuteError> {
        let observed = match request.observe {
            true => Observation::Unavailable("the step was stopped before it began".to_owned()),
            false => Observation::NotAsked,
        };
        Ok(StepOutcome {
            ended: Ended::Stopped,
            log: self.store.put_bytes(b"")?,
            outputs: Vec::new(),
            missing: request.outputs.iter().map(|output| output.name.clone()).collect(),
            leaking: Vec::new(),
            fault: None,
            oom_kills: None,
            contacts: Vec::new(),
            observed,
            caches: Vec::new(),
        })
    }

    /// The unpacked layers, topmost first; none once `stop` is raised.
    fn lowers(&self, step: &str, layers: &[Layer], stop: &Stop) -> Result<Vec<Whole>, ExecuteError> {
        if stop.is_raised() {
            return Ok(Vec::new());
        }
        match self.cache.layers(layers, stop) {
            Err(CacheError::Stopped) => Ok(Vec::new()),
            unpacked => unpacked.map_err(|error| content(step, error)),
        }
    }

    /// Unpacks the inputs, adds them to what is unpacked, and says where they belong.
    fn mounts(
        &self,
        run: &RunFolder,
        request: &StepRequest,
        owner: (u32, u32),
        unpacked: &mut Vec<Whole>,
    ) -> Result<Vec<MountJob>, ExecuteError> {
        let step = request.step.as_str();
        let mut inputs: Vec<&Input> = request.inputs.iter().collect();
        inputs.sort_by_key(|input| input.mount_point.components().count());
        let stamp = Stamp { owner, epoch: request.epoch };
        let mut mounts = Vec::with_capacity(inputs.len());
        for (index, input) in inputs.into_iter().enumerate() {
            let digest = &input.content.digest;
            let name = format!("i{index}");
            let (folder, what) = match input.content.kind {
                ContentKind::Directory => {
                    (self.cache.tree(digest, stamp, &request.stop), MountKind::Folder(name.clone()))
                }
                ContentKind::File => {
                    let what = MountKind::File(name.clone(), input.executable);
                    (self.cache.file(digest, input.executable, stamp), what)
                }
            };
            let folder = folder.map_err(|error| content(step, error))?;
            symlink(&folder.path, run.path().join(name)).map_err(engine(step, "name an input"))?;
            unpacked.push(folder);
            let read_only = input.access == InputAccess::ReadOnly;
            mounts.push(MountJob { at: input.mount_point.clone(), what, read_only });
        }
        Ok(mounts)
    }

    /// What a step with a list of servers may reach.
    pub(crate) fn policy(&self, request: &StepRequest) -> Result<Option<Policy>, ExecuteError> {
        let Network::Allow(egress) = &request.network else { return Ok(None) };
        let upstream = self.upstream_proxy.as_ref().map(|proxy| Upstream::parse(&proxy.url, proxy.no_proxy.as_deref()));
        let upstream = upstream.transpose().map_err(|reason| ExecuteError::NotHere {
            reason,
            remedy: "set HTTPS_PROXY=http://HOST:PORT, or unset it if this machine needs no proxy".to_owned(),
        })?;
        Ok(Some(Policy::new(request.step.as_str(), egress, upstream)))
    }

    /// What it contacted, once nothing of it is left that could contact more.
    fn contacts(&self, request: &StepRequest, proxy: Option<Proxy>) -> Result<Vec<Contact>, ExecuteError> {
        let Some(proxy) = proxy else { return Ok(Vec::new()) };
        proxy.finish().map_err(|reason| ExecuteError::Engine {
            step: request.step.to_string(),
            action: "write down what it contacted",
            reason,
        })
    }

    /// Runs a step; only the log is masked, and reports are looked through.
    fn run_unmasked(
        &self,
        request: &StepRequest,
        forms: &Forms,
        on_output: &mut dyn FnMut(&[u8]),
    ) -> Result<StepOutcome, ExecuteError> {
        let step = request.step.as_str();
        let Some(mut prepared) = self.prepare(request)? else { return self.never_began(request) };
        let held = std::mem::take(&mut prepared.held);
        let mut policy = self.policy(request)?;
        let run = &prepared.run;
        let stopped = || request.stop.is_raised();
        let watch = request.observe.then(Watch::begin);
        let launch = prepared.launch(request, Ending::of_step(request, &stopped), watch.as_ref());
        let log_path = run.path().join("log");
        let mut log = BoundedLog::new(&log_path, request.limits.log_bytes).map_err(engine(step, "write the log"))?;
        let mut masker = forms.stream();
        let mut text = Vec::new();
        let mut proxy = None;
        let mut take_output = |_, bytes: &[u8]| {
            text.clear();
            masker.push(bytes, &mut text);
            log.tell(&text, on_output)
        };
        let mut on_socket = |socket| start_proxy(socket, &mut policy, &mut proxy);
        let listener = Listener { on_output: &mut take_output, on_socket: &mut on_socket };
        held.iter().try_for_each(Held::begin).map_err(engine(step, "mark a shared cache"))?;
        let mut report = self.launch(step, run, launch, false, listener)?;
        // What the step wrote is nobody's any more: a disk that it filled has room again for what is kept of it.
        run.forget(&["upper", "work"]);
        text.clear();
        masker.finish(&mut text);
        if log.tell(&text, on_output).map_err(engine(step, "write the log"))? == Output::Full {
            report.killed.get_or_insert(Killed::TooMuchOutput);
        }
        let contacts = self.contacts(request, proxy)?;
        let mut fault =
            log.is_cut_by_the_disk.then(|| "was killed: the disk has no room for what it printed".to_owned());
        let collected = match report.result {
            Ok(collected) => collected,
            // It ran all the same, and what it printed says what it was about.
            Err(Failure { stage: Stage::Output(index), reason }) if request.outputs.get(index).is_some() => {
                fault.get_or_insert_with(|| unkept(&request.outputs[index], &reason));
                Vec::new()
            }
            Err(failure) => return Err(failure_of(request, &failure)),
        };
        let (ended, oom_kills) = ended_of(step, report.killed, report.ended)?;
        let mut text = File::open(&log_path).map_err(engine(step, "read the log"))?;
        let (log, _) = self.store.put(&mut text, request.limits.log_bytes)?;
        let observed = watch.map_or(Observation::NotAsked, |watch| watch.end(run.path()));
        // Nobody vouches for what a step made of something else than the contents that are named.
        self.cache.require_unchanged(&prepared.unpacked).map_err(|error| content(step, error))?;
        let was_killed = !matches!(ended, Ended::Exit(_)) || oom_kills.is_some_and(|kills| kills > 0);
        let caches = held.into_iter().map(|held| held.end(was_killed)).collect::<Result<_, _>>();
        let caches = caches.map_err(engine(step, "keep a shared cache"))?;
        let (outputs, missing, leaking) = (Vec::new(), Vec::new(), Vec::new());
        let mut outcome =
            StepOutcome { ended, log, outputs, missing, leaking, fault, oom_kills, contacts, observed, caches };
        self.keep_outputs(request, (run, forms), collected, &mut outcome)?;
        Ok(outcome)
    }

    fn keep_outputs(
        &self,
        request: &StepRequest,
        (run, forms): (&RunFolder, &Forms),
        collected: Vec<Collected>,
        outcome: &mut StepOutcome,
    ) -> Result<(), ExecuteError> {
        let mut left = request.limits.output_bytes;
        for (index, (what, output)) in collected.into_iter().zip(&request.outputs).enumerate() {
            let (kind, executable) = match what {
                Collected::Missing => {
                    outcome.missing.push(output.name.clone());
                    continue;
                }
                Collected::File { executable } => (ContentKind::File, executable),
                Collected::Directory => (ContentKind::Directory, false),
            };
            let path = run.path().join(RESULTS).join(index.to_string());
            let open = || File::open(&path).map_err(engine(request.step.as_str(), "read an output"));
            if output.role == OutputRole::Report {
                let leaks = forms.are_in(open()?).map_err(engine(request.step.as_str(), "read a report"))?;
                if leaks {
                    outcome.leaking.push(output.name.clone());
                    continue;
                }
            }
            let mut file = open()?;
            let (digest, size) = match self.store.put(&mut file, left) {
                Err(StoreError::TooLarge { .. }) => {
                    let limit = request.limits.output_bytes;
                    let reason = format!("all outputs together are larger than the limit of {limit} bytes");
                    outcome.fault.get_or_insert_with(|| unkept(output, &reason));
                    return Ok(());
                }
                Err(StoreError::Io { source, .. }) if is_full(&source) => {
                    outcome.fault.get_or_insert_with(|| unkept(output, &source.to_string()));
                    return Ok(());
                }
                result => result?,
            };
            left -= size;
            let content = Content { kind, digest };
            outcome.outputs.push(Product { name: output.name.clone(), content, size, executable });
            // The store has it; a large output need not lie here twice while the others are copied.
            let _ = fs::remove_file(&path);
        }
        Ok(())
    }
}

impl StepExecutor for EmbeddedExecutor {
    fn probe(&self) -> Result<(), ExecuteError> {
        if self.probed.get().is_some() {
            return Ok(());
        }
        require_this_machine()?;
        cgroup::check_writable().map_err(|reason| ExecuteError::NotHere {
            reason: format!("no control group can be made ({reason})"),
            remedy: format!("mount -o remount,rw /sys/fs/cgroup; {PRIVILEGED}"),
        })?;
        let limits = Limits {
            timeout: Duration::from_secs(60),
            memory: Some(64 << 20),
            pids: Some(16),
            cpu_millis: Some(1000),
            log_bytes: 64 * 1024,
            output_bytes: 0,
        };
        let run = self.run_folder("probe")?;
        let launch = Launch {
            host_name: "probe",
            lowers: Vec::new(),
            mounts: Vec::new(),
            system_files: Vec::new(),
            network: NetworkJob::Own,
            workdir: Path::new("/"),
            owner: (0, 0),
            groups: &[],
            workload: Workload::SelfTest,
            streams: Streams::Log,
            outputs: &[],
            limits: &limits,
            epoch: 0,
            ending: Ending::by_force(limits.timeout),
            watch: None,
        };
        let listener = Listener { on_output: &mut |_, _| Ok(Output::Taken), on_socket: &mut unexpected_socket };
        let report = self.launch("probe", &run, launch, false, listener);
        let (reason, remedy) = match report {
            Ok(Report { ended: Some((0, _)), killed: None, result: Ok(_) }) => {
                self.probed.get_or_init(|| ());
                return Ok(());
            }
            Ok(Report { result: Err(failure), .. }) => explain(&failure),
            Ok(Report { ended: Some((code, _)), .. }) => {
                (format!("the container's first process is not confined (code {code})"), PRIVILEGED.to_owned())
            }
            Ok(Report { ended: None, .. }) => ("the container did not end".to_owned(), PRIVILEGED.to_owned()),
            Err(ExecuteError::Engine { action, reason, .. }) => {
                (format!("cannot {action}: {reason}"), PRIVILEGED.to_owned())
            }
            Err(error) => return Err(error),
        };
        Err(ExecuteError::NotHere { reason, remedy })
    }

    fn identity(&self) -> ExecutorIdentity {
        ExecutorIdentity { name: "libcontainer".to_owned(), version: ENGINE_VERSION.to_owned() }
    }

    fn run_step(&self, request: &StepRequest, on_output: &mut dyn FnMut(&[u8])) -> Result<StepOutcome, ExecuteError> {
        let forms = forms(request)?;
        let ended = self.run_unmasked(request, &forms, on_output);
        ended.map(|outcome| forms.outcome(outcome)).map_err(|error| forms.error(error))
    }

    fn account(&self, step: &StepName, layers: &[Layer], user: &str, stop: &Stop) -> Result<Account, ExecuteError> {
        let step = step.as_str();
        let refused = |reason| ExecuteError::Refused { step: step.to_owned(), reason };
        account::check(user).map_err(refused)?;
        require_this_machine()?;
        let key = (layers.iter().map(|layer| layer.diff_id).collect(), user.to_owned());
        let accounts = || self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = accounts().get(&key) {
            return Ok(known.clone());
        }
        let lowers = self.lowers(step, layers, stop)?;
        if stop.is_raised() {
            // What was not unpacked says nothing of anybody.
            return Err(ExecuteError::Stopped { step: step.to_owned() });
        }
        let account = account::look_up(&paths(&lowers), user).map_err(refused)?;
        accounts().insert(key, account.clone());
        Ok(account)
    }

    fn shell(&self, request: &StepRequest, terminal: Terminal) -> Result<Ended, ExecuteError> {
        let forms = forms(request)?;
        let talk = || {
            let Some(prepared) = self.prepare(request)? else { return Ok(Ended::Stopped) };
            let stopped = || request.stop.is_raised();
            let launch = prepared.launch(request, Ending::of_step(request, &stopped), None);
            conversation::hold(self, (request, &forms), &prepared.run, launch, terminal)
        };
        talk().map_err(|error| forms.error(error))
    }
}

/// What a step needs before it can begin.
struct Prepared {
    run: RunFolder,
    lowers: Vec<PathBuf>,
    /// The layers and the inputs, as they were before it began.
    unpacked: Vec<Whole>,
    mounts: Vec<MountJob>,
    /// Shared caches, locked as long as the step has them.
    held: Vec<Held>,
    system_files: Vec<SystemFile>,
    /// The request's, with what the network adds.
    env: Vec<(String, String)>,
    account: Account,
}

impl Prepared {
    fn launch<'a>(&'a self, request: &'a StepRequest, ending: Ending<'a>, watch: Option<&'a Watch>) -> Launch<'a> {
        Launch {
            host_name: request.step.as_str(),
            lowers: self.lowers.clone(),
            mounts: self.mounts.clone(),
            system_files: self.system_files.clone(),
            network: network_job(&request.network),
            workdir: &request.workdir,
            owner: (self.account.uid, self.account.gid),
            groups: &self.account.groups,
            workload: Workload::Program { argv: request.argv.clone(), env: self.env.clone() },
            streams: Streams::Log,
            outputs: &request.outputs,
            limits: &request.limits,
            epoch: request.epoch,
            ending,
            watch,
        }
    }
}

fn paths(folders: &[Whole]) -> Vec<PathBuf> {
    folders.iter().map(|folder| folder.path.clone()).collect()
}

/// What is never told of the request.
fn forms(request: &StepRequest) -> Result<Forms, ExecuteError> {
    Forms::of(&request.masked).map_err(|reason| ExecuteError::Refused { step: request.step.to_string(), reason })
}

fn network_job(network: &Network) -> NetworkJob {
    match network {
        Network::None => NetworkJob::Own,
        Network::Allow(_) => NetworkJob::Proxied,
        Network::Host => NetworkJob::Host,
    }
}

/// Serves the proxy at the socket that a helper opened for its step.
pub(crate) fn start_proxy(socket: OwnedFd, policy: &mut Option<Policy>, proxy: &mut Option<Proxy>) -> io::Result<()> {
    let policy = policy.take().ok_or_else(|| io::Error::other("the helper opened a socket that nobody asked for"))?;
    *proxy = Some(Proxy::start(TcpListener::from(socket), policy)?);
    Ok(())
}

/// For containers that have no proxy.
pub(crate) fn unexpected_socket(_: OwnedFd) -> io::Result<()> {
    Err(io::Error::other("the helper opened a socket that nobody asked for"))
}

/// The log on the disk, cut at its limit.
struct BoundedLog {
    file: File,
    left: u64,
    is_cut_by_the_disk: bool,
}

impl BoundedLog {
    fn new(path: &Path, limit: u64) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { file, left: limit, is_cut_by_the_disk: false })
    }

    /// Takes what it can and tells that.
    fn tell(&mut self, bytes: &[u8], on_output: &mut dyn FnMut(&[u8])) -> io::Result<Output> {
        let (taken, verdict) = self.take(bytes)?;
        if !taken.is_empty() {
            on_output(taken);
        }
        Ok(verdict)
    }

    fn take<'b>(&mut self, bytes: &'b [u8]) -> io::Result<(&'b [u8], Output)> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX);
        let (taken, verdict) = if bytes.len() > room { (&bytes[..room], Output::Full) } else { (bytes, Output::Taken) };
        if let Err(error) = self.file.write_all(taken) {
            if !is_full(&error) {
                return Err(error);
            }
            // The step that filled the disk fails, and nothing else does.
            (self.left, self.is_cut_by_the_disk) = (0, true);
            return Ok((&[], Output::Full));
        }
        self.left -= taken.len() as u64;
        Ok((taken, verdict))
    }
}

/// Refuses what cannot work before anything is tried.
pub(crate) fn require_this_machine() -> Result<(), ExecuteError> {
    let not_here = |reason: &str, remedy: &str| {
        Err(ExecuteError::NotHere { reason: reason.to_owned(), remedy: remedy.to_owned() })
    };
    if !cfg!(target_arch = "x86_64") {
        return not_here("there is a system call profile for x86_64 only", "run on an x86_64 machine");
    }
    if !rustix::process::geteuid().is_root() {
        return not_here("containers without root are not in this version", "run as root: sudo …");
    }
    Ok(())
}

/// What a failure of the engine means for the machine.
pub(crate) fn explain(failure: &Failure) -> (String, String) {
    let reason = &failure.reason;
    match failure.stage {
        Stage::Overlay => (
            format!("layers cannot be stacked here: {reason}"),
            "the home must lie on ext4, xfs or tmpfs and not on another overlay: mv HOME /var/lib/sluicegate && export SLUICEGATE_HOME=/var/lib/sluicegate".to_owned(),
        ),
        Stage::Namespaces => (format!("namespaces are refused: {reason}"), PRIVILEGED.to_owned()),
        _ => (format!("a container cannot be made: {reason}"), PRIVILEGED.to_owned()),
    }
}

/// How a step ended, and how many of its processes the memory limit killed.
pub(crate) fn ended_of(
    step: &str,
    killed: Option<Killed>,
    ended: Option<(i32, Option<u64>)>,
) -> Result<(Ended, Option<u64>), ExecuteError> {
    let (code, oom_kills) = ended.ok_or_else(|| ExecuteError::Engine {
        step: step.to_owned(),
        action: "run the container",
        reason: "the helper did not say how it ended".to_owned(),
    })?;
    let ended = match killed {
        None => Ended::Exit(code),
        Some(Killed::TimedOut) => Ended::TimedOut,
        Some(Killed::Stopped) => Ended::Stopped,
        Some(Killed::TooMuchOutput) => Ended::LogFull,
    };
    Ok((ended, oom_kills))
}

pub(crate) fn failure_of(request: &StepRequest, failure: &Failure) -> ExecuteError {
    let step = request.step.to_string();
    let reason = failure.reason.clone();
    match failure.stage {
        Stage::Overlay | Stage::Namespaces => {
            let (reason, remedy) = explain(failure);
            ExecuteError::NotHere { reason, remedy }
        }
        Stage::Mount(_) | Stage::Folders => {
            ExecuteError::Refused { step, reason: format!("its root cannot be made: {reason}") }
        }
        Stage::Output(index) => match request.outputs.get(index) {
            Some(output) => ExecuteError::Output { step, output: output.name.to_string(), reason },
            None => ExecuteError::Engine { step, action: "keep an output", reason },
        },
        Stage::Container => ExecuteError::Engine { step, action: "make the container", reason },
        Stage::Job => ExecuteError::Engine { step, action: "read the helper's job", reason },
    }
}

/// What is wrong with a step whose output is there and can't be kept, to be read after the step's name.
fn unkept(output: &OutputRequest, reason: &str) -> String {
    format!("left an output that cannot be kept: {} at {}: {reason}", output.name, output.path.display())
}

/// Whether a disk, or somebody's share of it, has no room.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn content(step: &str, error: CacheError) -> ExecuteError {
    let step = step.to_owned();
    match error {
        CacheError::Content { digest, reason } => ExecuteError::Content { step, digest, reason },
        CacheError::Store(error) => error.into(),
        CacheError::Stopped => ExecuteError::Stopped { step },
        CacheError::Io { action, reason } => ExecuteError::Engine { step, action, reason },
    }
}

/// Names the step and the action of a system's failure.
pub(crate) fn engine(step: &str, action: &'static str) -> impl Fn(io::Error) -> ExecuteError {
    move |error| ExecuteError::Engine { step: step.to_owned(), action, reason: error.to_string() }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_exactly_at_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = BoundedLog::new(&dir.path().join("log"), 5).unwrap();
        assert_eq!(log.take(b"abc").unwrap(), (&b"abc"[..], Output::Taken));
        assert_eq!(log.take(b"de").unwrap(), (&b"de"[..], Output::Taken));
        assert_eq!(log.take(b"f").unwrap(), (&b""[..], Output::Full));
        assert_eq!(fs::read(dir.path().join("log")).unwrap(), b"abcde");
    }
}
