//! Paths of tiles (C2SP tlog-tiles): `LEVEL/NUMBER`, `entries/NUMBER`, partial ones with `.p/WIDTH`.

use sluicegate_ports::served_log::{TileName, TileRow};

/// More than every tile of a tree of 2^64 entries has: three digits each.
const GROUPS: usize = 6;
const FULL: u16 = 256;

/// The tile that the rest of a path behind `tile/` names. Each tile has exactly one name; everything else is `None`, also what would be
/// the same after decoding.
pub(crate) fn parse(path: &str) -> Option<TileName> {
    let (row, rest) = path.split_once('/')?;
    let row = match row {
        "entries" => TileRow::Entries,
        level => TileRow::Hashes(plain(level).filter(|level| *level < 64)?.try_into().ok()?),
    };
    let (number, width) = match rest.split_once(".p/") {
        None => (rest, FULL),
        Some((number, width)) => (number, plain(width).filter(|width| (1..FULL).contains(width))?),
    };
    Some(TileName { row, number: self::number(number)?, width })
}

/// `x001/x234/067` is 1234067.
fn number(path: &str) -> Option<u64> {
    let groups: Vec<&str> = path.split('/').take(GROUPS + 1).collect();
    let (last, before) = groups.split_last().filter(|(_, before)| before.len() < GROUPS)?;
    let before = before.iter().map(|group| group.strip_prefix('x').and_then(three));
    let before: Vec<u64> = before.collect::<Option<_>>()?;
    if before.first() == Some(&0) {
        return None;
    }
    Some(before.into_iter().chain([three(last)?]).fold(0, |number, group| number * 1000 + group))
}

fn three(digits: &str) -> Option<u64> {
    (digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// A number as it is written plainly: digits without zeros in front.
fn plain(digits: &str) -> Option<u16> {
    let number: u16 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tile_has_one_name() {
        let tile = |row, number, width| Some(TileName { row, number, width });
        assert_eq!(parse("0/000"), tile(TileRow::Hashes(0), 0, 256));
        assert_eq!(parse("63/255.p/255"), tile(TileRow::Hashes(63), 255, 255));
        assert_eq!(parse("entries/x001/x234/067.p/1"), tile(TileRow::Entries, 1_234_067, 1));
        assert_eq!(parse("2/x999/x999/x999/x999/x999/999"), tile(TileRow::Hashes(2), 999_999_999_999_999_999, 256));
        for other in [
            "",
            "0",
            "0/",
            "/000",
            "0/0",
            "0/00",
            "0/0000",
            "0/x000",
            "0/x000/001",
            "0/001/002",
            "0/x001/x002",
            "00/000",
            "01/000",
            "64/000",
            "-1/000",
            "+1/000",
            "data/000",
            "Entries/000",
            "0/000.p",
            "0/000.p/",
            "0/000.p/0",
            "0/000.p/01",
            "0/000.p/256",
            "0/000.p/+1",
            "0/000.p/1/2",
            "0/000.p/1.p/1",
            "0/000/",
            "0//000",
            "0/../000",
            "../lock",
            "0/%30%30%30",
            "0/000%2ep/1",
            "0/..%2f..%2flock",
            "0/x01/000",
            "0/X001/000",
            "0/x001/000 ",
            "0/\u{664}00",
            "0/x001/x001/x001/x001/x001/x001/001",
            "0/000\0",
            "checkpoint",
            "entries",
            "entries/.p/1",
        ] {
            assert_eq!(parse(other), None, "{other:?}");
        }
    }
}
