//! A git repository around a source, asked without obeying it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    io::ErrorKind,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use sluicegate_ports::{
    execute::Stop,
    trees::{Checkout, TreeError},
};
use tempfile::TempDir;

use crate::{
    bounded_command::{self, CommandError, Ended, Limits},
    git_objects::Kind,
    plain_file,
};

/// Bytes of a repository's list of ignored names.
pub(crate) const MAX_IGNORE: u64 = 1024 * 1024;
/// Bytes of a repository's index.
const MAX_INDEX: u64 = 1024 * 1024 * 1024;
/// Bytes of the list of commits at which a history ends.
const MAX_SHALLOW: u64 = 16 * 1024 * 1024;
/// Bytes of a branch's full name.
const MAX_BRANCH: usize = 1024;
/// Files that an index may share its entries with.
const MAX_SHARED_INDEXES: usize = 16;
/// What git may say and how long it may take, each time that it is asked. The bytes are those of a million paths of usual length.
const GIT: Limits = Limits { bytes: 192 * 1024 * 1024, time: MAX_GIT_TIME };
/// How long git is waited for, in one question or while the objects of one source are read.
pub(crate) const MAX_GIT_TIME: Duration = Duration::from_secs(120);

/// The whole configuration of the git folder of our own. What an index remembers of untracked files is the author's word, too.
pub(crate) const CONFIG: &[u8] =
    b"[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tuntrackedCache = false\n\tcommitGraph = false\n";

/// A repository seen through a git folder of our own: its objects, its index and its ignored names, and none of its configuration,
/// hooks or filters. A repository's configuration names programs that git starts, and a source must not start one here. The index only
/// helps to say which files belong to the source, and how they are meant where the file system can't say it. It never says whether they
/// changed, because whoever may edit the project may edit it too.
pub(crate) struct Repository {
    own: TempDir,
    objects: PathBuf,
    /// The root of its files.
    pub(crate) work_tree: PathBuf,
    /// The commit that is checked out.
    pub(crate) head: Option<String>,
    /// Commits whose parents are not here.
    pub(crate) shallow: BTreeSet<String>,
    /// Whether the file system of the work tree keeps execute bits.
    pub(crate) has_execute_bits: bool,
    /// Whether it keeps symbolic links.
    pub(crate) has_links: bool,
    /// Ends what git is asked.
    pub(crate) stop: Stop,
}

impl Repository {
    /// The repository whose work tree `folder` lies in; `None` outside one.
    pub(crate) fn around(folder: &Path, stop: &Stop) -> Result<Option<Self>, TreeError> {
        if !is_in_a_repository(folder) {
            return Ok(None);
        }
        // `rev-parse` only computes names: it refreshes no index and starts nothing that the configuration names.
        let ask = |args: &[&str]| {
            let mut command = git(folder);
            command.arg("rev-parse").args(args);
            output(folder, command, stop)
                .map(|out| OsStr::from_bytes(out.strip_suffix(b"\n").unwrap_or(&out)).to_owned())
        };
        let path = |name: &str| ask(&["--path-format=absolute", "--git-path", name]).map(PathBuf::from);
        let fault = |reason: &str| TreeError::Git { path: folder.to_owned(), reason: reason.to_owned() };
        if ask(&["--is-inside-work-tree"])? != "true" {
            return Err(fault("it lies inside a .git folder or a bare repository"));
        }
        let work_tree = PathBuf::from(ask(&["--show-toplevel"])?);
        if !folder.starts_with(&work_tree) || fs::symlink_metadata(work_tree.join(".git")).is_err() {
            return Err(fault("a work tree elsewhere than around its .git is not in this version"));
        }
        if ask(&["--show-object-format"])? != "sha1" {
            return Err(fault("only repositories with SHA-1 objects are in this version"));
        }
        let head = ask(&["--verify", "--quiet", "HEAD"]).ok().map(|head| head.to_string_lossy().into_owned());
        let (has_execute_bits, has_links) = what_the_file_system_keeps(folder, stop)?;
        let own = tempfile::tempdir().map_err(|source| io("create a folder in", &std::env::temp_dir(), source))?;
        let write = |name: &str, bytes: &[u8]| {
            let path = own.path().join(name);
            fs::write(&path, bytes).map_err(|source| io("write", &path, source))
        };
        for part in ["refs", "objects", "info"] {
            let path = own.path().join(part);
            fs::create_dir(&path).map_err(|source| io("create", &path, source))?;
        }
        write("config", CONFIG)?;
        write("HEAD", format!("{}\n", head.as_deref().unwrap_or("ref: refs/heads/none")).as_bytes())?;
        let copy = |from: &Path, name: &str, limit: u64| match plain_file::read(from, limit) {
            Ok(bytes) => write(name, &bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(source) => Err(io("read", from, source)),
        };
        let index = path("index")?;
        copy(&index, "index", MAX_INDEX)?;
        copy(&path("info/exclude")?, "info/exclude", MAX_IGNORE)?;
        for shared in shared_indexes(&index)? {
            let name = shared.file_name().unwrap_or_default().to_string_lossy().into_owned();
            copy(&shared, &name, MAX_INDEX)?;
        }
        let objects = path("objects")?;
        let shallow = shallow(&path("shallow")?)?;
        let stop = stop.clone();
        Ok(Some(Self { own, objects, shallow, work_tree, head, has_execute_bits, has_links, stop }))
    }

    /// The files below a folder that the index lists, relative to it, and as what.
    pub(crate) fn tracked(&self, folder: &Path, below: &Path) -> Result<BTreeMap<PathBuf, Kind>, TreeError> {
        let mut command = self.command(folder);
        command.args(["ls-files", "-z", "--stage", "--"]).arg(below);
        let mut tracked = BTreeMap::new();
        for line in output(folder, command, &self.stop)?.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
            // MODE, a space, what it is and in which stage of a merge, a tab, and the name as it is.
            let tab = line.iter().position(|byte| *byte == b'\t');
            let read = tab.map(|tab| line.split_at(tab)).and_then(|(head, name)| {
                let mode = head.split(|byte| *byte == b' ').next()?;
                Some((Kind::of_mode(mode)?, name.get(1..)?))
            });
            let (kind, name) = read.ok_or_else(|| TreeError::Git {
                path: folder.to_owned(),
                reason: format!("its index lists {:?}", String::from_utf8_lossy(line)),
            })?;
            tracked.insert(PathBuf::from(OsStr::from_bytes(name)), kind);
        }
        Ok(tracked)
    }

    /// The files in a folder that the index does not list and git does not ignore, relative to it. A repository of its own is one name.
    pub(crate) fn untracked(&self, folder: &Path) -> Result<Vec<PathBuf>, TreeError> {
        let mut command = self.command(folder);
        command.args(["ls-files", "-z", "--others", "--exclude-standard", "--", "."]);
        let said = output(folder, command, &self.stop)?;
        let names = said.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect())
    }

    /// git that sees this repository and nothing else; its arguments are still to be added.
    pub(crate) fn command(&self, folder: &Path) -> Command {
        let mut command = git(folder);
        command
            .env("GIT_DIR", self.own.path())
            .env("GIT_WORK_TREE", &self.work_tree)
            .env("GIT_OBJECT_DIRECTORY", &self.objects);
        command
    }
}

/// What is checked out around a folder.
pub(crate) fn checkout(folder: &Path) -> Result<Checkout, TreeError> {
    if !is_in_a_repository(folder) {
        return Ok(Checkout::Nothing);
    }
    // Both only read names: they refresh no index and start nothing that the configuration names.
    let mut command = git(folder);
    command.args(["symbolic-ref", "--quiet", "HEAD"]);
    // Two short questions, to their end.
    let stop = Stop::default();
    let said = ended(folder, command, &stop)?;
    let name = |bytes: &[u8]| -> Result<String, TreeError> {
        let text = std::str::from_utf8(bytes.strip_suffix(b"\n").unwrap_or(bytes)).ok();
        let text = text.filter(|text| !text.is_empty() && text.len() <= MAX_BRANCH);
        text.map(str::to_owned).ok_or_else(|| TreeError::Git {
            path: folder.to_owned(),
            reason: format!("its HEAD has no name of 1 to {MAX_BRANCH} bytes in UTF-8"),
        })
    };
    match said.status.code() {
        Some(0) => Ok(Checkout::Branch(name(&said.stdout)?)),
        // It names a commit by itself.
        Some(1) => {
            let mut command = git(folder);
            command.args(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]);
            Ok(Checkout::Commit(name(&output(folder, command, &stop)?)?))
        }
        _ => Err(TreeError::Git { path: folder.to_owned(), reason: complaint(&said) }),
    }
}

/// Decided by looking, not by asking git: where a repository is, a git that fails must not turn it into a plain folder, whose ignored
/// files would then be sources.
fn is_in_a_repository(folder: &Path) -> bool {
    folder.ancestors().any(|above| fs::symlink_metadata(above.join(".git")).is_ok())
}

/// Whether the repository says that execute bits and symbolic links are kept where its files lie. The only two lines of its configuration
/// that count: without them, every file of such a file system could be executed, or none. `config` reads and starts nothing.
fn what_the_file_system_keeps(folder: &Path, stop: &Stop) -> Result<(bool, bool), TreeError> {
    let mut command = git(folder);
    command.args(["config", "-z", "--type=bool", "--get-regexp", r"^core\.(filemode|symlinks)$"]);
    let ended = ended(folder, command, stop)?;
    let mut keeps = (true, true);
    match ended.status.code() {
        // None of them is set.
        Some(1) => {}
        Some(0) => {
            for said in ended.stdout.split(|byte| *byte == 0) {
                match said {
                    b"core.filemode\nfalse" => keeps.0 = false,
                    b"core.filemode\ntrue" => keeps.0 = true,
                    b"core.symlinks\nfalse" => keeps.1 = false,
                    b"core.symlinks\ntrue" => keeps.1 = true,
                    _ => {}
                }
            }
        }
        _ => return Err(TreeError::Git { path: folder.to_owned(), reason: complaint(&ended) }),
    }
    Ok(keeps)
}

/// The commits at which a shallow history ends, one a line.
fn shallow(list: &Path) -> Result<BTreeSet<String>, TreeError> {
    match plain_file::read(list, MAX_SHALLOW) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(source) => Err(io("read", list, source)),
    }
}

/// The files beside an index that hold entries of it (`core.splitIndex`).
fn shared_indexes(index: &Path) -> Result<Vec<PathBuf>, TreeError> {
    let folder = index.parent().unwrap_or(index);
    let fault = |source| io("list", folder, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        if entry.file_name().as_bytes().starts_with(b"sharedindex.") {
            found.push(entry.path());
        }
        if found.len() > MAX_SHARED_INDEXES {
            let reason =
                format!("more than {MAX_SHARED_INDEXES} files share its index; git update-index --no-split-index");
            return Err(TreeError::Git { path: folder.to_owned(), reason });
        }
    }
    Ok(found)
}

/// git without the user's or the system's configuration, hooks, monitors and prompts.
pub(crate) fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    // The folder may belong to somebody else (sudo); reading names needs no trust in it.
    command
        .args([
            "-c",
            "safe.directory=*",
            "-c",
            "core.fsmonitor=false",
            "-c",
            "core.hooksPath=/dev/null",
            // A repository that was committed as plain files is not one: its configuration is the author's.
            "-c",
            "safe.bareRepository=explicit",
            "--no-optional-locks",
            // Names are names, not patterns.
            "--literal-pathspecs",
        ])
        .current_dir(folder)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_NO_LAZY_FETCH", "1")
        // A git before 2.39.4 does not know that, and goes nowhere all the same.
        .env("GIT_ALLOW_PROTOCOL", "none");
    command
}

/// Where programs are.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn output(folder: &Path, command: Command, stop: &Stop) -> Result<Vec<u8>, TreeError> {
    let ended = ended(folder, command, stop)?;
    if ended.status.success() {
        Ok(ended.stdout)
    } else {
        Err(TreeError::Git { path: folder.to_owned(), reason: complaint(&ended) })
    }
}

fn ended(folder: &Path, mut command: Command, stop: &Stop) -> Result<Ended, TreeError> {
    let fault = |reason: String| TreeError::Git { path: folder.to_owned(), reason };
    bounded_command::output(&mut command, GIT, stop).map_err(|error| match error {
        CommandError::Stopped => TreeError::Stopped,
        CommandError::TooMuch(_) | CommandError::TooLong(_) => {
            fault(format!("{error}; name a smaller folder as the source, or let git ignore what is no source"))
        }
        error => fault(error.to_string()),
    })
}

/// What git said about its failure.
pub(crate) fn complaint(ended: &Ended) -> String {
    String::from_utf8_lossy(ended.stderr.trim_ascii()).chars().take(500).collect()
}

pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> TreeError {
    TreeError::Io { action, path: path.to_owned(), source }
}
