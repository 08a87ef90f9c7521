//! The real BuildKit, as it is built from its module, with runc: a daemon of our own for as long as a benchmark runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::process::{self, Program, Ran};
use crate::commands;
use crate::failure::{Failure, Outcome};
use crate::oci_layout;
use crate::tools::{self, BenchPeers};

const START_LIMIT: Duration = Duration::from_secs(30);
const END_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// A daemon with a root folder and a socket of its own, in mount and process namespaces of its own: what it mounts is seen nowhere else and
/// is gone with its last process, and its last process is gone with the one that we started, also if this program is killed.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    pid: u32,
    folder: PathBuf,
    address: String,
    buildctl: PathBuf,
    groups_before: Vec<PathBuf>,
}

/// Does something beside a daemon whose files are in `folder`, and takes all of it away; a mount that it leaves is a failure.
pub(super) fn beside(peers: &BenchPeers, folder: &Path, work: impl FnOnce(&Daemon) -> Outcome) -> Outcome {
    let daemon = Daemon::start(peers, folder)?;
    let done = work(&daemon);
    drop(daemon);
    let left = mounts_below(folder);
    done?;
    if !left.is_empty() {
        return Err(Failure::new(format!("BuildKit left mounts behind: {left:?}")));
    }
    tools::remove(folder)
}

impl Daemon {
    /// Starts it and waits until it answers. As root; its files are in `folder`, which is made anew.
    fn start(peers: &BenchPeers, folder: &Path) -> Outcome<Self> {
        tools::remove(folder)?;
        fs::create_dir_all(folder).map_err(Failure::while_doing(format!("make {}", folder.display())))?;
        let settings = folder.join("buildkitd.toml");
        fs::write(&settings, "").map_err(Failure::while_doing(format!("write {}", settings.display())))?;
        let log = File::create(folder.join("log")).map_err(Failure::while_doing("create the daemon's log"))?;
        // The path of a socket has at most 107 bytes, and a clone may stand deeper than that.
        let socket = std::env::temp_dir().join(format!("sluicegate-bench-{}.sock", std::process::id()));
        let address = format!("unix://{}", socket.display());
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--mount-proc"]);
        command.arg("--kill-child=KILL").arg(&peers.buildkitd).args(["--addr", &address, "--config"]).arg(&settings);
        command.arg("--root").arg(folder.join("root")).arg("--otel-socket-path").arg(folder.join("otel.sock"));
        command.args(["--containerd-worker=false", "--oci-worker=true", "--oci-worker-gc=false"]);
        command.arg("--oci-worker-binary").arg(&peers.runc);
        let stderr = log.try_clone().map_err(Failure::while_doing("open the daemon's log twice"))?;
        command.stdin(Stdio::null()).stdout(log).stderr(stderr);
        let groups_before = control_groups();
        let child = command.spawn().map_err(Failure::while_doing("start buildkitd"))?;
        let mut daemon =
            Self { child, pid: 0, folder: folder.to_owned(), address, buildctl: peers.buildctl.clone(), groups_before };
        daemon.wait_until_it_answers()?;
        Ok(daemon)
    }

    fn wait_until_it_answers(&mut self) -> Outcome {
        let started = Instant::now();
        let ask = Program::new(&self.buildctl, &self.folder).args(["--addr", &self.address, "debug", "workers"]);
        while !commands::works(&mut ask.command()) {
            let ended = self.child.try_wait().map_err(Failure::while_doing("look after buildkitd"))?;
            if ended.is_some() || started.elapsed() > START_LIMIT {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                return Err(Failure::new(format!("buildkitd does not answer:\n{log}")));
            }
            thread::sleep(PAUSE);
        }
        self.pid = only_child(self.child.id()).ok_or_else(|| Failure::new("buildkitd is not found below unshare"))?;
        Ok(())
    }

    /// The peak memory of the daemon until now, in KiB.
    #[must_use]
    pub(super) fn peak_kib(&self) -> Option<u64> {
        process::high_water_kib(self.pid)
    }

    /// A build of `steps` times `RUN ["/usr/bin/true"]` on the image in `layout`: nothing cached, no network in the steps, nothing signed,
    /// no result written.
    pub(super) fn chain(&self, layout: &Path, steps: usize) -> Outcome<Program> {
        Ok(self.cached(layout, &format!("chain-{steps}"), &dockerfile(steps), None)?.args(["--no-cache"]))
    }

    /// The same of any Dockerfile, which may take what it did before; `context` is what it copies from.
    pub(super) fn cached(
        &self,
        layout: &Path,
        name: &str,
        dockerfile: &str,
        context: Option<&Path>,
    ) -> Outcome<Program> {
        let image = oci_layout::image_digest(layout)?;
        self.write_dockerfile(name, dockerfile)?;
        let own = self.folder.join(name);
        let context = context.unwrap_or(&own);
        Ok(Program::new(&self.buildctl, &self.folder)
            .args(["--addr", &self.address, "build", "--progress=plain", "--frontend", "dockerfile.v0"])
            .args(["--local", &format!("context={}", context.display())])
            .args(["--local", &format!("dockerfile={}", own.display())])
            .args(["--oci-layout", &format!("images={}", layout.display())])
            .args(["--opt", &format!("context:base=oci-layout://images@{image}")])
            .args(["--opt", "force-network-mode=none"]))
    }

    /// Writes the Dockerfile of such a build anew.
    pub(super) fn write_dockerfile(&self, name: &str, text: &str) -> Outcome {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).map_err(Failure::while_doing(format!("make {}", folder.display())))?;
        let file = folder.join("Dockerfile");
        fs::write(&file, text).map_err(Failure::while_doing(format!("write {}", file.display())))
    }
}

impl Drop for Daemon {
    /// Asks it to end, waits, then kills; what it left is removed as far as that goes.
    fn drop(&mut self) {
        if self.pid != 0 {
            commands::works(Command::new("kill").args(["-TERM", &self.pid.to_string()]));
        } else {
            let _ = self.child.kill();
        }
        let started = Instant::now();
        while self.child.try_wait().is_ok_and(|status| status.is_none()) {
            if started.elapsed() > END_LIMIT {
                let _ = self.child.kill();
                break;
            }
            thread::sleep(PAUSE);
        }
        let _ = self.child.wait();
        if let Some(socket) = self.address.strip_prefix("unix://") {
            let _ = fs::remove_file(socket);
            let _ = fs::remove_file(format!("{socket}.lock"));
        }
        // Those that were there before belong to another daemon.
        for group in control_groups().iter().filter(|group| !self.groups_before.contains(group)) {
            let _ = fs::remove_dir(group);
        }
    }
}

/// BuildKit's control groups that exist, in version 1's hierarchies or version 2's.
fn control_groups() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    hierarchies.chain([root.to_owned()]).map(|place| place.join("buildkit")).filter(|group| group.is_dir()).collect()
}

/// Mount points below `folder`, as this process sees them.
#[must_use]
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    mount_points(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(), folder)
}

fn mount_points(mountinfo: &str, folder: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(folder)).collect()
}

pub(super) fn dockerfile(steps: usize) -> String {
    format!("FROM base\n{}", "RUN [\"/usr/bin/true\"]\n".repeat(steps))
}

/// Steps that a build executed; one that it took from its cache is a failure.
pub(super) fn executed(ran: &Ran) -> Outcome<u64> {
    let (done, cached) = vertices(&ran.stderr);
    if cached > 0 {
        return Err(Failure::new(format!("BuildKit took {cached} steps from its cache")));
    }
    Ok(done)
}

/// Of `--progress=plain`: how many `RUN` were done and how many were cached. Each vertex has a number, its name, and later how it ended.
pub(super) fn vertices(progress: &str) -> (u64, u64) {
    let lines = || progress.lines().filter_map(|line| line.strip_prefix('#')?.split_once(' '));
    let runs: std::collections::BTreeSet<&str> = lines()
        .filter(|(_, text)| text.starts_with('[') && text.contains("] RUN "))
        .map(|(number, _)| number)
        .collect();
    let ended = |word: &str| {
        let those = lines().filter(|(number, text)| runs.contains(number) && text.split(' ').next() == Some(word));
        those.map(|(number, _)| number).collect::<std::collections::BTreeSet<_>>().len() as u64
    };
    (ended("DONE"), ended("CACHED"))
}

fn only_child(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRESS: &str = "#1 [internal] load build definition from Dockerfile\n#1 DONE 0.0s\n\n\
        #4 [1/3] FROM oci-layout://images@sha256:ab\n#4 DONE 0.0s\n\n\
        #5 [2/3] RUN [\"/usr/bin/true\"]\n#5 DONE 0.1s\n\n\
        #6 [3/3] RUN [\"/usr/bin/true\"]\n";

    #[test]
    fn only_steps_that_ran_to_their_end_are_counted() {
        assert_eq!(vertices(PROGRESS), (1, 0));
        assert_eq!(vertices(&format!("{PROGRESS}#6 0.05 text\n#6 DONE 0.1s\n#6 DONE 0.1s\n")), (2, 0));
        assert_eq!(vertices(&format!("{PROGRESS}#6 CACHED\n")), (1, 1));
        assert_eq!(vertices(""), (0, 0));
        let ran = |stderr: String| Ran { milliseconds: 1.0, stdout: String::new(), stderr };
        assert_eq!(executed(&ran(PROGRESS.to_owned())).unwrap(), 1);
        assert!(executed(&ran(format!("{PROGRESS}#6 CACHED\n"))).is_err());
    }

    #[test]
    fn mounts_are_found_by_their_folder() {
        let mountinfo = "36 35 98:0 / /a/b/c rw - ext4 /dev/root rw\n37 35 98:0 / /a/bc rw - ext4 /dev/root rw\n";
        assert_eq!(mount_points(mountinfo, Path::new("/a/b")), [PathBuf::from("/a/b/c")]);
        assert!(mount_points("", Path::new("/")).is_empty());
    }

    #[test]
    fn a_chain_is_one_line_for_each_step() {
        assert_eq!(dockerfile(2), "FROM base\nRUN [\"/usr/bin/true\"]\nRUN [\"/usr/bin/true\"]\n");
    }
}
