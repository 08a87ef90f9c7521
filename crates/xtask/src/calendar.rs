//! Turns Unix seconds into RFC 3339 text and back, in UTC, for the years 1970 to 9999.

const DAY: u64 = 86_400;

/// `seconds` since 1970-01-01T00:00:00Z as `YYYY-MM-DDTHH:MM:SSZ`.
#[must_use]
pub fn to_rfc3339(seconds: u64) -> String {
    let (year, month, day) = date_of(seconds / DAY);
    let of_day = seconds % DAY;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// The Unix seconds of `YYYY-MM-DDTHH:MM:SSZ`; nothing where the text is not exactly that, or names no day or no second.
#[must_use]
pub fn from_rfc3339(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| {
        text.get(from..to).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?.parse::<u64>().ok()
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59
    {
        return None;
    }
    let seconds = days_before(year, month) * DAY + (day - 1) * DAY + hour * 3600 + minute * 60 + second;
    // Written again it must be the same text: that settles the separators, the length and days such as 31 April.
    (to_rfc3339(seconds) == text).then_some(seconds)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_before(year: u64, month: u64) -> u64 {
    let years: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    years + (1..month).map(|month| days_in(year, month)).sum::<u64>()
}

fn date_of(mut days: u64) -> (u64, u64, u64) {
    // Calendars repeat every 400 years, which have 146 097 days: whole cycles are skipped, so that no input takes long.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    loop {
        let in_year = if is_leap(year) { 366 } else { 365 };
        if days < in_year {
            break;
        }
        days -= in_year;
        year += 1;
    }
    let mut month = 1;
    while days >= days_in(year, month) {
        days -= days_in(year, month);
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_go_both_ways() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_745_452_800, "2025-04-24T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(to_rfc3339(seconds), text);
            assert_eq!(from_rfc3339(text), Some(seconds));
        }
    }

    #[test]
    fn other_texts_are_no_moments() {
        for text in [
            "",
            "2025-04-31T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2025-04-24 00:00:00Z",
            "2025-04-24T00:00:00",
            "2025-04-24T00:00:00+00:00",
            "2025-04-24T24:00:00Z",
            "2025-00-24T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2025-04-24T00:00:00ZZ",
            "+025-04-24T00:00:00Z",
        ] {
            assert_eq!(from_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn the_largest_number_is_written_too() {
        assert!(to_rfc3339(u64::MAX).ends_with('Z'));
    }
}
