//! What went wrong with a request, in words that name it.

use sluicegate_ports::images::{FaultKind, RegistryFault};

pub(crate) type Result<T> = std::result::Result<T, RegistryFault>;

pub(crate) fn fault(kind: FaultKind, reason: impl Into<String>) -> RegistryFault {
    RegistryFault { kind, reason: reason.into() }
}

/// Characters of foreign words that a person gets to see.
const SHOWN: usize = 300;

/// The errors that a registry answers, `{"errors":[{"code","message"}]}` (distribution-spec, "Error codes").
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// The codes, as written.
    pub(crate) codes: Vec<String>,
    /// All of it in one line, shortened.
    pub(crate) words: String,
}

impl Said {
    pub(crate) fn parse(body: &[u8]) -> Self {
        #[derive(serde::Deserialize)]
        struct Wire {
            errors: Vec<One>,
        }
        #[derive(serde::Deserialize)]
        struct One {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        match serde_json::from_slice::<Wire>(body) {
            Ok(wire) => Self {
                words: shown(
                    &wire.errors.iter().map(|e| format!("{} {}", e.code, e.message)).collect::<Vec<_>>().join("; "),
                ),
                codes: wire.errors.into_iter().map(|error| error.code).collect(),
            },
            Err(_) => Self::default(),
        }
    }

    /// The words behind a colon, or nothing.
    pub(crate) fn after(&self) -> String {
        if self.words.trim().is_empty() { String::new() } else { format!(": {}", self.words.trim()) }
    }
}

/// Foreign text, shortened and without what a terminal would obey.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_words_are_short_and_no_command_to_a_terminal() {
        assert_eq!(shown("a\u{1b}[2J\r\nb \u{e4}"), "a [2J  b \u{e4}");
        assert_eq!(shown(&"x".repeat(SHOWN + 1)).len(), SHOWN);
        let said = |message: &str| {
            let body = serde_json::json!({"errors": [{"code": "DENIED", "message": message}]});
            Said::parse(body.to_string().as_bytes()).words
        };
        assert_eq!(said("no\u{7}"), "DENIED no ");
        assert_eq!(said(&"x".repeat(SHOWN)).len(), SHOWN);
    }
}
