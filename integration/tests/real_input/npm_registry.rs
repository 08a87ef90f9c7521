//! The registry that this machine's own npm is set to: its address, who vouches for it, and which proxy leads there.

use std::{collections::BTreeSet, env, fs, path::PathBuf, process::Command};

use integration::{Project, peer};

use super::debian::done;

pub(super) struct NpmRegistry {
    /// As npm is told of it.
    pub(super) url: String,
    /// `HOST:PORT`.
    pub(super) server: String,
    authorities: String,
    proxy: Option<String>,
    no_proxy: Option<String>,
}

impl NpmRegistry {
    /// `None` with a visible line where there is no npm, or a failure where peers are demanded.
    pub(super) fn of_this_machine(test: &str) -> Option<Self> {
        let npm = peer("SLUICEGATE_NPM", test)?;
        let nowhere = tempfile::tempdir().unwrap();
        let said = |key: &str| {
            let value = done(Command::new(&npm).args(["config", "get", key]).current_dir(nowhere.path()));
            let value = value.trim().to_owned();
            (!matches!(value.as_str(), "" | "null" | "undefined")).then_some(value)
        };
        let url = said("registry").unwrap();
        let (scheme, rest) = url.split_once("://").unwrap();
        let server = rest.split('/').next().unwrap();
        let port = if scheme == "https" { 443 } else { 80 };
        let has_port = server.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let server = if has_port { server.to_owned() } else { format!("{server}:{port}") };
        let proxy = if scheme == "https" { said("https-proxy").or_else(|| said("proxy")) } else { said("proxy") };
        let named = env::var("NODE_EXTRA_CA_CERTS").ok().filter(|file| !file.is_empty());
        let mut files: BTreeSet<PathBuf> = named.into_iter().chain(said("cafile")).map(PathBuf::from).collect();
        if files.is_empty() {
            files.insert("/etc/ssl/certs/ca-certificates.crt".into());
        }
        let authorities = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
        Some(Self { url, server, authorities, proxy, no_proxy: said("noproxy") })
    }

    /// Lets a project's steps reach it: its authorities become a source, this machine's proxy leads there, and its place may be an inner
    /// one.
    pub(super) fn introduce(&self, project: &mut Project) {
        fs::create_dir_all(project.path("trust-of-npm")).unwrap();
        fs::write(project.path("trust-of-npm/authorities.crt"), &self.authorities).unwrap();
        project.replace("sluicegate.yaml", "REGISTRY\"]", &format!("{}\"]", self.server));
        for (name, value) in [("HTTPS_PROXY", &self.proxy), ("NO_PROXY", &self.no_proxy)] {
            if let Some(value) = value {
                project.set(name, value);
            }
        }
        let gateway = fs::read_to_string(project.path("gateway.yaml")).unwrap();
        let private = format!("egress: {{ private: [\"{}\"] }}\n", self.server);
        fs::write(project.path("gateway.yaml"), gateway + &private).unwrap();
    }
}
