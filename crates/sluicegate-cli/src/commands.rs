//! The commands: arguments to verbs, results to words.

pub(crate) mod attest;
pub(crate) mod complete;
pub(crate) mod completion;
pub(crate) mod copy;
pub(crate) mod doctor;
pub(crate) mod evidence;
pub(crate) mod image;
pub(crate) mod init;
pub(crate) mod keys;
pub(crate) mod log;
pub(crate) mod logs;
pub(crate) mod pipeline;
pub(crate) mod plan;
pub(crate) mod policy;
pub(crate) mod promote;
pub(crate) mod prune;
pub(crate) mod release;
pub(crate) mod run;
pub(crate) mod trust;
pub(crate) mod try_step;
pub(crate) mod verify;
pub(crate) mod verify_file;

use std::path::Path;

use crate::words::Problem;

/// Refuses a flag of the contract that is not built yet.
fn later(flag: &str, given: bool) -> Result<(), Problem> {
    if given { Err(Problem::usage(format!("{flag}: not in this version"), "leave it out")) } else { Ok(()) }
}

/// The folder a file stands in.
fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}
