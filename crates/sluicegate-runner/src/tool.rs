use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use sluicegate_ports::execute::{
    Ended, ExecuteError, Limits, Network, StepRequest, ToolOutcome, ToolRequest, ToolSandbox,
};

use crate::{
    executor::{EmbeddedExecutor, Launch, engine, explain, require_this_machine, unexpected_socket},
    job::{MountJob, MountKind, NetworkJob, Stage, Streams, Workload},
    plan,
    supervise::{Ending, Killed, Listener, Output},
};

/// Where a tool stands in its root.
const PROGRAM: &str = "/tool";
/// Its working folder, the only one that it can write to.
const WORKDIR: &str = "/tmp";
/// Bytes of standard error that are kept, the last ones.
const STDERR_BYTES: usize = 64 * 1024;
/// The user that owns nothing, by convention.
const NOBODY: (u32, u32) = (65_534, 65_534);
/// Entries that are looked at to find out whether nobody can read the folders.
const MAX_LOOKED_AT: usize = 10_000;

impl ToolSandbox for EmbeddedExecutor {
    /// The tool runs as user 65534 where that user can read the program and the folders, else as user 0; without any capability
    /// in either case.
    fn run_tool(&self, request: &ToolRequest) -> Result<ToolOutcome, ExecuteError> {
        let step = "tool";
        let refused = |reason: String| ExecuteError::Refused { step: step.to_owned(), reason };
        let as_step = as_step(request).map_err(|error: sluicegate_types::NameError| refused(error.to_string()))?;
        plan::check(&as_step).map_err(refused)?;
        require_this_machine()?;
        let run = self.run_folder(step)?;
        let places = std::iter::once((&request.program, Path::new(PROGRAM)))
            .chain(request.folders.iter().map(|(host, at)| (host, at.as_path())));
        let mut mounts = places
            .map(mount_read_only)
            .collect::<io::Result<Vec<_>>>()
            .map_err(engine(step, "find the tool's folders"))?;
        mounts.sort_by_key(|mount| mount.at.components().count());
        let owner = match anybody_reads(&mounts).map_err(engine(step, "look at the tool's folders"))? {
            true => NOBODY,
            false => (0, 0),
        };
        let stopped = || request.stop.is_raised();
        let launch = Launch {
            host_name: step,
            lowers: Vec::new(),
            mounts,
            system_files: Vec::new(),
            network: NetworkJob::Own,
            workdir: Path::new(WORKDIR),
            owner,
            groups: &[],
            workload: Workload::Program { argv: as_step.argv.clone(), env: as_step.env.clone() },
            streams: Streams::Log,
            outputs: &[],
            limits: &as_step.limits,
            epoch: 0,
            ending: Ending::of_tool(request.timeout, &stopped),
            watch: None,
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut take_output = |stream, bytes: &[u8]| {
            if stream == 0 {
                if stdout.len() as u64 + bytes.len() as u64 > request.stdout_bytes {
                    return Ok(Output::Full);
                }
                stdout.extend_from_slice(bytes);
            } else {
                keep_tail(&mut stderr, bytes);
            }
            Ok(Output::Taken)
        };
        let listener = Listener { on_output: &mut take_output, on_socket: &mut unexpected_socket };
        let report = self.launch(step, &run, launch, true, listener)?;
        if let Err(failure) = &report.result {
            return Err(match failure.stage {
                Stage::Overlay | Stage::Namespaces => {
                    let (reason, remedy) = explain(failure);
                    ExecuteError::NotHere { reason, remedy }
                }
                _ => failed(step, "make the tool's container", failure.reason.clone()),
            });
        }
        let ended = match (report.killed, report.ended) {
            (Some(Killed::TimedOut), _) => Ended::TimedOut,
            (Some(Killed::Stopped), _) => Ended::Stopped,
            (Some(Killed::TooMuchOutput), _) => {
                let reason = format!("it printed more than the limit of {} bytes", request.stdout_bytes);
                return Err(failed(step, "take the tool's output", reason));
            }
            (None, Some((code, _))) => Ended::Exit(code),
            (None, None) => return Err(failed(step, "run the tool", "the helper did not say how it ended".to_owned())),
        };
        Ok(ToolOutcome { ended, stdout, stderr })
    }
}

fn failed(step: &str, action: &'static str, reason: String) -> ExecuteError {
    ExecuteError::Engine { step: step.to_owned(), action, reason }
}

/// The same request in the words of a step, so that both are judged by the same rules.
fn as_step(request: &ToolRequest) -> Result<StepRequest, sluicegate_types::NameError> {
    let mount = |at: &Path| sluicegate_ports::execute::Input {
        mount_point: at.to_owned(),
        content: sluicegate_types::Content {
            kind: sluicegate_types::ContentKind::Directory,
            digest: sluicegate_types::Digest::of(b""),
        },
        executable: false,
        access: sluicegate_ports::execute::InputAccess::ReadOnly,
    };
    Ok(StepRequest {
        step: "tool".parse()?,
        layers: Vec::new(),
        argv: std::iter::once(PROGRAM.to_owned()).chain(request.args.iter().cloned()).collect(),
        env: request.env.clone(),
        workdir: WORKDIR.into(),
        user: format!("{}:{}", NOBODY.0, NOBODY.1),
        inputs: std::iter::once(mount(Path::new(PROGRAM)))
            .chain(request.folders.iter().map(|(_, at)| mount(at)))
            .collect(),
        caches: Vec::new(),
        outputs: Vec::new(),
        limits: Limits {
            timeout: request.timeout,
            memory: request.memory,
            pids: None,
            cpu_millis: None,
            log_bytes: request.stdout_bytes,
            output_bytes: 0,
        },
        epoch: 0,
        network: Network::None,
        masked: Vec::new(),
        observe: false,
        stop: request.stop.clone(),
    })
}

fn mount_read_only((host, at): (&PathBuf, &Path)) -> io::Result<MountJob> {
    let what = MountKind::Host(fs::canonicalize(host)?);
    Ok(MountJob { at: at.to_owned(), what, read_only: true })
}

/// Whether every user may read all of it; not if there is too much to look at.
fn anybody_reads(mounts: &[MountJob]) -> io::Result<bool> {
    let mut waiting: Vec<PathBuf> = mounts
        .iter()
        .filter_map(|mount| match &mount.what {
            MountKind::Host(path) => Some(path.clone()),
            _ => None,
        })
        .collect();
    let mut seen = 0;
    while let Some(path) = waiting.pop() {
        seen += 1;
        let meta = fs::symlink_metadata(&path)?;
        let needed = if meta.is_dir() { 0o005 } else { 0o004 };
        if seen > MAX_LOOKED_AT || (!meta.is_symlink() && meta.mode() & needed != needed) {
            return Ok(false);
        }
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
        }
    }
    Ok(true)
}

fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    tail.extend_from_slice(bytes);
    let surplus = tail.len().saturating_sub(STDERR_BYTES);
    tail.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_the_end_of_standard_error_is_kept() {
        let mut tail = Vec::new();
        keep_tail(&mut tail, &[b'a'; STDERR_BYTES]);
        keep_tail(&mut tail, b"end");
        assert_eq!(tail.len(), STDERR_BYTES);
        assert!(tail.starts_with(b"a") && tail.ends_with(b"aend"));
    }

    #[test]
    fn one_private_file_is_enough_for_nobody_to_be_shut_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = dir.path().join("a");
        fs::write(&file, "").unwrap();
        let readable =
            || anybody_reads(&[mount_read_only((&dir.path().to_owned(), Path::new("/x"))).unwrap()]).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(readable());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(!readable());
    }
}
