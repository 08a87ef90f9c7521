//! The user of a step: what the image says, in numbers. The rules are those of Docker, with refusals where it guesses.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use sluicegate_ports::execute::Account;

use crate::layered_file;

/// Ids from here on are refused: 2^32 - 1 means "no change" to the kernel, so that a step would run as root.
pub(crate) const FIRST_REFUSED_ID: u64 = 1 << 31;

/// Bytes of `/etc/passwd` and of `/etc/group`.
const MAX_FILE: u64 = 1 << 20;

/// Further groups, as many as the kernel takes (NGROUPS_MAX).
const MAX_GROUPS: usize = 65_536;

/// Where a user without a home is at home.
const NO_HOME: &str = "/";

/// Refuses what no image could make a user of, before anything of the image is read.
pub(crate) fn check(user: &str) -> Result<(), String> {
    let (name, group) = split(user);
    if group.contains(':') {
        return Err(format!("user {user:?}: it is USER or USER:GROUP"));
    }
    for part in [name, group] {
        if let Some(Err(reason)) = number(part.as_bytes()) {
            return Err(format!("user {user:?}: {reason}"));
        }
    }
    Ok(())
}

/// Looks the user up in the image whose unpacked layers these are, the topmost first.
pub(crate) fn look_up(layers: &[PathBuf], user: &str) -> Result<Account, String> {
    check(user)?;
    let read = |path: &str| {
        layered_file::read(layers, Path::new(path), MAX_FILE)
            .map(Option::unwrap_or_default)
            .map_err(|error| format!("user {user:?}: cannot read the image's {path}: {error}"))
    };
    resolve(user, &read("/etc/passwd")?, &read("/etc/group")?).map_err(|reason| format!("user {user:?}: {reason}"))
}

fn resolve(user: &str, passwd: &[u8], group: &[u8]) -> Result<Account, String> {
    let (name, group_name) = split(user);
    // An image that says nothing means root.
    let name = if name.is_empty() { "0" } else { name };
    let entry = find(passwd, name.as_bytes());
    let uid = match (&entry, number(name.as_bytes())) {
        (Some(entry), _) => entry.id(2, "/etc/passwd")?,
        (None, Some(number)) => number?,
        (None, None) if name == "root" => 0,
        (None, None) => {
            return Err(format!("the image's /etc/passwd has no user {name:?}; say a number, or add the user"));
        }
    };
    let home = match entry.as_ref().map(|entry| entry.field(5)) {
        None | Some(b"") => NO_HOME.to_owned(),
        Some(home) => match String::from_utf8(home.to_vec()) {
            Ok(home) if home.starts_with('/') => home,
            _ => return Err("its home in the image's /etc/passwd is not an absolute path in UTF-8".to_owned()),
        },
    };
    if !group_name.is_empty() {
        let found = find(group, group_name.as_bytes());
        let gid = match (&found, number(group_name.as_bytes())) {
            (Some(found), _) => found.id(2, "/etc/group")?,
            (None, Some(number)) => number?,
            (None, None) if group_name == "root" => 0,
            (None, None) => {
                return Err(format!(
                    "the image's /etc/group has no group {group_name:?}; say a number, or add the group"
                ));
            }
        };
        // Whoever names a group wants no other.
        return Ok(Account { uid, gid, groups: Vec::new(), home });
    }
    let Some(entry) = entry else { return Ok(Account { uid, gid: 0, groups: Vec::new(), home }) };
    let gid = entry.id(3, "/etc/passwd")?;
    let mut groups = BTreeSet::new();
    for other in
        entries(group).filter(|other| other.field(3).split(|byte| *byte == b',').any(|who| who == entry.field(0)))
    {
        groups.insert(other.id(2, "/etc/group")?);
    }
    groups.remove(&gid);
    if groups.len() > MAX_GROUPS {
        return Err(format!("it is in more than {MAX_GROUPS} groups"));
    }
    Ok(Account { uid, gid, groups: groups.into_iter().collect(), home })
}

fn split(user: &str) -> (&str, &str) {
    user.split_once(':').unwrap_or((user, ""))
}

/// An id if the text is a number, and why not if it is too large a one.
fn number(text: &[u8]) -> Option<Result<u32, String>> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value =
        text.iter().fold(0_u64, |value, digit| value.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    let id = u32::try_from(value).ok().filter(|id| u64::from(*id) < FIRST_REFUSED_ID);
    Some(id.ok_or_else(|| format!("the id {} is not below {FIRST_REFUSED_ID}", String::from_utf8_lossy(text))))
}

/// The entry of this name, or else that of this number.
fn find<'a>(file: &'a [u8], name: &[u8]) -> Option<Entry<'a>> {
    let named = entries(file).find(|entry| entry.field(0) == name);
    let wanted = number(name).and_then(Result::ok);
    named.or_else(|| wanted.and_then(|wanted| entries(file).find(|entry| number(entry.field(2)) == Some(Ok(wanted)))))
}

fn entries(file: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let lines = file.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"#"));
    lines.map(Entry).filter(|entry| !entry.field(0).is_empty())
}

/// A line of `/etc/passwd` or `/etc/group`: name, password and id come first in both.
#[derive(Clone, Copy)]
struct Entry<'a>(&'a [u8]);

impl<'a> Entry<'a> {
    fn field(&self, index: usize) -> &'a [u8] {
        self.0.split(|byte| *byte == b':').nth(index).unwrap_or_default()
    }

    fn id(&self, index: usize, file: &str) -> Result<u32, String> {
        let name = String::from_utf8_lossy(self.field(0));
        match number(self.field(index)) {
            Some(result) => result.map_err(|reason| format!("the entry {name:?} of the image's {file}: {reason}")),
            None => Err(format!("the entry {name:?} of the image's {file} has no number where its id belongs")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# app:x:1:1::/wrong:\napp:x:1000:1000::/home/app:/bin/sh\n\
        homeless:x:1001:1001::\n77:x:1002:1002::/seven:\nbad:x:many:1::/:\nhigh:x:2147483648:1::/:\n\
        lost:x:1003:1003::somewhere:\napp:x:9:9::/second:\n+\n";
    const GROUP: &[u8] = b"root:x:0:\napp:x:1000:app\nwheel:x:2000:other,app\nnot:x:3000:application\n\
        tail:x:1500:app,root\nbad:x::\n";

    fn account(user: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        check(user)?;
        resolve(user, PASSWD, GROUP).map(|account| (account.uid, account.gid, account.groups, account.home))
    }

    fn is(uid: u32, gid: u32, groups: &[u32], home: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        Ok((uid, gid, groups.to_vec(), home.to_owned()))
    }

    #[test]
    fn users_are_looked_up_as_images_mean_them() {
        for user in ["", "root", "0"] {
            assert_eq!(account(user), is(0, 0, &[1500], "/root"), "{user}");
        }
        assert_eq!(account("app"), is(1000, 1000, &[1500, 2000], "/home/app"));
        assert_eq!(account("1000"), is(1000, 1000, &[1500, 2000], "/home/app"));
        assert_eq!(account("app:wheel"), is(1000, 2000, &[], "/home/app"));
        assert_eq!(account("1000:1000"), is(1000, 1000, &[], "/home/app"));
        assert_eq!(account("app:7"), is(1000, 7, &[], "/home/app"));
        assert_eq!(account(":7"), is(0, 7, &[], "/root"));
        assert_eq!(account("app:"), is(1000, 1000, &[1500, 2000], "/home/app"));
        assert_eq!(account("homeless"), is(1001, 1001, &[], "/"));
        // A name of digits is a name first.
        assert_eq!(account("77"), is(1002, 1002, &[], "/seven"));
        assert_eq!(account("12345"), is(12345, 0, &[], "/"));
        assert_eq!(account("12345:9"), is(12345, 9, &[], "/"));
        assert_eq!(account("2147483647"), is(2_147_483_647, 0, &[], "/"));
    }

    #[test]
    fn what_is_not_there_or_no_id_is_refused_by_name() {
        for (user, word) in [
            ("nobody", "no user \"nobody\""),
            ("app:nobody", "no group \"nobody\""),
            ("-1", "no user \"-1\""),
            ("+5", "no user \"+5\""),
            ("2147483648", "id 2147483648"),
            ("4294967295:0", "id 4294967295"),
            ("0:4294967296", "id 4294967296"),
            ("99999999999999999999999", "id 9999"),
            ("a:b:c", "USER:GROUP"),
            ("bad", "\"bad\" of the image's /etc/passwd has no number"),
            ("high", "id 2147483648"),
            ("app:bad", "\"bad\" of the image's /etc/group has no number"),
            ("lost", "not an absolute path"),
        ] {
            let reason = account(user).unwrap_err();
            assert!(reason.contains(word), "{user}: {reason}");
        }
    }

    #[test]
    fn an_image_without_the_files_has_root_and_numbers() {
        for (user, uid, gid) in [("", 0, 0), ("root", 0, 0), ("root:root", 0, 0), ("5:6", 5, 6)] {
            let account = look_up(&[], user).unwrap();
            assert_eq!((account.uid, account.gid, account.groups.len(), account.home.as_str()), (uid, gid, 0, "/"));
        }
        assert!(look_up(&[], "app").unwrap_err().contains("no user \"app\""));
    }
}
