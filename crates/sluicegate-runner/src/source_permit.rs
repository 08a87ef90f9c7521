//! Where a pipeline file may lead a fetch. It is whoever's wrote the project, and what is fetched is read by whoever runs the program: a
//! repository of this machine has to lie in the project, and a server that is not out in the public network has to be listed by the
//! gateway, as for steps.

use std::{
    fs,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};

use sluicegate_ports::{
    execute::{Destination, Stop},
    trees::{FetchedSource, SourceFetcher, TreeError},
};

use crate::{
    confined_repository::own_folder,
    egress::inside,
    git_address::GitAddress,
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
        let (location, only) = match address.path() {
            Some(path) => (GitAddress::of_folder(&in_project(&self.project, &path).map_err(refused)?), None),
            None => (address.url.clone(), self.pinned(&address.url).map_err(refused)?),
        };
        let fetcher = GitSourceFetcher::new(FetchSettings { only, ..self.settings.clone() });
        fetcher.fetch_from(Origin { url, address: &address, location }, reference, stop)
    }
}

impl PermittedFetcher {
    /// Looks the server up, and gives the one address that git may connect to, as it is judged here; nothing behind a proxy, which looks it
    /// up by itself.
    fn pinned(&self, url: &str) -> Result<Option<String>, String> {
        let (host, port) = server(url).ok_or("it names no server")?;
        let bare = host.trim_matches(['[', ']']);
        let is_listed = self.private.iter().any(|one| one.host.eq_ignore_ascii_case(bare) && one.port == port);
        let literal = bare.parse::<IpAddr>().ok();
        if literal.is_none() && self.settings.proxy.is_some() && !self.is_exempt(bare) {
            return Ok(None);
        }
        let found: Vec<SocketAddr> = match literal {
            Some(address) => vec![SocketAddr::new(address, port)],
            None => {
                let found = (bare, port).to_socket_addrs();
                found.map_err(|error| format!("{bare} was not found: {error}"))?.collect()
            }
        };
        for one in &found {
            if let Some(inner) = inside(one.ip()).filter(|_| !is_listed) {
                return Err(format!(
                    "{bare} leads to {}, {inner}; sources come from there only where the gateway file lists {bare}:{port} under egress.private",
                    one.ip()
                ));
            }
        }
        let first = found.first().ok_or_else(|| format!("{bare} leads nowhere"))?.ip();
        let shown = if first.is_ipv6() { format!("[{first}]") } else { first.to_string() };
        Ok(literal.is_none().then(|| format!("{bare}:{port}:{shown}")))
    }

    /// Whether a host is reached without the proxy.
    fn is_exempt(&self, host: &str) -> bool {
        let listed = self.settings.no_proxy.iter().flat_map(|list| list.split(',')).map(str::trim);
        listed.map(|one| one.trim_start_matches('.')).any(|one| {
            one == "*" || !one.is_empty() && (host.eq_ignore_ascii_case(one) || ends_with(host, &format!(".{one}")))
        })
    }
}

fn ends_with(host: &str, end: &str) -> bool {
    host.to_ascii_lowercase().ends_with(&end.to_ascii_lowercase())
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

    fn fetcher(project: &Path, private: &[(&str, u16)], proxy: Option<&str>) -> PermittedFetcher {
        let settings = FetchSettings {
            cache: project.join("cache"),
            proxy: proxy.map(str::to_owned),
            no_proxy: Some("localhost, .inner.example".to_owned()),
            certificates: None,
            limits: FetchLimits::default(),
            only: None,
        };
        let private = private.iter().map(|(host, port)| Destination { host: (*host).to_owned(), port: *port });
        PermittedFetcher::new(settings, project, private.collect())
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
            ("https://[::ffff:10.0.0.1]/a", "a private network"),
            ("http://localhost:3000/a", "a loopback address"),
        ] {
            let reason = bare.pinned(url).unwrap_err();
            assert!(reason.contains(words) && reason.contains("egress.private"), "{url}: {reason}");
        }
        let listed = fetcher(folder.path(), &[("localhost", 3000), ("10.1.2.3", 443), ("::1", 8443)], None);
        assert_eq!(listed.pinned("https://10.1.2.3/a"), Ok(None), "there is nothing to look up");
        assert_eq!(listed.pinned("https://[::1]:8443/a"), Ok(None));
        let pinned = listed.pinned("http://localhost:3000/a").unwrap().unwrap();
        assert!(["localhost:3000:127.0.0.1", "localhost:3000:[::1]"].contains(&pinned.as_str()), "{pinned}");
        assert!(listed.pinned("http://localhost:3001/a").is_err(), "another port");
        // A proxy looks names up; an address is what it is all the same.
        let proxied = fetcher(folder.path(), &[], Some("http://proxy.example:3128"));
        assert_eq!(proxied.pinned("https://git.example/a"), Ok(None));
        assert!(proxied.pinned("https://10.1.2.3/a").is_err());
        assert!(proxied.pinned("http://localhost:80/a").is_err());
        assert!(proxied.is_exempt("git.inner.example") && !proxied.is_exempt("inner.example.org"));
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
