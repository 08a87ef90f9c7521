//! Where things stand: the clone, cargo, the user's cache.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Failure, Outcome};

/// The clone.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The clone this program belongs to: cargo says where its crate stands; started by hand, it is the one around the current folder.
    pub fn locate() -> Outcome<Self> {
        let by_cargo = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let start = match by_cargo {
            Some(folder) => folder,
            None => env::current_dir().map_err(Failure::while_doing("find the current folder"))?,
        };
        let root =
            start.ancestors().find(|folder| folder.join("Cargo.lock").is_file() && folder.join("crates").is_dir());
        match root {
            Some(root) => Ok(Self { root: root.to_owned() }),
            None => Err(Failure::new(format!("{} is not inside a clone of Sluicegate", start.display()))),
        }
    }

    /// A clone at `root`, for tests.
    #[cfg(test)]
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// A path in the clone.
    #[must_use]
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// The clone's own folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `cargo`, started in the clone.
    #[must_use]
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root);
        // `cargo run` describes this crate in the environment. Build scripts that watch these variables (ring's does) would take
        // them for a change and be built again, each time this program and a bare `cargo` take turns.
        for (name, _) in env::vars_os() {
            let name_text = name.to_string_lossy();
            if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"]
                .iter()
                .any(|prefix| name_text.starts_with(prefix))
            {
                cargo.env_remove(name);
            }
        }
        cargo
    }
}

/// The folder for what is downloaded or built once and shared by every clone of this user.
pub fn cache() -> Outcome<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => match env::var_os("HOME").filter(|value| !value.is_empty()) {
            Some(home) => PathBuf::from(home).join(".cache"),
            None => return Err(Failure::new("neither XDG_CACHE_HOME nor HOME is set: there is no place for a cache")),
        },
    };
    if !base.is_absolute() {
        return Err(Failure::new(format!("the cache folder {} is not an absolute path", base.display())));
    }
    Ok(base.join("sluicegate"))
}
