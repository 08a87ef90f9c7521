//! Running one step, or one tool, in a container of its own.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sluicegate_types::{Content, Destination, Digest, OutputName, Secret, StepName};

/// Runs pinned steps. A step reaches nothing but what its request names (trust model 8).
pub trait StepExecutor: Send + Sync {
    /// Tries what a step needs by doing it (namespaces, overlay, a container of `true`), once, before a run begins.
    fn probe(&self) -> Result<(), ExecuteError>;

    /// Who executes, for `builder.version` and cache keys, such as `libcontainer` and `0.7.0`.
    fn identity(&self) -> ExecutorIdentity;

    /// Runs the step to its end, its time-out or a failure of the engine. `on_output` gets the log as it comes (both streams as
    /// they arrive). A step that ends with another code than 0 is an outcome, not an error; its declared outputs are kept.
    fn run_step(&self, request: &StepRequest, on_output: &mut dyn FnMut(&[u8])) -> Result<StepOutcome, ExecuteError>;

    /// Who a user of an image is, in the words of [`StepRequest::user`]; `step` is for messages. Names that the image does not have are
    /// refused, and so are ids from 2^31 on.
    fn account(&self, step: &StepName, layers: &[Layer], user: &str, stop: &Stop) -> Result<Account, ExecuteError>;

    /// Runs the request for somebody who talks to it, with everything of a step but its log and its outputs. What it prints to streams is
    /// masked like a log; a terminal shows what it gets, for each letter has to appear as soon as it is typed.
    fn shell(&self, request: &StepRequest, terminal: Terminal) -> Result<Ended, ExecuteError>;
}

/// A user of an image, in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user's number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
    /// Numbers of further groups, sorted, without `gid`.
    pub groups: Vec<u32>,
    /// Its home, `/` if the image names none.
    pub home: String,
}

/// Where somebody talks to a step.
#[derive(Debug)]
pub enum Terminal {
    /// At a terminal, open to be read and written. The step gets one of its own; this one is raw meanwhile and is given back as it was.
    Tty(File),
    /// Through streams.
    Streams {
        /// What the step reads.
        input: File,
        /// Where what it prints goes.
        output: File,
        /// Where its errors go.
        errors: File,
    },
}

/// Runs a trusted host tool over untrusted input: the scanner. No network, cleared environment, an empty working folder.
pub trait ToolSandbox: Send + Sync {
    /// Runs the tool to its end or its time-out and returns what it printed.
    fn run_tool(&self, request: &ToolRequest) -> Result<ToolOutcome, ExecuteError>;
}

/// The name and version of an executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorIdentity {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// One step with every input named by digest.
#[derive(Clone, Debug)]
pub struct StepRequest {
    /// The step, for messages and the container's host name.
    pub step: StepName,
    /// The image's layers, lowest first.
    pub layers: Vec<Layer>,
    /// What to execute; never empty. `argv[0]` is looked up in the step's PATH.
    pub argv: Vec<String>,
    /// The whole environment, in order; nothing of the host's is added, and only [`Network::variables_beside`] stands behind it.
    pub env: Vec<(String, String)>,
    /// An absolute path; made if missing.
    pub workdir: PathBuf,
    /// The user as the image says it: empty for root, a number or a name, with `:GROUP` or without. Names and further groups are looked
    /// up in the image's own `/etc/passwd` and `/etc/group`; a name that is not there is refused.
    pub user: String,
    /// What is mounted where.
    pub inputs: Vec<Input>,
    /// Folders that outlive the step, none at or around an input.
    pub caches: Vec<SharedCache>,
    /// What to keep.
    pub outputs: Vec<OutputRequest>,
    /// How much of everything.
    pub limits: Limits,
    /// SOURCE_DATE_EPOCH: the one mtime of inputs, the latest one in packed outputs.
    pub epoch: u64,
    /// What it may reach.
    pub network: Network,
    /// Values that stand in no log and go to nobody: each is replaced as soon as it comes, as it is and in usual encodings, also where
    /// it comes in pieces. Nor do they stand in an outcome or an error: names of servers, paths and reasons are masked in the same way.
    pub masked: Vec<Secret>,
    /// Whether what it opens and executes is to be observed.
    pub observe: bool,
    /// Ends it from outside.
    pub stop: Stop,
}

/// A folder that runs of a step share. Nobody vouches for what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedCache {
    /// Its name in the pipeline.
    pub name: OutputName,
    /// An absolute path inside the step.
    pub mount_point: PathBuf,
    /// Whose it is: requests of one scope share one folder, and no others. Without one it begins empty and is thrown away.
    pub scope: Option<Digest>,
}

/// What became of a shared cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheUse {
    /// Its name in the pipeline.
    pub name: OutputName,
    /// What the step found.
    pub began: CacheBegan,
    /// Why it was thrown away after the step; `None` if it is kept, or was never to be.
    pub thrown_away: Option<String>,
}

/// What a step found in a shared cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheBegan {
    /// Nothing: it is the first one of its scope, what was there was of another user, or whoever had it was killed.
    Empty,
    /// What the one before left.
    Continued,
    /// Nothing: another run holds the scope's folder, so that this step got an empty one of its own, which is thrown away.
    Busy,
}

/// What a step may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// Nothing but itself: a loopback of its own.
    None,
    /// What the machine reaches, unobserved: the machine's own network namespace, with its abstract sockets.
    Host,
    /// What is listed, through a proxy that writes down what was contacted.
    Allow(Egress),
}

/// Where a step finds the proxy of its list of servers, in its own network namespace.
pub const PROXY_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 3128));

/// The variables by which programs are told of a proxy; some read the one spelling, some the other.
const PROXY_VARIABLES: [&str; 6] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
const NO_PROXY_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];

impl Network {
    /// The variables that an executor puts behind `env`, in this order: with a list of servers those that lead to the proxy, but for
    /// names that `env` has already; else none. Who records a step's environment adds exactly these, and may as well put them into
    /// the request itself: then nothing is added to it.
    pub fn variables_beside(&self, env: &[(String, String)]) -> Vec<(String, String)> {
        if !matches!(self, Self::Allow(_)) {
            return Vec::new();
        }
        let proxy = PROXY_VARIABLES.map(|name| (name, format!("http://{PROXY_ADDRESS}")));
        let exempt = NO_PROXY_VARIABLES.map(|name| (name, "localhost,127.0.0.1,::1".to_owned()));
        let all = proxy.into_iter().chain(exempt).filter(|(name, _)| env.iter().all(|(given, _)| given != name));
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// What the proxy lets through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// Servers with their ports.
    pub destinations: Vec<Destination>,
    /// Those of them that may lead to loopback, link-local, private and metadata addresses; others are refused there after their names
    /// are resolved.
    pub private: Vec<Destination>,
}

/// A server that a step asked for, and what came of it; many requests for one server are one contact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contact {
    /// What it asked for.
    pub destination: Destination,
    /// Where that led to; `None` if it was refused before that was known, or if another proxy looked its name up.
    pub address: Option<IpAddr>,
    /// Why it was refused; `None` if it was let through.
    pub refused: Option<String>,
    /// Connections that were asked for, whatever came of each.
    pub connections: u64,
    /// Bytes to the server.
    pub sent: u64,
    /// Bytes from the server.
    pub received: u64,
}

/// What a step opened and executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Nobody asked.
    NotAsked,
    /// It can't be known here, with the reason; never an empty list.
    Unavailable(String),
    /// What was seen.
    Seen(Trace),
}

/// What the kernel said about a step, each path once, sorted, as the step sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Files that were opened.
    pub opened: Vec<String>,
    /// Files that were executed.
    pub executed: Vec<String>,
    /// Places that are not seen: mounts of other file systems, and `/memfd:` for anonymous files.
    pub blind: Vec<String>,
    /// Events whose file could not be named, or that were too many to be kept.
    pub lost: u64,
}

/// A word from outside that ends steps; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// The flag itself, for whoever can only set one.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Ends what looks at it.
    pub fn raise(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The blob as the manifest names it.
    pub blob: Digest,
    /// Its compression.
    pub compression: Compression,
    /// The digest of the uncompressed tar (the image's `rootfs.diff_ids`); checked while unpacking.
    pub diff_id: Digest,
}

/// How a layer's tar is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// Something mounted into a step.
#[derive(Clone, Debug)]
pub struct Input {
    /// An absolute path inside the step.
    pub mount_point: PathBuf,
    /// What stands there: the blob is the file itself or the directory's tar.
    pub content: Content,
    /// A file that can be executed (a directory's tar carries its own modes).
    pub executable: bool,
    /// What the step may do with it.
    pub access: InputAccess,
}

/// What a step may do with an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputAccess {
    /// Writes are refused.
    ReadOnly,
    /// Writes succeed and vanish, unless the path is an output.
    CopyOnWrite,
}

/// A file or directory to keep after the step.
#[derive(Clone, Debug)]
pub struct OutputRequest {
    /// Its name in the pipeline.
    pub name: OutputName,
    /// An absolute path inside the step.
    pub path: PathBuf,
    /// What becomes of it.
    pub role: OutputRole,
}

/// What becomes of something that a step left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputRole {
    /// It is content: kept as it is, whatever stands in it.
    Product,
    /// It is read, and what stands in it is told on: not kept if a secret of the step is among that.
    Report,
}

/// How much a step may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Wall time; then the whole process tree is killed.
    pub timeout: Duration,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// Bytes of log; beyond it the step is killed.
    pub log_bytes: u64,
    /// Bytes of all outputs together.
    pub output_bytes: u64,
}

/// How a step ended and what it left.
#[derive(Clone, Debug)]
pub struct StepOutcome {
    /// How it ended.
    pub ended: Ended,
    /// The whole log, both streams as they arrived, in the content store.
    pub log: Digest,
    /// Declared outputs that were there, in the order of the request.
    pub outputs: Vec<Product>,
    /// Declared outputs that were not.
    pub missing: Vec<OutputName>,
    /// Reports that were there and hold a secret of the step in some form: they were not kept.
    pub leaking: Vec<OutputName>,
    /// Why the step failed although it may have ended well: an output that is there and can't be kept, a disk without room.
    pub fault: Option<String>,
    /// Processes that the memory limit killed; `None` where the system does not say.
    pub oom_kills: Option<u64>,
    /// What it contacted through the proxy, sorted.
    pub contacts: Vec<Contact>,
    /// What it opened and executed.
    pub observed: Observation,
    /// What became of its shared caches, in the order of the request.
    pub caches: Vec<CacheUse>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this code; 128 + n for a signal n, 127 where the program was not found, 126 where it could not be executed.
    Exit(i32),
    /// The time limit killed it.
    TimedOut,
    /// The log limit killed it.
    LogFull,
    /// It was stopped from outside.
    Stopped,
}

/// Something a step left, in the content store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Its name in the pipeline.
    pub name: OutputName,
    /// What it is.
    pub content: Content,
    /// Bytes of the stored blob.
    pub size: u64,
    /// A file with an execute bit.
    pub executable: bool,
}

/// A host tool and what it may read.
#[derive(Clone, Debug)]
pub struct ToolRequest {
    /// The program, a static executable that the caller has checked and holds in a private folder.
    pub program: PathBuf,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Host folders and the absolute paths where the tool finds them, read-only.
    pub folders: Vec<(PathBuf, PathBuf)>,
    /// Wall time.
    pub timeout: Duration,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of standard output that are taken; more is an error.
    pub stdout_bytes: u64,
    /// Ends it from outside.
    pub stop: Stop,
}

/// What a tool printed.
#[derive(Clone, Debug)]
pub struct ToolOutcome {
    /// How it ended.
    pub ended: Ended,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// The last 64 KiB of its standard error.
    pub stderr: Vec<u8>,
}

/// Why a step could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// This machine can't run steps; the remedy is one thing to do, as a command where there is one.
    #[error("steps cannot run here: {reason}")]
    NotHere {
        /// What was tried and refused.
        reason: String,
        /// What to do now.
        remedy: String,
    },
    /// The request can't be run by this version or on this system.
    #[error("step {step}: {reason}")]
    Refused {
        /// The step.
        step: String,
        /// Why.
        reason: String,
    },
    /// A layer or an input is broken, hostile or beyond a limit, or what was unpacked of it is not what it was.
    #[error("step {step}: cannot use {digest}: {reason}")]
    Content {
        /// The step.
        step: String,
        /// Which content.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// An output can't be packed.
    #[error("step {step}: cannot keep output {output}: {reason}")]
    Output {
        /// The step.
        step: String,
        /// Which output.
        output: String,
        /// Why.
        reason: String,
    },
    /// The engine or the system failed.
    #[error("step {step}: cannot {action}: {reason}")]
    Engine {
        /// The step.
        step: String,
        /// What was being done.
        action: &'static str,
        /// Why not.
        reason: String,
    },
    /// It was stopped from outside before it was begun.
    #[error("step {step} was stopped")]
    Stopped {
        /// The step.
        step: String,
    },
    /// The content store.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_list_of_servers_adds_variables_and_never_one_that_is_there() {
        let allow = Network::Allow(Egress::default());
        let added = allow.variables_beside(&[]);
        let names: Vec<&str> = added.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), 8);
        assert!(added.contains(&("HTTPS_PROXY".to_owned(), "http://127.0.0.1:3128".to_owned())), "{added:?}");
        assert!(added.contains(&("no_proxy".to_owned(), "localhost,127.0.0.1,::1".to_owned())), "{added:?}");
        let own = [("HTTP_PROXY".to_owned(), String::new())];
        assert!(allow.variables_beside(&own).iter().all(|(name, _)| name != "HTTP_PROXY"));
        assert_eq!(allow.variables_beside(&added), []);
        for other in [Network::None, Network::Host] {
            assert_eq!(other.variables_beside(&[]), []);
        }
    }
}
