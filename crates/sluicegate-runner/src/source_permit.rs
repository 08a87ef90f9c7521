//! Where a pipeline file may lead a fetch. It is whoever's wrote the project, and what is fetched is read by whoever runs the program: a
//! repository of this machine has to lie in the project, and a server that is not out in the public network has to be listed by the
//! gateway, as for steps.

use std::{
    fs,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};

use sluicegate_ports::{
    execute::Stop,
    trees::{FetchedSource, SourceFetcher, TreeError},
};
use sluicegate_types::Destination;

use crate::{
    confined_repository::own_folder,
    egress::{Inside, inside, inside_name},
    git_address::{GitAddress, Protocol},
    source_fetcher::{FetchSettings, GitSourceFetcher, Origin},
};

/// Fetches sources with the `git` program from where a pipeline file may lead.
#[derive(Clone, Debug)]
pub struct PermittedFetcher {
    settings: FetchSettings,
    project: PathBuf,
    private: Vec<Destination>,
}

impl PermittedFetcher {
    /// One for the pipeline file in `project`; `private` are the inner servers that the gateway lists.
    pub fn new(settings: FetchSettings, project: &Path, private: Vec<Destination>) -> Self {
        Self { settings, project: project.to_owned(), private }
    }
}

impl SourceFetcher for PermittedFetcher {
    fn fetch(&self, url: &str, reference: &str, stop: &Stop) -> Result<FetchedSource, TreeError> {
        let refused = |reason: String| TreeError::Address { url: GitAddress::printable(url), reason };
        let address = GitAddress::parse(url).map_err(refused)?;
        let (location, settings) = match address.path() {
            Some(path) => {
                let folder = in_project(&self.project, &path).map_err(refused)?;
                (GitAddress::of_folder(&folder), self.settings.clone())
            }
            None => (address.url.clone(), self.way(&address).map_err(refused)?),
        };
        GitSourceFetcher::new(settings).fetch_from(Origin { url, address: &address, location }, reference, stop)
    }
}

impl PermittedFetcher {
    /// The one way on which git may go to a server: by the proxy, which looks names up by itself and is told of no exception, or without
    /// it, and then to the one address that is judged here.
    fn way(&self, address: &GitAddress) -> Result<FetchSettings, String> {
        let (host, port) = server(&address.url).ok_or("it names no server")?;
        let bare = host.trim_matches(['[', ']']).to_ascii_lowercase();
        let is_listed = self.private.iter().any(|one| one.host.eq_ignore_ascii_case(&bare) && one.port == port);
        let judge = |led: &str, place: Option<Inside>| match place.filter(|_| !is_listed) {
            None => Ok(()),
            Some(inner) => Err(format!(
                "{led}, {inner}; sources come from there only where the gateway file lists {bare}:{port} under egress.private"
            )),
        };
        let literal = bare.parse::<IpAddr>().ok();
        let place = literal.map_or_else(|| inside_name(&bare), inside);
        judge(&format!("{bare} leads inside"), place)?;
        // No proxy elsewhere leads to this very machine.
        let is_here = address.protocol == Protocol::Http || place == Some(Inside::Loopback);
        let by_proxy = self.settings.proxy.is_some() && !is_here && !self.is_exempt(&bare);
        let mut settings = FetchSettings { only: None, ..self.settings.clone() };
        // Any other kind of proxy has names looked up here, by git, and nobody judges where they lead.
        let proxy = settings.proxy.as_deref().unwrap_or_default().to_ascii_lowercase();
        let is_of_http = proxy.split_once("://").is_none_or(|(scheme, _)| matches!(scheme, "http" | "https"));
        if by_proxy && !is_of_http {
            return Err("this machine's proxy is none of HTTP, and git sources are fetched by no other kind".to_owned());
        }
        if by_proxy {
            return Ok(settings);
        }
        settings.proxy = None;
        if literal.is_none() {
            let found = (bare.as_str(), port).to_socket_addrs();
            let found: Vec<SocketAddr> = found.map_err(|error| format!("{bare} was not found: {error}"))?.collect();
            for one in &found {
                judge(&format!("{bare} leads to {}", one.ip()), inside(one.ip()))?;
            }
            let first = found.first().ok_or_else(|| format!("{bare} leads nowhere"))?.ip();
            let shown = if first.is_ipv6() { format!("[{first}]") } else { first.to_string() };
            settings.only = Some(format!("{bare}:{port}:{shown}"));
        }
        Ok(settings)
    }

    /// Whether a host in lower case is reached without the proxy: by its name, or below it, or in a network `ADDRESS/BITS`.
    fn is_exempt(&self, host: &str) -> bool {
        let lists = self.settings.no_proxy.iter();
        lists.flat_map(|list| list.split([',', ' ', '\t'])).any(|entry| {
            let entry = entry.to_ascii_lowercase();
            let entry = entry.trim_matches(['[', ']']).trim_end_matches('.');
            let name = entry.strip_prefix('*').unwrap_or(entry).trim_start_matches('.');
            entry == "*"
                || !name.is_empty() && (host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')))
                || is_in_network(host, entry)
        })
    }
}

/// Whether a host is an address in the network `ADDRESS/BITS`.
fn is_in_network(host: &str, network: &str) -> bool {
    let bits = |address: &str| {
        Some(match address.parse().ok()? {
            IpAddr::V4(address) => (32, u128::from(u32::from(address)) << 96),
            IpAddr::V6(address) => (128, u128::from(address)),
        })
    };
    let Some((address, length)) = network.split_once('/') else { return false };
    let (Some((width, one)), Some((same, other)), Ok(length)) = (bits(host), bits(address), length.parse::<u32>())
    else {
        return false;
    };
    width == same && length <= width && (one ^ other).checked_shr(128 - length).unwrap_or(0) == 0
}

/// Host and port of an address that was parsed.
fn server(url: &str) -> Option<(&str, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let by_itself = if scheme == "https" { 443 } else { 80 };
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => Some((host, port.parse().ok()?)),
        _ => Some((authority, by_itself)),
    }
}

/// The own folder of a repository of this machine, as git is to read it. Refuses one that does not lie in the project, links followed,
/// or of which a part does not.
fn in_project(project: &Path, path: &Path) -> Result<PathBuf, String> {
    let real =
        |path: &Path| fs::canonicalize(path).map_err(|error| format!("{} can't be found: {error}", path.display()));
    let (project, repository) = (real(project)?, real(path)?);
    if repository.starts_with(&project) {
        return own_folder(&repository);
    }
    Err(format!(
        "{} lies outside of {}, where the pipeline file stands, and no pipeline file leads there; fetch it over https, or put it into the \
         project",
        repository.display(),
        project.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source_fetcher::FetchLimits;

    const NO_PROXY: &str =
        "localhost, .inner.example other.example after.blank.example,dotted.example. *.star.example [::1] 10.9.0.0/16";

    fn fetcher(project: &Path, private: &[(&str, u16)], proxy: Option<&str>) -> PermittedFetcher {
        let settings = FetchSettings {
            cache: project.join("cache"),
            proxy: proxy.map(str::to_owned),
            no_proxy: Some(NO_PROXY.to_owned()),
            certificates: None,
            limits: FetchLimits::default(),
            only: None,
        };
        let private = private.iter().map(|(host, port)| Destination { host: (*host).to_owned(), port: *port });
        PermittedFetcher::new(settings, project, private.collect())
    }

    /// What git is told: the proxy, and the only address.
    fn way(fetcher: &PermittedFetcher, url: &str) -> Result<(Option<String>, Option<String>), String> {
        let settings = fetcher.way(&GitAddress::parse(url)?)?;
        Ok((settings.proxy, settings.only))
    }

    #[test]
    fn an_inner_server_is_asked_only_if_the_gateway_lists_it_and_then_at_the_address_that_was_judged() {
        let folder = tempfile::tempdir().unwrap();
        let bare = fetcher(folder.path(), &[], None);
        for (url, words) in [
            ("https://127.0.0.1/a", "a loopback address"),
            ("https://[::1]:8443/a", "a loopback address"),
            ("https://10.1.2.3/a", "a private network"),
            ("https://169.254.169.254/a", "hand out credentials"),
            ("https://metadata.google.internal/a", "hand out credentials"),
            ("https://[::ffff:10.0.0.1]/a", "a private network"),
            ("http://localhost:3000/a", "a loopback address"),
        ] {
            let reason = way(&bare, url).unwrap_err();
            assert!(reason.contains(words) && reason.contains("egress.private"), "{url}: {reason}");
        }
        let listed = fetcher(folder.path(), &[("localhost", 3000), ("10.1.2.3", 443), ("::1", 8443)], None);
        assert_eq!(way(&listed, "https://10.1.2.3/a"), Ok((None, None)), "there is nothing to look up");
        assert_eq!(way(&listed, "https://[::1]:8443/a"), Ok((None, None)));
        let (_, pinned) = way(&listed, "http://localhost:3000/a").unwrap();
        assert!(is_here(pinned.as_deref()), "{pinned:?}");
        assert!(way(&listed, "http://localhost:3001/a").is_err(), "another port");
    }

    fn is_here(pinned: Option<&str>) -> bool {
        [Some("localhost:3000:127.0.0.1"), Some("localhost:3000:[::1]")].contains(&pinned)
    }

    #[test]
    fn behind_a_proxy_a_server_is_asked_by_it_or_without_it_at_an_address_that_was_judged() {
        let folder = tempfile::tempdir().unwrap();
        let proxy = Some("http://proxy.example:3128");
        let by_proxy = Ok((proxy.map(str::to_owned), None));
        let shut = fetcher(folder.path(), &[], proxy);
        assert_eq!(way(&shut, "https://git.example/a"), by_proxy, "it looks names up");
        assert_eq!(way(&shut, "https://8.8.8.8/a"), by_proxy);
        let listed = [("localhost", 3000), ("127.0.0.1", 3000), ("10.1.2.3", 443), ("10.9.9.9", 443)];
        let open = fetcher(folder.path(), &listed, proxy);
        for url in
            ["https://10.1.2.3/a", "http://localhost:3000/a", "https://localhost:3000/a", "https://127.0.0.1:3000/a"]
        {
            assert!(way(&shut, url).unwrap_err().contains("egress.private"), "{url}");
            let (proxy, pinned) = way(&open, url).unwrap();
            assert_eq!(proxy.is_some(), url.contains("10.1.2.3"), "{url}");
            assert_eq!(is_here(pinned.as_deref()), url.contains("localhost"), "{url}");
        }
        assert_eq!(way(&open, "https://10.9.9.9/a"), Ok((None, None)), "it is exempt by its network");
        // What curl would read as an address, or as the host without the dot.
        for url in ["https://127.1:3000/a", "https://2130706433:3000/a", "https://localhost.:3000/a"] {
            assert!(way(&open, url).unwrap_err().contains("is no host"), "{url}");
        }
        for (host, exempt) in [
            ("git.inner.example", true),
            ("inner.example", true),
            ("after.blank.example", true),
            ("below.after.blank.example", true),
            ("dotted.example", true),
            ("a.star.example", true),
            ("::1", true),
            ("10.9.255.1", true),
            ("10.10.0.1", false),
            ("inner.example.org", false),
            ("xinner.example", false),
            ("example", false),
        ] {
            assert_eq!(shut.is_exempt(host), exempt, "{host}");
        }
    }

    #[test]
    fn a_server_of_this_machine_is_not_reached_past_the_list_however_the_proxy_is_set() {
        let folder = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}/x");
        let fetch = |private: &[(&str, u16)], url: &str| {
            fetcher(folder.path(), private, Some("http://proxy.example:3128")).fetch(url, "main", &Stop::default())
        };
        listener.set_nonblocking(true).unwrap();
        for url in [&url, &url.replace("127.0.0.1", "localhost")] {
            assert!(matches!(fetch(&[], url), Err(TreeError::Address { .. })), "{url}");
        }
        assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody came");
        listener.set_nonblocking(false).unwrap();
        let asked = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(stream), &mut line).unwrap();
            line
        });
        assert!(matches!(fetch(&[("127.0.0.1", port)], &url), Err(TreeError::Fetch { .. })));
        // Whoever did not come lets it end all the same.
        drop(std::net::TcpStream::connect(("127.0.0.1", port)));
        assert!(asked.join().unwrap().starts_with("GET /x/info/refs"));
    }

    #[test]
    fn a_repository_of_this_machine_lies_in_the_project() {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("project");
        fs::create_dir_all(project.join("mirror of it")).unwrap();
        fs::create_dir(folder.path().join("else")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("else"), project.join("link")).unwrap();
        let judged = |path: &str| {
            let address = GitAddress::parse(&format!("file://{}/{path}", folder.path().display())).unwrap();
            in_project(&project, &address.path().unwrap())
        };
        judged("project/mirror%20of%20it").unwrap();
        for outside in ["else", "project/link", "project/../else", "project%2F..%2Felse"] {
            let reason = judged(outside).unwrap_err();
            assert!(reason.contains("no pipeline file leads there"), "{outside}: {reason}");
        }
        assert!(judged("nowhere").unwrap_err().contains("can't be found"));
        fs::create_dir_all(project.join("own/.git")).unwrap();
        assert_eq!(judged("project/own"), Ok(project.join("own/.git")), "git is given this very folder");
        fs::write(project.join("mirror of it/.git"), format!("gitdir: {}/else", folder.path().display())).unwrap();
        let reason = judged("project/mirror%20of%20it").unwrap_err();
        assert!(reason.contains("mirror of it/.git: it is no folder"), "{reason}");
    }
}
