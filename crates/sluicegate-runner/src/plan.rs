//! Judges a request before anything is done for it, and writes the container's configuration. Pure: nothing is opened here.

use std::path::{Component, Path};

use serde_json::{Value, json};
use sluicegate_ports::execute::{Egress, Limits, Network, StepRequest};

use crate::{account, cgroup, masking, mounts::ROOT};

/// overlayfs stacks at most 500 folders.
const MAX_LAYERS: usize = 400;

/// With less, not even the container's first process starts.
const MIN_MEMORY: u64 = 8 << 20;

/// The kernel's shortest quota, a hundredth of a processor.
const MIN_CPU_MILLIS: u32 = 10;

/// Descriptors of a step, if the runner itself may have so many.
const MAX_DESCRIPTORS: u64 = 65_536;

/// Bytes of one argument or variable (the kernel's MAX_ARG_STRLEN without the NUL).
const MAX_ARGUMENT: usize = 128 * 1024 - 1;

/// Arguments and variables.
const MAX_ARGUMENTS: usize = 32_768;

/// Servers in a list.
const MAX_DESTINATIONS: usize = 10_000;

/// Places that the container itself mounts.
const RESERVED: [&str; 3] = ["/proc", "/sys", "/dev"];

/// What is hidden from a step, and what it may only read: runc's defaults (opencontainers/runc, `libcontainer/specconv`) with
/// moby's additions.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Refuses what this version cannot run, with the reason.
pub(crate) fn check(request: &StepRequest) -> Result<(), String> {
    if request.argv.is_empty() {
        return Err("there is nothing to execute: argv is empty".to_owned());
    }
    check_texts(request)?;
    account::check(&request.user)?;
    if let Network::Allow(egress) = &request.network {
        check_egress(egress)?;
    }
    masking::check(&request.masked)?;
    if request.layers.len() > MAX_LAYERS {
        return Err(format!("the image has {} layers, at most {MAX_LAYERS} can be stacked", request.layers.len()));
    }
    check_path("working folder", &request.workdir)?;
    for (index, input) in request.inputs.iter().enumerate() {
        check_path("mount point", &input.mount_point)?;
        if input.mount_point == Path::new("/") {
            return Err("an input cannot be mounted at /".to_owned());
        }
        if request.inputs[..index].iter().any(|other| other.mount_point == input.mount_point) {
            return Err(format!("two inputs are mounted at {}", input.mount_point.display()));
        }
    }
    for (index, cache) in request.caches.iter().enumerate() {
        check_path("shared cache", &cache.mount_point)?;
        let at = &cache.mount_point;
        let overlaps = |other: &Path| at.starts_with(other) || other.starts_with(at);
        if at == Path::new("/") || request.inputs.iter().any(|input| input.mount_point.starts_with(at)) {
            return Err(format!("the shared cache {} would stand around an input or be the root", cache.name));
        }
        if request.caches[..index].iter().any(|other| overlaps(&other.mount_point)) {
            return Err(format!("the shared cache {} overlaps another one", cache.name));
        }
        if let Some(output) = request.outputs.iter().find(|output| overlaps(&output.path)) {
            return Err(format!("the shared cache {} overlaps the output {}", cache.name, output.name));
        }
    }
    for output in &request.outputs {
        check_path("output", &output.path)?;
    }
    check_limits(&request.limits)
}

fn check_texts(request: &StepRequest) -> Result<(), String> {
    if request.argv.len() + request.env.len() > MAX_ARGUMENTS {
        return Err(format!("more than {MAX_ARGUMENTS} arguments and variables"));
    }
    for argument in &request.argv {
        if argument.contains('\0') || argument.len() > MAX_ARGUMENT {
            return Err(format!("an argument has no NUL and at most {MAX_ARGUMENT} bytes"));
        }
    }
    for (name, value) in &request.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(format!("variable {name:?}: a name is not empty and has no '=', neither part has a NUL"));
        }
        if name.len() + value.len() >= MAX_ARGUMENT {
            return Err(format!("variable {name:?} has more than {MAX_ARGUMENT} bytes"));
        }
    }
    Ok(())
}

fn check_egress(egress: &Egress) -> Result<(), String> {
    if egress.destinations.is_empty() {
        return Err("a list of servers with none in it; without a network is another thing to ask for".to_owned());
    }
    if egress.destinations.len() > MAX_DESTINATIONS || egress.private.len() > MAX_DESTINATIONS {
        return Err(format!("a list of more than {MAX_DESTINATIONS} servers"));
    }
    Ok(())
}

fn check_path(what: &str, path: &Path) -> Result<(), String> {
    let shown = path.display();
    if path.to_str().is_none_or(|text| text.contains('\0')) {
        return Err(format!("{what} {shown}: not UTF-8 without NUL"));
    }
    let mut components = path.components();
    if components.next() != Some(Component::RootDir) || components.any(|part| !matches!(part, Component::Normal(_))) {
        return Err(format!("{what} {shown}: an absolute path without '..'"));
    }
    if RESERVED.iter().any(|reserved| path.starts_with(reserved)) {
        return Err(format!("{what} {shown}: /proc, /sys and /dev are the container's own"));
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), String> {
    if limits.timeout.is_zero() {
        return Err("a time-out of nothing".to_owned());
    }
    if limits.memory.is_some_and(|bytes| bytes < MIN_MEMORY || i64::try_from(bytes).is_err()) {
        return Err(format!("a memory limit is at least {MIN_MEMORY} bytes"));
    }
    if limits.pids.is_some_and(|pids| pids < 2 || i64::try_from(pids).is_err()) {
        return Err("a limit of processes is at least 2: the container's first one counts".to_owned());
    }
    if limits.cpu_millis.is_some_and(|millis| millis < MIN_CPU_MILLIS) {
        return Err(format!("a processor limit is at least {MIN_CPU_MILLIS} thousandths"));
    }
    Ok(())
}

/// What the machine gives to the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// Whether swap can be limited.
    pub(crate) limits_swap: bool,
    /// Our own hard limit of descriptors: going beyond it needs a capability that not even root has everywhere.
    pub(crate) descriptors: u64,
}

/// The configuration of the container (OCI runtime-spec 1.0.2) but for the program and its environment, which only pid 1 gets.
pub(crate) fn runtime_config(
    id: &str,
    host_name: &str,
    workdir: &Path,
    owner: (u32, u32),
    groups: &[u32],
    limits: &Limits,
    machine: Machine,
) -> Value {
    let descriptors = machine.descriptors.min(MAX_DESCRIPTORS);
    json!({
        "ociVersion": "1.0.2",
        "hostname": host_name,
        "root": { "path": ROOT, "readonly": false },
        "process": {
            "terminal": false,
            "user": { "uid": owner.0, "gid": owner.1, "additionalGids": groups, "umask": 0o022 },
            "args": ["step"],
            "env": [],
            "cwd": workdir,
            "noNewPrivileges": true,
            "capabilities": { "bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": [] },
            "rlimits": [
                { "type": "RLIMIT_NOFILE", "hard": descriptors, "soft": descriptors },
                { "type": "RLIMIT_CORE", "hard": 0, "soft": 0 },
            ],
        },
        "mounts": mounts(),
        "linux": {
            // The network and the outer mount namespace are the helper's.
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" },
            ],
            "cgroupsPath": cgroup::path_of(id),
            "resources": resources(limits, machine),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    })
}

fn mounts() -> Value {
    let mount = |at: &str, kind: &str, options: &[&str]| json!({ "destination": at, "type": kind, "source": kind, "options": options });
    json!([
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ])
}

fn resources(limits: &Limits, machine: Machine) -> Value {
    let mut resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    if let Some(bytes) = limits.memory {
        resources["memory"] = json!({ "limit": bytes });
        if machine.limits_swap {
            // Memory and swap together in the specification's sense: equal means no swap.
            resources["memory"]["swap"] = json!(bytes);
        }
    }
    if let Some(pids) = limits.pids {
        resources["pids"] = json!({ "limit": pids });
    }
    if let Some(millis) = limits.cpu_millis {
        resources["cpu"] = json!({ "quota": u64::from(millis) * 100, "period": 100_000 });
    }
    resources
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluicegate_ports::execute::{Input, InputAccess, OutputRequest, SharedCache, Stop};
    use sluicegate_types::{Content, ContentKind, Digest, Secret};

    use super::*;

    fn limits() -> Limits {
        Limits {
            timeout: Duration::from_secs(1),
            memory: None,
            pids: None,
            cpu_millis: None,
            log_bytes: 1,
            output_bytes: 1,
        }
    }

    fn request() -> StepRequest {
        StepRequest {
            step: "build".parse().unwrap(),
            layers: vec![],
            argv: vec!["true".into()],
            env: vec![("A".into(), "b=c".into())],
            workdir: "/".into(),
            user: format!("{}:0", account::FIRST_REFUSED_ID - 1),
            inputs: vec![input("/src"), input("/src/vendor")],
            caches: vec![cache("/src/cache"), cache("/cache")],
            outputs: vec![OutputRequest { name: "o".parse().unwrap(), path: "/src/out".into() }],
            limits: limits(),
            epoch: 0,
            network: Network::None,
            masked: vec![Secret::new(b"abcd".to_vec())],
            observe: false,
            stop: Stop::default(),
        }
    }

    fn cache(at: &str) -> SharedCache {
        SharedCache { name: "deps".parse().unwrap(), mount_point: at.into(), scope: None }
    }

    fn input(at: &str) -> Input {
        Input {
            mount_point: at.into(),
            content: Content { kind: ContentKind::File, digest: Digest::of(b"") },
            executable: false,
            access: InputAccess::ReadOnly,
        }
    }

    #[test]
    fn each_fault_is_refused_beside_the_request_without_it() {
        assert_eq!(check(&request()), Ok(()));
        type Fault = fn(&mut StepRequest);
        let faults: [(&str, Fault); 23] = [
            ("nothing to execute", |request| request.argv.clear()),
            ("no NUL", |request| request.argv.push("a\0".into())),
            ("variable \"\"", |request| request.env.push((String::new(), "x".into()))),
            ("variable \"A=\"", |request| request.env.push(("A=".into(), "x".into()))),
            ("user \"2147483648:0\"", |request| request.user = "2147483648:0".into()),
            ("4294967295", |request| request.user = "4294967295:4294967295".into()),
            ("secret number 1", |request| request.masked[0] = Secret::new(b"abc".to_vec())),
            ("working folder", |request| request.workdir = "here".into()),
            ("working folder", |request| request.workdir = "/a/../b".into()),
            ("working folder", |request| request.workdir = "/proc/self/fd/7".into()),
            ("at /", |request| request.inputs.push(input("/"))),
            ("two inputs", |request| request.inputs.push(input("/src"))),
            ("the container's own", |request| request.inputs.push(input("/dev/x"))),
            ("output", |request| request.outputs[0].path = "out".into()),
            ("shared cache", |request| request.caches.push(cache("cache"))),
            ("around an input", |request| request.caches.push(cache("/src"))),
            ("be the root", |request| request.caches.push(cache("/"))),
            ("another one", |request| request.caches.push(cache("/cache/deps"))),
            ("overlaps the output o", |request| request.caches.push(cache("/src/out/cache"))),
            ("time-out", |request| request.limits.timeout = Duration::ZERO),
            ("memory", |request| request.limits.memory = Some(MIN_MEMORY - 1)),
            ("processes", |request| request.limits.pids = Some(1)),
            ("processor", |request| request.limits.cpu_millis = Some(MIN_CPU_MILLIS - 1)),
        ];
        for (word, fault) in faults {
            let mut request = request();
            fault(&mut request);
            let reason = check(&request).unwrap_err();
            assert!(reason.contains(word), "{word}: {reason}");
        }
    }

    #[test]
    fn the_configuration_has_no_privilege_and_no_limit_above_our_own() {
        let limits = Limits { memory: Some(MIN_MEMORY), pids: Some(9), cpu_millis: Some(1500), ..limits() };
        let machine = Machine { limits_swap: true, descriptors: 20_000 };
        let config = runtime_config("id", "build", Path::new("/w"), (1, 2), &[3], &limits, machine);
        assert_eq!(config["process"]["noNewPrivileges"], true);
        assert_eq!(config["process"]["user"], json!({ "uid": 1, "gid": 2, "additionalGids": [3], "umask": 0o022 }));
        assert!(config["process"]["capabilities"].as_object().unwrap().values().all(|set| set == &json!([])));
        assert_eq!(config["process"]["rlimits"][0]["hard"], 20_000);
        assert_eq!(config["linux"]["resources"]["memory"], json!({ "limit": MIN_MEMORY, "swap": MIN_MEMORY }));
        assert_eq!(config["linux"]["resources"]["cpu"], json!({ "quota": 150_000, "period": 100_000 }));
        assert_eq!(config["linux"]["cgroupsPath"], "/sluicegate/id");
        let without_swap = Machine { limits_swap: false, descriptors: 1 << 20 };
        let config = runtime_config("id", "build", Path::new("/w"), (1, 2), &[3], &limits, without_swap);
        assert_eq!(config["linux"]["resources"]["memory"], json!({ "limit": MIN_MEMORY }));
        assert_eq!(config["process"]["rlimits"][0]["hard"], MAX_DESCRIPTORS);
    }
}
