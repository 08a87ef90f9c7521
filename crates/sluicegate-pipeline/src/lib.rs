#![forbid(unsafe_code)]
//! Reads the files people write: `sluicegate.yaml`, `gateway.yaml` and `trust.yaml`, from text to types that hold only what
//! this version can do. Everything else is refused with its file and line, never ignored (DESIGN section 4).
//!
//! Opens nothing: text in, values out.

pub mod cache_key;
pub mod gateway;
pub mod pipeline;
pub mod trust;
mod units;
mod yaml;

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not YAML of the expected shape: an unknown key, a key twice, a missing key, another type, or what two
    /// readers of YAML understand differently, such as an unquoted yes.
    #[error("{file}: {reason}")]
    Syntax {
        /// The file as the caller calls it.
        file: String,
        /// Line, column and what is wrong there.
        reason: String,
    },
    /// Part of the contract that is not built yet.
    #[error("{file}: {what}: not in this version{hint}")]
    NotInThisVersion {
        /// The file.
        file: String,
        /// Which key, with its place.
        what: String,
        /// What to do instead, after a semicolon; may be empty.
        hint: String,
    },
    /// Well-formed, and contradictory or dangling.
    #[error("{file}: {what}: {reason}")]
    Meaning {
        /// The file.
        file: String,
        /// Where in the file.
        what: String,
        /// What is wrong.
        reason: String,
    },
}

/// Makes errors about one file.
pub(crate) struct In<'a>(pub(crate) &'a str);

impl In<'_> {
    pub(crate) fn meaning(&self, what: impl Into<String>, reason: impl ToString) -> Error {
        Error::Meaning { file: self.0.to_owned(), what: what.into(), reason: reason.to_string() }
    }

    pub(crate) fn later(&self, what: impl Into<String>) -> Error {
        Error::NotInThisVersion { file: self.0.to_owned(), what: what.into(), hint: String::new() }
    }

    pub(crate) fn later_but(&self, what: impl Into<String>, hint: &str) -> Error {
        Error::NotInThisVersion { file: self.0.to_owned(), what: what.into(), hint: format!("; {hint}") }
    }

    /// Refuses `key` if it is present.
    pub(crate) fn absent(&self, at: &str, key: &str, value: yaml::Given) -> Result<(), Error> {
        if value.0 {
            Err(self.later(if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }))
        } else {
            Ok(())
        }
    }

    pub(crate) fn version(&self, version: u32) -> Result<(), Error> {
        if version == 1 { Ok(()) } else { Err(self.later_but(format!("version: {version}"), "write version: 1")) }
    }
}
