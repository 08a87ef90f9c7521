//! Which addresses a step may be led to without the gateway's word. Pure: nothing is looked up here.
//!
//! The lists are IANA's special-purpose registries (RFC 6890 and its updates), and the places where clouds hand out credentials.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What makes an address one that is not simply out there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    /// This machine.
    Loopback,
    /// The wire it hangs on.
    LinkLocal,
    /// A private network.
    Private,
    /// No address at all, which the kernel takes for this machine.
    Unspecified,
    /// Many at once.
    Multicast,
    /// Where a cloud tells a machine its credentials.
    Metadata,
    /// Set aside for documents, measurements, tunnels or nothing.
    Reserved,
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Private => "an address of a private network",
            Self::Unspecified => "an unspecified address",
            Self::Multicast => "a multicast address",
            Self::Metadata => "an address where clouds hand out credentials",
            Self::Reserved => "an address of a reserved range",
        })
    }
}

/// What an address is, if it is not one of the public network; what carries another address inside is what that one is.
pub(crate) fn inside(address: IpAddr) -> Option<Inside> {
    match address {
        IpAddr::V4(address) => inside_v4(address),
        IpAddr::V6(address) => inside_v6(address),
    }
}

/// Whether a host in lower case is an old way to write an IPv4 address (127.1, 0x7f000001, 2130706433): who connects would read it as one,
/// and here it would be a name.
pub(crate) fn is_number_in_disguise(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    let is_hexadecimal = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (is_number || is_hexadecimal) && host.parse::<Ipv4Addr>().is_err()
}

/// AWS, Azure, Google and many more; containers of AWS; Alibaba; Oracle; Azure's agent, which alone is public by its range.
const METADATA_V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// AWS, its containers, and Google.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

fn inside_v4(address: Ipv4Addr) -> Option<Inside> {
    if METADATA_V4.contains(&address) {
        return Some(Inside::Metadata);
    }
    match address.octets() {
        [0, ..] => Some(Inside::Unspecified),
        [127, ..] => Some(Inside::Loopback),
        [169, 254, ..] => Some(Inside::LinkLocal),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Some(Inside::Private),
        [224..=239, ..] => Some(Inside::Multicast),
        [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [240..=255, ..] => Some(Inside::Reserved),
        _ => None,
    }
}

fn inside_v6(address: Ipv6Addr) -> Option<Inside> {
    if METADATA_V6.contains(&address) {
        return Some(Inside::Metadata);
    }
    if address.is_unspecified() {
        return Some(Inside::Unspecified);
    }
    if address.is_loopback() {
        return Some(Inside::Loopback);
    }
    let parts = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match parts {
        // IPv4-compatible, IPv4-mapped, IPv4-translated (RFC 2765), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inside_v4(v4(high, low)),
        // NAT64 of somebody's own (RFC 8215): where the other address stands is theirs to say.
        [0x64, 0xff9b, 1, ..] => Some(Inside::Private),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => inside_v4(v4(high, low)),
        // Teredo (RFC 4380): the client's address is written inverted.
        [0x2001, 0, server_high, server_low, _, _, high, low] => {
            inside_v4(v4(!high, !low)).or_else(|| inside_v4(v4(server_high, server_low))).or(Some(Inside::Reserved))
        }
        // ISATAP (RFC 5214), below whatever prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] if inside_v4(v4(high, low)).is_some() => inside_v4(v4(high, low)),
        [0xfe80..=0xfebf, ..] => Some(Inside::LinkLocal),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Some(Inside::Private),
        [0xff00..=0xffff, ..] => Some(Inside::Multicast),
        // Only 2000::/3 is given out; documents have two ranges in it, benchmarks and identifiers others.
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] | [0x2001, 2, 0, ..] | [0x2001, 0x10..=0x3f, ..] => {
            Some(Inside::Reserved)
        }
        [0x2000..=0x3fff, ..] => None,
        _ => Some(Inside::Reserved),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_an_inner_address_is_seen_and_its_public_neighbour_is_not() {
        use Inside::*;
        for (text, expected) in [
            ("127.0.0.1", Some(Loopback)),
            ("127.255.255.254", Some(Loopback)),
            ("126.255.255.255", None),
            ("128.0.0.1", None),
            ("0.0.0.0", Some(Unspecified)),
            ("0.1.2.3", Some(Unspecified)),
            ("1.0.0.0", None),
            ("10.0.0.1", Some(Private)),
            ("9.255.255.255", None),
            ("11.0.0.0", None),
            ("100.64.0.1", Some(Private)),
            ("100.127.255.255", Some(Private)),
            ("100.63.255.255", None),
            ("100.128.0.0", None),
            ("172.16.0.1", Some(Private)),
            ("172.31.255.255", Some(Private)),
            ("172.15.255.255", None),
            ("172.32.0.0", None),
            ("192.168.1.1", Some(Private)),
            ("192.167.255.255", None),
            ("192.169.0.0", None),
            ("169.254.1.1", Some(LinkLocal)),
            ("169.253.255.255", None),
            ("169.254.169.254", Some(Metadata)),
            ("169.254.170.2", Some(Metadata)),
            ("100.100.100.200", Some(Metadata)),
            ("168.63.129.16", Some(Metadata)),
            ("168.63.129.17", None),
            ("192.0.0.192", Some(Metadata)),
            ("192.0.0.1", Some(Reserved)),
            ("192.0.2.1", Some(Reserved)),
            ("192.0.1.1", None),
            ("198.18.0.1", Some(Reserved)),
            ("198.20.0.1", None),
            ("203.0.113.7", Some(Reserved)),
            ("224.0.0.1", Some(Multicast)),
            ("239.255.255.255", Some(Multicast)),
            ("223.255.255.255", None),
            ("240.0.0.1", Some(Reserved)),
            ("255.255.255.255", Some(Reserved)),
            ("8.8.8.8", None),
            ("::", Some(Unspecified)),
            ("::1", Some(Loopback)),
            ("::2", Some(Unspecified)),
            ("::127.0.0.1", Some(Loopback)),
            ("::8.8.8.8", None),
            ("::ffff:127.0.0.1", Some(Loopback)),
            ("::ffff:169.254.169.254", Some(Metadata)),
            ("::ffff:10.1.1.1", Some(Private)),
            ("::ffff:8.8.8.8", None),
            ("::ffff:0:10.1.1.1", Some(Private)),
            ("64:ff9b::7f00:1", Some(Loopback)),
            ("64:ff9b::169.254.169.254", Some(Metadata)),
            ("64:ff9b::8.8.8.8", None),
            ("64:ff9b:1::8.8.8.8", Some(Private)),
            ("2002:7f00:1::", Some(Loopback)),
            ("2002:a9fe:a9fe::1", Some(Metadata)),
            ("2002:c0a8:101::1", Some(Private)),
            ("2002:808:808::1", None),
            ("2001:0:808:808::80ff:fffe", Some(Loopback)),
            ("2001:0:a00:1::f7f7:f7f7", Some(Private)),
            ("2001:0:808:808::f7f7:f7f7", Some(Reserved)),
            ("2a00:1450::5efe:10.0.0.1", Some(Private)),
            ("2a00:1450::200:5efe:127.0.0.1", Some(Loopback)),
            ("2a00:1450::5efe:8.8.8.8", None),
            ("fe80::1", Some(LinkLocal)),
            ("febf::1", Some(LinkLocal)),
            ("fec0::1", Some(Private)),
            ("fc00::1", Some(Private)),
            ("fd12:3456::1", Some(Private)),
            ("fd00:ec2::254", Some(Metadata)),
            ("fd00:ec2::23", Some(Metadata)),
            ("fd20:ce::254", Some(Metadata)),
            ("ff02::1", Some(Multicast)),
            ("100::1", Some(Reserved)),
            ("2001:db8::1", Some(Reserved)),
            ("3fff::1", Some(Reserved)),
            ("4000::1", Some(Reserved)),
            ("5f00::1", Some(Reserved)),
            ("2001:4860:4860::8888", None),
            ("2606:4700:4700::1111", None),
        ] {
            assert_eq!(inside(text.parse().unwrap()), expected, "{text}");
        }
    }
}
