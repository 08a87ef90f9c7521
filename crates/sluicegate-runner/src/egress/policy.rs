//! What is let through and which way it goes. Pure: names are looked up elsewhere.

use std::{collections::BTreeSet, net::IpAddr};

use sluicegate_ports::execute::Egress;
use sluicegate_types::Destination;

use super::{
    address::{Inside, inside},
    upstream::Upstream,
};

/// What one step may reach.
pub(crate) struct Policy {
    step: String,
    listed: BTreeSet<Destination>,
    private: BTreeSet<Destination>,
    upstream: Option<Upstream>,
}

/// Which way a destination is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To an address that is looked up here.
    Straight,
    /// By the proxy of this machine, which looks names up itself.
    Upstream,
}

/// Why a destination is not reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The step's list does not have it.
    NotListed,
    /// It leads to a place that only the gateway opens.
    Inside(Option<IpAddr>, Inside),
    /// Its name leads nowhere.
    Unresolved,
    /// The client's TLS asks for another name, or for none.
    OtherName(Option<String>),
    /// The client's TLS cannot be read.
    UnreadableTls,
}

impl Policy {
    /// Lists with names in lower case and addresses in their one form, whoever wrote them.
    pub(crate) fn new(step: &str, egress: &Egress, upstream: Option<Upstream>) -> Self {
        let set = |list: &[Destination]| list.iter().map(in_one_form).collect();
        Self { step: step.to_owned(), listed: set(&egress.destinations), private: set(&egress.private), upstream }
    }

    /// Judges what is asked for before any name is looked up.
    pub(crate) fn route(&self, destination: &Destination) -> Result<Route, Refusal> {
        if !self.listed.contains(destination) {
            return Err(Refusal::NotListed);
        }
        let address: Option<IpAddr> = destination.host.parse().ok();
        let place = address.map_or_else(|| inside_name(&destination.host), inside);
        if let Some(place) = place.filter(|_| !self.private.contains(destination)) {
            return Err(Refusal::Inside(address, place));
        }
        match &self.upstream {
            // No proxy elsewhere leads to this very machine.
            Some(upstream) if place != Some(Inside::Loopback) && !upstream.exempts(&destination.host) => {
                Ok(Route::Upstream)
            }
            _ => Ok(Route::Straight),
        }
    }

    /// Those of the addresses of a destination that may be connected to; all of them if it is listed as private.
    pub(crate) fn allowed(&self, destination: &Destination, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, Refusal> {
        if self.private.contains(destination) {
            return if addresses.is_empty() { Err(Refusal::Unresolved) } else { Ok(addresses) };
        }
        let first = addresses.iter().find_map(|address| Some((*address, inside(*address)?)));
        let outside: Vec<IpAddr> = addresses.into_iter().filter(|address| inside(*address).is_none()).collect();
        match (outside.is_empty(), first) {
            (false, _) => Ok(outside),
            (true, Some((address, place))) => Err(Refusal::Inside(Some(address), place)),
            (true, None) => Err(Refusal::Unresolved),
        }
    }

    /// The proxy of this machine.
    pub(crate) fn upstream(&self) -> Option<&Upstream> {
        self.upstream.as_ref()
    }

    /// What the step is told, with what would allow it.
    pub(crate) fn words(&self, destination: &Destination, refusal: &Refusal) -> String {
        let (step, shown) = (&self.step, shown(destination));
        match refusal {
            Refusal::NotListed => format!(
                "step {step} may not reach {shown}: it is not under steps.{step}.network.allow of the pipeline file.\n\
                 If it belongs there: steps.{step}.network: {{ allow: [\"{shown}\"] }}, beside what is listed now"
            ),
            Refusal::Inside(address, place) => {
                let what = match address {
                    Some(address) => format!("it leads to {address}, {place}"),
                    None => format!("it is {place}"),
                };
                format!(
                    "step {step} may not reach {shown}: {what}. steps.{step}.network.allow of the pipeline file does not \
                     suffice for that;\nwho answers for the gateway allows it with egress: {{ private: [\"{shown}\"] }} in \
                     the gateway file"
                )
            }
            Refusal::Unresolved => format!("{shown} cannot be reached: its name leads to no address"),
            Refusal::OtherName(_) | Refusal::UnreadableTls => format!("{shown}: {}", refusal.reason()),
        }
    }
}

impl Refusal {
    /// The reason in a contact: the same text for the same reason on every machine.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::NotListed => "it is not in the step's list".to_owned(),
            Self::Inside(_, place) => format!("it is {place} and not listed as private"),
            Self::Unresolved => "its name leads to no address".to_owned(),
            Self::OtherName(Some(name)) => format!("TLS asked for {name}"),
            Self::OtherName(None) => "TLS asked for no name".to_owned(),
            Self::UnreadableTls => "TLS that cannot be read".to_owned(),
        }
    }

    /// Where it led to, if that was known.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Inside(address, _) => *address,
            _ => None,
        }
    }
}

/// `HOST:PORT` as the files write it.
pub(crate) fn shown(destination: &Destination) -> String {
    let Destination { host, port } = destination;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn in_one_form(destination: &Destination) -> Destination {
    let host = destination.host.to_ascii_lowercase();
    let host = host.parse::<IpAddr>().map_or(host, |address| address.to_string());
    Destination { host, port: destination.port }
}

/// Names that mean an inner place wherever they are looked up: this machine (RFC 6761 6.3 and what systems write into their hosts
/// files), and what clouds call the place of their credentials.
pub(crate) fn inside_name(host: &str) -> Option<Inside> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or_default();
    match host {
        "ip6-localhost" | "ip6-loopback" => Some(Inside::Loopback),
        "metadata" | "metadata.google.internal" | "instance-data" | "instance-data.ec2.internal" => {
            Some(Inside::Metadata)
        }
        _ if matches!(last, "localhost" | "localdomain") => Some(Inside::Loopback),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Destination {
        Destination { host: host.to_owned(), port }
    }

    fn policy(listed: &[(&str, u16)], private: &[(&str, u16)], proxy: Option<&str>) -> Policy {
        let list = |all: &[(&str, u16)]| all.iter().map(|(host, port)| at(host, *port)).collect();
        let egress = Egress { destinations: list(listed), private: list(private) };
        let upstream = proxy.map(|url| Upstream::parse(url, Some(".inner.example")).unwrap());
        Policy::new("build", &egress, upstream)
    }

    #[test]
    fn only_what_is_listed_with_its_very_port_passes() {
        let policy = policy(&[("A.Example", 443), ("0:0::1:2:3", 80)], &[], None);
        assert_eq!(policy.route(&at("a.example", 443)), Ok(Route::Straight));
        for other in [at("a.example", 80), at("b.a.example", 443), at("example", 443), at("a.example.", 443)] {
            assert_eq!(policy.route(&other), Err(Refusal::NotListed), "{other:?}");
        }
        // An address in the list is one in whatever form it was written, and still no public one.
        assert!(matches!(policy.route(&at("::1:2:3", 80)), Err(Refusal::Inside(Some(_), _))));
    }

    #[test]
    fn inner_places_need_both_lists() {
        let places = [
            ("127.0.0.1", 80),
            ("::1", 80),
            ("10.0.0.1", 80),
            ("localhost", 80),
            ("x.localhost", 80),
            ("localhost.", 80),
            ("localhost.localdomain", 80),
            ("metadata.google.internal", 80),
            ("169.254.169.254", 80),
        ];
        let (shut, open) = (policy(&places, &[], None), policy(&places, &places, None));
        for (host, port) in places {
            assert!(matches!(shut.route(&at(host, port)), Err(Refusal::Inside(..))), "{host}");
            assert_eq!(open.route(&at(host, port)), Ok(Route::Straight), "{host}");
        }
        assert_eq!(policy(&[], &places, None).route(&at("::1", 80)), Err(Refusal::NotListed));
        let (name, inner, outer) = (at("a.example", 443), "10.0.0.1".parse().unwrap(), "8.8.8.8".parse().unwrap());
        let listed = policy(&[("a.example", 443)], &[("a.example", 80)], None);
        assert_eq!(listed.allowed(&name, vec![inner, outer]), Ok(vec![outer]));
        assert_eq!(listed.allowed(&name, vec![inner]), Err(Refusal::Inside(Some(inner), Inside::Private)));
        assert_eq!(listed.allowed(&name, vec![]), Err(Refusal::Unresolved));
        let private = policy(&[("a.example", 443)], &[("a.example", 443)], None);
        assert_eq!(private.allowed(&name, vec![inner, outer]), Ok(vec![inner, outer]));
    }

    #[test]
    fn behind_a_proxy_inner_places_are_judged_all_the_same() {
        let places = [
            ("a.example", 443),
            ("b.inner.example", 443),
            ("localhost", 80),
            ("127.0.0.1", 80),
            ("10.0.0.1", 80),
            ("metadata", 80),
        ];
        let shut = policy(&places, &[], Some("http://proxy.example:3128"));
        assert_eq!(shut.route(&at("a.example", 443)), Ok(Route::Upstream));
        assert_eq!(shut.route(&at("b.inner.example", 443)), Ok(Route::Straight));
        for (host, port) in &places[2..] {
            assert!(matches!(shut.route(&at(host, *port)), Err(Refusal::Inside(..))), "{host}");
        }
        let open = policy(&places, &places, Some("http://proxy.example:3128"));
        for (host, route) in
            [("localhost", Route::Straight), ("127.0.0.1", Route::Straight), ("10.0.0.1", Route::Upstream)]
        {
            assert_eq!(open.route(&at(host, 80)), Ok(route), "{host}");
        }
    }

    #[test]
    fn a_refusal_says_which_key_of_which_file_would_allow_it() {
        let policy = policy(&[], &[], None);
        let words = policy.words(&at("a.example", 443), &Refusal::NotListed);
        assert!(words.contains("a.example:443") && words.contains("steps.build.network: { allow: ["), "{words}");
        let inside = Refusal::Inside("::1".parse().ok(), Inside::Loopback);
        let words = policy.words(&at("a.example", 443), &inside);
        assert!(words.contains("egress: { private: [\"a.example:443\"] }") && words.contains("::1"), "{words}");
        let words = policy.words(&at("::1", 443), &Refusal::Inside(None, Inside::Loopback));
        assert!(words.contains("it is a loopback address") && words.contains("[::1]:443"), "{words}");
    }
}
