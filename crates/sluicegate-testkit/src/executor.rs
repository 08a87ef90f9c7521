use std::{collections::VecDeque, sync::Mutex};

use sluicegate_ports::execute::{
    Account, Ended, ExecuteError, ExecutorIdentity, Layer, StepExecutor, StepOutcome, StepRequest, Stop, Terminal,
};
use sluicegate_types::StepName;

/// An executor that gives the outcomes it was told to give, in order.
pub struct FakeExecutor {
    outcomes: Mutex<VecDeque<StepOutcome>>,
    requests: Mutex<Vec<StepRequest>>,
}

impl FakeExecutor {
    /// One that ends its steps like this; a step more is refused.
    pub fn gives(outcomes: Vec<StepOutcome>) -> Self {
        Self { outcomes: Mutex::new(outcomes.into()), requests: Mutex::new(Vec::new()) }
    }

    /// What it was asked to run.
    pub fn requests(&self) -> Vec<StepRequest> {
        self.requests.lock().unwrap().clone()
    }
}

impl StepExecutor for FakeExecutor {
    fn probe(&self) -> Result<(), ExecuteError> {
        Ok(())
    }

    fn identity(&self) -> ExecutorIdentity {
        ExecutorIdentity { name: "fake".to_owned(), version: "1".to_owned() }
    }

    fn run_step(&self, request: &StepRequest, _: &mut dyn FnMut(&[u8])) -> Result<StepOutcome, ExecuteError> {
        self.requests.lock().unwrap().push(request.clone());
        self.outcomes.lock().unwrap().pop_front().ok_or_else(|| ExecuteError::Refused {
            step: request.step.to_string(),
            reason: "the fake was told of no more steps".to_owned(),
        })
    }

    /// Root is at home in `/`, a number in `/` too, and every name is user 1000 with a home of that name.
    fn account(&self, _: &StepName, _: &[Layer], user: &str, _: &Stop) -> Result<Account, ExecuteError> {
        let (name, group) = user.split_once(':').unwrap_or((user, ""));
        let number = |text: &str, otherwise| match text {
            "" | "root" => 0,
            text => text.parse().unwrap_or(otherwise),
        };
        let uid = number(name, 1000);
        let home = if uid == 1000 && name != "1000" { format!("/home/{name}") } else { "/".to_owned() };
        Ok(Account { uid, gid: number(group, 1000), groups: Vec::new(), home })
    }

    /// Ends as the next outcome says, and prints nothing.
    fn shell(&self, request: &StepRequest, _: Terminal) -> Result<Ended, ExecuteError> {
        self.run_step(request, &mut |_| {}).map(|outcome| outcome.ended)
    }
}
