//! Programs that are started again and again: their wall time as the parent sees it, and their peak memory.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::samples::Samples;
use crate::commands;
use crate::failure::{Failure, Outcome};

/// GNU time: it waits with `wait4` and prints the peak of the largest process among the program and the descendants that were waited for.
const TIME: &str = "/usr/bin/time";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program, what it is given, and the exit code that it must have. It gets a PATH and nothing else of this environment.
#[derive(Clone, Debug)]
pub(super) struct Program {
    argv: Vec<OsString>,
    folder: PathBuf,
    environment: Vec<(OsString, OsString)>,
    exit: i32,
}

/// What a program left.
#[derive(Debug)]
pub(super) struct Ran {
    /// From before it was started until it had ended and was waited for.
    pub milliseconds: f64,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Program {
    /// `program`, to be run in `folder`, which must end with 0.
    pub(super) fn new(program: impl AsRef<OsStr>, folder: &Path) -> Self {
        Self {
            argv: vec![program.as_ref().to_owned()],
            folder: folder.to_owned(),
            environment: vec![("PATH".into(), PATH.into())],
            exit: 0,
        }
    }

    /// With further arguments.
    #[must_use]
    pub(super) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.argv.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// With a variable; a later one of the same name wins.
    #[must_use]
    pub(super) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Without a variable that was given before.
    #[must_use]
    pub(super) fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(given, _)| given != name);
        self
    }

    /// It must end with this exit code.
    #[must_use]
    pub(super) fn exits(mut self, code: i32) -> Self {
        self.exit = code;
        self
    }

    /// As a person types it, the program by its name.
    #[must_use]
    pub(super) fn line(&self) -> String {
        let words = self.argv.iter().enumerate().map(|(at, word)| {
            let word = if at == 0 { Path::new(word).file_name().unwrap_or(word) } else { word };
            commands::quoted(&word.to_string_lossy())
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// The command, for those who watch it on their own.
    #[must_use]
    pub(super) fn command(&self) -> Command {
        let (program, arguments) = self.argv.split_first().map_or((OsStr::new(""), &[][..]), |(p, a)| (p, a));
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.folder).env_clear().stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it once. Its outputs go to files in `scratch`, so that nobody has to read them while the clock runs.
    pub(super) fn run(&self, scratch: &Path) -> Outcome<Ran> {
        let [out, err] = ["stdout", "stderr"].map(|name| scratch.join(name));
        let mut command = self.command();
        for (path, is_out) in [(&out, true), (&err, false)] {
            let file = File::create(path).map_err(Failure::while_doing(format!("create {}", path.display())))?;
            if is_out {
                command.stdout(file)
            } else {
                command.stderr(file)
            };
        }
        let failed = || format!("start {}", self.line());
        let started = Instant::now();
        let mut child = command.spawn().map_err(Failure::while_doing(failed()))?;
        let status = child.wait().map_err(Failure::while_doing(failed()))?;
        let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
        let read = |path: &Path| {
            let bytes = fs::read(path).map_err(Failure::while_doing(format!("read {}", path.display())))?;
            Ok::<_, Failure>(String::from_utf8_lossy(&bytes).into_owned())
        };
        let ran = Ran { milliseconds, stdout: read(&out)?, stderr: read(&err)? };
        if status.code() != Some(self.exit) {
            let expected = self.exit;
            return Err(Failure::new(format!(
                "{}: ended with {status}, expected {expected}\n{}{}",
                self.line(),
                ran.stdout,
                ran.stderr
            )));
        }
        Ok(ran)
    }

    /// Runs it once more, under GNU time, and gives the peak memory in KiB of the largest process: itself or one that it started.
    pub(super) fn peak_kib(&self, scratch: &Path) -> Outcome<u64> {
        let report = scratch.join("peak");
        let mut watched = self.clone();
        let words = [OsStr::new(TIME), "-f".as_ref(), "%M".as_ref(), "-o".as_ref(), report.as_os_str()];
        watched.argv.splice(0..0, words.map(OsStr::to_owned));
        watched.run(scratch)?;
        let text = fs::read_to_string(&report).map_err(Failure::while_doing(format!("read {}", report.display())))?;
        peak(&text).ok_or_else(|| Failure::new(format!("{TIME} printed {text:?} and no peak memory")))
    }
}

/// Runs each program once to warm up, then all of them `rounds` times in turn, every other round in the opposite order. Each run is checked
/// by `check` with the number of the program.
pub(super) fn in_turn(
    programs: &[&Program],
    rounds: usize,
    scratch: &Path,
    check: impl FnMut(usize, &Ran) -> Outcome,
) -> Outcome<Vec<Samples>> {
    in_turn_after(programs, rounds, scratch, |_| Ok(()), check)
}

/// The same, with `before` done before each run, while no clock runs.
pub(super) fn in_turn_after(
    programs: &[&Program],
    rounds: usize,
    scratch: &Path,
    mut before: impl FnMut(usize) -> Outcome,
    mut check: impl FnMut(usize, &Ran) -> Outcome,
) -> Outcome<Vec<Samples>> {
    let mut measured = vec![Vec::with_capacity(rounds); programs.len()];
    for round in 0..=rounds {
        let mut order: Vec<usize> = (0..programs.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let (Some(program), Some(times)) = (programs.get(at), measured.get_mut(at)) else { continue };
            before(at)?;
            let ran = program.run(scratch)?;
            check(at, &ran)?;
            if round > 0 {
                times.push(ran.milliseconds);
            }
        }
    }
    measured
        .into_iter()
        .map(|times| Samples::new(times).ok_or_else(|| Failure::new("at least one round is needed")))
        .collect()
}

/// The last line of what GNU time wrote; before it stands a sentence if the program's exit code was not 0.
fn peak(report: &str) -> Option<u64> {
    report.lines().last()?.trim().parse().ok()
}

/// `VmHWM` of `/proc/PID/status` in KiB: the peak memory of a process that is still there.
#[must_use]
pub(super) fn high_water_kib(pid: u32) -> Option<u64> {
    high_water(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn high_water(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("xtask-bench-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn shell(folder: &Path, script: &str) -> Program {
        Program::new("sh", folder).args(["-c", script])
    }

    #[test]
    fn a_program_gets_what_it_is_given_and_its_exit_code_is_demanded() {
        let folder = scratch("run");
        let ran = shell(&folder, "echo $WORD; echo no >&2; pwd >&2").env("WORD", "yes").run(&folder).unwrap();
        assert_eq!(ran.stdout, "yes\n");
        assert!(ran.stderr.starts_with("no\n") && ran.milliseconds > 0.0, "{ran:?}");
        let failed = shell(&folder, "echo why; exit 3").run(&folder).unwrap_err().to_string();
        assert!(failed.contains("why") && failed.contains("expected 0"), "{failed}");
        shell(&folder, "exit 3").exits(3).run(&folder).unwrap();
        let program = shell(&folder, "test -z \"$WORD\"").env("WORD", "yes").without("WORD");
        program.run(&folder).unwrap();
        assert!(program.line().starts_with("sh -c 'test"), "{}", program.line());
        assert!(Program::new("/nonexistent/program", &folder).run(&folder).is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn programs_take_turns_and_each_run_is_checked() {
        let folder = scratch("turns");
        let (first, second) = (shell(&folder, "echo 0"), shell(&folder, "echo 1"));
        let mut order = Vec::new();
        let samples = in_turn(&[&first, &second], 2, &folder, |at, ran| {
            assert_eq!(ran.stdout, format!("{at}\n"));
            order.push(at);
            Ok(())
        });
        assert_eq!(samples.unwrap().iter().map(|samples| samples.milliseconds().len()).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(order, [0, 1, 1, 0, 0, 1]);
        let order = std::cell::RefCell::new(Vec::new());
        let note = |word: &'static str, at: usize| {
            order.borrow_mut().push((word, at));
            Ok(())
        };
        in_turn_after(&[&first], 1, &folder, |at| note("before", at), |at, _| note("after", at)).unwrap();
        assert_eq!(order.into_inner(), [("before", 0), ("after", 0)].repeat(2));
        let refused = in_turn(&[&first], 1, &folder, |_, _| Err(Failure::new("a count is wrong")));
        assert_eq!(refused.unwrap_err().to_string(), "a count is wrong");
        assert!(in_turn(&[&first], 0, &folder, |_, _| Ok(())).is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn peaks_are_read_from_gnu_time_and_from_the_kernel() {
        assert_eq!(peak("9876\n"), Some(9876));
        assert_eq!(peak("Command exited with non-zero status 1\n4321\n"), Some(4321));
        assert_eq!(peak(""), None);
        assert_eq!(high_water("VmPeak:\t 9 kB\nVmHWM:\t   1234 kB\nVmRSS:\t 3 kB\n"), Some(1234));
        assert_eq!(high_water("VmPeak:\t 9 kB\n"), None);
    }
}
