//! `cargo xtask setup`: says what this machine lacks before the big build begins, with the one line that installs it, and fetches the
//! programs we are tested against.

use std::fs;
use std::process::Command;

use crate::commands::works;
use crate::failure::{Failure, Outcome};
use crate::tools;
use crate::workspace::Workspace;

/// What `setup` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Trivy.
    Trivy,
    /// Trivy, the programs from Go modules, and a look at those of the distribution.
    Peers,
    /// Trivy and what `bench` compares us with.
    Bench,
}

/// Checks the machine and installs.
pub fn run(workspace: &Workspace, extent: Extent) -> Outcome {
    check_machine(extent)?;
    println!("trivy      {}", tools::trivy(workspace)?.display());
    if extent == Extent::Bench {
        tools::bench_peers(workspace)?;
        tools::registry_peers(workspace)?;
    }
    if extent == Extent::Peers {
        tools::go_programs(workspace)?;
        for (program, package, is_there) in tools::from_the_system() {
            let found =
                if is_there { "from the system".to_owned() } else { format!("none: install the package {package}") };
            println!("{program:<10} {found}");
        }
    }
    Ok(())
}

/// What a machine needs, and the packages that bring it on each family of distributions.
struct Need {
    what: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    apt: &'static str,
    dnf: &'static str,
    apk: &'static str,
}

const NEEDS: [Need; 5] = [
    Need {
        what: "a C compiler",
        program: "cc",
        arguments: &["--version"],
        apt: "gcc libc6-dev",
        dnf: "gcc glibc-devel",
        apk: "gcc musl-dev",
    },
    Need {
        what: "Python 3",
        program: "python3",
        arguments: &["--version"],
        apt: "python3",
        dnf: "python3",
        apk: "python3",
    },
    Need {
        what: "pip",
        program: "python3",
        arguments: &["-m", "pip", "--version"],
        apt: "python3-pip",
        dnf: "python3-pip",
        apk: "py3-pip",
    },
    Need { what: "git", program: "git", arguments: &["--version"], apt: "git", dnf: "git", apk: "git" },
    Need {
        what: "sha256sum",
        program: "sha256sum",
        arguments: &["/dev/null"],
        apt: "coreutils",
        dnf: "coreutils",
        apk: "coreutils",
    },
];

const GO: Need =
    Need { what: "Go", program: "go", arguments: &["version"], apt: "golang-go", dnf: "golang", apk: "go" };

/// What only `bench` needs: the runtime under BuildKit, GNU time, which tells the peak memory of a program, one more client of registries,
/// and what hashes afterwards what they hold.
const FOR_BENCH: [Need; 4] = [
    Need { what: "runc", program: "runc", arguments: &["--version"], apt: "runc", dnf: "runc", apk: "runc" },
    Need { what: "GNU time", program: "/usr/bin/time", arguments: &["true"], apt: "time", dnf: "time", apk: "time" },
    Need { what: "skopeo", program: "skopeo", arguments: &["--version"], apt: "skopeo", dnf: "skopeo", apk: "skopeo" },
    Need {
        what: "openssl",
        program: "openssl",
        arguments: &["version"],
        apt: "openssl",
        dnf: "openssl",
        apk: "openssl",
    },
];

/// Fails with the line to type if something is missing.
pub fn check_machine(extent: Extent) -> Outcome {
    let for_bench = if extent == Extent::Bench { &FOR_BENCH[..] } else { &[] };
    let missing: Vec<&Need> = NEEDS
        .iter()
        .chain((extent != Extent::Trivy).then_some(&GO))
        .chain(for_bench)
        .filter(|need| !works(Command::new(need.program).args(need.arguments)))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    Err(Failure::new(advice(&missing, &os_release)))
}

fn advice(missing: &[&Need], os_release: &str) -> String {
    let what: Vec<_> = missing.iter().map(|need| need.what).collect();
    let packages = |of: fn(&Need) -> &str| missing.iter().map(|need| of(need)).collect::<Vec<_>>().join(" ");
    let line = match family(os_release) {
        Family::Apt => format!("apt-get install -y {}", packages(|need| need.apt)),
        Family::Dnf => format!("dnf install -y {}", packages(|need| need.dnf)),
        Family::Apk => format!("apk add {}", packages(|need| need.apk)),
        Family::Other => format!("install, with this distribution's own tool: {}", packages(|need| need.apt)),
    };
    format!("this machine lacks {}. As root:\n    {line}", what.join(", "))
}

enum Family {
    Apt,
    Dnf,
    Apk,
    Other,
}

fn family(os_release: &str) -> Family {
    let names = os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches('"').split_whitespace());
    for name in names {
        match name {
            "debian" | "ubuntu" => return Family::Apt,
            "fedora" | "rhel" | "centos" => return Family::Dnf,
            "alpine" => return Family::Apk,
            _ => {}
        }
    }
    Family::Other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_one_line_for_the_distribution() {
        let missing = [&NEEDS[0], &NEEDS[2]];
        let line = |os_release| advice(&missing, os_release).lines().last().unwrap().trim().to_owned();
        assert_eq!(line("ID=debian\n"), "apt-get install -y gcc libc6-dev python3-pip");
        assert_eq!(line("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), "apt-get install -y gcc libc6-dev python3-pip");
        assert_eq!(
            line("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"),
            "dnf install -y gcc glibc-devel python3-pip"
        );
        assert_eq!(line("ID=alpine\n"), "apk add gcc musl-dev py3-pip");
        assert!(line("").starts_with("install, with"));
        assert!(advice(&missing, "").starts_with("this machine lacks a C compiler, pip."));
    }
}
