use std::{fmt, str::FromStr};

use crate::is_loopback;

/// Characters of a URL.
const URL_LIMIT: usize = 2048;

/// Where a transparency log is reached: `https://`, or `http://` on this machine alone, and something that a path can be added to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogUrl(String);

impl LogUrl {
    /// The address of `path` there; it begins with a slash.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// The host with its port, if one is written.
    pub fn host(&self) -> &str {
        host_of(&self.0).unwrap_or_default()
    }
}

fn host_of(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    rest.split('/').next().filter(|host| !host.is_empty() && !host.starts_with(':'))
}

impl FromStr for LogUrl {
    type Err = LogUrlError;

    fn from_str(text: &str) -> Result<Self, LogUrlError> {
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !br#""'<>\?#@"#.contains(&byte));
        let Some(host) = host_of(text).filter(|_| plain && text.len() <= URL_LIMIT && !text.ends_with('/')) else {
            return Err(LogUrlError::Form);
        };
        if text.starts_with("http://") && !is_loopback(host) {
            return Err(LogUrlError::Plain { host: host.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LogUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a log's URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogUrlError {
    /// Not of the form.
    #[error("write https://, a host and perhaps a port and a path, without user, question and last slash")]
    Form,
    /// Without TLS beyond this machine.
    #[error("{host} is another machine, and plain http is spoken with this one alone: write https://")]
    Plain {
        /// The host.
        host: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_reached_over_tls_or_on_this_machine() {
        for good in [
            "https://log.example",
            "https://log.example:8443/rekor",
            "http://127.0.0.1:3003",
            "http://localhost:1",
            "http://[::1]:1",
        ] {
            assert_eq!(good.parse::<LogUrl>().unwrap().join("/api"), format!("{good}/api"));
        }
        for bad in [
            "",
            "log.example",
            "ftp://log.example",
            "https://",
            "https:///p",
            "https://:1",
            "https://a b",
            "https://u@h",
            "https://h?x",
        ] {
            assert_eq!(bad.parse::<LogUrl>(), Err(LogUrlError::Form), "{bad}");
        }
        for bad in ["https://h#x", "https://h/", "HTTPS://h", "https://h\u{f6}"] {
            assert_eq!(bad.parse::<LogUrl>(), Err(LogUrlError::Form), "{bad}");
        }
        for bad in ["http://log.example", "http://127.0.0.1.example:3003", "http://192.0.2.1:3003"] {
            assert!(matches!(bad.parse::<LogUrl>(), Err(LogUrlError::Plain { .. })), "{bad}");
        }
        assert!(format!("https://{}", "a".repeat(URL_LIMIT)).parse::<LogUrl>().is_err());
    }
}
