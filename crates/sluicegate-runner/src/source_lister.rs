use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use sluicegate_ports::trees::{EntryKind, SourceLister, SourceTree, TreeEntry, TreeError};

use tempfile::TempDir;

use crate::{
    bounded_command::{self, CommandError, Limits},
    plain_file, source_commit,
};

/// Files of one source.
const MAX_FILES: usize = 1_000_000;
/// The file that names what is no source, outside git: one path a line, relative, `#` begins a comment.
const IGNORE_FILE: &str = ".sluicegateignore";
/// Bytes of that file, and of a repository's list of ignored names.
const MAX_IGNORE: u64 = 1024 * 1024;
/// Bytes of a repository's index.
const MAX_INDEX: u64 = 1024 * 1024 * 1024;
/// What git may say and how long it may take, each time that it is asked. The bytes are those of [`MAX_FILES`] paths of usual length.
const GIT: Limits = Limits { bytes: 128 * 1024 * 1024, time: MAX_GIT_TIME };
/// How long git is waited for, in one question or while the objects of one source are read.
pub(crate) const MAX_GIT_TIME: Duration = Duration::from_secs(120);

/// Lists source trees with the `git` program, or by walking where there is no git work tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct GitSourceLister;

impl SourceLister for GitSourceLister {
    fn list(&self, project: &Path, folder: &Path, excluded: &[PathBuf]) -> Result<SourceTree, TreeError> {
        let real = |path: &Path| fs::canonicalize(path).map_err(|source| io("find", path, source));
        let (project, folder) = (real(project)?, real(&project.join(folder))?);
        if !folder.starts_with(&project) {
            let reason = format!("a link leads it out of {}, where the pipeline file stands", project.display());
            return Err(TreeError::Entry { path: folder, reason });
        }
        let excluded: Vec<PathBuf> = excluded.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
        if let Some(inside) = excluded.iter().find(|path| folder.starts_with(path)) {
            let reason = format!("it lies in {}, which is never a source", inside.display());
            return Err(TreeError::Entry { path: folder, reason });
        }
        let repository = Repository::around(&folder)?;
        let in_git = repository.is_some();
        let tree = match &repository {
            Some(repository) => from_git(repository, &folder, &excluded),
            None => from_walk(&folder, &excluded),
        }?;
        if tree.entries.is_empty() {
            // A step would only find out in its own words, and a pipeline of nothing proves nothing.
            let why = if in_git {
                "no file belongs to this source: git ignores all of it"
            } else {
                "no file belongs to this source"
            };
            return Err(TreeError::Entry { path: folder, reason: why.to_owned() });
        }
        Ok(tree)
    }
}

fn from_git(repository: &Repository, folder: &Path, excluded: &[PathBuf]) -> Result<SourceTree, TreeError> {
    let listed =
        repository.git(folder, &["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "."])?;
    let mut names: BTreeSet<PathBuf> = BTreeSet::new();
    for name in listed.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        names.insert(PathBuf::from(OsStr::from_bytes(name)));
    }
    let mut entries = Vec::new();
    for name in names {
        // A tracked file that was deleted is no source any more; the tree is dirty then.
        if fs::symlink_metadata(folder.join(&name)).is_ok() {
            entries.extend(entry(folder, &name, excluded)?);
        }
        if entries.len() > MAX_FILES {
            return Err(TreeError::Entry { path: folder.to_owned(), reason: format!("more than {MAX_FILES} files") });
        }
    }
    let (dirty, commit_time) = match &repository.head {
        Some(commit) => {
            let asked = source_commit::Question {
                objects: repository.command(folder),
                commit,
                below: folder.strip_prefix(&repository.work_tree).unwrap_or(folder),
                folder,
                entries: &entries,
            };
            let answer = source_commit::compare(asked, &|name| is_excluded(folder, name, excluded))?;
            (answer.differs, answer.commit_time)
        }
        None => (true, None),
    };
    Ok(SourceTree { entries, commit: repository.head.clone(), dirty, commit_time })
}

/// The whole configuration of the git folder of our own. What an index remembers of untracked files is the author's word, too.
const CONFIG: &[u8] =
    b"[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tuntrackedCache = false\n\tcommitGraph = false\n";

/// A repository seen through a git folder of our own: its objects, its index and its ignored names, and none of its configuration,
/// hooks or filters. A repository's configuration names programs that git starts, and a source must not start one here. The index only
/// helps to say which files belong to the source. It never says whether they changed, because whoever may edit the project may edit it too.
struct Repository {
    own: TempDir,
    work_tree: PathBuf,
    objects: PathBuf,
    head: Option<String>,
}

impl Repository {
    /// The repository whose work tree `folder` lies in; `None` outside one.
    fn around(folder: &Path) -> Result<Option<Self>, TreeError> {
        // Decided by looking, not by asking git: where a repository is, a git that fails must not turn it into a plain folder, whose
        // ignored files would then be sources.
        if !folder.ancestors().any(|above| fs::symlink_metadata(above.join(".git")).is_ok()) {
            return Ok(None);
        }
        // `rev-parse` only computes names: it refreshes no index and starts nothing that the configuration names.
        let ask = |args: &[&str]| {
            let mut command = git(folder);
            command.arg("rev-parse").args(args);
            output(folder, command).map(|out| OsStr::from_bytes(out.trim_ascii()).to_owned())
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
        for (name, limit) in [("index", MAX_INDEX), ("info/exclude", MAX_IGNORE)] {
            let from = path(name)?;
            match plain_file::read(&from, limit) {
                Ok(bytes) => write(name, &bytes)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(io("read", &from, source)),
            }
        }
        Ok(Some(Self { own, work_tree, objects: path("objects")?, head }))
    }

    fn git(&self, folder: &Path, args: &[&str]) -> Result<Vec<u8>, TreeError> {
        let mut command = self.command(folder);
        command.args(args);
        output(folder, command)
    }

    /// git that sees this repository and nothing else; its arguments are still to be added.
    fn command(&self, folder: &Path) -> Command {
        let mut command = git(folder);
        command
            .env("GIT_DIR", self.own.path())
            .env("GIT_WORK_TREE", &self.work_tree)
            .env("GIT_OBJECT_DIRECTORY", &self.objects);
        command
    }
}

fn from_walk(folder: &Path, excluded: &[PathBuf]) -> Result<SourceTree, TreeError> {
    let ignored = ignored_names(&folder.join(IGNORE_FILE))?;
    let mut entries = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(at) = open.pop() {
        let path = folder.join(&at);
        for child in fs::read_dir(&path).map_err(|source| io("list", &path, source))? {
            let name = at.join(child.map_err(|source| io("list", &path, source))?.file_name());
            if name.file_name() == Some(OsStr::new(".git"))
                || ignored.contains(&name)
                || is_excluded(folder, &name, excluded)
            {
                continue;
            }
            let metadata = fs::symlink_metadata(folder.join(&name))
                .map_err(|source| io("look at", &folder.join(&name), source))?;
            if metadata.is_dir() {
                open.push(name);
            } else {
                entries.extend(entry(folder, &name, excluded)?);
            }
            if entries.len() > MAX_FILES {
                return Err(TreeError::Entry {
                    path: folder.to_owned(),
                    reason: format!("more than {MAX_FILES} files"),
                });
            }
        }
    }
    Ok(SourceTree { entries, commit: None, dirty: true, commit_time: None })
}

/// The paths that the file of ignored names lists; none where there is no such file.
fn ignored_names(path: &Path) -> Result<BTreeSet<PathBuf>, TreeError> {
    let bytes = match plain_file::read(path, MAX_IGNORE) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(source) => return Err(io("read the list of ignored names", path, source)),
    };
    let text = String::from_utf8(bytes).map_err(|_| TreeError::Entry {
        path: path.to_owned(),
        reason: "the list of ignored names is not UTF-8; write it as UTF-8".to_owned(),
    })?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| PathBuf::from(line.trim_matches('/')))
        .collect())
}

/// One file or link; nothing for what is excluded, an error for what is neither.
fn entry(folder: &Path, name: &Path, excluded: &[PathBuf]) -> Result<Option<TreeEntry>, TreeError> {
    if is_excluded(folder, name, excluded) {
        return Ok(None);
    }
    let path = folder.join(name);
    // git may still list what stood in a folder that is a link now: what it leads to is not of this source.
    for above in name.ancestors().skip(1).filter(|above| *above != Path::new("")) {
        let real =
            fs::symlink_metadata(folder.join(above)).map_err(|source| io("look at", &folder.join(above), source))?;
        if !real.is_dir() {
            let reason = format!("{} is a link: what lies behind it is no part of this source", above.display());
            return Err(TreeError::Entry { path, reason });
        }
    }
    let metadata = fs::symlink_metadata(&path).map_err(|source| io("look at", &path, source))?;
    let kind = if metadata.is_symlink() {
        EntryKind::Symlink(fs::read_link(&path).map_err(|source| io("read the link", &path, source))?)
    } else if metadata.is_file() {
        EntryKind::HostFile { source: path, executable: metadata.permissions().mode() & 0o111 != 0 }
    } else if metadata.is_dir() {
        // A repository inside the repository: git lists it as one name.
        return Err(TreeError::Entry {
            path,
            reason: "a repository inside a source is not in this version".to_owned(),
        });
    } else {
        return Err(TreeError::Entry {
            path,
            reason: "neither a file, a link nor a folder: it can't be a source".to_owned(),
        });
    };
    Ok(Some(TreeEntry { path: name.to_owned(), kind }))
}

/// Keys and the home never reach a step, wherever they lie and however they are called there.
fn is_excluded(folder: &Path, name: &Path, excluded: &[PathBuf]) -> bool {
    let path = folder.join(name);
    let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
    excluded.iter().any(|no| path.starts_with(no) || real.starts_with(no)) || is_private_key(&path)
}

/// Bytes at the beginning of a file that say it is a private key.
const KEY_MARKS: [&[u8]; 2] =
    [b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----", b"-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----"];

fn is_private_key(path: &Path) -> bool {
    use std::io::Read;
    let mut head = Vec::new();
    // What is no regular file, or can't be read, is refused where it is taken into the source.
    let read = plain_file::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
    read.is_ok() && KEY_MARKS.iter().any(|mark| head.starts_with(mark))
}

/// git without the user's or the system's configuration, hooks, monitors and prompts.
fn git(folder: &Path) -> Command {
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
        ])
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_NO_LAZY_FETCH", "1");
    command
}

fn output(folder: &Path, mut command: Command) -> Result<Vec<u8>, TreeError> {
    let fault = |reason: String| TreeError::Git { path: folder.to_owned(), reason };
    let ended = bounded_command::output(&mut command, GIT).map_err(|error| match error {
        CommandError::TooMuch(_) | CommandError::TooLong(_) => {
            fault(format!("{error}; name a smaller folder as the source, or let git ignore what is no source"))
        }
        error => fault(error.to_string()),
    })?;
    if ended.status.success() {
        Ok(ended.stdout)
    } else {
        Err(fault(String::from_utf8_lossy(ended.stderr.trim_ascii()).chars().take(500).collect()))
    }
}

pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> TreeError {
    TreeError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(tree: &SourceTree) -> Vec<String> {
        tree.entries.iter().map(|entry| entry.path.display().to_string()).collect()
    }

    fn run(folder: &Path, args: &[&str]) {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"];
        let done = Command::new("git").args(identity).args(args).current_dir(folder).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn repository() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::write(folder.path().join("src/tracked"), "1").unwrap();
        fs::write(folder.path().join(".gitignore"), "ignored\n").unwrap();
        run(folder.path(), &["init", "--quiet"]);
        run(folder.path(), &["add", "--all"]);
        run(folder.path(), &["commit", "--quiet", "--message", "x"]);
        folder
    }

    #[test]
    fn tracked_and_new_files_belong_to_a_source_and_ignored_ones_do_not() {
        let folder = repository();
        let list = || GitSourceLister.list(folder.path(), Path::new("src"), &[]).unwrap();
        let clean = list();
        assert_eq!((names(&clean), clean.dirty), (vec!["tracked".to_owned()], false));
        assert!(clean.commit.is_some() && clean.commit_time.is_some());
        fs::write(folder.path().join("src/ignored"), "2").unwrap();
        assert!(!list().dirty);
        fs::write(folder.path().join("src/new"), "3").unwrap();
        let changed = list();
        assert_eq!((names(&changed), changed.dirty), (vec!["new".to_owned(), "tracked".to_owned()], true));
        fs::remove_file(folder.path().join("src/new")).unwrap();
        fs::write(folder.path().join("src/tracked"), "other").unwrap();
        assert!(list().dirty);
    }

    #[test]
    fn no_program_that_a_repository_names_is_started() {
        let folder = repository();
        let mark = folder.path().join("started");
        let command = format!("touch {}; cat", mark.display());
        for key in [
            "filter.own.clean",
            "filter.own.smudge",
            "filter.own.process",
            "core.fsmonitor",
            "gpg.program",
            "core.pager",
        ] {
            run(folder.path(), &["config", key, &command]);
        }
        run(folder.path(), &["config", "log.showSignature", "true"]);
        fs::write(folder.path().join(".gitattributes"), "* filter=own\n").unwrap();
        fs::write(folder.path().join("src/tracked"), "changed").unwrap();
        let tree = GitSourceLister.list(folder.path(), Path::new("src"), &[]).unwrap();
        assert!(tree.dirty);
        assert!(!mark.exists(), "a program of the repository was started");
        // git itself, with the repository's configuration, starts it.
        drop(Command::new("git").args(["status"]).current_dir(folder.path()).output().unwrap());
        assert!(mark.exists());
    }

    #[test]
    fn a_repository_that_is_committed_as_files_is_not_obeyed() {
        let folder = repository();
        let inner = folder.path().join("src");
        for part in ["objects", "refs"] {
            fs::create_dir(inner.join(part)).unwrap();
            fs::write(inner.join(part).join("kept"), "").unwrap();
        }
        let mark = folder.path().join("started");
        fs::write(inner.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        let filter = format!("[core]\nworktree = .\n[filter \"x\"]\nclean = \"touch {}; cat\"\n", mark.display());
        fs::write(inner.join("config"), filter).unwrap();
        fs::write(inner.join(".gitattributes"), "* filter=x\n").unwrap();
        run(folder.path(), &["add", "--all"]);
        drop(GitSourceLister.list(folder.path(), Path::new("src"), &[]));
        assert!(!mark.exists());
    }

    #[test]
    fn a_broken_repository_is_an_error_and_no_plain_folder() {
        let folder = repository();
        assert!(GitSourceLister.list(folder.path(), Path::new("src"), &[]).is_ok());
        fs::write(folder.path().join(".git/HEAD"), "garbage").unwrap();
        assert!(matches!(GitSourceLister.list(folder.path(), Path::new("src"), &[]), Err(TreeError::Git { .. })));
    }

    #[test]
    fn a_folder_that_became_a_link_leads_nowhere() {
        let folder = repository();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("s.txt"), "secret").unwrap();
        fs::create_dir(folder.path().join("src/d")).unwrap();
        fs::write(folder.path().join("src/d/s.txt"), "own").unwrap();
        run(folder.path(), &["add", "--all"]);
        assert!(GitSourceLister.list(folder.path(), Path::new("src"), &[]).is_ok());
        fs::remove_dir_all(folder.path().join("src/d")).unwrap();
        symlink(outside.path(), folder.path().join("src/d")).unwrap();
        assert!(GitSourceLister.list(folder.path(), Path::new("src"), &[]).is_err());
    }

    #[test]
    fn a_source_stays_in_the_project_and_holds_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "s").unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::write(folder.path().join("src/a"), "1").unwrap();
        fs::write(folder.path().join("src/b"), "2").unwrap();
        fs::write(folder.path().join("src/.sluicegateignore"), "# not this\nb\n").unwrap();
        fs::write(folder.path().join("src/x.key"), "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n").unwrap();
        fs::write(folder.path().join("src/innocent"), "-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\n").unwrap();
        fs::create_dir(folder.path().join("src/home")).unwrap();
        fs::write(folder.path().join("src/home/evidence.db"), "e").unwrap();
        let excluded = [folder.path().join("src/home")];
        let tree = GitSourceLister.list(folder.path(), Path::new("src"), &excluded).unwrap();
        let mut found = names(&tree);
        found.sort();
        assert_eq!(found, [".sluicegateignore", "a"]);
        symlink(outside.path(), folder.path().join("link")).unwrap();
        assert!(GitSourceLister.list(folder.path(), Path::new("link"), &[]).is_err());
        fs::create_dir(folder.path().join("empty")).unwrap();
        assert!(GitSourceLister.list(folder.path(), Path::new("empty"), &[]).is_err());
    }

    #[test]
    fn the_list_of_ignored_names_is_a_plain_file_of_bounded_size() {
        let folder = tempfile::tempdir().unwrap();
        let src = folder.path().join("src");
        fs::create_dir(&src).unwrap();
        fs::write(src.join("a"), "1").unwrap();
        fs::write(src.join("b"), "2").unwrap();
        let list = src.join(IGNORE_FILE);
        let list_it = || GitSourceLister.list(folder.path(), Path::new("src"), &[]).map(|tree| names(&tree));
        let text = |len: u64| format!("b\n#{}", "x".repeat(usize::try_from(len).unwrap() - 3));
        fs::write(&list, text(MAX_IGNORE)).unwrap();
        assert_eq!(names(&listed(folder.path())).len(), 2, "all but b");
        let words = |error: TreeError| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}: {}", source.unwrap_or_default())
        };
        fs::write(&list, text(MAX_IGNORE + 1)).unwrap();
        let error = words(list_it().unwrap_err());
        assert!(error.contains(IGNORE_FILE) && error.contains("limit of 1048576 bytes"), "{error}");
        fs::write(&list, b"\xff\n").unwrap();
        assert!(words(list_it().unwrap_err()).contains("not UTF-8"));
        fs::remove_file(&list).unwrap();
        fs::write(folder.path().join("elsewhere"), "b\n").unwrap();
        symlink(folder.path().join("elsewhere"), &list).unwrap();
        assert!(words(list_it().unwrap_err()).contains("a link"));
        fs::remove_file(&list).unwrap();
        // A pipe that nobody writes to: whoever opens it to read waits for ever.
        rustix::fs::mkfifoat(rustix::fs::CWD, &list, rustix::fs::Mode::RUSR).unwrap();
        assert!(words(list_it().unwrap_err()).contains("not a regular file"));
        fs::remove_file(&list).unwrap();
        assert_eq!(names(&listed(folder.path())).len(), 2);
    }

    #[test]
    fn an_index_in_whose_place_a_pipe_stands_is_refused() {
        let folder = repository();
        assert!(!listed(folder.path()).dirty);
        let index = folder.path().join(".git/index");
        fs::remove_file(&index).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &index, rustix::fs::Mode::RUSR).unwrap();
        assert!(GitSourceLister.list(folder.path(), Path::new("src"), &[]).is_err());
    }

    fn listed(folder: &Path) -> SourceTree {
        GitSourceLister.list(folder, Path::new("src"), &[]).unwrap()
    }

    /// Says in the index that the file, as it lies there now, is the one that was committed.
    fn forge_stat_data(folder: &Path, name: &str) {
        use std::os::unix::fs::MetadataExt;
        let path = folder.join(".git/index");
        let mut index = fs::read(&path).unwrap();
        let at = index.windows(name.len()).position(|window| window == name.as_bytes()).unwrap() - 62;
        let there = fs::symlink_metadata(folder.join(name)).unwrap();
        let stat = [there.ctime(), there.ctime_nsec(), there.mtime(), there.mtime_nsec()].map(|n| n as u32);
        let stat = [&stat[..], &[there.dev() as u32, there.ino() as u32]].concat();
        for (nth, value) in stat.iter().enumerate() {
            index[at + 4 * nth..at + 4 * nth + 4].copy_from_slice(&value.to_be_bytes());
        }
        index[at + 36..at + 40].copy_from_slice(&(there.len() as u32).to_be_bytes());
        let end = index.len() - 20;
        let sum = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &index[..end]);
        index[end..].copy_from_slice(sum.as_ref());
        fs::write(&path, index).unwrap();
        // Later than the file: git then trusts what the index says of it.
        let later = there.modified().unwrap() + std::time::Duration::from_secs(5);
        fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    }

    #[test]
    fn tm11_an_index_that_hides_a_change_hides_it_from_git_and_not_from_us() {
        type Lie = fn(&Path);
        let lies: [(&str, Lie); 3] = [
            ("assume-unchanged", |folder| run(folder, &["update-index", "--assume-unchanged", "src/tracked"])),
            ("skip-worktree", |folder| run(folder, &["update-index", "--skip-worktree", "src/tracked"])),
            ("stat data", |_| {}),
        ];
        for (lie, tell) in lies {
            let folder = repository();
            tell(folder.path());
            assert!(!listed(folder.path()).dirty, "{lie}: nothing changed yet");
            fs::write(folder.path().join("src/tracked"), "in no commit").unwrap();
            if lie == "stat data" {
                forge_stat_data(folder.path(), "src/tracked");
            }
            let status = Command::new("git").args(["status", "--short"]).current_dir(folder.path()).output().unwrap();
            assert!(status.status.success() && status.stdout.is_empty(), "{lie}: git itself sees it");
            let tree = listed(folder.path());
            assert_eq!((names(&tree), tree.dirty), (vec!["tracked".to_owned()], true), "{lie}");
            fs::write(folder.path().join("src/tracked"), "1").unwrap();
            assert!(!listed(folder.path()).dirty, "{lie}: it is as it was committed");
        }
    }

    #[test]
    fn tm11_a_sparse_checkout_hides_no_file_that_lies_there() {
        let folder = repository();
        fs::create_dir_all(folder.path().join("src/deep/er")).unwrap();
        fs::write(folder.path().join("src/deep/er/file"), "2").unwrap();
        run(folder.path(), &["add", "--all"]);
        run(folder.path(), &["commit", "--quiet", "--message", "deep"]);
        assert!(!listed(folder.path()).dirty);
        run(folder.path(), &["sparse-checkout", "set", "--cone", "--sparse-index", "other"]);
        assert!(!folder.path().join("src").exists(), "git took them away");
        fs::create_dir_all(folder.path().join("src/deep/er")).unwrap();
        fs::write(folder.path().join("src/deep/er/file"), "2").unwrap();
        let missing = listed(folder.path());
        assert_eq!((names(&missing), missing.dirty), (vec!["deep/er/file".to_owned()], true));
        fs::write(folder.path().join("src/tracked"), "1").unwrap();
        let whole = listed(folder.path());
        assert_eq!((names(&whole).len(), whole.dirty), (2, false));
        fs::write(folder.path().join("src/deep/er/file"), "3").unwrap();
        assert!(listed(folder.path()).dirty);
    }

    #[test]
    fn tm11_what_is_staged_missing_or_of_another_kind_is_a_change() {
        let folder = repository();
        let (src, tracked) = (folder.path().join("src"), folder.path().join("src/tracked"));
        symlink("tracked", src.join("link")).unwrap();
        run(folder.path(), &["add", "--all"]);
        assert!(listed(folder.path()).dirty, "staged and in no commit");
        run(folder.path(), &["commit", "--quiet", "--message", "link"]);
        assert!(!listed(folder.path()).dirty);
        // Out of the index, ignored, and so out of the source: less than was committed.
        run(folder.path(), &["rm", "--quiet", "--cached", "src/tracked"]);
        assert!(!listed(folder.path()).dirty, "it still belongs to the source, as it was committed");
        fs::write(folder.path().join(".git/info/exclude"), "tracked\n").unwrap();
        let less = listed(folder.path());
        assert_eq!((names(&less), less.dirty), (vec!["link".to_owned()], true));
        fs::write(folder.path().join(".git/info/exclude"), "").unwrap();
        fs::set_permissions(&tracked, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(listed(folder.path()).dirty, "executable");
        fs::set_permissions(&tracked, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(!listed(folder.path()).dirty);
        fs::remove_file(src.join("link")).unwrap();
        assert!(listed(folder.path()).dirty, "missing");
        symlink("elsewhere", src.join("link")).unwrap();
        assert!(listed(folder.path()).dirty, "another target");
        fs::remove_file(src.join("link")).unwrap();
        fs::write(src.join("link"), "tracked").unwrap();
        assert!(listed(folder.path()).dirty, "a file with the link's bytes");
        fs::remove_file(src.join("link")).unwrap();
        symlink("tracked", src.join("link")).unwrap();
        assert!(!listed(folder.path()).dirty);
        // What looks like a key never goes into a source; the committed file is missing there then.
        fs::write(&tracked, "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n").unwrap();
        let key = listed(folder.path());
        assert_eq!((names(&key), key.dirty), (vec!["link".to_owned()], true));
    }

    #[test]
    fn tm11_an_object_with_another_ones_name_is_not_believed() {
        let folder = repository();
        let ask = |args: &[&str]| {
            let out = Command::new("git").args(args).current_dir(folder.path()).output().unwrap();
            String::from_utf8(out.stdout).unwrap().trim().to_owned()
        };
        let path = |id: &str| folder.path().join(".git/objects").join(&id[..2]).join(&id[2..]);
        let honest = ask(&["rev-parse", "HEAD:src"]);
        fs::write(folder.path().join("src/tracked"), "in no commit").unwrap();
        run(folder.path(), &["add", "--all"]);
        let root = ask(&["write-tree"]);
        let forged = ask(&["rev-parse", &format!("{root}:src")]);
        assert!(listed(folder.path()).dirty);
        fs::remove_file(path(&honest)).unwrap();
        fs::copy(path(&forged), path(&honest)).unwrap();
        let error = GitSourceLister.list(folder.path(), Path::new("src"), &[]).unwrap_err().to_string();
        assert!(error.contains(&honest), "{error}");
    }

    #[test]
    fn a_commit_has_its_own_date_and_without_one_a_source_has_changes() {
        let folder = repository();
        let date = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(folder.path()).output().unwrap();
        let date: u64 = String::from_utf8(date.stdout).unwrap().trim().parse().unwrap();
        assert_eq!(listed(folder.path()).commit_time, Some(date));
        fs::remove_dir_all(folder.path().join(".git")).unwrap();
        let none = listed(folder.path());
        assert_eq!((none.commit, none.dirty, none.commit_time), (None, true, None));
        run(folder.path(), &["init", "--quiet"]);
        let unborn = listed(folder.path());
        assert_eq!((unborn.commit, unborn.dirty, unborn.commit_time), (None, true, None));
    }

    #[test]
    fn a_commit_is_dated_no_later_than_a_time_can_be_written() {
        let folder = repository();
        let own = folder.path().join("commit");
        let dated = |seconds: i64| {
            let tree =
                Command::new("git").args(["rev-parse", "HEAD^{tree}"]).current_dir(folder.path()).output().unwrap();
            let tree = String::from_utf8(tree.stdout).unwrap();
            let who = format!("t <t@example.org> {seconds} +0000");
            fs::write(&own, format!("tree {}\nauthor {who}\ncommitter {who}\n\nx\n", tree.trim())).unwrap();
            let made = ["hash-object", "-t", "commit", "-w", "--literally", "commit"];
            let made = Command::new("git").args(made).current_dir(folder.path()).output().unwrap();
            let made = String::from_utf8(made.stdout).unwrap();
            run(folder.path(), &["update-ref", "HEAD", made.trim()]);
            GitSourceLister.list(folder.path(), Path::new("src"), &[]).map(|tree| tree.commit_time)
        };
        let last = sluicegate_types::UnixTime::LAST.seconds();
        assert_eq!(dated(last).unwrap(), Some(last.unsigned_abs()));
        let error = dated(last + 1).unwrap_err().to_string();
        assert!(error.contains("dated after 9999-12-29T23:59:59Z"), "{error}");
    }

    #[test]
    fn a_source_of_ten_thousand_files_in_many_folders_is_compared_whole() {
        let folder = repository();
        for at in 0..100 {
            let inner = folder.path().join(format!("src/{at}"));
            fs::create_dir(&inner).unwrap();
            (0..100).for_each(|nth| fs::write(inner.join(nth.to_string()), format!("{at} {nth}")).unwrap());
        }
        run(folder.path(), &["add", "--all"]);
        run(folder.path(), &["commit", "--quiet", "--message", "many"]);
        let tree = listed(folder.path());
        assert_eq!((tree.entries.len(), tree.dirty), (10_001, false));
        fs::write(folder.path().join("src/77/77"), "77 78").unwrap();
        assert!(listed(folder.path()).dirty);
    }
}
