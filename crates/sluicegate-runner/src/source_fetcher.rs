//! Sources that are fetched from where they are published, at one commit.
//!
//! git is asked for that commit alone, into a repository of our own, and what arrives is only read as objects: nothing is checked out, so
//! that no filter, hook or attribute of whoever published it decides what a file holds. Every commit, folder and file is hashed again and
//! has to have the name that leads to it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::ErrorKind,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, SystemTime},
};

use sluicegate_ports::{
    execute::Stop,
    trees::{EntryKind, FetchedSource, SourceFetcher, TreeEntry, TreeError},
};
use sluicegate_types::Digest;

use crate::{
    bounded_command::{self, CommandError, LISTENING, Limits},
    confined_repository::own_folder,
    git_address::{GitAddress, GitReference, Protocol},
    git_objects::{self, Kind, MAX_DEPTH, Objects, file_id},
    private_key::is_private_key,
    source_lister::{MAX_FILES, MAX_LINK, link_target},
    source_repository::{CONFIG, PATH, complaint, io},
};

/// What git may say beside the objects that it fetches.
const MAX_WORDS: usize = 16 * 1024 * 1024;
/// Branches that an error lists, and bytes of the name of one.
const MAX_LISTED: usize = 10;
const MAX_SHOWN: usize = 100;
/// Bytes of memory that each program of a fetch may ask for.
const MAX_MEMORY: u64 = 4 * 1024 * 1024 * 1024;
/// Bytes of a file's name, and of its path: what Linux allows (NAME_MAX, and PATH_MAX without the zero at its end).
const MAX_NAME: usize = 255;
const MAX_PATH: usize = 4095;
/// Where what is fetched gets a name of ours.
const FETCHED: &str = "refs/sluicegate/fetched";
/// The git that first keeps to the address that it is given; an earlier one does not know `http.curloptResolve` and passes over it.
const PINNED_SINCE: (u32, u32) = (2, 37);
/// What reads a repository of this machine: the very folder that it is given, its packs as they are named in their folder and not in an
/// index that may name others, and nothing that is missing is fetched from where the repository's configuration says.
const UPLOAD_PACK: &str =
    "--upload-pack=GIT_ALLOW_PROTOCOL=none GIT_NO_LAZY_FETCH=1 git -c core.multiPackIndex=false upload-pack --strict";

/// Where sources are kept, and how they are reached.
#[derive(Clone, Debug)]
pub struct FetchSettings {
    /// A folder for repositories and their files; whatever is in it may be thrown away.
    pub cache: PathBuf,
    /// The proxy that leads to servers.
    pub proxy: Option<String>,
    /// Hosts that are reached without it, in the form of `NO_PROXY`. Who permits a fetch decides by them; git is not told.
    pub no_proxy: Option<String>,
    /// A file with the certificate authorities that count, in PEM, in place of the system's.
    pub certificates: Option<PathBuf>,
    /// How much a source may be.
    pub limits: FetchLimits,
    /// `HOST:PORT:ADDRESS`: the only address that this server is asked at, whatever its name leads to meanwhile.
    pub only: Option<String>,
}

/// How much a fetched source may be.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// Bytes that are transferred, as they are packed.
    pub transfer: u64,
    /// Bytes of all of its files.
    pub bytes: u64,
    /// Files, links and folders.
    pub files: usize,
    /// Bytes of all of their paths, and of what the links lead to: a folder's long name is small as it is packed, and stands in the path
    /// of each file in it.
    pub paths: u64,
    /// For each question to the other side, and for reading what arrived.
    pub time: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        let mib = 1024 * 1024;
        // The paths: those of a million files of usual length.
        Self {
            transfer: 1024 * mib,
            bytes: 4096 * mib,
            files: MAX_FILES,
            paths: 192 * mib,
            time: Duration::from_secs(600),
        }
    }
}

/// Fetches sources with the `git` program, without any configuration but its own.
#[derive(Clone, Debug)]
pub struct GitSourceFetcher {
    settings: FetchSettings,
}

impl GitSourceFetcher {
    /// One that keeps what it fetches where the settings say.
    pub fn new(settings: FetchSettings) -> Self {
        Self { settings }
    }
}

impl SourceFetcher for GitSourceFetcher {
    fn fetch(&self, url: &str, reference: &str, stop: &Stop) -> Result<FetchedSource, TreeError> {
        let refused = |reason: String| TreeError::Address { url: GitAddress::printable(url), reason };
        let address = GitAddress::parse(url).map_err(refused)?;
        let location = match address.path() {
            Some(path) => GitAddress::of_folder(&own_folder(&path).map_err(refused)?),
            None => address.url.clone(),
        };
        self.fetch_from(Origin { url, address: &address, location }, reference, stop)
    }
}

/// A repository that was judged.
pub(crate) struct Origin<'a> {
    /// As errors say it.
    pub(crate) url: &'a str,
    pub(crate) address: &'a GitAddress,
    /// As git is given it: of a repository of this machine, its own folder.
    pub(crate) location: String,
}

impl GitSourceFetcher {
    /// Fetches from there and nowhere else.
    pub(crate) fn fetch_from(
        &self,
        origin: Origin<'_>,
        reference: &str,
        stop: &Stop,
    ) -> Result<FetchedSource, TreeError> {
        let Origin { url, address, location } = origin;
        let refused = |reason: String| TreeError::Reference { url: GitAddress::printable(url), reason };
        let wanted = GitReference::parse(reference).map_err(refused)?;
        let folder = self.settings.cache.join(Digest::of(address.url.as_bytes()).hex());
        create(&folder)?;
        // One at a time: whoever has it is bounded in time, and a lock dies with its holder.
        let path = folder.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.map_err(|source| io("open", &path, source))?;
        wait_for(&lock, &path, stop)?;
        // When it was last used, for whoever has to decide what is kept. What can't be noted is only let go sooner.
        let _ = lock.set_modified(SystemTime::now());
        let kept = Kept { settings: &self.settings, address, location, url, folder, stop };
        let fetched = kept.fetch(&wanted);
        drop(lock);
        // Whatever a git said that was stopped.
        fetched.map_err(|error| if stop.is_raised() { TreeError::Stopped } else { error })
    }
}

/// A bare repository that holds what was fetched from one address, with the files of it that were read.
struct Kept<'a> {
    settings: &'a FetchSettings,
    address: &'a GitAddress,
    location: String,
    /// As errors say it.
    url: &'a str,
    folder: PathBuf,
    stop: &'a Stop,
}

impl Kept<'_> {
    fn fetch(&self, wanted: &GitReference) -> Result<FetchedSource, TreeError> {
        self.prepare()?;
        // A commit's name says all of it, so one that is whole need not be fetched again.
        if let GitReference::Commit(id) = wanted
            && let Ok(source) = self.read(id, id)
        {
            return Ok(source);
        }
        // From here on it goes somewhere.
        if self.settings.only.is_some() {
            let said = self.ask(&["--version"])?;
            keeps_to_its_address(&String::from_utf8_lossy(&said)).map_err(|reason| self.fault(reason))?;
        }
        let name = match wanted {
            GitReference::Commit(id) => id.clone(),
            GitReference::OneOf(names) => self.published(names)?,
        };
        let bring = || {
            self.transfer(&name)?;
            match wanted {
                GitReference::Commit(id) => self.read(id, &name),
                GitReference::OneOf(_) => self.read(&self.fetched()?, &name),
            }
        };
        match bring() {
            Err(_) if self.stop.is_raised() => Err(TreeError::Stopped),
            // What was kept from earlier is damaged: it is only a cache.
            Err(TreeError::Git { .. }) => {
                remove(&self.repository())?;
                self.prepare()?;
                bring().map_err(|error| match error {
                    TreeError::Git { reason, .. } => self.fault(reason),
                    error => error,
                })
            }
            done => done,
        }
    }

    fn repository(&self) -> PathBuf {
        self.folder.join("repository")
    }

    /// Makes the repository what it has to be before git sees it. One that has grown beyond what is kept begins anew.
    fn prepare(&self) -> Result<(), TreeError> {
        let repository = self.repository();
        let packs = repository.join("objects/pack");
        if sizes_in(&packs, "")?.1 > self.settings.limits.transfer {
            remove(&repository)?;
        }
        for part in ["refs", "objects/info", "objects/pack"] {
            create(&repository.join(part))?;
        }
        for (name, bytes) in [("config", CONFIG), ("HEAD", b"ref: refs/heads/none\n")] {
            let path = repository.join(name);
            fs::write(&path, bytes).map_err(|source| io("write", &path, source))?;
        }
        Ok(())
    }

    /// What reads the repository, where that is a program of this machine; a server has its own, and git says so if it is named another.
    fn upload_pack(&self) -> Option<&'static str> {
        (self.address.protocol == Protocol::File).then_some(UPLOAD_PACK)
    }

    /// The one of these names that is published.
    fn published(&self, names: &[String]) -> Result<String, TreeError> {
        let mut arguments = vec!["ls-remote", "--quiet"];
        arguments.extend(self.upload_pack());
        arguments.extend(["--", &self.location]);
        arguments.extend(names.iter().map(String::as_str));
        let said = self.ask(&arguments)?;
        let said = String::from_utf8_lossy(&said);
        let known: Vec<&str> = said.lines().filter_map(|line| line.split_once('\t')).map(|(_, name)| name).collect();
        // git lists every name that ends so.
        let mut found = names.iter().filter(|name| known.contains(&name.as_str()));
        match (found.next(), found.next()) {
            (Some(name), None) => Ok(name.clone()),
            (Some(branch), Some(tag)) => Err(self.no_reference(format!("there are {branch} and {tag}; write which"))),
            (None, _) => Err(self.no_reference(format!(
                "there is no {}; write a branch, a tag, or a commit with all its 40 digits{}",
                names.join(" and no "),
                self.branches()
            ))),
        }
    }

    /// The branches that are published, some of them where there are many, after a semicolon; nothing if that can't be asked.
    fn branches(&self) -> String {
        let mut arguments = vec!["ls-remote", "--quiet", "--heads"];
        arguments.extend(self.upload_pack());
        arguments.extend(["--", &self.location]);
        let said = self.ask(&arguments).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let names = said.lines().filter_map(|line| line.split_once("\trefs/heads/")).map(|(_, name)| name);
        // The other side may say anything.
        let is_plain =
            |name: &&str| name.len() <= MAX_SHOWN && name.chars().all(|c| c.is_alphanumeric() || "/._-+".contains(c));
        let names: Vec<&str> = names.filter(is_plain).collect();
        match names.len() {
            0 => String::new(),
            count if count > MAX_LISTED => {
                format!("; branches are {} and {} more", names[..MAX_LISTED].join(", "), count - MAX_LISTED)
            }
            _ => format!("; branches are {}", names.join(", ")),
        }
    }

    /// Brings what a name stands for, and nothing of its history.
    fn transfer(&self, name: &str) -> Result<(), TreeError> {
        let refspec = format!("+{name}:{FETCHED}");
        let mut arguments = vec![
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-auto-maintenance",
            "--no-write-fetch-head",
            "--no-show-forced-updates",
            "--refmap=",
        ];
        arguments.extend(self.upload_pack());
        arguments.extend(["--", &self.location, &refspec]);
        self.ask(&arguments).map(drop)
    }

    /// The commit that was fetched last.
    fn fetched(&self) -> Result<String, TreeError> {
        let id = self.ask(&["rev-parse", "--verify", "--quiet", FETCHED])?;
        let id = String::from_utf8_lossy(id.trim_ascii()).into_owned();
        let repository = self.repository();
        Objects::open(self.git(), &repository, self.settings.limits.time, self.stop)?.commit_behind(&id)
    }

    /// What git says to these arguments.
    fn ask(&self, arguments: &[&str]) -> Result<Vec<u8>, TreeError> {
        let mut command = self.git();
        command.args(arguments);
        let limits = Limits { bytes: MAX_WORDS, time: self.settings.limits.time };
        let ended = bounded_command::output_of_group(&command, limits, self.stop).map_err(|error| match error {
            CommandError::Stopped => TreeError::Stopped,
            CommandError::TooLong(_) => self.fault(format!("{error}; try again, or fetch from a mirror")),
            error => self.fault(error.to_string()),
        })?;
        if ended.status.success() {
            return Ok(ended.stdout);
        }
        let said = complaint(&ended);
        let repository = self.repository();
        // A file that may not become larger ends the program that writes it, without a word.
        if sizes_in(&repository.join("objects/pack"), "tmp_")?.0 >= self.settings.limits.transfer {
            remove(&repository)?;
            let most = self.settings.limits.transfer;
            return Err(self.refused(format!("its one commit is more than {most} bytes as it is packed")));
        }
        if said.contains(&*repository.to_string_lossy()) {
            return Err(TreeError::Git { path: repository, reason: said });
        }
        // 301 Moved Permanently, and its like.
        if said.contains("returned error: 30") {
            return Err(self.fault(format!(
                "{said}; it leads to another address, where no fetch goes by itself: write that one (often the same with .git at its end)"
            )));
        }
        Err(self.fault(said))
    }

    /// git that knows this repository, one way to go, and nothing of this machine; its arguments are still to be added.
    fn git(&self) -> Command {
        // The shell limits what git and all that git starts may write and ask for. If a limit can't be set, a lower one holds already.
        let limited = r#"ulimit -f "$1" 2>/dev/null; ulimit -v "$2" 2>/dev/null; ulimit -c 0 2>/dev/null; shift 2; exec git "$@""#;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", limited, "sh"])
            .arg(self.settings.limits.transfer.div_ceil(512).to_string())
            .arg((MAX_MEMORY / 1024).to_string())
            .args(["-c", "protocol.allow=never"])
            .args(["-c", &format!("protocol.{}.allow=always", self.address.protocol.name())])
            .args(["-c", "protocol.version=2"])
            .args(["-c", "core.hooksPath=/dev/null"])
            .args(["-c", "core.fsmonitor=false"])
            .args(["-c", "core.askPass="])
            .args(["-c", "core.packedGitLimit=256m"])
            .args(["-c", "credential.helper="])
            .args(["-c", "transfer.fsckObjects=true"])
            .args(["-c", "transfer.bundleURI=false"])
            // What arrives stays one file, whose size is limited, however few objects it has.
            .args(["-c", "transfer.unpackLimit=1"])
            .args(["-c", "fetch.unpackLimit=1"])
            .args(["-c", "fetch.recurseSubmodules=false"])
            .args(["-c", "gc.auto=0"])
            .args(["-c", "maintenance.auto=false"])
            // Where it would lead was judged by nobody.
            .args(["-c", "http.followRedirects=false"])
            // Somebody who stops answering is not waited for to the end of all time.
            .args(["-c", "http.lowSpeedLimit=100", "-c", "http.lowSpeedTime=60"])
            .args(self.settings.only.iter().flat_map(|only| ["-c".to_owned(), format!("http.curloptResolve={only}")]))
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            // Where nothing is: no .netrc, no configuration.
            .env("HOME", self.folder.join("none"))
            .env("GIT_DIR", self.repository())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_TERMINAL_PROMPT", "0");
        match self.address.protocol {
            Protocol::Https => {
                if let Some(proxy) = &self.settings.proxy {
                    command.env("https_proxy", proxy);
                }
                if let Some(file) = &self.settings.certificates {
                    command.env("GIT_SSL_CAINFO", file);
                }
            }
            Protocol::Http | Protocol::File => {}
        }
        command
    }

    /// What a commit holds, each file in a file of its own.
    fn read(&self, commit: &str, reference: &str) -> Result<FetchedSource, TreeError> {
        let limits = self.settings.limits;
        let repository = self.repository();
        let mut objects = Objects::open(self.git(), &repository, limits.time, self.stop)?;
        let told = objects.commit(commit)?;
        let date = || self.refused(format!("the commit {commit} has no date that can be read"));
        let commit_time = told.time.ok_or_else(date)?;
        let mut files = Files { folder: self.folder.join("files"), left: limits.bytes, known: BTreeMap::new() };
        let mut entries = Vec::new();
        let mut count = 0_usize;
        let mut paths = limits.paths;
        let mut take = |bytes: usize| {
            paths = paths.checked_sub(bytes as u64).ok_or_else(|| {
                let most = limits.paths;
                self.refused(format!(
                    "the paths of its files, with those that its links lead to, have more than {most} bytes"
                ))
            })?;
            Ok::<(), TreeError>(())
        };
        let mut open = vec![(PathBuf::new(), told.tree, 0_usize)];
        while let Some((at, id, depth)) = open.pop() {
            if depth > MAX_DEPTH {
                return Err(self.refused(format!("more than {MAX_DEPTH} folders in each other")));
            }
            for entry in objects.folder(&id)? {
                if self.stop.is_raised() {
                    return Err(TreeError::Stopped);
                }
                // Folders count, too: one that holds itself many times is small.
                count += 1;
                if count > limits.files {
                    return Err(self.refused(format!("it has more than {} files and folders", limits.files)));
                }
                // Before anything is made of it, or of what stands below it.
                let length = at.as_os_str().len() + usize::from(!at.as_os_str().is_empty()) + entry.name.len();
                if entry.name.len() > MAX_NAME || length > MAX_PATH {
                    let begin: String = String::from_utf8_lossy(&entry.name).chars().take(40).collect();
                    return Err(self.refused(format!(
                        "{begin}…: its name has {} bytes and its path {length}; more than {MAX_NAME} and {MAX_PATH} can't be unpacked",
                        entry.name.len()
                    )));
                }
                take(length)?;
                let path = git_objects::below(&at, &entry.name);
                let wrong = |reason: &str| self.refused(format!("{}: {reason}", path.display()));
                if entry.name.eq_ignore_ascii_case(b".git") {
                    return Err(wrong("what is called .git is never a source"));
                }
                let kind = match entry.kind {
                    Kind::Folder => {
                        open.push((path, entry.id, depth + 1));
                        continue;
                    }
                    Kind::Submodule => {
                        return Err(wrong(&format!(
                            "a submodule at the commit {}; submodules of a git source are not in this version, name it as a source of its own",
                            entry.id
                        )));
                    }
                    Kind::Link => {
                        let target = objects.blob(&entry.id, MAX_LINK)?.and_then(link_target);
                        let target = target.ok_or_else(|| wrong("a link whose target is no path"))?;
                        take(target.as_os_str().len())?;
                        EntryKind::Symlink(target)
                    }
                    Kind::File { executable } => {
                        let source = files
                            .bring(&mut objects, &entry.id)?
                            .ok_or_else(|| self.refused(format!("its files have more than {} bytes", limits.bytes)))?;
                        if is_private_key(&source) {
                            return Err(wrong("a private key, which is never a source"));
                        }
                        EntryKind::GitBlob { source, id: entry.id, executable }
                    }
                };
                entries.push(TreeEntry { path, kind });
            }
        }
        if entries.is_empty() {
            return Err(self.refused(format!("the commit {commit} holds no file")));
        }
        let (commit, reference) = (commit.to_owned(), reference.to_owned());
        Ok(FetchedSource { commit, reference, commit_time, entries })
    }

    fn refused(&self, reason: String) -> TreeError {
        TreeError::Address { url: self.url.to_owned(), reason }
    }

    fn no_reference(&self, reason: String) -> TreeError {
        TreeError::Reference { url: self.url.to_owned(), reason }
    }

    fn fault(&self, reason: String) -> TreeError {
        TreeError::Fetch { url: self.url.to_owned(), reason }
    }
}

/// Whether the git that says this of itself goes to no other address than the one that was judged.
fn keeps_to_its_address(said: &str) -> Result<(), String> {
    let version = said.trim().strip_prefix("git version ").unwrap_or_default();
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= PINNED_SINCE => Ok(()),
        _ => {
            let said: String = said.trim().chars().take(MAX_SHOWN).collect();
            let (major, minor) = PINNED_SINCE;
            Err(format!(
                "git calls itself {said:?}, and only git {major}.{minor} and later keep to the address that was judged; install one"
            ))
        }
    }
}

/// Files by their git names.
struct Files {
    folder: PathBuf,
    /// Bytes that may still come.
    left: u64,
    /// Those that were looked at, with their sizes.
    known: BTreeMap<String, u64>,
}

impl Files {
    /// The file with this name, hashed; nothing if it is too large. One that lies there already is hashed again.
    fn bring(&mut self, objects: &mut Objects<'_>, id: &str) -> Result<Option<PathBuf>, TreeError> {
        let (folder, name) = id.split_at(2);
        let folder = self.folder.join(folder);
        let path = folder.join(name);
        let size = match self.known.entry(id.to_owned()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                let there = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file);
                let size = match there {
                    Some(there) if there.len() <= self.left && file_id(&path)?.as_deref() == Some(id) => there.len(),
                    _ => {
                        create(&folder)?;
                        let fault = |source| io("write a file in", &folder, source);
                        let mut file = tempfile::NamedTempFile::new_in(&folder).map_err(fault)?;
                        let Some(size) = objects.copy_blob(id, self.left, &mut file)? else { return Ok(None) };
                        file.persist(&path).map_err(|error| fault(error.error))?;
                        size
                    }
                };
                *place.insert(size)
            }
        };
        let Some(left) = self.left.checked_sub(size) else { return Ok(None) };
        self.left = left;
        Ok(Some(path))
    }
}

/// Waits until nobody else has the lock.
fn wait_for(lock: &File, path: &Path, stop: &Stop) -> Result<(), TreeError> {
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if stop.is_raised() => return Err(TreeError::Stopped),
            Err(TryLockError::WouldBlock) => thread::sleep(LISTENING),
            Err(TryLockError::Error(source)) => return Err(io("lock", path, source)),
        }
    }
}

/// Makes a folder that nobody else may look into.
fn create(path: &Path) -> Result<(), TreeError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| io("create", path, source))
}

fn remove(path: &Path) -> Result<(), TreeError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io("remove", path, error)),
        _ => Ok(()),
    }
}

/// Bytes of the files in a folder whose names begin so, the largest and all of them; none where there is no folder.
fn sizes_in(folder: &Path, begin: &str) -> Result<(u64, u64), TreeError> {
    let fault = |source| io("look at", folder, source);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((0, 0)),
        Err(error) => return Err(fault(error)),
    };
    let (mut largest, mut all) = (0, 0_u64);
    for entry in entries {
        let entry = entry.map_err(fault)?;
        if entry.file_name().as_bytes().starts_with(begin.as_bytes()) {
            let size = entry.metadata().map_err(fault)?.len();
            largest = size.max(largest);
            all = all.saturating_add(size);
        }
    }
    Ok((largest, all))
}

#[cfg(test)]
mod tests;
