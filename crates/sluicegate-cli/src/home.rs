//! The home: keys, store, log and evidence, outside every project.

use std::{
    env, fs,
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::words::Problem;

/// Where everything lies that is not a project's.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    folder: PathBuf,
}

/// The folders of a home, itself first.
const PARTS: [&str; 12] =
    ["", "store", "cache", "seals", "log", "ledger", "keys", "trust", "run", "scratch", "tools", "outbox"];

/// What only a home has: any one of them makes a folder one, however damaged.
const MARKS: [&str; 5] = ["keys", "ledger", "evidence.db", "log/checkpoint", "trust/trusted_root.json"];

impl Home {
    /// `$SLUICEGATE_HOME`, else the user's state folder. Made with mode 0700 if missing; one that others may write to is refused.
    pub(crate) fn make() -> Result<Self, Problem> {
        let home = Self { folder: Self::place()? };
        for part in PARTS {
            let path = home.folder.join(part);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|error| Problem::io("create", &path, &error))?;
        }
        home.checked()
    }

    /// The same home, which must be there: a misspelt one would be a new one, without keys and without history. Folders that an older
    /// version did not make yet are made.
    pub(crate) fn open() -> Result<Self, Problem> {
        Self::read()?;
        Self::make()
    }

    /// The same home, which must be there. Nothing is made, not even a folder.
    pub(crate) fn read() -> Result<Self, Problem> {
        let home = Self { folder: Self::place()? };
        for mark in MARKS {
            let path = home.folder.join(mark);
            match fs::symlink_metadata(&path) {
                Ok(_) => return home.checked(),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(error) => return Err(Problem::io("look at", &path, &error)),
            }
        }
        Err(Problem::usage(
            format!("there is no home at {}", home.folder.display()),
            "sluicegate init makes one with a new project (in another folder if this one has a gateway.yaml), or set SLUICEGATE_HOME",
        ))
    }

    /// Refuses a home of which others may change a part.
    fn checked(self) -> Result<Self, Problem> {
        let there = |path: &Path| path.symlink_metadata().is_ok();
        for part in PARTS.map(|part| self.folder.join(part)).iter().filter(|part| there(part)) {
            check_private(part, 0o022)?;
        }
        let keys = self.folder.join("keys");
        if !there(&keys) {
            return Ok(self);
        }
        for entry in fs::read_dir(&keys).map_err(|error| Problem::io("list", &keys, &error))? {
            let path = entry.map_err(|error| Problem::io("list", &keys, &error))?.path();
            if path.extension().is_some_and(|extension| extension == "key") {
                check_private(&path, 0o077)?;
            }
        }
        Ok(self)
    }

    /// Where the home is, whether it is there or not.
    pub(crate) fn place() -> Result<PathBuf, Problem> {
        let folder = match (env::var_os("SLUICEGATE_HOME"), env::var_os("XDG_STATE_HOME"), env::var_os("HOME")) {
            (Some(home), ..) if !home.is_empty() => PathBuf::from(home),
            (_, Some(state), _) if !state.is_empty() => PathBuf::from(state).join("sluicegate"),
            (_, _, Some(user)) if !user.is_empty() => PathBuf::from(user).join(".local/state/sluicegate"),
            _ => {
                return Err(Problem::usage(
                    "there is no home folder",
                    "set SLUICEGATE_HOME to a folder for keys, log and evidence",
                ));
            }
        };
        std::path::absolute(&folder).map_err(|error| Problem::io("find", &folder, &error))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn part(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Refuses what belongs to somebody else, is a link, or has one of the permissions `not`: whoever can write there can sign.
fn check_private(path: &Path, not: u32) -> Result<(), Problem> {
    let metadata = fs::symlink_metadata(path).map_err(|error| Problem::io("look at", path, &error))?;
    // Under sudo the home of whoever called it is as good: that person is root here.
    let me = rustix::process::geteuid();
    let caller = std::env::var("SUDO_UID").ok().and_then(|id| id.parse::<u32>().ok()).filter(|_| me.is_root());
    let own = metadata.uid() == me.as_raw() || Some(metadata.uid()) == caller;
    if own && !metadata.is_symlink() && metadata.permissions().mode() & not == 0 {
        return Ok(());
    }
    let remedy = if metadata.is_symlink() {
        "put a folder of your own in its place".to_owned()
    } else if own {
        format!("chmod go-rwx {}", path.display())
    } else {
        "name a home of your own with SLUICEGATE_HOME".to_owned()
    };
    Err(Problem::usage(format!("{} is open to others, so nothing in it proves anything", path.display()), remedy))
}
