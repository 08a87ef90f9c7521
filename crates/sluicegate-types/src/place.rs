use std::{
    fmt,
    net::IpAddr,
    path::{Component, Path, PathBuf},
    str::FromStr,
};

use crate::ImageError;

/// Where images are: a folder of this machine, or a repository of a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// An OCI layout folder, written `oci:DIR`.
    Layout(PathBuf),
    /// A repository, written `HOST[:PORT]/PATH`.
    Registry(RegistryRepository),
}

impl Place {
    /// The same place with a relative folder taken from `base`.
    #[must_use]
    pub fn relative_to(&self, base: &Path) -> Self {
        match self {
            // Here is where it is relative to already; a person typed it so.
            Self::Layout(folder) if base == Path::new(".") => Self::Layout(folder.clone()),
            Self::Layout(folder) => Self::Layout(base.join(folder)),
            Self::Registry(repository) => Self::Registry(repository.clone()),
        }
    }

    /// The same place seen from here: a folder below `base` without a leading `./`.
    #[must_use]
    pub fn seen_from(&self, base: &Path) -> Self {
        match self.relative_to(base) {
            Self::Layout(folder) => {
                Self::Layout(folder.strip_prefix(".").map_or_else(|_| folder.clone(), Path::to_owned))
            }
            registry => registry,
        }
    }

    /// The folder, if it is one.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Layout(folder) => Some(folder),
            Self::Registry(_) => None,
        }
    }
}

/// `oci:DIR` or `HOST[:PORT]/PATH`, without a tag or digest.
impl FromStr for Place {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        match text.strip_prefix("oci:") {
            Some(folder) => Ok(Self::Layout(layout_folder(folder)?)),
            None => Ok(Self::Registry(text.parse()?)),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout(folder) => write!(f, "oci:{}", folder.display()),
            Self::Registry(repository) => repository.fmt(f),
        }
    }
}

impl serde::Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<PathBuf> for Place {
    fn from(folder: PathBuf) -> Self {
        Self::Layout(folder)
    }
}

impl From<&str> for Place {
    fn from(folder: &str) -> Self {
        Self::Layout(folder.into())
    }
}

/// The folder after `oci:`.
pub(crate) fn layout_folder(text: &str) -> Result<PathBuf, ImageError> {
    let path = PathBuf::from(text);
    if text.is_empty() || text.contains('\0') || path.components().all(|c| matches!(c, Component::CurDir)) {
        return Err(ImageError::NoFolder);
    }
    Ok(path)
}

/// Bytes of host and path together.
const MAX_NAME: usize = 255;
/// Docker's registry, whose repositories of one word are in `library/`.
const DOCKER: &str = "docker.io";

/// A repository of a registry: the host that answers and the name it has there (distribution-spec, "Pulling manifests").
///
/// The host has a dot, a port, or is `localhost`, and is written in lower case; nothing is added to a name but `library/` to Docker's
/// own. Ports that are meant anyway and short forms of addresses are refused, so that a repository has one name, but for the names of this
/// machine ([`Self::is_same`]) and those that only a name server knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegistryRepository {
    host: String,
    path: String,
}

impl RegistryRepository {
    /// The host with its port, as written.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The name within the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether both are one repository as far as names can tell: this machine is one server, whichever of its names is written. That two
    /// other names lead to one server only their registry knows.
    pub fn is_same(&self, other: &Self) -> bool {
        let same_host = self.host == other.host
            || (self.is_loopback() && other.is_loopback() && split_port(&self.host).1 == split_port(&other.host).1);
        same_host && self.path == other.path
    }

    /// Whether the host is this machine by its name or address: the only hosts that plain HTTP is spoken with.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

/// Whether a host, with or without a port, is this machine by its name or address.
pub fn is_loopback(host: &str) -> bool {
    let (name, _) = split_port(host);
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A host and its port, if one is written.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

impl FromStr for RegistryRepository {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let fault = |rule| ImageError::Repository { text: text.chars().take(200).collect(), rule };
        if text.starts_with("https://") || text.starts_with("http://") {
            return Err(fault("it is written without https://, which is meant anyway, beginning with the host"));
        }
        let (host, path) = text.split_once('/').unwrap_or(("", text));
        if !is_host(host) {
            return Err(ImageError::NoHost { text: text.chars().take(200).collect() });
        }
        if !is_valid_host(host) {
            return Err(fault(
                "a host is a lower-case name or an address, with a port from 1 to 65535 if one is written",
            ));
        }
        let (name, port) = split_port(host);
        if matches!(name, "index.docker.io" | "registry-1.docker.io") || (name == DOCKER && port.is_some()) {
            return Err(fault("Docker's registry is called docker.io"));
        }
        if port == Some("443") || (port == Some("80") && is_loopback(host)) {
            return Err(fault("a host is written without the port that is meant anyway"));
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|b| b.is_ascii_digit()) && name.parse::<std::net::Ipv4Addr>().is_err() {
            return Err(fault("an address of IPv4 is written with its four numbers"));
        }
        let path = if host == DOCKER && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        if !path.split('/').all(is_component) {
            return Err(fault(
                "the parts of a name have lower-case letters, digits and single . _ __ or - between them; no tag, no digest",
            ));
        }
        if host.len() + 1 + path.len() > MAX_NAME {
            return Err(fault("longer than 255 bytes"));
        }
        Ok(Self { host: host.to_owned(), path })
    }
}

impl fmt::Display for RegistryRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

/// Whether what stands before the first slash is meant as a host: a name has no dot of its own there and no port.
fn is_host(text: &str) -> bool {
    !text.starts_with('.') && (text.contains(['.', ':']) || text == "localhost")
}

fn is_valid_host(host: &str) -> bool {
    let (name, port) = split_port(host);
    let port_fits = port.is_none_or(|port| {
        !port.starts_with('0') && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
    });
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let name_fits = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok_and(|parsed| parsed.to_string() == address),
        None => name.split('.').all(label),
    };
    port_fits && name_fits
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` of the distribution spec.
fn is_component(part: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !part.starts_with(word) || !part.ends_with(word) || !part.chars().all(|c| word(c) || ".-_".contains(c)) {
        return false;
    }
    let mut between = part.split(word).filter(|between| !between.is_empty());
    between.all(|between| matches!(between, "." | "_" | "__") || between.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_a_host_and_a_name() {
        for (text, host, path) in [
            ("registry.example/shop", "registry.example", "shop"),
            ("registry.example:5000/a/b-c/d.e_f__g", "registry.example:5000", "a/b-c/d.e_f__g"),
            ("localhost/app", "localhost", "app"),
            ("127.0.0.1:5000/app", "127.0.0.1:5000", "app"),
            ("[::1]:5000/app", "[::1]:5000", "app"),
            ("docker.io/debian", "docker.io", "library/debian"),
            ("docker.io/team/app", "docker.io", "team/app"),
        ] {
            let parsed: RegistryRepository = text.parse().unwrap();
            assert_eq!((parsed.host(), parsed.path()), (host, path), "{text}");
            assert_eq!(parsed.to_string().parse::<RegistryRepository>().unwrap(), parsed);
        }
    }

    #[test]
    fn what_is_no_repository_says_why() {
        for bad in ["debian", "team/app", "./x/y", ""] {
            assert!(matches!(bad.parse::<RegistryRepository>(), Err(ImageError::NoHost { .. })), "{bad}");
        }
        for bad in [
            "registry.example/",
            "registry.example//shop",
            "registry.example/shop/",
            "registry.example/Shop",
            "registry.example/../shop",
            "registry.example/a..b",
            "registry.example/a___b",
            "registry.example/-a",
            "registry.example/shop:1",
            "registry.example/shop@sha256:00",
            "Registry.example/shop",
            "registry.example:0/shop",
            "registry.example:99999/shop",
            "registry.example:/shop",
            "user@registry.example/shop",
            "registry..example/shop",
            "https://registry.example/shop",
            "[::1/shop",
            "index.docker.io/library/debian",
            "index.docker.io:5000/library/debian",
            "docker.io:443/library/debian",
            "registry.example:443/shop",
            "127.0.0.1:80/shop",
            "127.1:5000/shop",
            "registry.7/shop",
            "127.00.0.1:5000/shop",
        ] {
            assert!(matches!(bad.parse::<RegistryRepository>(), Err(ImageError::Repository { .. })), "{bad}");
        }
        let long = |bytes: usize| format!("a.b/{}", "x".repeat(bytes - 4)).parse::<RegistryRepository>();
        assert!(long(MAX_NAME).is_ok() && long(MAX_NAME + 1).is_err());
    }

    #[test]
    fn the_names_of_this_machine_are_names_of_one_server() {
        let is_same = |one: &str, other: &str| {
            let parse = |text: &str| text.parse::<RegistryRepository>().unwrap();
            parse(one).is_same(&parse(other))
        };
        assert!(is_same("localhost:5000/a", "127.0.0.1:5000/a") && is_same("[::1]:5000/a", "127.0.0.2:5000/a"));
        assert!(!is_same("localhost:5000/a", "127.0.0.1:5001/a") && !is_same("localhost:5000/a", "localhost:5000/b"));
        assert!(
            !is_same("registry.example/a", "other.example/a") && is_same("registry.example/a", "registry.example/a")
        );
    }

    #[test]
    fn this_machine_is_known_by_name_and_address() {
        for here in ["localhost", "localhost:5000", "127.0.0.1", "127.8.9.1:1", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(here), "{here}");
        }
        for elsewhere in
            ["registry.example", "localhost.example:5000", "10.0.0.1:5000", "128.0.0.1", "[::2]", "0.0.0.0"]
        {
            assert!(!is_loopback(elsewhere), "{elsewhere}");
        }
    }
}
