//! What the parent asks of the helper and what the helper answers. Both are the same program, so that the form is free to change.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The hidden word that makes this program the helper.
pub(crate) const HELPER_WORD: &str = "internal-run-step";

/// The job's file in the run folder; the helper removes it once it is read, for it holds the step's environment.
pub(crate) const JOB_FILE: &str = "job.json";

/// Everything that the helper does, by names inside the run folder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The container's and the cgroup's name.
    pub(crate) id: String,
    /// The names of the lower folders of the root, topmost first.
    pub(crate) lowers: Vec<String>,
    /// What is mounted, outer mount points first.
    pub(crate) mounts: Vec<MountJob>,
    /// Files of the system that the step finds whatever its image holds, and that no output has.
    pub(crate) system_files: Vec<SystemFile>,
    /// What it shares with the host.
    pub(crate) network: NetworkJob,
    /// Made if missing.
    pub(crate) workdir: PathBuf,
    /// User and group of the step.
    pub(crate) owner: (u32, u32),
    /// What pid 1 starts.
    pub(crate) workload: Workload,
    /// What its standard streams are.
    pub(crate) streams: Streams,
    /// Paths to keep, and how many bytes of them all.
    pub(crate) outputs: Vec<PathBuf>,
    /// Bytes of all outputs together.
    pub(crate) output_bytes: u64,
    /// SOURCE_DATE_EPOCH.
    pub(crate) epoch: u64,
    /// Whether a group to observe the step with is handed over on the control socket.
    pub(crate) observe: bool,
}

/// One mount point.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MountJob {
    /// An absolute path inside the root.
    pub(crate) at: PathBuf,
    /// What goes there.
    pub(crate) what: MountKind,
    /// Whether writes are refused.
    pub(crate) read_only: bool,
}

/// What goes to a mount point.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum MountKind {
    /// The folder of this name, under a layer that takes the writes.
    Folder(String),
    /// The file `content` in the folder of this name; executable or not.
    File(String, bool),
    /// A file or folder of the host, always read-only.
    Host(PathBuf),
    /// A folder of the host that is written to and stays: its place below a folder that no step ever writes to.
    Shared {
        /// The folder that no step writes to.
        root: PathBuf,
        /// Where it is in there, without any link.
        folder: PathBuf,
    },
}

/// A file that says something about the step's network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SystemFile {
    /// An absolute path inside the root.
    pub(crate) at: PathBuf,
    /// What it says.
    pub(crate) text: Vec<u8>,
}

/// Which network namespace a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NetworkJob {
    /// Its own, with nothing but a loopback.
    Own,
    /// Its own, with a socket on the loopback that the parent listens at.
    Proxied,
    /// The host's.
    Host,
}

/// What the standard streams of a step are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Streams {
    /// Nothing to read; what it prints goes where the helper's own output goes.
    Log,
    /// Three that the parent sends through the socket that stands in place of standard output.
    Passed,
    /// A terminal of the container's own, whose other side pid 1 sends through the socket that stands in place of standard output.
    Terminal,
}

/// What pid 1 starts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Workload {
    /// A program of the step.
    Program {
        /// The program, looked up in the PATH of `env`, and its arguments.
        argv: Vec<String>,
        /// The whole environment.
        env: Vec<(String, String)>,
    },
    /// Nothing: pid 1 looks whether it is confined and ends with 0 if so.
    SelfTest,
}

/// One line of what the helper says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The socket that came along with this line is the one to listen at.
    Listening,
    /// The container is dead.
    Ended {
        /// Its exit code, 128 + n for a signal n.
        code: i32,
        /// Processes that the memory limit killed.
        oom_kills: Option<u64>,
    },
    /// The outputs lie in the run folder as `out/N`; the helper is done.
    Collected(Vec<Collected>),
    /// It did not work.
    Failed(Failure),
}

/// What became of one output.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Collected {
    /// There was nothing.
    Missing,
    /// A file.
    File {
        /// Whether it has an execute bit.
        executable: bool,
    },
    /// A folder's archive.
    Directory,
}

/// What did not work.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// When it happened.
    pub(crate) stage: Stage,
    /// Why.
    pub(crate) reason: String,
}

/// The part of the helper's work that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// Reading the job.
    Job,
    /// Leaving the host's namespaces.
    Namespaces,
    /// Stacking the layers.
    Overlay,
    /// Mounting the input or shared cache with this number.
    Mount(usize),
    /// Making the working folder or the folder above an output.
    Folders,
    /// Making or starting the container.
    Container,
    /// Keeping the output with this number.
    Output(usize),
}
