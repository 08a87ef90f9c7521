//! What the environment says about the way to servers, in the variables and files of the field's tools.

use std::{env, path::PathBuf, sync::Arc};

use sluicegate_outbound::{Outbound, OutboundSettings, Warn};
use sluicegate_runner::UpstreamProxy;
use sluicegate_shared::Credentials;
use sluicegate_types::Secret;

use crate::{
    home::Home,
    words::{Problem, Words},
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

/// Who asks the server of a bucket, in the variables of Amazon's own tools. No file and no metadata address is asked for them.
pub(crate) fn bucket_credentials(shown: &str) -> Result<Credentials, Problem> {
    let needed = |name: &str| {
        variable(name).ok_or_else(|| {
            Problem::usage(
                format!("the gateway's shared store {shown} needs credentials, and {name} is not set"),
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, if they were lent)",
            )
        })
    };
    // They stand in headers.
    let checked = |name: &str, text: String| match text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text),
        false => Err(Problem::usage(
            format!("{name} has a character that no such credential has, such as a blank or a line break"),
            format!("set {name} to the credential alone"),
        )),
    };
    let needed = |name: &str| needed(name).and_then(|text| checked(name, text));
    let secret = |text: String| Secret::new(text.into_bytes());
    let session = "AWS_SESSION_TOKEN";
    Ok(Credentials {
        key_id: needed("AWS_ACCESS_KEY_ID")?,
        secret: secret(needed("AWS_SECRET_ACCESS_KEY")?),
        session: variable(session).map(|text| checked(session, text)).transpose()?.map(secret),
    })
}

/// Says what stops nothing, as everything else is said then: an adapter is opened before it is known how a run is shown, and warns at any
/// time.
pub(crate) fn warn() -> Warn {
    Arc::new(|line| Words::of_this_process().warn(line))
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
