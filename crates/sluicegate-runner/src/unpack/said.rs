use std::io::{self, Read};

use tar::{Entry, EntryType, Header, PaxExtensions};

use super::sparse::Sparse;

/// Bytes of one global header.
const MAX_GLOBAL: u64 = 1 << 20;

/// What one entry of an archive says of itself: its header, its pax records, and what a global header said before of all entries.
pub(super) struct Said {
    /// Its name as written.
    pub(super) path: Vec<u8>,
    /// What it is.
    pub(super) kind: EntryType,
    /// Its permissions.
    pub(super) mode: u32,
    /// User and group; `None` for what is no number.
    pub(super) ids: (Option<u64>, Option<u64>),
    /// Its time: seconds since 1970, which may be before it, and nanoseconds.
    pub(super) mtime: (i64, u32),
    /// Where a link leads, as written.
    pub(super) link: Vec<u8>,
    /// Its capabilities.
    pub(super) capability: Option<Vec<u8>>,
    /// How many other extended attributes it has.
    pub(super) attributes: u64,
    /// How its content is spread over the file, if pax records say so.
    pub(super) sparse: Option<Sparse>,
}

/// What global headers have said so far (POSIX pax, typeflag `g`): it holds for every later entry that does not say it itself.
#[derive(Default)]
pub(super) struct Globals {
    ids: (Option<u64>, Option<u64>),
    mtime: Option<(i64, u32)>,
}

impl Globals {
    /// What `entry` says; `None` for a global header, which is no file.
    pub(super) fn read<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> io::Result<Option<Said>> {
        let header = entry.header().clone();
        if header.entry_type() == EntryType::XGlobalHeader {
            self.take(entry)?;
            return Ok(None);
        }
        let mut said = Said {
            path: entry.path_bytes().into_owned(),
            kind: header.entry_type(),
            mode: header.mode()? & 0o7777,
            ids: (self.ids.0.or(header.uid().ok()), self.ids.1.or(header.gid().ok())),
            mtime: self.mtime.unwrap_or_else(|| header_time(&header)),
            link: entry.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default(),
            capability: None,
            attributes: 0,
            sparse: None,
        };
        let mut sparse = Sparse::unsaid();
        if let Some(records) = entry.pax_extensions()? {
            for record in records {
                let record = record?;
                match record.key_bytes() {
                    b"uid" => said.ids.0 = number(record.value_bytes()),
                    b"gid" => said.ids.1 = number(record.value_bytes()),
                    b"mtime" => said.mtime = moment(record.value_bytes())?,
                    b"SCHILY.xattr.security.capability" => said.capability = Some(record.value_bytes().to_vec()),
                    key if key.starts_with(b"SCHILY.xattr.") => said.attributes += 1,
                    key => match key.strip_prefix(b"GNU.sparse.") {
                        Some(b"name") => said.path = record.value_bytes().to_vec(),
                        Some(key) => sparse.record(key, record.value_bytes())?,
                        None => {}
                    },
                }
            }
        }
        said.sparse = sparse.said()?;
        // Archives of before ustar have no other sign of a folder.
        if said.kind == EntryType::Regular && said.path.ends_with(b"/") {
            said.kind = EntryType::Directory;
        }
        Ok(Some(said))
    }

    fn take<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> io::Result<()> {
        let mut records = Vec::new();
        entry.take(MAX_GLOBAL + 1).read_to_end(&mut records)?;
        if records.len() as u64 > MAX_GLOBAL {
            return Err(io::Error::other("a global header is larger than 1 MiB"));
        }
        for record in PaxExtensions::new(&records) {
            let record = record?;
            match record.key_bytes() {
                b"uid" => self.ids.0 = number(record.value_bytes()),
                b"gid" => self.ids.1 = number(record.value_bytes()),
                b"mtime" => self.mtime = Some(moment(record.value_bytes())?),
                key @ (b"path" | b"linkpath" | b"size") => {
                    let key = String::from_utf8_lossy(key);
                    return Err(io::Error::other(format!("a global header gives all entries one {key}")));
                }
                key if key.starts_with(b"SCHILY.xattr.") || key.starts_with(b"GNU.sparse.") => {
                    let key = String::from_utf8_lossy(key);
                    return Err(io::Error::other(format!("a global header gives all entries {key:?}")));
                }
                // Comments, such as the commit that git archive writes.
                _ => {}
            }
        }
        Ok(())
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A time in decimal, with a sign and a fraction if there are any.
fn moment(text: &[u8]) -> io::Result<(i64, u32)> {
    let wrong = || io::Error::other(format!("{:?} is no time", String::from_utf8_lossy(text)));
    let plain = std::str::from_utf8(text).map_err(|_| wrong())?;
    let (is_before, plain) = plain.strip_prefix('-').map_or((false, plain), |rest| (true, rest));
    let (seconds, fraction) = plain.split_once('.').unwrap_or((plain, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if seconds.is_empty() || !are_digits(seconds) || !are_digits(fraction) {
        return Err(wrong());
    }
    let seconds: i64 = seconds.parse().map_err(|_| wrong())?;
    let nanos: u32 = format!("{fraction:0<9}")[..9].parse().map_err(|_| wrong())?;
    Ok(match (is_before, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

/// The time of a header: octal digits, or from bytes with the highest bit set a signed number (GNU).
fn header_time(header: &Header) -> (i64, u32) {
    let field = header.as_old().mtime;
    if field[0] & 0x80 == 0 {
        return (header.mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0), 0);
    }
    let first = if field[0] & 0x40 == 0 { i128::from(field[0] & 0x7f) } else { i128::from(field[0].cast_signed()) };
    let time = field[1..].iter().fold(first, |time, byte| (time << 8) | i128::from(*byte));
    let clamped = i64::try_from(time).unwrap_or(if time < 0 { i64::MIN } else { i64::MAX });
    (clamped, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_before_1970_after_2106_and_with_their_fraction() {
        for (text, time) in [
            ("0", (0, 0)),
            ("1234567890.123456789", (1_234_567_890, 123_456_789)),
            ("1.5", (1, 500_000_000)),
            ("1.0000000019", (1, 1)),
            ("-86400", (-86_400, 0)),
            ("-1.25", (-2, 750_000_000)),
        ] {
            assert_eq!(moment(text.as_bytes()).unwrap(), time, "{text}");
        }
        for bad in ["", "-", ".5", "1e3", "+1", "1.x", "99999999999999999999"] {
            assert!(moment(bad.as_bytes()).is_err(), "{bad}");
        }
        let mut header = Header::new_gnu();
        for (field, time) in [
            (*b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xae\x80", -86_400),
            (*b"\x80\0\0\0\0\0\0\x02\0\0\0\0", 8_589_934_592),
            (*b"00000000011\0", 9),
        ] {
            header.as_old_mut().mtime = field;
            assert_eq!(header_time(&header), (time, 0));
        }
    }
}
