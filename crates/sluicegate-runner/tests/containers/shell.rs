use std::{
    fs::File,
    io::{self, PipeReader, Read, Write},
    thread,
};

use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use sluicegate_ports::execute::{Ended, ExecuteError, StepExecutor, StepRequest, Stop, Terminal};
use sluicegate_types::Secret;

use crate::fixture::*;

/// Says `typed` to the step through pipes; how it ended, and what it printed and complained.
fn talk(request: &StepRequest, typed: &str) -> (Result<Ended, ExecuteError>, String, String) {
    let ((input, mut typing), (out, output), (err, errors)) =
        (io::pipe().unwrap(), io::pipe().unwrap(), io::pipe().unwrap());
    typing.write_all(typed.as_bytes()).unwrap();
    drop(typing);
    let file = |pipe: OwnedFd| File::from(pipe);
    let terminal =
        Terminal::Streams { input: file(input.into()), output: file(output.into()), errors: file(errors.into()) };
    let text = |mut pipe: PipeReader| {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    };
    thread::scope(|scope| {
        let (out, err) = (scope.spawn(move || text(out)), scope.spawn(move || text(err)));
        let ended = fixture().executor.shell(request, terminal);
        (ended, out.join().unwrap(), err.join().unwrap())
    })
}

#[test]
fn what_is_typed_is_run_and_the_last_code_is_the_ending() {
    let (ended, out, err) = talk(&program(&["sh"]), "id -u; echo wrong >&2; exit 3\n");
    assert_eq!((ended.unwrap(), out.as_str(), err.as_str()), (Ended::Exit(3), "0\n", "wrong\n"));
    // The end of the input is the shell's end.
    let (ended, out, _) = talk(&program(&["sh"]), "cd /image; pwd\n");
    assert_eq!((ended.unwrap(), out.as_str()), (Ended::Exit(0), "/image\n"));
}

#[test]
fn a_shell_has_the_steps_user_mounts_and_confinement() {
    let mut request = program(&["sh"]);
    request.user = "1234:1234".into();
    request.inputs = vec![file("/conf", b"input\n", sluicegate_ports::execute::InputAccess::CopyOnWrite)];
    request.outputs = vec![output("o", "/made/here/o")];
    let (ended, out, err) =
        talk(&request, "id -u; cat /conf; echo x > /made/here/o && echo written; cat < /dev/stdin; echo opened\n");
    assert_eq!((ended.unwrap(), out.as_str(), err.as_str()), (Ended::Exit(0), "1234\ninput\nwritten\nopened\n", ""));
    request.user = "nobody".into();
    assert!(matches!(talk(&request, "").0, Err(ExecuteError::Refused { .. })));
}

#[test]
fn a_program_that_does_not_read_is_not_waited_for() {
    // More than pipes hold; the writer is another thread's and ends with the pipe.
    let (input, mut typing) = io::pipe().unwrap();
    let (mut out, output) = io::pipe().unwrap();
    let errors = output.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || while typing.write_all(&[b'x'; 4096]).is_ok() {});
        let terminal = Terminal::Streams {
            input: File::from(OwnedFd::from(input)),
            output: File::from(OwnedFd::from(output)),
            errors: File::from(OwnedFd::from(errors)),
        };
        assert_eq!(fixture().executor.shell(&sh("echo done; exit 4"), terminal).unwrap(), Ended::Exit(4));
    });
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(text, "done\n");
}

#[test]
fn streams_are_masked() {
    let mut request = program(&["sh"]);
    request.masked = vec![Secret::new(b"s3cr3t-value".to_vec())];
    let (_, out, err) = talk(&request, "echo a s3cr3t-value; echo b s3cr3t-value >&2; printf s3cr\n");
    assert_eq!((out.as_str(), err.as_str()), ("a ***\ns3cr", "b ***\n"));
}

/// A terminal of this test: what somebody sits at, and what the executor gets.
fn terminal() -> (File, File) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let seat = openpt(flags).unwrap();
    grantpt(&seat).unwrap();
    unlockpt(&seat).unwrap();
    let name = ptsname(&seat, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let tty = rustix::fs::open(name, flags, Mode::empty()).unwrap();
    (seat.into(), tty.into())
}

/// Reads until `word` was printed.
fn read_until(seat: &mut File, seen: &mut String, word: &str) {
    let mut buffer = [0; 4096];
    while !seen.contains(word) {
        let count = seat.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

/// A program that says the size of its window when it changes. Not in the shell itself, where the foreground is each `sleep` alone.
const LOOP: &[u8] =
    b"sh -c 'trap \"stty size; echo chan\\\"\\\"ged\" WINCH; echo trap\"\"ped; while :; do sleep 0.1; done'\n";

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

#[test]
fn a_terminal_is_the_containers_own_and_follows_ours_which_is_given_back() {
    let (mut seat, tty) = terminal();
    tcsetwinsize(&tty, size(33, 77)).unwrap();
    let is_raw = || !tcgetattr(&tty).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO);
    assert!(!is_raw());
    let mut request = program(&["sh"]);
    request.user = "1234:1234".into();
    thread::scope(|scope| {
        let theirs = Terminal::Tty(tty.try_clone().unwrap());
        let request = &request;
        let shell = scope.spawn(move || fixture().executor.shell(request, theirs));
        let mut seen = String::new();
        seat.write_all(b"tty; stty size; id -u; echo to > /dev/tty; echo also > /dev/stdout; echo rea''dy\n").unwrap();
        read_until(&mut seat, &mut seen, "ready\r\n");
        for said in ["/dev/pts/0\r\n", "33 77\r\n", "1234\r\n", "to\r\n", "also\r\n"] {
            assert!(seen.contains(said), "{said:?}: {seen}");
        }
        assert!(is_raw());
        // The new size comes as a signal to whoever is in the foreground.
        seat.write_all(LOOP).unwrap();
        read_until(&mut seat, &mut seen, "trapped\r\n");
        tcsetwinsize(&tty, size(11, 22)).unwrap();
        read_until(&mut seat, &mut seen, "changed\r\n");
        assert!(seen.contains("11 22\r\n"), "{seen}");
        // Ctrl-C ends the loop and not the shell, nor us: it is the container's terminal that gives it a meaning.
        seat.write_all(b"\x03").unwrap();
        seat.write_all(b"echo int''errupted; exit 3\n").unwrap();
        read_until(&mut seat, &mut seen, "interrupted\r\n");
        assert_eq!(shell.join().unwrap().unwrap(), Ended::Exit(3));
    });
    assert!(!is_raw());
}

#[test]
fn a_terminal_is_given_back_when_the_step_is_stopped_or_cannot_begin() {
    let (mut seat, tty) = terminal();
    let lines = |tty: &File| tcgetattr(tty).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO);
    let mut request = sh("trap '' TERM HUP; echo rea''dy; while :; do sleep 98721.5; done");
    request.stop = Stop::default();
    thread::scope(|scope| {
        let theirs = Terminal::Tty(tty.try_clone().unwrap());
        let shell = scope.spawn(|| fixture().executor.shell(&request, theirs));
        read_until(&mut seat, &mut String::new(), "ready\r\n");
        request.stop.raise();
        assert_eq!(shell.join().unwrap().unwrap(), Ended::Stopped);
    });
    assert!(lines(&tty));
    assert!(processes_with("98721.5").is_empty());
    let mut cannot = program(&["sh"]);
    cannot.inputs = vec![folder("/bin/sh", &[("a", "1")], sluicegate_ports::execute::InputAccess::ReadOnly)];
    let error = fixture().executor.shell(&cannot, Terminal::Tty(tty.try_clone().unwrap())).unwrap_err();
    assert!(matches!(error, ExecuteError::Refused { .. }), "{error}");
    assert!(lines(&tty));
}

#[test]
fn a_step_ends_when_the_terminal_is_gone() {
    let (mut seat, tty) = terminal();
    let request = sh("trap '' TERM HUP; echo rea''dy; while :; do sleep 98722.5; done");
    thread::scope(|scope| {
        let shell = scope.spawn(|| fixture().executor.shell(&request, Terminal::Tty(tty)));
        read_until(&mut seat, &mut String::new(), "ready\r\n");
        drop(seat);
        assert_eq!(shell.join().unwrap().unwrap(), Ended::Stopped);
    });
    assert!(processes_with("98722.5").is_empty());
}

#[test]
fn what_is_no_terminal_is_refused_as_one() {
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let error = fixture().executor.shell(&program(&["sh"]), Terminal::Tty(null)).unwrap_err();
    assert!(error.to_string().contains("open the step's terminal"), "{error}");
}
