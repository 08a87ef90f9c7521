//! Asks the gate about an image: facts from what was verified, the rules' answers, the verdict, the record.

use serde_json::{Value, json};
use sluicegate_policy::{
    facts::{Facts, GateScan},
    judge::{Denial, Reason, Target, Verdict, judge},
    rego::{EvaluationRequest, Outcome, PolicyError, RuleResults},
};
use sluicegate_types::{Repository, UnixTime};
use sluicegate_verify::closed_set::ClosedSet;

use crate::{Error, Ports, gateway::Judge};

/// Asks Rego in a process of its own, which a policy can't take the gate down with.
pub trait RuleEvaluator {
    /// Evaluates within the limits; a crash, a time-out and garbage are errors.
    fn evaluate(&self, request: &EvaluationRequest) -> Result<RuleResults, PolicyError>;
}

/// A verdict and everything that it rests on.
pub struct Decision {
    /// What was decided.
    pub verdict: Verdict,
    /// What goes into the record.
    pub body: Value,
}

/// Denials and reasons that a record lists itself.
const MAX_LISTED: usize = 500;

/// Judges one closed set for one environment at one moment.
pub fn decide(
    ports: &Ports<'_>,
    judge_of_environment: &Judge,
    set: &ClosedSet,
    scan: Option<GateScan>,
    evaluator: &dyn RuleEvaluator,
    current: Option<sluicegate_types::Digest>,
    now: UnixTime,
) -> Result<Decision, Error> {
    let environment = &judge_of_environment.name;
    let repository = Repository::of_environment(environment);
    let conditions = &judge_of_environment.conditions;
    let accepts = |vulns: &sluicegate_attestation::vulns::Vulns| {
        judge_of_environment.database == Some(vulns.scanner.database)
            && now <= vulns.scanner.database_updated_at.plus(conditions.max_database_age.as_secs())
    };
    let facts = match Facts::new(set, scan, environment, &repository, now, &accepts) {
        Ok(facts) => facts,
        Err(error) => {
            let reason = Reason::Policy(error.to_string());
            let body = json!({"image": set.image(), "gateway": conditions.gateway, "reasons": [reason.to_string()]});
            return Ok(Decision { verdict: Verdict::Undecided(sluicegate_types::NonEmpty::one(reason)), body });
        }
    };
    let input = ports.store.put_bytes(facts.input().get().as_bytes())?;
    let request = EvaluationRequest {
        policies: judge_of_environment.policies.clone(),
        data: judge_of_environment.data.clone(),
        input: facts.input().to_owned(),
    };
    let results = evaluator.evaluate(&request);
    let target = Target {
        environment: environment.clone(),
        repository,
        tag: judge_of_environment.environment.tag.clone(),
        current,
    };
    let verdict = judge(&facts, &results, conditions, target, now);
    let rules = results.as_ref().map(|results| results.answers.as_slice()).unwrap_or_default();
    let mut body = json!({
        "image": facts.image(),
        "gateway": conditions.gateway,
        "facts": input,
        "provenance": set.provenance().0.bundle(),
        "used": facts.used(),
        "authority": "self",
        "rules": rules.iter().map(|answer| json!({
            "code": answer.code,
            "outcome": match answer.outcome {
                Outcome::Pass => "pass",
                Outcome::Deny(_) => "deny",
                Outcome::Silent => "silent",
                Outcome::Contradiction(_) => "contradiction",
            },
        })).collect::<Vec<_>>(),
        "warnings": results.as_ref().map(|r| r.warnings.iter().map(|w| w.msg.clone()).collect::<Vec<_>>()).unwrap_or_default(),
    });
    match &verdict {
        Verdict::Allow(_) => {}
        Verdict::Deny(denials) => {
            // A record has a size limit and a denial must fit: beyond the first ones the whole list stands in the store.
            let all: Vec<Value> = denials.iter().map(denial).collect();
            if all.len() > MAX_LISTED {
                body["denialCount"] = json!(all.len());
                body["allDenials"] = json!(ports.store.put_bytes(json!(all).to_string().as_bytes())?);
            }
            body["denials"] = all.into_iter().take(MAX_LISTED).collect();
        }
        Verdict::Undecided(reasons) => {
            body["reasons"] = reasons.iter().take(MAX_LISTED).map(|r| json!(r.to_string())).collect();
        }
    }
    Ok(Decision { verdict, body })
}

fn denial(denial: &Denial) -> Value {
    json!({
        "code": denial.code,
        "title": denial.title,
        "msg": denial.violation.msg,
        "term": denial.violation.term,
        "subject": denial.violation.subject,
        "solution": denial.solution,
        "rule": denial.rule,
    })
}
