//! The words by which a test or a suite says of itself how it ended: what each means, and that one which is not known means nothing.

use super::{WHAT, cut};
use crate::Error;

/// What an element says in words of itself, in the order in which one outdoes the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    Error,
    Failed,
    Skipped,
    Passed,
}

impl Said {
    pub(super) fn is_against(self) -> bool {
        matches!(self, Self::Error | Self::Failed)
    }

    /// What each word means, wherever it stands.
    const WORDS: &'static [(Self, &'static [&'static str])] = &[
        (Self::Error, &["error", "errored"]),
        (Self::Failed, &["fail", "failed", "failure"]),
        (Self::Skipped, &["notrun", "skip", "skipped", "disabled", "suppressed", "ignored"]),
        (Self::Passed, &["pass", "passed", "success", "ok"]),
    ];
}

/// The attributes by which some dialects (CTest, GoogleTest, behave, Maestro) say how something ended, with their words.
#[derive(Default)]
pub(super) struct Words(Vec<(&'static str, String)>);

impl Words {
    const ATTRIBUTES: [&'static str; 4] = ["status", "result", "outcome", "success"];

    /// Keeps what an attribute says of how its element ended; whether it is one that does.
    pub(super) fn take(&mut self, attribute: &str, value: &str) -> bool {
        let key = attribute.rsplit(':').next().unwrap_or_default().to_ascii_lowercase();
        let known = Self::ATTRIBUTES.into_iter().find(|known| *known == key);
        self.0.extend(known.map(|known| (known, cut(value.trim().to_ascii_lowercase()))));
        known.is_some()
    }

    /// The worst of what is said about this test or suite. A word that is not known might be any: then nothing is known of the report.
    pub(super) fn said(&self, what: &str, name: &str) -> Result<Option<Said>, Error> {
        let mut worst = None;
        for (attribute, word) in &self.0 {
            let said = match (*attribute, word.as_str()) {
                (_, "") => continue,
                ("success", "true") => Said::Passed,
                ("success", "false") => Said::Failed,
                // GoogleTest and CTest say that it was executed; where it failed, they say so beside that.
                ("status", "run") | ("result", "completed") => Said::Passed,
                ("status", "completed") if self.0.iter().any(|(at, word)| *at == "result" && word == "completed") => {
                    Said::Passed
                }
                (attribute, word) => {
                    let known = Said::WORDS.iter().filter(|_| attribute != "success");
                    let Some((said, _)) = known.into_iter().find(|(_, words)| words.contains(&word)) else {
                        let reason = format!(
                            "the {what} {name:?} has {attribute}={word:?}, which is not known to mean passed, failed or skipped; \
                             make the report say one of these words"
                        );
                        return Err(Error::Invalid { what: WHAT, reason });
                    };
                    *said
                }
            };
            worst = Some(worst.map_or(said, |worst: Said| worst.min(said)));
        }
        Ok(worst)
    }
}
