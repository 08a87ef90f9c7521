//! Addresses that a registry's answers lead to, and which of them are followed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sluicegate_outbound::host_of;
use sluicegate_ports::images::FaultKind;
use sluicegate_types::is_loopback;
use url::Url;

use super::fault::{Result, fault};

/// Bytes of an address.
const MAX_ADDRESS: usize = 16 * 1024;

/// Whether two URLs are of one server: credentials of the one are for the other.
pub(crate) fn is_same_server(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// The address that an answer to `from` leads to. Only HTTPS, and HTTP where `from` is this machine and stays on it; no password stands
/// in it.
pub(crate) fn led_to(from: &Url, location: &str, what: &str) -> Result<Url> {
    let refuse = |why: &str| {
        // Behind the question mark may stand what signs it.
        let location = location.split('?').next().unwrap_or_default();
        let location: String = location.chars().take(200).filter(|c| !c.is_control()).collect();
        fault(FaultKind::AddressRefused, format!("{what} of {} leads to {location:?}: {why}", host_of(from)))
    };
    if location.len() > MAX_ADDRESS {
        return Err(refuse("it is longer than 16 KiB"));
    }
    let url = from.join(location).map_err(|error| refuse(&error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("a user's name stands in it"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if from.scheme() == "http" && is_loopback(&host_of(&url)) => Ok(url),
        "http" => Err(refuse("it is not HTTPS")),
        _ => Err(refuse("it is no HTTPS address")),
    }
}

/// How near an address is. What a registry leads to is never nearer than the registry itself: an answer from the internet opens no door
/// in the network that it is read in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Nearness {
    /// Anywhere in the internet.
    Public,
    /// A private network (RFC 1918, RFC 4193, RFC 6598).
    Private,
    /// This machine.
    Loopback,
    /// Where cloud machines find their keys, and what is no address of a server at all.
    Never,
}

impl Nearness {
    pub(crate) fn of(address: &IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [a, b, ..] = address.octets();
        if address.is_loopback() {
            Self::Loopback
        } else if address.is_link_local() || address.is_unspecified() || address.is_multicast() || a >= 240 || a == 0 {
            Self::Never
        } else if address.is_private() || (a == 100 && (64..128).contains(&b)) {
            Self::Private
        } else {
            Self::Public
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let first = address.segments()[0];
        if address.is_loopback() {
            Self::Loopback
        } else if address.is_unspecified() || address.is_multicast() || (first & 0xffc0) == 0xfe80 {
            Self::Never
        } else if (first & 0xfe00) == 0xfc00 {
            Self::Private
        } else {
            Self::Public
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn an_answer_leads_to_https_and_on_this_machine_to_http() {
        let far = url("https://registry.example/v2/a/blobs/uploads/1?state=x");
        let here = url("http://127.0.0.1:5000/v2/a/blobs/uploads/1");
        let to = |from: &Url, location: &str| led_to(from, location, "the upload").map(String::from);
        assert_eq!(to(&far, "/v2/b?state=y").unwrap(), "https://registry.example/v2/b?state=y");
        assert_eq!(to(&far, "?state=z").unwrap(), "https://registry.example/v2/a/blobs/uploads/1?state=z");
        assert_eq!(to(&far, "2").unwrap(), "https://registry.example/v2/a/blobs/uploads/2");
        assert_eq!(to(&far, "//storage.example/x").unwrap(), "https://storage.example/x");
        assert_eq!(to(&here, "http://127.0.0.1:6000/x").unwrap(), "http://127.0.0.1:6000/x");
        for bad in ["http://registry.example/x", "http://127.0.0.1/x", "ftp://registry.example/x", "file:///etc/passwd"]
        {
            assert_eq!(led_to(&far, bad, "x").unwrap_err().kind, FaultKind::AddressRefused, "{bad}");
        }
        for bad in
            ["http://registry.example/x", "https://user:word@registry.example/x", "http://169.254.169.254/latest"]
        {
            assert!(led_to(&here, bad, "x").is_err(), "{bad}");
        }
        assert!(led_to(&far, &format!("/{}", "x".repeat(MAX_ADDRESS)), "x").is_err());
    }

    #[test]
    fn addresses_are_public_private_here_or_nowhere() {
        for (address, nearness) in [
            ("93.184.216.34", Nearness::Public),
            ("2606:4700::1111", Nearness::Public),
            ("10.1.2.3", Nearness::Private),
            ("172.16.0.1", Nearness::Private),
            ("172.32.0.1", Nearness::Public),
            ("192.168.0.1", Nearness::Private),
            ("100.64.0.1", Nearness::Private),
            ("fd00::1", Nearness::Private),
            ("127.0.0.1", Nearness::Loopback),
            ("::1", Nearness::Loopback),
            ("::ffff:127.0.0.1", Nearness::Loopback),
            ("::ffff:169.254.169.254", Nearness::Never),
            ("169.254.169.254", Nearness::Never),
            ("fe80::1", Nearness::Never),
            ("0.0.0.0", Nearness::Never),
            ("224.0.0.1", Nearness::Never),
            ("255.255.255.255", Nearness::Never),
        ] {
            assert_eq!(Nearness::of(&address.parse().unwrap()), nearness, "{address}");
        }
    }
}
