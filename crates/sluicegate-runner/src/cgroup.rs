//! The control groups of a container: `/sluicegate/ID` in the one hierarchy of version 2 or in every one of version 1.
//! libcontainer makes them; here they are looked for, read and removed.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, Signal};

const MOUNTED_AT: &str = "/sys/fs/cgroup";
const PARENT: &str = "sluicegate";
const REMOVE_ATTEMPTS: u32 = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(20);

/// The path that the runtime configuration names; an absolute one keeps systemd out of it.
pub(crate) fn path_of(id: &str) -> String {
    format!("/{PARENT}/{id}")
}

/// Whether swap is limited together with memory; the runtime fails on a limit that the kernel does not have.
pub(crate) fn limits_swap() -> bool {
    let v1 = Path::new(MOUNTED_AT).join("memory");
    !v1.is_dir() || v1.join("memory.memsw.limit_in_bytes").exists()
}

/// Whether groups can be made; the text says what failed.
pub(crate) fn check_writable() -> Result<(), String> {
    let hierarchies = hierarchies();
    if hierarchies.is_empty() {
        return Err(format!("no control groups are mounted at {MOUNTED_AT}"));
    }
    for hierarchy in hierarchies {
        let parent = hierarchy.join(PARENT);
        let trial = parent.join(format!("trial-{}", std::process::id()));
        fs::create_dir_all(&trial).map_err(|error| format!("make {}: {error}", trial.display()))?;
        // Another thread may be trying the same.
        let _ = fs::remove_dir(&trial);
    }
    Ok(())
}

/// Processes of this container that the memory limit killed; `None` where no file says so.
pub(crate) fn oom_kills(id: &str) -> Option<u64> {
    groups(id).into_iter().find_map(|group| {
        ["memory.oom_control", "memory.events"].into_iter().find_map(|name| {
            let text = fs::read_to_string(group.join(name)).ok()?;
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        })
    })
}

/// Kills what is left in the groups of this container and removes them. A process that is dying keeps its group, so that this
/// takes a moment; a group that is still there after that is left alone.
pub(crate) fn remove(id: &str) {
    for attempt in 0..REMOVE_ATTEMPTS {
        let left = groups(id);
        if left.is_empty() {
            return;
        }
        if attempt > 0 {
            std::thread::sleep(REMOVE_PAUSE);
        }
        for group in left {
            for line in fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
                if let Some(pid) = line.trim().parse().ok().and_then(Pid::from_raw) {
                    // It may be gone already, and then so be it.
                    let _ = rustix::process::kill_process(pid, Signal::KILL);
                }
            }
            let _ = fs::remove_dir(&group);
        }
    }
}

/// The groups of this container that exist.
pub(crate) fn groups(id: &str) -> Vec<PathBuf> {
    hierarchies().into_iter().map(|root| root.join(PARENT).join(id)).filter(|group| group.is_dir()).collect()
}

fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from(MOUNTED_AT);
    if root.join("cgroup.controllers").exists() {
        return vec![root];
    }
    // The names with which the runtime looks for version 1; `unified` and `systemd` are not its business.
    [
        "memory",
        "pids",
        "cpu",
        "devices",
        "cpuset",
        "cpuacct",
        "blkio",
        "freezer",
        "hugetlb",
        "perf_event",
        "net_cls",
        "net_prio",
    ]
    .into_iter()
    .map(|name| root.join(name))
    .filter(|path| path.join("cgroup.procs").exists())
    .collect()
}
