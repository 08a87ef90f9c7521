//! What a source may be fetched from, and what of it: parsed before any program is started.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use sluicegate_types::is_loopback;

use crate::{egress::is_number_in_disguise, git_objects::is_object_id};

/// Bytes of an address or a name.
const MAX_LEN: usize = 2048;

/// A repository that may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GitAddress {
    /// As git is given it.
    pub(crate) url: String,
    /// The one way that git may go.
    pub(crate) protocol: Protocol,
}

/// How a repository is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Https,
    /// Of this machine only.
    Http,
    File,
}

impl Protocol {
    /// As git calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::File => "file",
        }
    }
}

/// What of a repository is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GitReference {
    /// Exactly this commit.
    Commit(String),
    /// One of these, by their full names: no more than one may exist.
    OneOf(Vec<String>),
}

impl GitAddress {
    /// `https://HOST/PATH`, `http://` to this machine, `file:///PATH`, or a plain absolute path.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LEN {
            return Err(format!("it is longer than {MAX_LEN} bytes"));
        }
        if text.starts_with('/') {
            let url = Self::of_folder(Path::new(text));
            return Ok(Self { url, protocol: Protocol::File });
        }
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let protocol = match scheme {
            "https" => Protocol::Https,
            "http" => Protocol::Http,
            "file" => Protocol::File,
            _ => {
                return Err("write https://HOST/PATH, or file:///PATH for a mirror on this machine; \
                            nothing else is fetched from in this version"
                    .to_owned());
            }
        };
        if !rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'\\<>^`{|}".contains(&byte)) {
            return Err("there is a character in it that no address has; write it as %XX".to_owned());
        }
        if rest.contains(['?', '#']) {
            return Err("an address of a repository has no query and no fragment".to_owned());
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("an address with a user or a password is recorded where everybody can read it; \
                        sources that need a password are not in this version"
                .to_owned());
        }
        if path.len() < 2 {
            return Err("it names no repository".to_owned());
        }
        match protocol {
            Protocol::File if !authority.is_empty() => {
                return Err("a path begins with a slash: file:///PATH".to_owned());
            }
            Protocol::Https | Protocol::Http if !is_host(authority) => {
                return Err(format!(
                    "{authority:?} is no host: write a name without a dot at its end, four decimal numbers, or [ADDRESS]"
                ));
            }
            Protocol::Http if !is_loopback(authority) => {
                return Err("without TLS nobody knows who answers; write https://".to_owned());
            }
            _ => {}
        }
        Ok(Self { url: text.to_owned(), protocol })
    }

    /// How git is given a folder of this machine.
    pub(crate) fn of_folder(path: &Path) -> String {
        format!("file://{}", escaped(path.as_os_str().as_bytes()))
    }

    /// The path that git makes of an address on this machine.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.url.strip_prefix("file://").map(unescaped)
    }

    /// An address that can't be used, as it may be printed: without what may be a password.
    pub(crate) fn printable(text: &str) -> String {
        let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
        let (scheme, rest) = text.split_once("://").unwrap_or(("", &text));
        match rest.rsplit_once('@') {
            None => text,
            Some((_, rest)) if scheme.is_empty() => format!("…@{rest}"),
            Some((_, rest)) => format!("{scheme}://…@{rest}"),
        }
    }
}

impl GitReference {
    /// A commit with all its digits, the full name of a reference, or the name of a branch or a tag.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if is_object_id(text) {
            return Ok(Self::Commit(text.to_owned()));
        }
        if text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("write the digits of a commit in lower case".to_owned());
        }
        let wrong = text.is_empty()
            || text.len() > MAX_LEN
            || text.starts_with(['-', '/', '+'])
            || text.ends_with(['/', '.'])
            || text.chars().any(|c| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c))
            || ["..", "@{", "//"].iter().any(|no| text.contains(no))
            || text == "@"
            || text.split('/').any(|part| part.starts_with('.') || part.ends_with(".lock"));
        if wrong {
            return Err(format!("{text:?} names no branch, tag or commit"));
        }
        if text == "HEAD" || text.starts_with("refs/") {
            return Ok(Self::OneOf(vec![text.to_owned()]));
        }
        Ok(Self::OneOf(vec![format!("refs/heads/{text}"), format!("refs/tags/{text}")]))
    }
}

/// A name or an address in its usual form, with a port or without. What could be read as another host than it looks like is none: the
/// one that is judged has to be the one that is asked.
fn is_host(authority: &str) -> bool {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_ok = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            host.starts_with(|c: char| c.is_ascii_alphanumeric())
                && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
                && !host.ends_with('.')
                && !is_number_in_disguise(&host.to_ascii_lowercase())
        }
    };
    host_ok && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// A path as part of an address.
fn escaped(path: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    path.iter()
        .copied()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The path in an address.
fn unescaped(path: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = (*first == b'%').then(|| after.get(..2)).flatten();
        // A sign before a digit is none of git's escapes, and the folder that is judged has to be the one that is asked.
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_git_reads_it() {
        for (written, path) in
            [("/a%20b", "/a b"), ("/%2e%2E", "/.."), ("/%+2", "/%+2"), ("/%2", "/%2"), ("/%zz", "/%zz")]
        {
            assert_eq!(unescaped(written), PathBuf::from(path), "{written}");
        }
    }

    #[test]
    fn an_address_is_one_of_four_kinds_and_holds_no_password() {
        for (text, url, protocol) in [
            ("https://git.example/a/b.git", "https://git.example/a/b.git", Protocol::Https),
            ("https://git.example:8443/a", "https://git.example:8443/a", Protocol::Https),
            ("https://localhost/a", "https://localhost/a", Protocol::Https),
            ("https://127.0.0.1:8443/a", "https://127.0.0.1:8443/a", Protocol::Https),
            ("http://127.0.0.1:80/a", "http://127.0.0.1:80/a", Protocol::Http),
            ("http://[::1]:8080/a", "http://[::1]:8080/a", Protocol::Http),
            ("file:///srv/a", "file:///srv/a", Protocol::File),
            ("/srv/a b%", "file:///srv/a%20b%25", Protocol::File),
        ] {
            let address = GitAddress { url: url.to_owned(), protocol };
            assert_eq!(
                address.path().map(|path| GitAddress::of_folder(&path) == url),
                (protocol == Protocol::File).then_some(true)
            );
            assert_eq!(GitAddress::parse(text), Ok(address), "{text}");
        }
        for (text, says) in [
            ("", "https://HOST/PATH"),
            ("-uevil", "https://HOST/PATH"),
            ("--upload-pack=evil", "https://HOST/PATH"),
            ("relative/path", "https://HOST/PATH"),
            ("git@host:a", "https://HOST/PATH"),
            ("ssh://host/a", "https://HOST/PATH"),
            ("git://host/a", "https://HOST/PATH"),
            ("HTTPS://host/a", "https://HOST/PATH"),
            ("ext::sh -c evil", "https://HOST/PATH"),
            ("ext::sh://a/b", "https://HOST/PATH"),
            ("https::https://a/b", "https://HOST/PATH"),
            ("http://git.example/a", "without TLS"),
            ("http://127.0.0.1.evil.example/a", "without TLS"),
            ("https://me:word@git.example/a", "password"),
            ("https://git.example", "names no repository"),
            ("https://git.example/", "names no repository"),
            ("https:///a", "is no host"),
            ("https://-a/b", "is no host"),
            ("https://a:b/c", "is no host"),
            ("https://a:0/c", "is no host"),
            ("https://[::x]/c", "is no host"),
            ("https://localhost./c", "is no host"),
            ("https://127.1:8443/c", "is no host"),
            ("https://2130706433/c", "is no host"),
            ("https://0X7f.1/c", "is no host"),
            ("https://0177.0.0.1/c", "is no host"),
            ("https://git.example/a?b", "no query"),
            ("https://git.example/a#b", "no query"),
            ("https://git.example/a b", "character"),
            ("https://git.example/a\nb", "character"),
            ("file://host/a", "begins with a slash"),
            ("file://a", "names no repository"),
        ] {
            let error = GitAddress::parse(text).unwrap_err();
            assert!(error.contains(says) && !error.contains("word@"), "{text}: {error}");
        }
        let long = |len: usize| format!("https://git.example/{}", "a".repeat(len - 20));
        assert!(GitAddress::parse(&long(MAX_LEN)).is_ok());
        assert!(GitAddress::parse(&long(MAX_LEN + 1)).is_err());
        for (text, printed) in [
            ("https://me:word@git.example/a", "https://…@git.example/a"),
            ("https://me:w@rd@git.example/a", "https://…@git.example/a"),
            ("me:word@git.example:a\n", "…@git.example:a"),
            ("https://git.example/a", "https://git.example/a"),
        ] {
            assert_eq!(GitAddress::printable(text), printed);
        }
    }

    #[test]
    fn a_reference_is_a_whole_commit_or_a_name() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(GitReference::parse(commit), Ok(GitReference::Commit(commit.to_owned())));
        let one_of = |names: &[&str]| Ok(GitReference::OneOf(names.iter().map(|name| (*name).to_owned()).collect()));
        assert_eq!(GitReference::parse("main"), one_of(&["refs/heads/main", "refs/tags/main"]));
        assert_eq!(GitReference::parse("a/b-c.1"), one_of(&["refs/heads/a/b-c.1", "refs/tags/a/b-c.1"]));
        assert_eq!(GitReference::parse("refs/tags/v1"), one_of(&["refs/tags/v1"]));
        assert_eq!(GitReference::parse("HEAD"), one_of(&["HEAD"]));
        for wrong in [
            "",
            "-x",
            "--upload-pack=x",
            "+main",
            "/a",
            "a/",
            "a//b",
            "a..b",
            "a b",
            "a:b",
            "a~1",
            "a^{}",
            "a?",
            "a*",
            "a[b",
            "a\\b",
            "a\nb",
            "@",
            "a@{1}",
            ".a",
            "a/.b",
            "a.lock",
            "a.lock/b",
            "a.",
            "^a",
            &commit.to_ascii_uppercase(),
        ] {
            assert!(GitReference::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(GitReference::parse(&"a".repeat(MAX_LEN)).is_ok());
        assert!(GitReference::parse(&"a".repeat(MAX_LEN + 1)).is_err());
    }
}
