//! Durations and sizes as people write them.

use std::time::Duration;

/// `30s`, `10m`, `24h`, `30d`: a whole number and one unit, more than nothing, at most ten years.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: write a number and s, m, h or d, such as 10m");
    let seconds = match text.char_indices().last() {
        Some((at, unit)) => {
            let number = whole(&text[..at]).ok_or_else(wrong)?;
            let factor = match unit {
                's' => 1,
                'm' => 60,
                'h' => 3600,
                'd' => 86_400,
                _ => return Err(wrong()),
            };
            number.checked_mul(factor).filter(|s| (1..=315_360_000).contains(s)).ok_or_else(wrong)?
        }
        None => return Err(wrong()),
    };
    Ok(Duration::from_secs(seconds))
}

/// `512MiB`, `1GiB`, `4096`: bytes, at least one.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size: write bytes or a number and KiB, MiB or GiB, such as 1GiB");
    let (number, factor) = [("KiB", 1u64 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]
        .into_iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, factor)))
        .unwrap_or((text, 1));
    whole(number).and_then(|n| n.checked_mul(factor)).filter(|n| *n > 0).ok_or_else(wrong)
}

fn whole(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) { None } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_one_unit() {
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("30d"), Ok(Duration::from_secs(2_592_000)));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        for bad in ["", "m", "10", "1.5h", "-1s", "0s", "10µ", "99999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "GiB", "1GB", "0", "-1", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }
}
