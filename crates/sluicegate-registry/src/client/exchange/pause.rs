//! Pauses between two tries: how long a registry asks for, and how long one is where it does not.

use std::time::Duration;

use sluicegate_types::UnixTime;

use crate::client::transport::Answer;

/// The first pause between two tries, and the longest that is not asked for.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause that a registry may ask for.
pub(super) const LONGEST_ASKED: Duration = Duration::from_secs(120);

/// How long a registry asks to be left alone: seconds, or a date.
pub(super) fn retry_after(answer: &Answer) -> Option<Duration> {
    let text = answer.header("retry-after")?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = http_date(text)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
    Some(Duration::from_secs(until.saturating_sub(now)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since 1970 (RFC 9110, section 5.6.7).
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.split_once(", ")?;
    let parts: Vec<&str> = rest.split(' ').collect();
    let [day, month, year, time, "GMT"] = parts.as_slice() else { return None };
    let month = MONTHS.iter().position(|name| name == month)? + 1;
    format!("{year}-{month:02}-{day}T{time}Z")
        .parse::<UnixTime>()
        .ok()
        .and_then(|time| u64::try_from(time.seconds()).ok())
}

/// The pause before try `number`: what was asked for, else twice the last one, a part of it by chance so that many do not come at once.
pub(crate) fn pause(number: u32, asked: Option<Duration>) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << number.min(10)).min(LONGEST_PAUSE);
    let jitter = whole.mul_f64(chance() / 2.0);
    asked.map_or(whole - jitter, |asked| asked.saturating_add(jitter.min(Duration::from_secs(1))))
}

/// A number from 0 to 1 that nobody needs to be unable to guess.
pub(crate) fn chance() -> f64 {
    use std::hash::{BuildHasher, Hasher as _};
    let bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::exchange::RETRIES;

    #[test]
    fn pauses_grow_have_an_end_and_differ() {
        let all: Vec<Duration> = (1..12).map(|number| pause(number, None)).collect();
        assert!(all.iter().all(|pause| *pause <= LONGEST_PAUSE) && all[10] > all[0]);
        assert!((0..20).map(|_| pause(5, None)).collect::<std::collections::BTreeSet<_>>().len() > 1);
        let asked = pause(1, Some(Duration::from_secs(7)));
        assert!(asked >= Duration::from_secs(7) && asked < Duration::from_secs(9));
        for number in 1..=RETRIES {
            assert!(pause(number, Some(Duration::from_secs(u64::MAX))) > LONGEST_ASKED);
        }
    }

    #[test]
    fn a_date_of_http_is_a_moment() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        for bad in ["", "06 Nov 1994 08:49:37 GMT", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 CET"] {
            assert_eq!(http_date(bad), None, "{bad}");
        }
    }
}
