//! Signals from outside that end a command as it should end, and the exit code that says which one it was.

use std::{
    fs,
    io::Read,
    os::unix::net::UnixStream,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
    low_level::pipe,
};
use sluicegate_ports::execute::Stop;

use crate::{progress, words::Problem};

/// The number of the signal that was heard; 0 until then.
static HEARD: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// What a shell says of a program that a signal ended is its number more than this.
const SIGNALLED: i32 = 128;

/// The first interrupt, hangup or wish to end ends the run as it should end; the second one ends this process at once, and with it
/// whatever it runs. What is shown of a run says so.
pub(crate) fn listen() -> Result<Stop, Problem> {
    let failed = |error: std::io::Error| Problem::lost(format!("cannot listen for interrupts: {error}"), "try again");
    let stop = Stop::default();
    let (mut told, teller) = UnixStream::pair().map_err(failed)?;
    // Whoever starts this with nohup wants it to outlive the terminal.
    let hangup = (!is_ignored(&fs::read_to_string("/proc/self/status").unwrap_or_default(), SIGHUP)).then_some(SIGHUP);
    for signal in [SIGINT, SIGTERM].into_iter().chain(hangup) {
        // The order counts: what ends the process looks at what earlier signals have left, and whoever sees the stop sees the number.
        let heard = flag::register_conditional_shutdown(signal, SIGNALLED + signal, stop.flag())
            .and_then(|_| flag::register_usize(signal, Arc::clone(&HEARD), usize::try_from(signal).unwrap_or_default()))
            .and_then(|_| flag::register(signal, stop.flag()))
            .and_then(|_| pipe::register(signal, teller.try_clone()?));
        heard.map_err(failed)?;
    }
    // A handler may not print; this thread waits for its word, once.
    let waiting = std::thread::Builder::new().spawn(move || {
        if told.read_exact(&mut [0]).is_ok() {
            progress::stopping();
        }
    });
    waiting.map(|_| stop).map_err(failed)
}

/// Whether a signal was heard.
pub(crate) fn heard() -> bool {
    HEARD.load(Ordering::SeqCst) != 0
}

/// The exit code of whatever was stopped: 130 where no signal did it, as for an interrupt.
pub(crate) fn exit_code() -> u8 {
    let signal = match HEARD.load(Ordering::SeqCst) {
        0 => SIGINT,
        heard => i32::try_from(heard).unwrap_or(SIGINT),
    };
    u8::try_from(SIGNALLED + signal).unwrap_or(u8::MAX)
}

/// Whether the terminal went away, so that nobody can be told anything there.
pub(crate) fn hung_up() -> bool {
    i32::try_from(HEARD.load(Ordering::SeqCst)) == Ok(SIGHUP)
}

/// Whether a process whose `/proc/PID/status` this is ignores a signal.
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask & (1 << (signal - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_is_ignored_is_told_from_one_that_is_not() {
        let status = "Name:\tx\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000000001\nSigCgt:\tffffffffffffffff\n";
        assert!(is_ignored(status, SIGHUP));
        assert!(!is_ignored(status, SIGINT));
        assert!(!is_ignored("", SIGHUP));
    }
}
