//! A gateway file in a folder, with the files it names.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use sluicegate_flow::{
    Error,
    gateway::{GatewayFiles, JudgeRecord},
};
use sluicegate_pipeline::gateway::Gateway;
use sluicegate_policy::rego::{SourceFile, is_test};
use sluicegate_types::utf8;

use crate::{
    commands::init::{ADD_SCANNER, DATABASE},
    words::{Problem, shell_word},
};

/// Bytes of a file that a gateway names.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// Rego files of one folder.
const MAX_POLICIES: usize = 256;

/// A gateway and where it stands.
pub(crate) struct GatewayFolder {
    pub(crate) gateway: Gateway,
    pub(crate) folder: PathBuf,
    /// What the file is called.
    name: OsString,
    /// The gateway file's own bytes.
    text: String,
    /// What was read once is what is used: the bytes that judge are the bytes that the decision's digest is over. By the path that
    /// was asked for.
    files: RefCell<BTreeMap<PathBuf, Vec<u8>>>,
}

impl GatewayFolder {
    /// From the flag, the environment, or beside the pipeline, in this order. Never from a project file (trust model 7).
    pub(crate) fn open(flag: Option<&Path>, beside: &Path) -> Result<Self, Problem> {
        Self::open_or(flag, beside, "sluicegate init writes one; --gateway names another")
    }

    /// The same where something else is to be done if there is no such file. One that is there and wrong says itself what is.
    pub(crate) fn open_or(flag: Option<&Path>, beside: &Path, missing: &str) -> Result<Self, Problem> {
        let path = match (flag, std::env::var_os("SLUICEGATE_GATEWAY")) {
            (Some(path), _) => path.to_owned(),
            (None, Some(path)) if !path.is_empty() => path.into(),
            _ => beside.join("gateway.yaml"),
        };
        let bytes = read(&path).map_err(|error| Problem::named("read the gateway file", &path, &error).or(missing))?;
        let text = utf8(bytes).map_err(|error| Problem::usage(path.display().to_string(), error.to_string()))?;
        let gateway = Gateway::parse(&path.display().to_string(), &text).map_err(Error::from)?;
        let folder = path.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new(".")).to_owned();
        let name = path.file_name().unwrap_or_default().to_owned();
        Ok(Self { gateway, folder, name, text, files: RefCell::default() })
    }
}

impl GatewayFolder {
    /// The same for who can do without: `None` where none is named and none is there.
    pub(crate) fn open_if_there(flag: Option<&Path>, beside: &Path) -> Result<Option<Self>, Problem> {
        let is_named = flag.is_some() || std::env::var_os("SLUICEGATE_GATEWAY").is_some_and(|path| !path.is_empty());
        if !is_named && beside.join("gateway.yaml").symlink_metadata().is_err() {
            return Ok(None);
        }
        Self::open(flag, beside).map(Some)
    }

    /// What makes the gateway scan.
    pub(crate) fn how_to_add_a_scanner(&self) -> String {
        let adds = if self.name == "gateway.yaml" {
            let folder = match self.folder.as_path() {
                here if here == Path::new(".") => String::new(),
                folder => format!(" {}", shell_word(&folder.display().to_string())),
            };
            format!("{ADD_SCANNER}{folder} adds a scanner to the gateway file")
        } else {
            format!("copy scanner: from the gateway.yaml that {ADD_SCANNER} EMPTY_FOLDER writes")
        };
        format!("{adds} (DIR is {DATABASE})")
    }
}

impl GatewayFiles for GatewayFolder {
    fn read(&self, path: &Path) -> Result<Vec<u8>, Error> {
        if let Some(bytes) = self.files.borrow().get(path) {
            return Ok(bytes.clone());
        }
        let full = self.folder.join(path);
        let bytes =
            read(&full).map_err(|error| Error::Trust { file: full, reason: format!("cannot read it: {error}") })?;
        self.files.borrow_mut().insert(path.to_owned(), bytes.clone());
        Ok(bytes)
    }

    fn policies(&self, path: &Path) -> Result<Vec<SourceFile>, Error> {
        let full = self.folder.join(path);
        let fault = |reason: String| Error::Trust { file: full.clone(), reason };
        let mut names = Vec::new();
        if full.is_dir() {
            for entry in fs::read_dir(&full).map_err(|error| fault(error.to_string()))? {
                let entry = entry.map_err(|error| fault(error.to_string()))?;
                if entry.path().is_dir() {
                    return Err(fault(format!(
                        "{} is a folder: policies below each other are not in this version",
                        entry.path().display()
                    )));
                }
                let name = entry.file_name().into_string().map_err(|_| fault("a file name is not UTF-8".to_owned()))?;
                if name.ends_with(".rego") {
                    if !is_test(&name) {
                        names.push(path.join(name));
                    }
                } else if name.to_ascii_lowercase().contains(".rego") {
                    // A rule that nobody asks looks like one that passes.
                    return Err(fault(format!("{name} would not be asked: name it *.rego, or move it away")));
                }
            }
        } else {
            names.push(path.to_owned());
        }
        names.sort();
        if names.len() > MAX_POLICIES {
            return Err(fault(format!("more than {MAX_POLICIES} Rego files")));
        }
        names
            .into_iter()
            .map(|name| {
                let text = utf8(self.read(&name)?)
                    .map_err(|error| Error::Trust { file: self.folder.join(&name), reason: error.to_string() })?;
                Ok(SourceFile { name: name.display().to_string(), text })
            })
            .collect()
    }
}

impl JudgeRecord for GatewayFolder {
    fn all_read(&self) -> (Vec<u8>, Vec<(PathBuf, Vec<u8>)>) {
        let files = self.files.borrow().iter().map(|(path, bytes)| (path.clone(), bytes.clone())).collect();
        (self.text.clone().into_bytes(), files)
    }
}

pub(crate) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    read_within(path, MAX_FILE)
}

/// Reads a regular file of at most `limit` bytes.
pub(crate) fn read_within(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    // A pipe in a file's place is not waited for.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    only_regular(&file)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(std::io::Error::other(format!("larger than the limit of {limit} bytes")));
    }
    Ok(bytes)
}

/// Refuses a folder, a pipe or a device that is open in a file's place.
pub(crate) fn only_regular(file: &File) -> std::io::Result<()> {
    let kind = file.metadata()?.file_type();
    match (kind.is_file(), kind.is_dir()) {
        (true, _) => Ok(()),
        (_, true) => Err(std::io::Error::other("it is a folder, not a regular file")),
        _ => Err(std::io::Error::other("it is not a regular file")),
    }
}
