use std::{fmt, net::Ipv6Addr, str::FromStr};

/// A server, by a name in lower case or an address, and its port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// The name or the address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// `HOST:PORT`, where an IPv6 address stands in brackets (RFC 3986, section 3.2.2).
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl FromStr for Destination {
    type Err = String;

    /// `HOST:PORT`, `ADDRESS:PORT` or `[ADDRESS]:PORT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no server and port: write HOST:PORT, such as proxy.example:443");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().map_err(|_| wrong())?.to_string(),
            None => host.to_ascii_lowercase(),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_address = host.parse::<Ipv6Addr>().is_ok();
        if host.is_empty() || host.len() > 253 || (!is_address && !host.chars().all(plain)) {
            return Err(wrong());
        }
        Ok(Self { host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_an_address_of_colons_stands_in_brackets() {
        for (host, written) in [("::1", "[::1]:443"), ("127.0.0.1", "127.0.0.1:443"), ("a.example", "a.example:443")] {
            let destination = Destination { host: host.to_owned(), port: 443 };
            assert_eq!(destination.to_string(), written);
            assert_eq!(written.parse(), Ok(destination));
        }
        assert_eq!("A.Example:80".parse(), Ok(Destination { host: "a.example".to_owned(), port: 80 }));
        for wrong in
            ["a.example", "a.example:0", "a.example:65536", ":443", "a b:443", "*:443", "10.0.0.0/8", "[a]:443", ""]
        {
            assert!(wrong.parse::<Destination>().is_err(), "{wrong}");
        }
    }
}
