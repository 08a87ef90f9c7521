//! A panic is a bug of ours: it is said in our words and ends with 70, never with a code that means something else.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    panic::{AssertUnwindSafe, catch_unwind, set_hook},
    sync::Mutex,
};

use crate::words::{Problem, tell_anyway};

/// The first panic, its place and its reason: a thread that waited for another one panics after it, with words of its own.
static FIRST: Mutex<Option<(String, String)>> = Mutex::new(None);

/// Keeps a panic from printing words of the language's runtime, which fail again where standard error is closed.
pub(crate) fn listen() {
    set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let reason = reason(panic.payload());
        if std::thread::current().name() != Some("main") {
            // Whoever waits for this thread may know no more than that it broke off.
            tell_anyway(&format!("a part of sluicegate broke off at {place}: {reason}\n"));
        }
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            tell_anyway(&format!("{backtrace}\n"));
        }
        if let Ok(mut first) = FIRST.lock() {
            first.get_or_insert((place, reason));
        }
    }));
}

/// Runs what may break off.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Problem> {
    // Nothing that the work has left half done is used again: the process says so and ends.
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let first = FIRST.lock().ok().and_then(|mut first| first.take());
        let (place, reason) = first.unwrap_or_else(|| ("an unknown place".to_owned(), reason(payload.as_ref())));
        Problem::bug(format!("sluicegate broke off at {place}"), &reason)
    })
}

fn reason(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it gives no reason").to_owned()
}

#[cfg(test)]
mod tests {
    use std::process::ExitCode;

    use super::*;
    use crate::words::Words;

    #[test]
    fn a_panic_is_a_bug_of_ours_and_anything_else_is_what_it_is() {
        assert_eq!(guarded(|| 3).unwrap(), 3);
        let words = Words::from_environment(std::iter::empty());
        for broken in
            [guarded(|| panic!("the {} fell", "sky")), guarded(|| panic!("sky")), guarded(|| [0_u8; 0][one()])]
        {
            let problem = broken.unwrap_err();
            assert!(problem.text().starts_with("sluicegate broke off at "), "{problem:?}");
            assert!(problem.hint().unwrap().contains("report it"), "{problem:?}");
            assert_eq!(words.problem(&problem), ExitCode::from(70));
        }
        assert_eq!([reason(&"why"), reason(&"why".to_owned())], ["why"; 2]);
        assert!(reason(&3).contains("no reason"));
    }

    /// An index that the compiler does not see through.
    fn one() -> usize {
        std::hint::black_box(1)
    }
}
