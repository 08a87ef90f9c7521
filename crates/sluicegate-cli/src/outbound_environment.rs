//! What the environment says about the way to servers, in the variables and files of the field's tools.

use std::{env, path::PathBuf, sync::Arc};

use sluicegate_outbound::{Outbound, OutboundSettings, Warn};
use sluicegate_runner::UpstreamProxy;

use crate::{
    home::Home,
    words::{printable, tell_anyway},
};

/// The way to a log elsewhere: the same as to registries.
pub(crate) fn outbound(home: Option<&Home>) -> Arc<Outbound> {
    Arc::new(Outbound::new(settings(home), warn()))
}

/// Reads the environment once. `home` has certificates of its own; who only verifies needs none.
pub(crate) fn settings(home: Option<&Home>) -> OutboundSettings {
    OutboundSettings {
        certificates: certificates(home),
        proxy: ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].into_iter().find_map(variable),
        no_proxy: ["NO_PROXY", "no_proxy"].into_iter().find_map(variable),
    }
}

/// The proxy to servers for steps that may reach some: the same one.
pub(crate) fn upstream_proxy() -> Option<UpstreamProxy> {
    let settings = settings(None);
    settings.proxy.map(|url| UpstreamProxy { url, no_proxy: settings.no_proxy })
}

/// A file of certificate authorities beside the system's, where git and others are told of one.
pub(crate) fn certificate_file() -> Option<PathBuf> {
    ["GIT_SSL_CAINFO", "SSL_CERT_FILE"].into_iter().find_map(variable).map(PathBuf::from)
}

/// Says what stops nothing.
pub(crate) fn warn() -> Warn {
    Arc::new(|words| tell_anyway(&format!("warning: {}", printable(words))))
}

/// A variable that is set to something.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The home's own folder, then those of Podman and Docker.
fn certificates(home: Option<&Home>) -> Vec<PathBuf> {
    let configuration = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|user| PathBuf::from(user).join(".config")));
    let own = variable("SLUICEGATE_CERTS_D")
        .map(PathBuf::from)
        .or_else(|| home.map(|home| home.part("trust").join("certs.d")));
    own.into_iter()
        .chain(configuration.map(|folder| folder.join("containers/certs.d")))
        .chain(["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from))
        .collect()
}
