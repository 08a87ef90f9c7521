use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {text:?}: {rule}")]
pub struct NameError {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

impl NameError {
    /// The same about the name of something else: one kind of name may be given to several things.
    #[must_use]
    pub fn of(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $limit:literal, $rule:literal, $first:expr, $rest:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let (first, rest): (fn(u8) -> bool, fn(u8) -> bool) = ($first, $rest);
                let fits = match text.as_bytes() {
                    [head, tail @ ..] => tail.len() < $limit && first(*head) && tail.iter().all(|byte| rest(*byte)),
                    [] => false,
                };
                if fits {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(NameError { kind: $kind, text: text.chars().take(64).collect(), rule: $rule })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

fn lower_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn lower_digit_or_dash(byte: u8) -> bool {
    lower_or_digit(byte) || byte == b'-' || byte == b'_'
}

name!(
    /// A step of a pipeline, or the pipeline itself.
    StepName, "step name", 64, "lower-case letters, digits, - and _, a letter or digit first, at most 64", lower_or_digit, lower_digit_or_dash
);
name!(
    /// An output of a step, a source or an artifact.
    OutputName, "name", 64, "lower-case letters, digits, - and _, a letter or digit first, at most 64", lower_or_digit, lower_digit_or_dash
);
name!(
    /// A place an artifact may be promoted to.
    EnvironmentName, "environment", 64, "lower-case letters, digits, - and _, a letter or digit first, at most 64", lower_or_digit, lower_digit_or_dash
);
name!(
    /// One execution of a pipeline.
    RunId, "run id", 64, "lower-case letters, digits, - and _, a letter or digit first, at most 64", lower_or_digit, lower_digit_or_dash
);
name!(
    /// A tag (OCI distribution-spec, "Pulling manifests").
    TagName, "tag", 128, "letters, digits, _ . and -, not . or - first, at most 128",
    |byte| byte.is_ascii_alphanumeric() || byte == b'_',
    |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_alphabet_and_a_bounded_length() {
        assert!("build-2".parse::<StepName>().is_ok());
        for bad in ["", "-build", "Build", "a/b", "a b", "../x", &"x".repeat(65)] {
            assert!(bad.parse::<StepName>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(64).parse::<StepName>().is_ok());
        assert!("v1.2-RC".parse::<TagName>().is_ok());
        assert!(".hidden".parse::<TagName>().is_err());
        let error = "Build".parse::<StepName>().unwrap_err();
        assert!(error.to_string().starts_with("step name \"Build\": lower-case"));
        assert!(error.of("pipeline name").to_string().starts_with("pipeline name \"Build\": lower-case"));
    }
}
