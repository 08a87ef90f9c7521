use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment in whole seconds since 1970-01-01T00:00:00Z; always an argument of a decision, never read inside one.
///
/// Written as RFC 3339 in UTC, from 1970-01-01T00:00:00Z to 9999-12-29T23:59:59Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(i64);

impl UnixTime {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);
    /// 9999-12-29T23:59:59Z, two days before the last moment that RFC 3339 can write. Libraries keep room there for every zone, and what
    /// is later is an error or a panic in them. A clock that is later says this one.
    pub const LAST: Self = Self(253_402_127_999);

    /// The moment `seconds` after the epoch; refuses what is before it or after the last moment.
    pub fn from_seconds(seconds: i64) -> Result<Self, TimeError> {
        if (0..=Self::LAST.0).contains(&seconds) { Ok(Self(seconds)) } else { Err(TimeError::Range) }
    }

    /// Seconds since the epoch.
    pub fn seconds(self) -> i64 {
        self.0
    }

    /// The moment `seconds` later, at most the last one that can be written.
    pub fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add_unsigned(seconds).min(Self::LAST.0))
    }
}

impl FromStr for UnixTime {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let moment: Timestamp =
            text.parse().map_err(|_| TimeError::Syntax { text: text.chars().take(64).collect() })?;
        // Whole seconds are cut towards 1970, which would make a moment before it one in it.
        if moment < Timestamp::UNIX_EPOCH { Err(TimeError::Range) } else { Self::from_seconds(moment.as_second()) }
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
    /// Before 1970, or at the very end of 9999 or after it.
    #[error("a time lies between 1970-01-01T00:00:00Z and 9999-12-29T23:59:59Z")]
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

    #[test]
    fn a_time_lies_between_its_first_and_last_moment_however_it_is_made() {
        let (first, last) = ("1970-01-01T00:00:00Z", "9999-12-29T23:59:59Z");
        for (text, seconds) in [(first, 0), (last, UnixTime::LAST.seconds())] {
            let time: UnixTime = text.parse().unwrap();
            assert_eq!((time.seconds(), time.to_string().as_str()), (seconds, text));
            assert_eq!(UnixTime::from_seconds(seconds), Ok(time));
        }
        for late in
            ["1969-12-31T23:59:59.9Z", "9999-12-30T00:00:00Z", "9999-12-30T22:00:00Z", "9999-12-29T23:59:59-00:01"]
        {
            assert_eq!(late.parse::<UnixTime>(), Err(TimeError::Range), "{late}");
        }
        // Later than the library can parse.
        assert!("9999-12-31T23:59:59Z".parse::<UnixTime>().is_err());
        for seconds in [-1, UnixTime::LAST.seconds() + 1, 253_402_300_799, i64::MAX, i64::MIN] {
            assert_eq!(UnixTime::from_seconds(seconds), Err(TimeError::Range), "{seconds}");
        }
        for seconds in [0, 1, 253_402_300_799, u64::MAX] {
            let latest = UnixTime::LAST.plus(seconds);
            assert_eq!(latest.to_string(), last, "{seconds}");
        }
        assert!(UnixTime::EPOCH.plus(u64::MAX).to_string().parse::<UnixTime>().is_ok());
    }
}
