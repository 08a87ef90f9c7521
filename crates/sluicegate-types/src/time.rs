use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment in whole seconds since 1970-01-01T00:00:00Z; always an argument of a decision, never read inside one.
///
/// Written as RFC 3339 in UTC, between the years 1970 and 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(i64);

impl UnixTime {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);
    const LAST: i64 = 253_402_300_799;

    /// The moment `seconds` after the epoch; refuses what RFC 3339 can't write.
    pub fn from_seconds(seconds: i64) -> Result<Self, TimeError> {
        if (0..=Self::LAST).contains(&seconds) { Ok(Self(seconds)) } else { Err(TimeError::Range) }
    }

    /// Seconds since the epoch.
    pub fn seconds(self) -> i64 {
        self.0
    }

    /// The moment `seconds` later, at most the last one that can be written.
    pub fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add_unsigned(seconds).min(Self::LAST))
    }
}

impl FromStr for UnixTime {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let moment: Timestamp =
            text.parse().map_err(|_| TimeError::Syntax { text: text.chars().take(64).collect() })?;
        Self::from_seconds(moment.as_second())
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_second(self.0) {
            Ok(moment) => fmt::Display::fmt(&moment, f),
            Err(_) => write!(f, "@{}", self.0),
        }
    }
}

impl fmt::Debug for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for UnixTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UnixTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a text or number is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Before 1970 or after 9999.
    #[error("a time lies between 1970-01-01T00:00:00Z and 9999-12-31T23:59:59Z")]
    Range,
    /// Not RFC 3339 with a zone.
    #[error("{text:?} is not a time: write RFC 3339 with a zone, such as 2026-11-25T00:00:00Z")]
    Syntax {
        /// What was written, cut at 64 characters.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_with_a_zone() {
        let time: UnixTime = "2026-11-25T01:00:00+01:00".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-25T00:00:00Z");
        assert!("2026-11-25T00:00:00".parse::<UnixTime>().is_err());
        assert!("1969-12-31T23:59:59Z".parse::<UnixTime>().is_err());
    }
}
