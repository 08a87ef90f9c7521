//! The home: keys, store, log and evidence, outside every project.

use std::{
    env, fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::words::Problem;

/// Where everything lies that is not a project's.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    folder: PathBuf,
}

impl Home {
    /// `$SLUICEGATE_HOME`, else the user's state folder. Made with mode 0700 if missing; one that others may write to is refused.
    pub(crate) fn open() -> Result<Self, Problem> {
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
        let folder = std::path::absolute(&folder).map_err(|error| Problem::io("find", &folder, &error))?;
        let home = Self { folder };
        for part in ["", "store", "cache", "log", "keys", "trust", "run", "scratch", "tools"] {
            let path = home.folder.join(part);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|error| Problem::io("create", &path, &error))?;
        }
        let mode = fs::metadata(&home.folder)
            .map_err(|error| Problem::io("look at", &home.folder, &error))?
            .permissions()
            .mode();
        if mode & 0o022 != 0 {
            return Err(Problem::usage(
                format!("{} can be written by others, so its keys prove nothing", home.folder.display()),
                format!("chmod 700 {}", home.folder.display()),
            ));
        }
        Ok(home)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn part(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}
