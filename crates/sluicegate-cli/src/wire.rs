//! Constructs what the verbs need, and nothing else: the one place where adapters are named.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, Scope, ScopedJoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

use sluicegate_attestation::summary::LedgerHead;
use sluicegate_evidence::SqliteEvidence;
use sluicegate_flow::{
    attest::{Late, keep_late},
    gateway::GatewayFiles,
    scan_database,
    steps::Capacity,
};
use sluicegate_pipeline::{
    gateway::{DatabaseFrom, Gateway, LogPlace, Trivy, TrivyDatabase},
    shared_store as written,
};
use sluicegate_ports::{
    Clock,
    evidence::{EvidenceError, EvidenceLog},
    execute::Stop,
    ledger::{Ledger, LedgerError},
    prune::{AgedObjects, Disposable},
    scan::ScanError,
    sign::{SignError, Signer, TransparencyLog},
    store::ContentStore,
};
use sluicegate_registry::{Places, RegistrySettings};
use sluicegate_runner::{
    Config, DisposableFolder, EmbeddedExecutor, FetchLimits, FetchSettings, GitSourceLister, PermittedFetcher,
    StoreTreePacker,
};
use sluicegate_scan::{NamedDatabase, ScanLimits, TrivyScanner, database::Kind, database_archive};
use sluicegate_shared::{
    Bucket, BucketObjects, CONTENTS, RESULTS, SharedLimits, SharedPlace, SharedSettings, SharedStore,
};
use sluicegate_sigstore::{
    EmbeddedLedger, EmbeddedLog, KeyFolder, LogPublic, RekorLog, RekorSettings, RemoteLimits, RemoteLog,
    new_ledger_origin, new_origin,
};
use sluicegate_store::{FileScanIndex, FileStepCache, FileStore, FilesByDigest, ScratchStore};
use sluicegate_types::{Destination, LogUrl, Secret, UnixTime};
use sluicegate_verify::Trust;

use crate::{
    gateway_folder::GatewayFolder,
    home::Home,
    outbound_environment, registry_environment,
    words::{Problem, Words},
};

/// The name of the log's key in the home.
pub(crate) const LOG_KEY: &str = "log";
/// The name of the ledger's key in the home.
pub(crate) const LEDGER_KEY: &str = "ledger";

/// The home's adapters that need no key.
pub(crate) struct Wired {
    pub(crate) home: Home,
    pub(crate) store: Arc<FileStore>,
    pub(crate) evidence: SqliteEvidence,
    pub(crate) packer: StoreTreePacker,
    pub(crate) places: Places,
    pub(crate) clock: SystemClock,
    keys: KeyFolder,
    scratch: Scratch,
}

/// Finds a folder with a database of the scanner.
type FindDatabase = Box<dyn Fn() -> Result<PathBuf, sluicegate_flow::Error> + Send + Sync>;

/// What a command that signs and records needs.
pub(crate) type Opened = (Box<dyn Signer>, Box<dyn TransparencyLog>, EmbeddedLedger);

/// Where a command logs, and what it believes.
#[derive(Clone, Copy)]
pub(crate) struct Logging<'a> {
    pub(crate) gateway: &'a GatewayFolder,
    pub(crate) trust: &'a Trust,
    pub(crate) words: &'a Words,
}

/// The log that was opened, by its kind.
enum AnyLog {
    Embedded(Box<EmbeddedLog>),
    Remote(Box<RekorLog>),
}

/// What [`Wired::begin_to_open`] began.
pub(crate) struct Opening<'scope> {
    signer: ScopedJoinHandle<'scope, Result<Box<dyn Signer>, sluicegate_flow::Error>>,
    log: ScopedJoinHandle<'scope, Result<AnyLog, Problem>>,
    ledger: ScopedJoinHandle<'scope, Result<EmbeddedLedger, Problem>>,
}

impl Opening<'_> {
    /// Waits for them, and sends to a log elsewhere what waits for it.
    pub(crate) fn finish(self, wired: &Wired, logging: Logging<'_>) -> Result<Opened, Problem> {
        let broke_off = |_| sluicegate_flow::Error::Bug("opening a key broke off".to_owned());
        let signer = self.signer.join().map_err(broke_off)??;
        let log = self.log.join().map_err(broke_off)??;
        let ledger = self.ledger.join().map_err(broke_off)??;
        let log: Box<dyn TransparencyLog> = match log {
            AnyLog::Embedded(log) => {
                wired.warn_of_waiting(RekorLog::waiting_in(&wired.outbox()), logging.words);
                log
            }
            AnyLog::Remote(log) => {
                wired.settle(&log, logging)?;
                log
            }
        };
        Ok((signer, log, ledger))
    }
}

impl Wired {
    pub(crate) fn new(home: Home) -> Result<Self, Problem> {
        let store = Arc::new(store(&home)?);
        let evidence = evidence(&home)?;
        let shared: Arc<dyn ContentStore> = store.clone();
        let scratch = Scratch::new(&home)?;
        let packer = StoreTreePacker::new(shared, scratch.folder.path().to_owned());
        let places = Places::new(registry_environment::settings(Some(&home)));
        let keys = keys(&home);
        Ok(Self { home, store, evidence, packer, places, clock: SystemClock, keys, scratch })
    }

    /// The same with evidence of registries' images where the gateway wants it.
    pub(crate) fn judged_by(mut self, gateway: &Gateway) -> Self {
        self.places = self.places.with_evidence(gateway.evidence.clone());
        self
    }

    /// A folder for scratch files.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.folder.path()
    }

    /// The executor, which is also the scanner's sandbox.
    pub(crate) fn executor(&self) -> Result<Arc<EmbeddedExecutor>, Problem> {
        let helper_program =
            std::env::current_exe().map_err(|error| Problem::io("find", Path::new("this program"), &error))?;
        let executor = EmbeddedExecutor::new(Config {
            helper_program,
            state_dir: self.home.folder().to_owned(),
            layer_cache: self.home.part("cache").join("layers"),
            shared_caches: self.home.part("cache").join("shared"),
            store: self.store.clone(),
            upstream_proxy: outbound_environment::upstream_proxy(),
        });
        Ok(Arc::new(executor.map_err(sluicegate_flow::Error::from)?))
    }

    /// What fetches sources at a commit, over the same proxy as everything else.
    pub(crate) fn fetcher(&self, project: &Path, private: &[Destination]) -> PermittedFetcher {
        let settings = outbound_environment::settings(Some(&self.home));
        let settings = FetchSettings {
            cache: self.home.part("cache").join("git"),
            proxy: settings.proxy,
            no_proxy: settings.no_proxy,
            certificates: outbound_environment::certificate_file(),
            limits: FetchLimits::default(),
            only: None,
        };
        PermittedFetcher::new(settings, project, private.to_vec())
    }

    /// The index of scans.
    pub(crate) fn scan_index(&self) -> FileScanIndex {
        scan_index(&self.home)
    }

    /// The index of step results.
    pub(crate) fn step_cache(&self) -> FileStepCache {
        step_cache(&self.home)
    }

    /// The store that machines share, if the gateway names one.
    pub(crate) fn shared_store(&self, gateway: &GatewayFolder, stop: &Stop) -> Result<Option<SharedStore>, Problem> {
        let Some(named) = &gateway.gateway.shared else { return Ok(None) };
        let settings = SharedSettings {
            place: shared_place(gateway, named).map_err(|problem| problem.or_also(WITHOUT_STORE))?,
            shown: named.shown.clone(),
            push: named.push,
            outbound: outbound_environment::outbound(Some(&self.home)),
            limits: SharedLimits::default(),
            stop: stop.clone(),
            warn: outbound_environment::warn(),
        };
        let opened = SharedStore::open(settings, self.store.clone());
        opened.map(Some).map_err(|reason| cannot_be_asked(named, reason).or_also(WITHOUT_STORE))
    }

    /// What needs no key.
    pub(crate) fn workbench<'a>(&'a self, tell: &'a dyn Fn(&str)) -> sluicegate_flow::Workbench<'a> {
        sluicegate_flow::Workbench {
            clock: &self.clock,
            store: self.store.as_ref(),
            places: &self.places,
            packer: &self.packer,
            tell,
        }
    }

    /// How much may run at a time: all of this machine, or so many steps.
    pub(crate) fn capacity(jobs: Option<u16>) -> Capacity {
        let (processors, memory) = sluicegate_runner::machine();
        Capacity { cpu_millis: jobs.map_or(processors, u64::from).saturating_mul(1000), memory }
    }

    /// The scanner that the gateway allows, with the database that it pins.
    pub(crate) fn scanner(
        &self,
        executor: &Arc<EmbeddedExecutor>,
        gateway: &Trivy,
        gateway_folder: &Path,
        flag: Option<&Path>,
        name: &str,
    ) -> Result<TrivyScanner, Problem> {
        // Every scan needs this one: that it is not there is found out now.
        let database = self.database(Kind::Vulnerabilities, &gateway.database.from, gateway_folder)()?;
        // Most images have no Java archives, and this one is large.
        let java = |named: &TrivyDatabase| {
            let (find, place) = (self.database(Kind::Java, &named.from, gateway_folder), named.from.to_string());
            let refused = move |error: sluicegate_flow::Error| ScanError::Database {
                path: place.clone().into(),
                reason: error.causes().join(": "),
            };
            NamedDatabase { folder: Arc::new(move || find().map_err(&refused)), digest: named.digest }
        };
        Ok(TrivyScanner::new(sluicegate_scan::Config {
            trivy: trivy(&self.home, flag)?,
            allowed: gateway.digests.clone(),
            database: NamedDatabase::in_folder(database, gateway.database.digest),
            java_database: gateway.java_database.as_ref().map(java),
            work: self.home.part("cache").join("scanner"),
            sandbox: executor.clone(),
            name: name.to_owned(),
            epoch: None,
            limits: ScanLimits::default(),
        }))
    }

    /// What finds a database of the scanner: in the folder that is named, or in the one where an artifact is unpacked once for each content.
    fn database(&self, kind: Kind, from: &DatabaseFrom, gateway_folder: &Path) -> FindDatabase {
        let artifact = match from {
            DatabaseFrom::Folder(folder) => {
                let folder = gateway_folder.join(folder);
                return Box::new(move || Ok(folder.clone()));
            }
            DatabaseFrom::Artifact(artifact) => artifact.clone(),
        };
        let (store, places) = (self.store.clone(), self.places.clone());
        let (unpacked, gateway_folder) = (self.home.part("cache").join("trivy-db"), gateway_folder.to_owned());
        Box::new(move || {
            let layer = scan_database::bring(&places, &artifact, &gateway_folder, kind.layer(), store.as_ref())?;
            let folder = unpacked.join(layer.hex());
            if !folder.is_dir() {
                database_archive::unpack(kind, store.open(&layer)?, &folder)?;
            }
            Ok(folder)
        })
    }

    pub(crate) fn keys(&self) -> &KeyFolder {
        &self.keys
    }

    /// A signing key of the home.
    pub(crate) fn signer(&self, name: &str, passphrase: &Secret) -> Result<Box<dyn Signer>, sluicegate_flow::Error> {
        Ok(Box::new(self.keys.open_signer(name, passphrase)?))
    }

    /// A signing key of the home, the log and the ledger, to which what waited for a log elsewhere was sent first.
    pub(crate) fn signer_and_logs(
        &self,
        name: &str,
        passphrase: &Secret,
        logging: Logging<'_>,
    ) -> Result<Opened, Problem> {
        let stop = Stop::default();
        thread::scope(|scope| {
            self.begin_to_open(scope, name, passphrase, logging.gateway, &stop)?.finish(self, logging)
        })
    }

    /// Begins to open them, each on a thread of its own, so that something else can be done meanwhile, which `stop` ends where one does not
    /// open: a passphrase gives a key by a tenth of a second of scrypt and 64 MiB, by design.
    pub(crate) fn begin_to_open<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        name: &'env str,
        passphrase: &'env Secret,
        gateway: &GatewayFolder,
        stop: &Stop,
    ) -> Result<Opening<'scope>, Problem> {
        let remote = self.remote_log(gateway)?;
        Ok(Opening {
            signer: begin(scope, stop, || self.signer(name, passphrase))?,
            log: begin(scope, stop, || match remote {
                None => log(&self.home, &self.keys, passphrase).map(|log| AnyLog::Embedded(Box::new(log))),
                Some((settings, logs)) => {
                    let opened = RekorLog::open(settings, &logs).map_err(sluicegate_flow::Error::from)?;
                    Ok(AnyLog::Remote(Box::new(opened)))
                }
            })?,
            ledger: begin(scope, stop, || self.ledger(passphrase))?,
        })
    }

    /// Where what is signed waits until a log elsewhere has it.
    fn outbox(&self) -> PathBuf {
        self.home.part("outbox")
    }

    /// The log elsewhere that the gateway names, with those that its trusted root has.
    fn remote_log(&self, gateway: &GatewayFolder) -> Result<Option<(RekorSettings, Vec<LogPublic>)>, Problem> {
        let LogPlace::Remote { url, read } = &gateway.gateway.log else { return Ok(None) };
        let root = gateway.gateway.trust_root.clone();
        let logs = sluicegate_sigstore::logs_of(&gateway.read(&root)?)
            .map_err(|reason| sluicegate_flow::Error::Trust { file: root, reason })?;
        let settings = RekorSettings {
            url: url.clone(),
            read: read.clone(),
            outbox: self.outbox(),
            outbound: outbound_environment::outbound(Some(&self.home)),
            limits: RemoteLimits::default(),
        };
        Ok(Some((settings, logs)))
    }

    /// Sends to the log what waits for it, before anything else is signed.
    fn settle(&self, log: &RekorLog, logging: Logging<'_>) -> Result<(), Problem> {
        let origin = log.origin();
        if !logging.trust.takes_untimed(origin) {
            return Err(Problem::usage(
                format!(
                    "trust.yaml does not list the log {origin} under formats.untimed, so nothing that is logged there counts"
                ),
                format!(
                    "add {origin} to untimed: under formats: of trust.yaml, or name another log in the gateway file"
                ),
            ));
        }
        let settled = log.settle(|settled| -> Result<(), sluicegate_flow::Error> {
            let late = Late { payload: &settled.payload, body: &settled.body, entry: &settled.entry };
            let line = keep_late(self.store.as_ref(), logging.trust, &late, self.clock.now())?;
            logging.words.tell(&format!("{line} of {origin}"));
            Ok(())
        })?;
        self.warn_of_waiting(settled.elsewhere, logging.words);
        Ok(())
    }

    fn warn_of_waiting(&self, waiting: usize, words: &Words) {
        if waiting > 0 {
            let outbox = self.outbox();
            let (statements, wait) = if waiting == 1 { ("statement", "waits") } else { ("statements", "wait") };
            words.warn(&format!(
                "{waiting} signed {statements} in {} {wait} for another log than the one that this gateway names",
                outbox.display()
            ));
        }
    }

    /// The ledger of the evidence store, to append to.
    fn ledger(&self, passphrase: &Secret) -> Result<EmbeddedLedger, Problem> {
        let keys = &self.keys;
        if !keys.has(LEDGER_KEY).map_err(sluicegate_flow::Error::from)? {
            return Err(no_ledger(&self.home));
        }
        let key = keys.open_log_key(LEDGER_KEY, passphrase).map_err(sluicegate_flow::Error::from)?;
        let origin = new_ledger_origin(key.public_key());
        Ok(EmbeddedLedger::open(self.home.part("ledger"), key, &origin).map_err(sluicegate_flow::Error::from)?)
    }

    /// The shared ports over these adapters.
    pub(crate) fn ports<'a>(
        &'a self,
        log: &'a dyn TransparencyLog,
        ledger: &'a dyn Ledger,
        tell: &'a dyn Fn(&str),
        warn: &'a dyn Fn(&str),
    ) -> sluicegate_flow::Ports<'a> {
        sluicegate_flow::Ports {
            clock: &self.clock,
            store: self.store.as_ref(),
            places: &self.places,
            packer: &self.packer,
            log,
            evidence: &self.evidence,
            ledger,
            tell,
            warn,
        }
    }
}

/// Begins to open something on a thread; where it does not open, `stop` is raised.
pub(crate) fn begin<'scope, T: Send + 'scope, E: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    stop: &Stop,
    open: impl FnOnce() -> Result<T, E> + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, Result<T, E>>, Problem> {
    let stop = stop.clone();
    let open = move || open().inspect_err(|_| stop.raise());
    thread::Builder::new()
        .spawn_scoped(scope, open)
        .map_err(|error| Problem::lost(format!("cannot begin a thread to open a key: {error}"), "try again"))
}

/// The evidence store. One that is missing where there was one is never begun anew: what it held would be gone without a word.
pub(crate) fn evidence(home: &Home) -> Result<SqliteEvidence, Problem> {
    if let Some(words) = lost_evidence(home) {
        return Err(Problem::lost(words, "restore it from a backup; what it recorded is not known without it"));
    }
    Ok(open_evidence(home).map_err(sluicegate_flow::Error::from)?)
}

/// The evidence store of a home that must have one: who only reads makes none.
pub(crate) fn evidence_there(home: &Home) -> Result<SqliteEvidence, Problem> {
    let path = home.part("evidence.db");
    if lost_evidence(home).is_none() && path.symlink_metadata().is_err() {
        return Err(Problem::usage(
            format!("the home {} has no records: there is no {}", home.folder().display(), path.display()),
            "sluicegate init with a new project makes what the home lacks, or set SLUICEGATE_HOME to another one",
        ));
    }
    evidence(home)
}

/// Says so if the evidence store is missing or empty where there was one.
pub(crate) fn lost_evidence(home: &Home) -> Option<String> {
    let path = home.part("evidence.db");
    let empty = std::fs::metadata(&path).map_or(true, |metadata| metadata.len() == 0);
    let used = trusted_root(home).exists() || has_ledger(home);
    (empty && used).then(|| format!("{} is missing or empty, and this home has been in use", path.display()))
}

pub(crate) fn open_evidence(home: &Home) -> Result<SqliteEvidence, EvidenceError> {
    SqliteEvidence::open(&home.part("evidence.db"))
}

/// Whether there is anything of a ledger in the home beside its key.
pub(crate) fn has_ledger(home: &Home) -> bool {
    has_tiles(home, "ledger")
}

/// Whether there is anything of the log or the ledger in this folder of the home.
pub(crate) fn has_tiles(home: &Home, folder: &str) -> bool {
    ["checkpoint", "tile"].iter().any(|part| home.part(folder).join(part).symlink_metadata().is_ok())
}

/// The ledger to read, without a passphrase. The inner `Err` says that its key is gone.
pub(crate) fn ledger_reader(home: &Home) -> Result<Result<EmbeddedLedger, String>, Problem> {
    let folder = home.part("ledger");
    match keys(home).log_public_key(LEDGER_KEY) {
        Ok(public_key) => {
            let public = LogPublic { origin: new_ledger_origin(&public_key), public_key };
            Ok(Ok(EmbeddedLedger::reader(folder, public)))
        }
        Err(SignError::NoKey { .. }) => {
            let private = keys(home).has(LEDGER_KEY).map_err(sluicegate_flow::Error::from)?;
            if private || has_ledger(home) {
                let key = home.part("keys").join(format!("{LEDGER_KEY}.pub"));
                return Ok(Err(format!(
                    "the ledger in {} has lost its public key {}",
                    folder.display(),
                    key.display()
                )));
            }
            Err(no_ledger(home))
        }
        Err(SignError::KeyFile { name, reason }) => Ok(Err(format!("the ledger's public key {name}.pub: {reason}"))),
        Err(error) => Err(sluicegate_flow::Error::from(error).into()),
    }
}

/// The ledger to read; `None` in a home that was made before there were any.
pub(crate) fn ledger_if_any(home: &Home) -> Result<Option<EmbeddedLedger>, Problem> {
    let private = keys(home).has(LEDGER_KEY).map_err(sluicegate_flow::Error::from)?;
    if !private && !has_public_key(home, LEDGER_KEY) && !has_ledger(home) {
        return Ok(None);
    }
    whole_ledger_reader(home).map(Some)
}

/// The ledger to read, whose public key must be there.
pub(crate) fn whole_ledger_reader(home: &Home) -> Result<EmbeddedLedger, Problem> {
    ledger_reader(home)?.map_err(|words| {
        Problem::lost(words, "sluicegate evidence fsck says what is wrong; restore the home from a backup")
    })
}

/// Whether the public half of a key is in the home.
pub(crate) fn has_public_key(home: &Home, name: &str) -> bool {
    home.part("keys").join(format!("{name}.pub")).symlink_metadata().is_ok()
}

fn no_ledger(home: &Home) -> Problem {
    Problem::usage(
        format!(
            "the home {} has no ledger: it was made before there were any, or init did not finish",
            home.folder().display()
        ),
        "sluicegate init makes it and takes the records along that are there",
    )
}

/// Where the home keeps its trusted root: the last thing that `init` writes there.
pub(crate) fn trusted_root(home: &Home) -> PathBuf {
    home.part("trust").join("trusted_root.json")
}

/// Content on its way from one place to another, gone when this is dropped.
pub(crate) struct OnItsWay {
    pub(crate) store: ScratchStore,
    _scratch: Scratch,
}

impl OnItsWay {
    pub(crate) fn new(home: &Home) -> Result<Self, Problem> {
        let scratch = Scratch::new(home)?;
        let folder = scratch.folder.path().join("store");
        let store = ScratchStore::open(&folder).map_err(sluicegate_flow::Error::from)?;
        Ok(Self { store, _scratch: scratch })
    }
}

/// A folder for the scratch files of this process, gone when it ends; what killed ones left is swept.
struct Scratch {
    folder: tempfile::TempDir,
    _lock: std::fs::File,
}

impl Scratch {
    fn new(home: &Home) -> Result<Self, Problem> {
        let all = home.part("scratch");
        let problem = |action: &str| {
            let (action, all) = (action.to_owned(), all.clone());
            move |error: std::io::Error| Problem::io(&action, &all, &error)
        };
        // One sweeper or newcomer at a time, so that a folder without a lock is nobody's.
        let gate = std::fs::File::create(all.join(".gate")).map_err(problem("lock"))?;
        gate.lock().map_err(problem("lock"))?;
        for entry in std::fs::read_dir(&all).map_err(problem("list"))? {
            let path = entry.map_err(problem("list"))?.path();
            if !path.is_dir() {
                continue;
            }
            let free = match std::fs::File::open(path.join(".lock")) {
                Ok(lock) => lock.try_lock().is_ok(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
                // What can't be looked at may be in use.
                Err(_) => false,
            };
            if free {
                std::fs::remove_dir_all(&path).map_err(problem("sweep"))?;
            }
        }
        let folder = tempfile::Builder::new().prefix("p-").tempdir_in(&all).map_err(problem("create a folder in"))?;
        let lock = std::fs::File::create(folder.path().join(".lock")).map_err(problem("lock"))?;
        lock.lock().map_err(problem("lock"))?;
        Ok(Self { folder, _lock: lock })
    }
}

/// The content store alone.
pub(crate) fn store(home: &Home) -> Result<FileStore, Problem> {
    Ok(FileStore::open(&home.part("store")).map_err(sluicegate_flow::Error::from)?)
}

/// The content store for whoever deletes from it; `None` while any other process uses it, and with it anything of this home.
pub(crate) fn store_alone(home: &Home) -> Result<Option<FileStore>, Problem> {
    Ok(FileStore::open_alone(&home.part("store")).map_err(sluicegate_flow::Error::from)?)
}

fn scan_index(home: &Home) -> FileScanIndex {
    FileScanIndex::new(&home.part("cache").join("scans"))
}

fn step_cache(home: &Home) -> FileStepCache {
    FileStepCache::new(&home.part("cache").join("step-results"))
}

/// Everything of a home that can be made or fetched again, what leads to contents first. Nobody uses any of it without the store, so whoever
/// has that alone has all of it.
pub(crate) fn disposable(home: &Home) -> Vec<Box<dyn Disposable>> {
    let cache = home.part("cache");
    vec![
        Box::new(step_cache(home)),
        Box::new(scan_index(home)),
        Box::new(DisposableFolder::of_layers(home.folder(), cache.join("layers"))),
        Box::new(DisposableFolder::of_sources(cache.join("git"))),
        Box::new(DisposableFolder::of("vulnerability databases", cache.join("trivy-db")).named_by_content()),
        Box::new(DisposableFolder::of("copies of the scanner and its databases", cache.join("scanner"))),
        Box::new(DisposableFolder::of_shared_caches(cache.join("shared"))),
    ]
}

/// What is in the store that machines share. The home is only the place of certificates, if it is there.
pub(crate) fn shared_objects(gateway: &GatewayFolder, named: &written::SharedStore) -> Result<SharedObjects, Problem> {
    let outbound = outbound_environment::outbound(Home::read().ok().as_ref());
    let mend = "it may not be mounted; make the folder, or mend cache: in the gateway file";
    let place = match shared_place(gateway, named)? {
        // That it is a link is whoever's wrote the gateway file; what is in it is anybody's.
        SharedPlace::Folder(folder) => {
            let is_folder = folder.metadata().and_then(|found| match found.is_dir() {
                true => folder.canonicalize(),
                false => Err(std::io::ErrorKind::NotADirectory.into()),
            });
            let open = |error| Problem::named("open the shared store", &folder, &error).or(mend);
            SharedPlace::Folder(is_folder.map_err(open)?)
        }
        bucket @ SharedPlace::Bucket(_) => bucket,
    };
    let objects = |below, what| -> Result<Box<dyn AgedObjects>, Problem> {
        match place.clone() {
            SharedPlace::Folder(folder) => Ok(Box::new(FilesByDigest::new(folder, below, what))),
            SharedPlace::Bucket(bucket) => {
                let bucket = (bucket, named.shown.clone());
                let opened = BucketObjects::open(bucket, (below, what), outbound.clone(), SharedLimits::default());
                Ok(Box::new(opened.map_err(|reason| cannot_be_asked(named, reason))?))
            }
        }
    };
    Ok(SharedObjects {
        results: objects(RESULTS, "step results in the shared store")?,
        contents: objects(CONTENTS, "contents of the shared store")?,
    })
}

/// What is in a store that machines share.
pub(crate) struct SharedObjects {
    pub(crate) results: Box<dyn AgedObjects>,
    pub(crate) contents: Box<dyn AgedObjects>,
}

/// What to do if a shared store cannot be asked and is not what somebody wants of it.
const WITHOUT_STORE: &str = "or do without earlier results: --no-cache";

fn cannot_be_asked(named: &written::SharedStore, reason: String) -> Problem {
    let what = format!("the shared store {} can't be asked: {reason}", named.shown);
    Problem::usage(what, "mend cache: in the gateway file")
}

fn shared_place(gateway: &GatewayFolder, named: &written::SharedStore) -> Result<SharedPlace, Problem> {
    Ok(match &named.place {
        written::SharedPlace::Folder(folder) => SharedPlace::Folder(gateway.folder.join(folder)),
        written::SharedPlace::Bucket { bucket, prefix, endpoint, region } => SharedPlace::Bucket(Bucket {
            name: bucket.clone(),
            prefix: prefix.clone(),
            endpoint: endpoint.clone(),
            region: region.clone(),
            credentials: outbound_environment::bucket_credentials(&named.shown)?,
        }),
    })
}

/// The statements that wait for a log elsewhere.
pub(crate) fn waiting(home: &Home) -> Result<Vec<Vec<u8>>, Problem> {
    Ok(RekorLog::statements_in(&home.part("outbox")).map_err(sluicegate_flow::Error::from)?)
}

pub(crate) fn keys(home: &Home) -> KeyFolder {
    KeyFolder::open(home.part("keys"))
}

/// Places to read from, without a home.
pub(crate) fn places() -> Places {
    places_with(registry_environment::settings(None))
}

pub(crate) fn places_with(settings: RegistrySettings) -> Places {
    Places::new(settings)
}

/// A log elsewhere to read; a home is not needed, and its authorities count if there is one.
pub(crate) fn log_elsewhere(url: &LogUrl) -> Result<RemoteLog, Problem> {
    let outbound = outbound_environment::outbound(Home::read().ok().as_ref());
    Ok(RemoteLog::new(url.clone(), outbound, RemoteLimits::default()).map_err(sluicegate_flow::Error::from)?)
}

pub(crate) fn records(evidence: &SqliteEvidence) -> &dyn EvidenceLog {
    evidence
}

pub(crate) fn lister() -> GitSourceLister {
    GitSourceLister
}

/// The embedded log.
pub(crate) fn log(home: &Home, keys: &KeyFolder, passphrase: &Secret) -> Result<EmbeddedLog, Problem> {
    let key = keys.open_log_key(LOG_KEY, passphrase).map_err(sluicegate_flow::Error::from)?;
    let origin = new_origin(key.public_key());
    Ok(EmbeddedLog::open(home.part("log"), key, &origin).map_err(sluicegate_flow::Error::from)?)
}

/// The embedded log to read, without a passphrase.
pub(crate) fn log_reader(home: &Home) -> Result<EmbeddedLog, Problem> {
    let public_key = keys(home).log_public_key(LOG_KEY).map_err(sluicegate_flow::Error::from)?;
    let public = LogPublic { origin: new_origin(&public_key), public_key };
    Ok(EmbeddedLog::reader(home.part("log"), public))
}

/// Makes the log of a new home.
pub(crate) fn create_log(home: &Home, keys: &KeyFolder, passphrase: &Secret) -> Result<EmbeddedLog, SignError> {
    let key = keys.open_log_key(LOG_KEY, passphrase)?;
    let origin = new_origin(key.public_key());
    EmbeddedLog::create(home.part("log"), key, &origin)
}

/// Makes the ledger of a home that has its key.
pub(crate) fn create_ledger(
    home: &Home,
    keys: &KeyFolder,
    passphrase: &Secret,
) -> Result<EmbeddedLedger, sluicegate_flow::Error> {
    let key = keys.open_log_key(LEDGER_KEY, passphrase)?;
    let origin = new_ledger_origin(key.public_key());
    Ok(EmbeddedLedger::create(home.part("ledger"), key, &origin)?)
}

/// Trivy: the flag, SLUICEGATE_TRIVY, the one that `init` was given, PATH; never a file of the project. Where it is decides nothing:
/// the gateway lists the digests that may run.
pub(crate) fn trivy(home: &Home, flag: Option<&Path>) -> Result<PathBuf, Problem> {
    let named = flag
        .map(Path::to_owned)
        .or_else(|| std::env::var_os("SLUICEGATE_TRIVY").filter(|v| !v.is_empty()).map(PathBuf::from));
    if let Some(path) = named {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Problem::usage(format!("there is no Trivy at {}", path.display()), "name another one with --trivy"))
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).filter(|folder| folder.is_absolute()).map(|folder| folder.join("trivy"));
    let mut candidates = std::iter::once(remembered_trivy(home)).chain(on_path);
    candidates.find(|candidate| candidate.is_file()).ok_or_else(|| {
        Problem::usage(
            "there is no Trivy: looked at SLUICEGATE_TRIVY, the one that init was given, and PATH",
            "install Trivy 0.76 and name it with --trivy (or sluicegate run --no-scan: the gate then stays undecided)",
        )
    })
}

/// Where a home remembers the Trivy that `init` was given.
pub(crate) fn remembered_trivy(home: &Home) -> PathBuf {
    home.part("tools").join("trivy")
}

/// The clock of this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        // A clock before 1970 counts as 1970: then no database is fresh and nothing passes.
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_secs()).unwrap_or_default();
        UnixTime::EPOCH.plus(seconds)
    }
}

/// In place of a log where nothing is signed; whoever asks it anyway gets an error, not an entry.
pub(crate) struct NoLog;

impl TransparencyLog for NoLog {
    fn append(&self, _: &[Vec<u8>]) -> Result<Vec<sluicegate_attestation::bundle::LogEntry>, SignError> {
        Err(no_log())
    }

    fn origin(&self) -> &str {
        ""
    }

    fn size(&self) -> Result<u64, SignError> {
        Err(no_log())
    }

    fn root(&self) -> Result<sluicegate_types::Digest, SignError> {
        Err(no_log())
    }
}

fn no_log() -> SignError {
    SignError::Io { action: "log a statement".to_owned(), reason: "this command has no log".to_owned() }
}

/// In place of a ledger where nothing is recorded; whoever asks it anyway gets an error.
pub(crate) struct NoLedger;

impl Ledger for NoLedger {
    fn append(&self, _: u64, _: &[sluicegate_types::Digest]) -> Result<LedgerHead, LedgerError> {
        Err(nothing_is_recorded())
    }

    fn head(&self) -> Result<LedgerHead, LedgerError> {
        Err(nothing_is_recorded())
    }

    fn leaves(&self, _: u64, _: u64) -> Result<Vec<sluicegate_types::Digest>, LedgerError> {
        Err(nothing_is_recorded())
    }

    fn root_at(&self, _: u64) -> Result<sluicegate_types::Digest, LedgerError> {
        Err(nothing_is_recorded())
    }

    fn check(&self) -> Result<LedgerHead, LedgerError> {
        Err(nothing_is_recorded())
    }
}

fn nothing_is_recorded() -> LedgerError {
    LedgerError::Io { action: "use the ledger".to_owned(), reason: "this command records nothing".to_owned() }
}
