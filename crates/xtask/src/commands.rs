//! Starts other programs: shown as a person would type them, with their output passed on, kept, or both.

use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::failure::{Failure, Outcome};

/// How much of a program's output is kept; the rest is passed on only.
const MOST_KEPT: usize = 4 << 20;

/// Runs `command` with its output passed through; any exit code but 0 is a failure.
pub fn run(command: &mut Command) -> Outcome {
    let shown = shown(command);
    let status = command.status().map_err(Failure::while_doing(format!("start {shown}")))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{shown}: {}", ending(status)))) }
}

/// What `command` prints on standard output; its standard error is passed through. Any exit code but 0 is a failure.
pub fn output(command: &mut Command) -> Outcome<String> {
    let shown = shown(command);
    let output = command.stderr(Stdio::inherit()).output().map_err(Failure::while_doing(format!("start {shown}")))?;
    if !output.status.success() {
        return Err(Failure::new(format!("{shown}: {}", ending(output.status))));
    }
    String::from_utf8(output.stdout).map_err(|_| Failure::new(format!("{shown} printed what is not UTF-8")))
}

/// Whether `command` can be started and ends with 0; what it prints is dropped.
pub fn works(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs `command`, passes both its outputs on line by line if `show` says so, and returns its exit code and what it printed.
/// A program that a signal ended has 128 and the signal's number, as in a shell.
pub fn watched(command: &mut Command, show: bool) -> Outcome<(i32, String)> {
    let words = shown(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Failure::while_doing(format!("start {words}")))?;
    let kept = Arc::new(Mutex::new(String::new()));
    let readers: Vec<_> = [
        child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
    ]
    .into_iter()
    .flatten()
    .map(|pipe| {
        let kept = Arc::clone(&kept);
        thread::spawn(move || pass_on(pipe, &kept, show))
    })
    .collect();
    for reader in readers {
        reader.join().map_err(|_| Failure::new(format!("the output of {words} could not be read")))?;
    }
    let status = child.wait().map_err(Failure::while_doing(format!("wait for {words}")))?;
    let kept = kept.lock().map(|kept| kept.clone()).unwrap_or_default();
    Ok((code(status), kept))
}

fn pass_on(pipe: impl Read, kept: &Mutex<String>, show: bool) {
    let mut lines = BufReader::new(pipe);
    let mut line = Vec::new();
    // A pipe that breaks ends the output; the exit code tells the rest.
    while lines.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        let text = String::from_utf8_lossy(&line);
        if show {
            print!("{text}");
            let _ = io::stdout().flush();
        }
        if let Ok(mut kept) = kept.lock()
            && kept.len() + text.len() <= MOST_KEPT
        {
            kept.push_str(&text);
        }
        line.clear();
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

fn ending(status: ExitStatus) -> String {
    format!("ended with {status}")
}

/// A command as a person would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words: Vec<_> =
        std::iter::once(program).chain(command.get_args()).map(|word| quoted(&word.to_string_lossy())).collect();
    words.join(" ")
}

/// `word` as a shell takes it for one word.
#[must_use]
pub fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@,+%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Prints `line` as a command, in bold on a terminal unless NO_COLOR is set.
pub fn announce(line: &str) {
    if io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) {
        println!("\u{1b}[1m$ {line}\u{1b}[0m");
    } else {
        println!("$ {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_a_shell_needs_it() {
        assert_eq!(quoted("oci:env/production@sha256:ab"), "oci:env/production@sha256:ab");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("a b"), "'a b'");
    }

    #[test]
    fn exit_codes_and_both_outputs_are_kept() {
        let (code, text) = watched(Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]), false).unwrap();
        assert_eq!(code, 3);
        assert!(text.contains("one\n") && text.contains("two\n"), "{text}");
        assert_eq!(watched(Command::new("sh").args(["-c", "kill -9 $$"]), false).unwrap().0, 137);
        assert!(watched(&mut Command::new("/nonexistent/program"), false).is_err());
    }

    #[test]
    fn an_exit_code_other_than_zero_is_a_failure_with_the_command_in_it() {
        run(Command::new("true").arg("x y")).unwrap();
        let failure = run(Command::new("false").arg("x y")).unwrap_err().to_string();
        assert!(failure.starts_with("false 'x y': "), "{failure}");
        assert_eq!(output(Command::new("echo").arg("hello")).unwrap(), "hello\n");
        assert!(output(&mut Command::new("false")).is_err());
    }
}
