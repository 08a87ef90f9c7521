//! Where Trivy's database keeps what Trivy asks it about: which bucket for a system, which prefix for a kind of package.
//!
//! Trivy itself asks for a bucket and takes a missing one for "no advisories". The names are those of trivy-db's schema version 2.

use sluicegate_ports::scan::System;

/// The top bucket of a system's advisories, such as `debian 12`; `None` where this version does not know how it is named.
pub(crate) fn of_system(system: &System) -> Option<String> {
    let release = system.release.split_whitespace().next().unwrap_or_default();
    let major = release.split('.').next().unwrap_or_default();
    let minor = release.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    let named = |name: &str, release: &str| (!release.is_empty()).then(|| format!("{name} {release}"));
    match system.family.as_str() {
        "debian" => named("debian", major),
        "ubuntu" => named("ubuntu", &system.release),
        "alpine" => named("alpine", &minor),
        "alma" => named("alma", major),
        "rocky" => named("rocky", major),
        "oracle" => named("Oracle Linux", major),
        "amazon" => named("amazon linux", release),
        "photon" => named("Photon OS", release),
        "azurelinux" => named("Azure Linux", &minor),
        "cbl-mariner" => named("CBL-Mariner", &minor),
        "opensuse-leap" | "opensuse.leap" => named("openSUSE Leap", release),
        "opensuse-tumbleweed" | "opensuse.tumbleweed" => Some("openSUSE Tumbleweed".to_owned()),
        "sles" | "suse linux enterprise server" => named("SUSE Linux Enterprise", release),
        "redhat" | "centos" => Some("Red Hat".to_owned()),
        "wolfi" => Some("wolfi".to_owned()),
        "chainguard" => Some("chainguard".to_owned()),
        _ => None,
    }
}

/// The prefix of the buckets in which advisories for this kind of package list stand, such as `pip::`; `None` for a kind for
/// which this version knows of no advisories.
pub(crate) fn prefix_of_packages(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "python-pkg" | "pip" | "pipenv" | "poetry" | "uv" | "pylock" => "pip::",
        "node-pkg" | "npm" | "yarn" | "pnpm" | "bun" => "npm::",
        "gobinary" | "gomod" => "go::",
        "jar" | "pom" | "gradle" | "sbt" => "maven::",
        "rustbinary" | "cargo" => "cargo::",
        "gemspec" | "bundler" => "rubygems::",
        "composer" | "composer-vendor" => "composer::",
        "nuget" | "dotnet-core" | "packages-props" => "nuget::",
        "hex" => "erlang::",
        "pub" => "pub::",
        "conan" => "conan::",
        "swift" => "swift::",
        "cocoapods" => "cocoapods::",
        "bitnami" => "bitnami::",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_named_as_the_database_names_them() {
        let bucket = |family: &str, release: &str| {
            of_system(&System { family: family.into(), release: release.into(), ended: false })
        };
        assert_eq!(bucket("debian", "12.11").as_deref(), Some("debian 12"));
        assert_eq!(bucket("ubuntu", "24.04").as_deref(), Some("ubuntu 24.04"));
        assert_eq!(bucket("alpine", "3.20.1").as_deref(), Some("alpine 3.20"));
        assert_eq!(bucket("amazon", "2 (Karoo)").as_deref(), Some("amazon linux 2"));
        assert_eq!(bucket("debian", ""), None);
        assert_eq!(bucket("haiku", "1"), None);
    }
}
