use std::{collections::VecDeque, sync::Mutex};

use sluicegate_ports::execute::{ExecuteError, ExecutorIdentity, StepExecutor, StepOutcome, StepRequest};

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
}
