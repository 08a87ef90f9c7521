//! The thread of a step that is executed, and what it says.

use std::{
    io,
    sync::mpsc::{SyncSender, TrySendError},
    thread,
    time::Duration,
};

use sluicegate_ports::execute::{ExecuteError, StepExecutor, StepOutcome, StepRequest};
use sluicegate_types::StepName;

/// What executing threads say.
pub(super) enum Message {
    Output(StepName, Vec<u8>),
    Ended(StepName, Box<Result<StepOutcome, ExecuteError>>),
}

/// Executes a step on a thread of its own, which says what it prints and how it ended.
pub(super) fn execute<'scope, 'env>(
    scope: &'scope thread::Scope<'scope, 'env>,
    executor: &'env dyn StepExecutor,
    request: StepRequest,
    say: &SyncSender<Message>,
) -> io::Result<()> {
    let mut voice = Voice { step: request.step.clone(), say: say.clone(), outcome: None, unheard: 0, offers: OFFERS };
    let name = format!("step {}", request.step);
    thread::Builder::new().name(name).spawn_scoped(scope, move || {
        let outcome = executor.run_step(&request, &mut |bytes| voice.pass_on(bytes));
        voice.end(outcome);
    })?;
    Ok(())
}

/// What an executing thread says. However it ends, it says so.
struct Voice {
    step: StepName,
    say: SyncSender<Message>,
    outcome: Option<Result<StepOutcome, ExecuteError>>,
    /// Bytes that nobody took.
    unheard: usize,
    /// How often output is offered.
    offers: u32,
}

/// How often output is offered that nobody takes, and how long between: a second in all.
const OFFERS: u32 = 200;
const BETWEEN_OFFERS: Duration = Duration::from_millis(5);

impl Voice {
    fn end(mut self, outcome: Result<StepOutcome, ExecuteError>) {
        self.outcome = Some(outcome);
    }

    /// Passes on what the step printed. Whoever shows it may be slow, or blocked by a terminal that nobody reads; the step's limits don't
    /// wait for that. What is not shown stands in the log all the same.
    fn pass_on(&mut self, bytes: &[u8]) {
        let mut message = if self.unheard == 0 {
            Message::Output(self.step.clone(), bytes.to_vec())
        } else {
            let missing = format!("\n[{} bytes are not shown; they are in the log]\n", self.unheard);
            Message::Output(self.step.clone(), [missing.as_bytes(), bytes].concat())
        };
        let offers = if self.unheard == 0 { self.offers } else { 1 };
        for offer in 1..=offers {
            match self.say.try_send(message) {
                Ok(()) => {
                    self.unheard = 0;
                    return;
                }
                // Nobody hears it only after the run was given up.
                Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(back)) => message = back,
            }
            if offer < offers {
                thread::sleep(BETWEEN_OFFERS);
            }
        }
        self.unheard += bytes.len();
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        let broke_off = || {
            Err(ExecuteError::Engine {
                step: self.step.to_string(),
                action: "run it",
                reason: "its thread broke off".to_owned(),
            })
        };
        let outcome = self.outcome.take().unwrap_or_else(broke_off);
        let _ = self.say.send(Message::Ended(self.step.clone(), Box::new(outcome)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_step_is_not_kept_waiting_by_who_shows_it_and_says_what_was_not_shown() {
        let (say, hear) = mpsc::sync_channel(1);
        let name: StepName = "build".parse().unwrap();
        let mut voice = Voice { step: name, say, outcome: None, unheard: 0, offers: 1 };
        voice.pass_on(b"one");
        voice.pass_on(b"two");
        voice.pass_on(b"three");
        let heard = |message| match message {
            Message::Output(_, bytes) => String::from_utf8(bytes).unwrap(),
            Message::Ended(_, outcome) => outcome.map(drop).unwrap_err().to_string(),
        };
        assert_eq!(heard(hear.recv().unwrap()), "one");
        voice.pass_on(b"four");
        assert_eq!(heard(hear.recv().unwrap()), "\n[8 bytes are not shown; they are in the log]\nfour");
        // However its thread ends, the run is told.
        drop(voice);
        assert!(heard(hear.recv().unwrap()).contains("its thread broke off"));
    }
}
