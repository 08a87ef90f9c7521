//! Asks the gate about an image: facts from what was verified, the rules' answers, the verdict, and one document of it all that
//! can be made again from the same inputs, byte for byte.

use serde_json::{Value, json};
use sluicegate_attestation::{identifiers::AUTHORITY_SELF, vulns::Vulns};
use sluicegate_policy::{
    exceptions::{ExceptionUse, Waived},
    facts::{ByHand, Facts, FactsError, GateScan},
    judge::{Basis, Denial, Judgement, Question, Reason, Target, Verdict, judge},
    rego::{EvaluationRequest, PolicyError, RuleAnswer, RuleResults},
};
use sluicegate_types::{Digest, NonEmpty, UnixTime};
use sluicegate_verify::closed_set::ClosedSet;

use crate::{
    Error, Ports,
    gateway::{GateRules, Judge},
};

/// Asks Rego in a process of its own, which a policy can't take the gate down with.
pub trait RuleEvaluator {
    /// Evaluates within the limits; a crash, a time-out and garbage are errors.
    fn evaluate(&self, request: &EvaluationRequest) -> Result<RuleResults, PolicyError>;
}

/// Everything that a verdict rests on. The same case gives the same decision.
pub struct Case<'a> {
    /// Who judges.
    pub judge: &'a Judge,
    /// What is judged.
    pub set: &'a ClosedSet,
    /// What was said by hand about the image and the index that it is one of, verified.
    pub by_hand: ByHand<'a>,
    /// The gate's own scan, if it could be made.
    pub scan: Option<GateScan>,
    /// What the environment holds now.
    pub current: Option<Digest>,
    /// The moment of the decision.
    pub now: UnixTime,
}

/// A verdict and everything that it rests on.
pub struct Decision {
    /// What was decided.
    pub verdict: Verdict,
    /// The whole decision as one document.
    pub document: Value,
    /// What Rego saw; `None` if no facts could be formed.
    pub facts: Option<String>,
    /// Every attestation that it rests on.
    pub used: Vec<Digest>,
    /// Whether the same case gives the same document: not if the rules could not be asked.
    pub replayable: bool,
    /// What each rule answered.
    pub answers: Vec<RuleAnswer>,
    /// What became of each waiver and each accepted gap.
    pub exceptions: Vec<ExceptionUse>,
    /// What was denied and is waived.
    pub waived: Vec<Waived>,
    /// What a person should know, and decides nothing.
    pub warnings: Vec<String>,
}

/// Items of one list that a record has itself.
const MAX_LISTED: usize = 500;
/// Bytes of one list that a record has itself: a record's body is limited, and a project chooses how much there is to say about it.
const MAX_LIST_BYTES: usize = 512 * 1024;
/// Bytes of one reason.
const MAX_REASON: usize = 4 * 1024;
/// The lists that a record may have only the beginning of.
pub(crate) const LISTS: [&str; 5] = ["denials", "reasons", "warnings", "exceptions", "waived"];

/// Judges one case.
pub fn decide(case: &Case<'_>, evaluator: &dyn RuleEvaluator) -> Decision {
    decide_by(case, case.judge.gate.as_ref(), evaluator)
}

/// Judges one case as a gate with other rules than its judge's would. The document says what comes of it, under the judge's own digest.
pub fn decide_by(case: &Case<'_>, gate: Option<&GateRules>, evaluator: &dyn RuleEvaluator) -> Decision {
    let facts = match facts(case) {
        Ok(facts) => facts,
        Err(error) => {
            let verdict = Verdict::Undecided(NonEmpty::one(Reason::Policy(error.to_string())));
            let nothing = Judgement { verdict, exceptions: Vec::new(), waived: Vec::new(), warnings: Vec::new() };
            let document = document(case, None, &[], &nothing);
            let verdict = nothing.verdict;
            return Decision {
                verdict,
                document,
                facts: None,
                used: Vec::new(),
                replayable: true,
                answers: Vec::new(),
                exceptions: Vec::new(),
                waived: Vec::new(),
                warnings: Vec::new(),
            };
        }
    };
    let target = Target {
        environment: case.judge.name.clone(),
        repository: case.judge.repository(),
        tag: case.judge.environment.tag.clone(),
        current: case.current,
    };
    let (judgement, answers, replayable) = match gate {
        None => {
            let question = Question::Ungated { gateway: case.judge.gateway };
            (judge(&facts, question, target, case.now), Vec::new(), true)
        }
        Some(gate) => {
            let rules = evaluator.evaluate(&request(gate, &facts));
            let question = Question::Gate { rules: &rules, conditions: &gate.conditions };
            let mut judgement = judge(&facts, question, target, case.now);
            // How an evaluation that broke off is worded depends on the machine and its load, not on the case alone.
            let replayable = rules.is_ok();
            let RuleResults { answers, warnings } =
                rules.unwrap_or(RuleResults { answers: Vec::new(), warnings: Vec::new() });
            judgement.warnings.extend(warnings.into_iter().map(|warning| warning.msg));
            (judgement, answers, replayable)
        }
    };
    let document = document(case, Some(&facts), &answers, &judgement);
    let used = facts.used().to_vec();
    let Judgement { verdict, exceptions, waived, warnings } = judgement;
    let facts = Some(facts.input().get().to_owned());
    Decision { verdict, document, facts, used, replayable, answers, exceptions, waived, warnings }
}

fn facts(case: &Case<'_>) -> Result<Facts, FactsError> {
    let environment = &case.judge.name;
    let repository = case.judge.repository();
    let Some(gate) = &case.judge.gate else { return Facts::of_set(case.set, environment, &repository, case.now) };
    let accepts = |vulns: &Vulns| gate.conditions.databases.accept(&vulns.scanner, case.now);
    Facts::new(case.set, &case.by_hand, case.scan.clone(), environment, &repository, case.now, &accepts)
}

fn request(gate: &GateRules, facts: &Facts) -> EvaluationRequest {
    EvaluationRequest { policies: gate.policies.clone(), data: gate.data.clone(), input: facts.input().to_owned() }
}

/// The decision as JSON with sorted keys.
fn document(case: &Case<'_>, facts: Option<&Facts>, answers: &[RuleAnswer], judgement: &Judgement) -> Value {
    let mut document = json!({
        "version": 1,
        "image": case.set.image(),
        "environment": case.judge.name,
        "tag": case.judge.environment.tag,
        "gate": case.judge.environment.gate.as_ref().map_or("none", |gate| gate.name.as_str()),
        "gateway": case.judge.gateway,
        "authority": AUTHORITY_SELF,
        "previous": case.current,
        "decidedAt": case.now,
        "provenance": case.set.provenance().0.bundle(),
        "facts": facts.map(Facts::digest),
        "used": facts.map(Facts::used).unwrap_or_default(),
        "rules": answers.iter().map(rule).collect::<Vec<_>>(),
        "warnings": judgement.warnings,
    });
    // A decision that nobody has accepted anything for is the document that it was before anybody could.
    if !judgement.exceptions.is_empty() {
        document["exceptions"] = json!(judgement.exceptions);
        document["waived"] = judgement.waived.iter().map(waived).collect();
    }
    if let Some((index, _)) = &case.by_hand.index {
        document["index"] = json!(index);
    }
    match &judgement.verdict {
        Verdict::Allow(permit) => {
            let basis = permit.basis();
            document["verdict"] = json!(match basis {
                Basis::Gate { .. } => "allow",
                Basis::Ungated => "ungated",
            });
            if let Basis::Gate { expires } = basis {
                document["expires"] = json!(expires);
            }
        }
        Verdict::Deny(denials) => {
            document["verdict"] = json!("deny");
            document["denials"] = denials.iter().map(denial).collect();
        }
        Verdict::Undecided(reasons) => {
            document["verdict"] = json!("undecided");
            document["reasons"] = reasons.iter().map(|why| json!(reason(&why.to_string()))).collect();
        }
    }
    document
}

/// The decision about one image that an index names.
pub struct PlatformDecision {
    /// What the index says it is for.
    pub platform: String,
    /// Its evidence record.
    pub record: u64,
    /// The decision's document.
    pub document: Value,
}

/// The decision about an index as JSON with sorted keys: made of those about its images, all of one moment, and of nothing else. One that
/// is denied denies the index, and one that is open leaves it open.
pub fn index_document(index: &Digest, unsigned: &[Value], platforms: &[PlatformDecision]) -> Value {
    let mut document = json!({
        "version": 1,
        "image": index,
        "platforms": platforms.iter().map(|one| json!({
            "platform": one.platform,
            "image": one.document["image"],
            "verdict": one.document["verdict"],
            "document": Digest::of(&document_bytes(&one.document)),
            "record": one.record,
        })).collect::<Vec<_>>(),
        "unsigned": unsigned,
    });
    if let Some(first) = platforms.first() {
        for shared in ["environment", "tag", "gate", "gateway", "authority", "previous", "decidedAt"] {
            document[shared] = first.document[shared].clone();
        }
    }
    let is = |verdict: &str| platforms.iter().any(|one| one.document["verdict"] == verdict);
    let verdict = ["deny", "undecided", "allow", "ungated"].into_iter().find(|verdict| is(verdict));
    document["verdict"] = json!(verdict.unwrap_or("undecided"));
    // All of them are written alike, so the first as text is the first in time.
    let expiries = platforms.iter().filter_map(|one| one.document["expires"].as_str());
    if let Some(first) = expiries.min().filter(|_| verdict == Some("allow")) {
        document["expires"] = json!(first);
    }
    document
}

fn rule(answer: &RuleAnswer) -> Value {
    json!({
        "code": answer.rule.code,
        "rule": answer.rule.place(),
        "outcome": answer.says().word(),
    })
}

/// A denial that somebody accepts, and by which waiver.
fn waived(Waived { denial, by }: &Waived) -> Value {
    let violation = &denial.violation;
    json!({"code": denial.code, "msg": violation.msg, "term": violation.term, "subject": violation.subject, "by": by})
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
        "attestation": denial.violation.fields.get("attestation"),
        "near": denial.near,
    })
}

/// The bytes of a decision's document.
pub fn document_bytes(document: &Value) -> Vec<u8> {
    document.to_string().into_bytes()
}

impl Decision {
    /// Keeps the document and the facts in the store, and gives what the record says of them.
    pub fn keep(&self, ports: &Ports<'_>) -> Result<Value, Error> {
        if let Some(facts) = &self.facts {
            ports.store.put_bytes(facts.as_bytes())?;
        }
        keep_document(ports, &self.document)
    }
}

/// Keeps a decision's document in the store, and gives what the record says of it.
pub(crate) fn keep_document(ports: &Ports<'_>, document: &Value) -> Result<Value, Error> {
    let digest = ports.store.put_bytes(&document_bytes(document))?;
    let mut body = document.clone();
    body["document"] = json!(digest);
    Ok(body)
}

/// A reason as documents and records have it: its beginning, if it is long.
pub(crate) fn reason(text: &str) -> String {
    match text.floor_char_boundary(MAX_REASON) {
        end if end < text.len() => format!("{}…", &text[..end]),
        _ => text.to_owned(),
    }
}

/// Leaves of each list that may be long the beginning, and says how long it was: a verdict is never lost because there was much to say.
/// The whole list stands in the decision's document.
pub(crate) fn shorten_lists(body: &mut Value) {
    for list in LISTS {
        let Some(items) = body.get_mut(list).and_then(Value::as_array_mut) else { continue };
        let mut bytes = 0;
        let fits = |item: &&Value| {
            bytes += item.to_string().len();
            bytes <= MAX_LIST_BYTES
        };
        let (count, listed) = (items.len(), items.iter().take(MAX_LISTED).take_while(fits).count());
        if listed < count {
            items.truncate(listed);
            body[format!("{list}Count")] = json!(count);
        }
    }
}

/// The word that a record has for what a permit rests on.
pub fn outcome_of(basis: Basis) -> &'static str {
    match basis {
        Basis::Gate { .. } => "allow",
        Basis::Ungated => "ungated",
    }
}
