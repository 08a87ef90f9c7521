use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use sluicegate_ports::trees::{EntryKind, SourceLister, SourceTree, TreeEntry, TreeError};

/// Files of one source.
const MAX_FILES: usize = 1_000_000;
/// The file that names what is no source, outside git: one path a line, relative, `#` begins a comment.
const IGNORE_FILE: &str = ".sluicegateignore";

/// Lists source trees with the `git` program, or by walking where there is no git work tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct GitSourceLister;

impl SourceLister for GitSourceLister {
    fn list(&self, folder: &Path, excluded: &[PathBuf]) -> Result<SourceTree, TreeError> {
        let folder = fs::canonicalize(folder).map_err(|source| io("find", folder, source))?;
        let excluded: Vec<PathBuf> = excluded.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
        if let Some(inside) = excluded.iter().find(|path| folder.starts_with(path)) {
            let reason = format!("it lies in {}, which is never a source", inside.display());
            return Err(TreeError::Entry { path: folder, reason });
        }
        let work_tree = git(&folder, &["rev-parse", "--is-inside-work-tree"]);
        let in_git = work_tree.is_ok_and(|answer| answer.trim_ascii() == b"true");
        let tree = if in_git { from_git(&folder, &excluded) } else { from_walk(&folder, &excluded) }?;
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

fn from_git(folder: &Path, excluded: &[PathBuf]) -> Result<SourceTree, TreeError> {
    let listed = git(folder, &["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "."])?;
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
    }
    let text = |args: &[&str]| git(folder, args).ok().map(|out| String::from_utf8_lossy(out.trim_ascii()).into_owned());
    let status = git(folder, &["status", "--porcelain", "-z", "--", "."])?;
    Ok(SourceTree {
        entries,
        commit: text(&["rev-parse", "--verify", "--quiet", "HEAD"]).filter(|commit| !commit.is_empty()),
        dirty: !status.is_empty(),
        commit_time: text(&["log", "-1", "--format=%ct"]).and_then(|seconds| seconds.parse().ok()),
    })
}

fn from_walk(folder: &Path, excluded: &[PathBuf]) -> Result<SourceTree, TreeError> {
    let ignore_path = folder.join(IGNORE_FILE);
    let ignored: Vec<PathBuf> = match fs::read_to_string(&ignore_path) {
        Ok(text) => text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| PathBuf::from(line.trim_matches('/')))
            .collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(io("read", &ignore_path, source)),
    };
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

/// One file or link; nothing for what is excluded, an error for what is neither.
fn entry(folder: &Path, name: &Path, excluded: &[PathBuf]) -> Result<Option<TreeEntry>, TreeError> {
    if is_excluded(folder, name, excluded) {
        return Ok(None);
    }
    let path = folder.join(name);
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
    if path.extension() != Some(OsStr::new("key")) || !path.symlink_metadata().is_ok_and(|m| m.is_file()) {
        return false;
    }
    let mut head = [0; 64];
    let read = fs::File::open(path).and_then(|mut file| file.read(&mut head)).unwrap_or(0);
    KEY_MARKS.iter().any(|mark| head[..read].starts_with(mark))
}

/// Runs git without the user's or the system's configuration and without its hooks, pagers and prompts.
fn git(folder: &Path, args: &[&str]) -> Result<Vec<u8>, TreeError> {
    let fault = |reason: String| TreeError::Git { path: folder.to_owned(), reason };
    let output = Command::new("git")
        // The folder may belong to somebody else (sudo); reading names needs no trust in it, and no hook or monitor is run.
        .args([
            "-c",
            "safe.directory=*",
            "-c",
            "core.fsmonitor=false",
            "-c",
            "core.hooksPath=/dev/null",
            "--no-optional-locks",
        ])
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .map_err(|error| fault(format!("cannot start git: {error}")))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(fault(String::from_utf8_lossy(output.stderr.trim_ascii()).chars().take(500).collect()))
    }
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> TreeError {
    TreeError::Io { action, path: path.to_owned(), source }
}
