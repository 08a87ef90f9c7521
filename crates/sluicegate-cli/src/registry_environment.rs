//! What the environment says about registries, in the variables and files of the field's tools.

use std::{env, path::PathBuf};

use sluicegate_registry::RegistrySettings;

use crate::{
    home::Home,
    outbound_environment::{self, variable},
};

/// Reads the environment once. `home` has the locks and certificates of its own; who only verifies needs none.
pub(crate) fn settings(home: Option<&Home>) -> RegistrySettings {
    let user = variable("HOME").map(PathBuf::from);
    RegistrySettings {
        credentials: credentials(user.as_ref()),
        programs: env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
        outbound: outbound_environment::settings(home),
        token_services: token_services(&variable("SLUICEGATE_TOKEN_SERVICES").unwrap_or_default()),
        locks: home.map(|home| home.part("run").join("registries")),
        warn: outbound_environment::warn(),
        ..RegistrySettings::default()
    }
}

/// Docker's file, then Podman's.
fn credentials(user: Option<&PathBuf>) -> Vec<PathBuf> {
    let docker = variable("DOCKER_CONFIG").map(PathBuf::from).or_else(|| user.map(|user| user.join(".docker")));
    let podman = variable("REGISTRY_AUTH_FILE")
        .map(PathBuf::from)
        .or_else(|| variable("XDG_RUNTIME_DIR").map(|folder| PathBuf::from(folder).join("containers/auth.json")));
    docker.map(|folder| folder.join("config.json")).into_iter().chain(podman).collect()
}

/// `REGISTRY=SERVICE` with commas between.
fn token_services(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(registry, service)| (registry.trim().to_owned(), service.trim().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_services_are_pairs_of_hosts() {
        let pairs = token_services("registry.example=login.example, other.example:5000 = x.example:443,junk");
        let named: Vec<_> = pairs.iter().map(|(registry, service)| (registry.as_str(), service.as_str())).collect();
        assert_eq!(named, [("registry.example", "login.example"), ("other.example:5000", "x.example:443")]);
    }
}
