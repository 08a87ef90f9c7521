//! Whether a step that ended passed, and what is told of it.

use sluicegate_pipeline::pipeline::Step;
use sluicegate_ports::execute::{Contact, Ended, StepOutcome};
use sluicegate_types::StepName;

use crate::{Error, StepFault, prepare::LOG_LIMIT};

/// Why what became of a step does not count; nothing if it does.
pub(super) fn check_outcome(step: &Step, outcome: &StepOutcome) -> Result<(), Error> {
    let failed = |fault: StepFault, how: String| Err(Error::StepFailed { step: step.name.to_string(), how, fault });
    match outcome.ended {
        Ended::Exit(code) if code == 0 || step.accept_exit.contains(&code) => {}
        Ended::Exit(code) => {
            let oom = outcome.oom_kills.filter(|kills| *kills > 0);
            let (fault, hint) = match (code, oom) {
                (_, Some(kills)) => {
                    (StepFault::Limit, format!("; the memory limit killed {kills} of its processes (limits.memory)"))
                }
                (127, _) => (StepFault::Program, "; the program was not found in the step's image".to_owned()),
                (126, _) => (StepFault::Program, "; the program could not be executed".to_owned()),
                _ => (StepFault::Work, String::new()),
            };
            return failed(fault, format!("ended with code {code}{hint}"));
        }
        Ended::TimedOut => {
            return failed(StepFault::Limit, format!("was killed after {} s (limits.timeout)", step.timeout.as_secs()));
        }
        Ended::Stopped => return failed(StepFault::Stopped, "was stopped".to_owned()),
        Ended::LogFull => {
            if let Some(fault) = &outcome.fault {
                return failed(StepFault::Work, fault.clone());
            }
            return failed(StepFault::Work, format!("was killed: it printed more than {LOG_LIMIT} bytes"));
        }
    }
    if let Some(kills) = outcome.oom_kills.filter(|kills| *kills > 0) {
        let how = format!("ended with code 0, but the memory limit killed {kills} of its processes (limits.memory)");
        return failed(StepFault::Limit, how);
    }
    if !outcome.leaking.is_empty() {
        let how = "wrote one of its secrets into its report (reports.junit), which was not kept".to_owned();
        return failed(StepFault::Leak, how);
    }
    if let Some(fault) = &outcome.fault {
        return failed(StepFault::Output, fault.clone());
    }
    if let Some(output) = outcome.missing.first() {
        let (fault, how) = match (step.outputs.get(output), &step.junit) {
            (Some(path), _) => (StepFault::Output, format!("did not leave its output {output} at {}", path.display())),
            (None, Some(path)) => {
                (StepFault::Report, format!("did not leave its report at {} (reports.junit)", path.display()))
            }
            (None, None) => (StepFault::Output, format!("did not leave {output}")),
        };
        return failed(fault, how);
    }
    Ok(())
}

/// What several attempts of a step did, to each place and address once.
pub(super) fn together(before: Vec<Contact>, now: Vec<Contact>) -> Vec<Contact> {
    let mut all = before;
    for one in now {
        let is_same = |other: &&mut Contact| {
            other.destination == one.destination && other.address == one.address && other.refused == one.refused
        };
        match all.iter_mut().find(is_same) {
            Some(known) => {
                known.connections = known.connections.saturating_add(one.connections);
                known.sent = known.sent.saturating_add(one.sent);
                known.received = known.received.saturating_add(one.received);
            }
            None => all.push(one),
        }
    }
    all
}

/// What a step was refused by the proxy of its list of servers: few clients show what a proxy answers them.
pub(super) fn refusals(step: &StepName, contacts: &[Contact]) -> Vec<String> {
    let lines = contacts.iter().filter_map(|contact| {
        let (server, reason) = (&contact.destination, contact.refused.as_ref()?);
        Some(format!(
            "step {step} was refused {server}: {reason}. What it may reach stands under steps.{step}.network.allow of the pipeline \
             file, and for inner addresses under egress.private of the gateway file, too"
        ))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use sluicegate_pipeline::pipeline::Pipeline;
    use sluicegate_ports::execute::Observation;
    use sluicegate_types::{Destination, Digest};

    use super::*;
    use crate::{prepare::REPORT, steps::tests::PIPELINE};

    #[test]
    fn what_several_attempts_contacted_is_all_there() {
        let contact = |host: &str, sent| Contact {
            destination: Destination { host: host.to_owned(), port: 443 },
            address: None,
            refused: None,
            connections: 1,
            sent,
            received: 0,
        };
        let all = together(vec![contact("a.example", 1)], vec![contact("b.example", 2), contact("a.example", 3)]);
        let found: Vec<_> = all.iter().map(|one| (one.destination.host.as_str(), one.connections, one.sent)).collect();
        assert_eq!(found, [("a.example", 2, 4), ("b.example", 1, 2)]);
    }

    #[test]
    fn every_way_in_which_a_step_ends_badly_says_how_and_what_is_to_be_mended() {
        let pipeline = Pipeline::parse("p.yaml", PIPELINE).unwrap();
        let step = &pipeline.steps[0];
        let outcome = |ended, oom_kills, missing: &[&str]| StepOutcome {
            ended,
            log: Digest::of(b""),
            outputs: Vec::new(),
            missing: missing.iter().map(|name| name.parse().unwrap()).collect(),
            leaking: Vec::new(),
            fault: None,
            oom_kills,
            contacts: Vec::new(),
            observed: Observation::NotAsked,
            caches: Vec::new(),
        };
        assert!(check_outcome(step, &outcome(Ended::Exit(0), Some(0), &[])).is_ok());
        for (outcome, says, mend) in [
            (outcome(Ended::Exit(1), None, &[]), "ended with code 1", StepFault::Work),
            (outcome(Ended::Exit(127), None, &[]), "was not found", StepFault::Program),
            (outcome(Ended::Exit(126), None, &[]), "could not be executed", StepFault::Program),
            (outcome(Ended::Exit(137), Some(1), &[]), "limits.memory", StepFault::Limit),
            (outcome(Ended::Exit(0), Some(1), &[]), "limits.memory", StepFault::Limit),
            (outcome(Ended::TimedOut, None, &[]), "limits.timeout", StepFault::Limit),
            (outcome(Ended::LogFull, None, &[]), "it printed more than", StepFault::Work),
            (outcome(Ended::Exit(0), None, &["app"]), "its output app at /out/app", StepFault::Output),
            (outcome(Ended::Exit(0), None, &[REPORT]), "its report at /out/junit.xml", StepFault::Report),
            (
                StepOutcome { leaking: vec![REPORT.parse().unwrap()], ..outcome(Ended::Exit(0), None, &[]) },
                "one of its secrets",
                StepFault::Leak,
            ),
        ] {
            match check_outcome(step, &outcome).unwrap_err() {
                Error::StepFailed { how, fault, .. } => {
                    assert!(how.contains(says) && fault == mend, "{how}: {fault:?}")
                }
                other => panic!("{other}"),
            }
        }
        // Something that can't be kept fails a step that ended well, and only then says why it failed.
        let unkept = |ended| StepOutcome { fault: Some("left a pipe".to_owned()), ..outcome(ended, None, &["app"]) };
        for (ended, says, mend) in [
            (Ended::Exit(0), "step build left a pipe", StepFault::Output),
            (Ended::LogFull, "step build left a pipe", StepFault::Work),
            (Ended::Exit(9), "step build ended with code 9", StepFault::Work),
        ] {
            let error = check_outcome(step, &unkept(ended)).unwrap_err();
            assert_eq!(error.to_string(), says);
            assert!(matches!(error, Error::StepFailed { fault, .. } if fault == mend), "{ended:?}");
        }
    }

    #[test]
    fn what_a_step_was_refused_is_told_with_the_keys_that_would_allow_it() {
        let contact = |host: &str, refused: Option<&str>| Contact {
            destination: Destination { host: host.to_owned(), port: 443 },
            address: None,
            refused: refused.map(str::to_owned),
            connections: 1,
            sent: 0,
            received: 0,
        };
        let contacts = [
            contact("a.example", None),
            contact("b.example", Some("it is nowhere")),
            contact("::1", Some("it is here")),
        ];
        let told = refusals(&"install".parse().unwrap(), &contacts);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("step install was refused b.example:443: it is nowhere. "), "{told:?}");
        assert!(told[0].contains("steps.install.network.allow") && told[0].contains("egress.private"), "{told:?}");
        assert!(told[1].starts_with("step install was refused [::1]:443: it is here. "), "{told:?}");
    }
}
