//! Asks Rego v1 policies about facts: files, data and input in, one answer for each declared rule out (DESIGN section 5, "Every
//! rule declares its code").
//!
//! A rule declares its code, `package.short_name`, in a `# METADATA` block above its first clause and must answer with
//! `pass contains "package.short_name"` or `deny contains {"code": "package.short_name", "msg": …}`. What it says is not judged
//! here: that is done with the facts, in the parent process. Nothing is read, written or printed here, and the only clock is the
//! one that stops an evaluation. Requests, results and errors are plain data, so that policies of strangers can be evaluated in
//! a child process: a single builtin call can cost more time and memory than the limits here can notice, so foreign policies
//! belong in a child with limits of the system.
//!
//! Files named `*_test.rego` are tests beside the policies and are never asked.

use std::{collections::BTreeMap, time::Instant};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sluicegate_types::{
    NonEmpty,
    checks::{Check, is_on},
};

pub use crate::policy_error::{Place, PolicyError};
pub use crate::rule_declarations::RuleDeclaration;
use crate::{
    answers, data_documents,
    limited_engine::{LimitedEngine, guarded},
    metadata, rule_declarations, triggers,
};

/// A policy or data file: its name as errors show it and its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceFile {
    /// The name, such as `policies/vulnerabilities.rego`; data named `*.json` is read as JSON, other data as YAML.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// Everything one evaluation depends on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvaluationRequest {
    /// The policies; `*_test.rego` among them are left out.
    pub policies: Vec<SourceFile>,
    /// YAML or JSON documents, merged into `data`; a value given twice is an error.
    pub data: Vec<SourceFile>,
    /// The facts as JSON text, an object.
    pub input: Box<RawValue>,
}

/// What the rules said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleResults {
    /// One for each declared code, in the order of the codes.
    pub answers: Vec<RuleAnswer>,
    /// What `warn contains …` said; it decides nothing.
    pub warnings: Vec<Warning>,
}

/// What one rule declares and what it said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleAnswer {
    /// What it declares.
    pub rule: RuleDeclaration,
    /// What it said.
    pub outcome: Outcome,
    /// Those of its `requires_fields` that lead to nothing in the facts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<String>,
    /// How many denials its package has beyond those that are listed; whose they are nobody knows.
    #[serde(default)]
    pub unlisted: u64,
}

impl RuleAnswer {
    /// What its answer comes to. The silence of a rule that demands fields is a pass where each of them is there, and no more than
    /// silence where one is not; a denial stays one, and more denials than can be listed are one of each rule of the package.
    pub fn says(&self) -> Says<'_> {
        let unlisted = if is_on(Check::UnlistedDenials) { self.unlisted } else { 0 };
        match &self.outcome {
            Outcome::Deny(violations) => Says::Deny { violations: violations.as_slice(), unlisted },
            Outcome::Contradiction(violations) => Says::Contradiction(violations),
            _ if unlisted > 0 => Says::Deny { violations: &[], unlisted },
            Outcome::Pass | Outcome::Silent if !self.lacking.is_empty() && is_on(Check::RequiredField) => {
                Says::Lacking(&self.lacking)
            }
            Outcome::Silent if self.rule.requires_fields.is_empty() => Says::Silent,
            Outcome::Pass | Outcome::Silent => Says::Pass,
        }
    }
}

/// What the answer of a rule comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Says<'a> {
    /// Yes.
    Pass,
    /// No.
    Deny {
        /// For these reasons.
        violations: &'a [Violation],
        /// And for so many more.
        unlisted: u64,
    },
    /// Yes and no, which is no.
    Contradiction(&'a NonEmpty<Violation>),
    /// Nothing.
    Silent,
    /// Nothing that counts, as these fields are not there.
    Lacking(&'a [String]),
}

impl Says<'_> {
    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Deny { .. } => "deny",
            Self::Contradiction(_) => "contradiction",
            Self::Silent => "silent",
            Self::Lacking(_) => "lacking",
        }
    }
}

/// What a declared rule said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Its code is in `pass` and not in `deny`.
    Pass,
    /// Its code is in `deny` and not in `pass`.
    Deny(NonEmpty<Violation>),
    /// Its code is in neither: the rule had no opinion, so nothing is decided.
    Silent,
    /// Its code is in both, which counts as a denial.
    Contradiction(NonEmpty<Violation>),
}

/// One reason of a denial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Violation {
    /// For a person: what is wrong, where, and what to do.
    pub msg: String,
    /// What exactly is denied, such as an advisory's id; waivers name it.
    pub term: Option<String>,
    /// What it was found in, such as a package's purl.
    pub subject: Option<String>,
    /// Every other field; each a text, a number, true, false or null.
    pub fields: BTreeMap<String, serde_json::Value>,
    /// File and line of the clause that gave it, where that could be found out. It explains; no decision holds it, as finding it out may
    /// take longer than there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clause: Option<String>,
}

/// Something a policy wants a person to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Warning {
    /// The package that said it.
    pub package: String,
    /// The code it belongs to, if it named one.
    pub code: Option<String>,
    /// The text.
    pub msg: String,
    /// Every other field, as in a violation.
    pub fields: BTreeMap<String, serde_json::Value>,
}

/// How much an evaluation may take (DESIGN section 7). Sizes are bytes of text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvaluationLimits {
    /// Milliseconds of evaluation, all rules together.
    pub milliseconds: u64,
    /// Bytes of the input.
    pub input_bytes: u64,
    /// Bytes of all data documents together.
    pub data_bytes: u64,
    /// Bytes of one policy file.
    pub policy_bytes: u64,
    /// Policy files; and, counted apart, data files.
    pub files: u64,
    /// Members of one `pass`, `deny` or `warn`.
    pub answers: u64,
    /// Bytes of one text in an answer.
    pub answer_text_bytes: u64,
}

impl Default for EvaluationLimits {
    fn default() -> Self {
        Self {
            milliseconds: 1_000,
            input_bytes: 64 << 20,
            data_bytes: 64 << 20,
            policy_bytes: 1 << 20,
            files: 256,
            answers: 100_000,
            answer_text_bytes: 16 << 10,
        }
    }
}

/// Reads what every rule of `policies` declares, in the order of the codes, without evaluating anything.
///
/// An error if there is no code at all, a code twice, a METADATA block that says too little, or anything else that
/// [`evaluate`] would refuse before it asks, within the default limits.
pub fn rules(policies: &[SourceFile]) -> Result<Vec<RuleDeclaration>, PolicyError> {
    guarded(|| Loaded::new(policies, &EvaluationLimits::default()).map(|loaded| loaded.rules))
}

/// Refuses policies and data whose authors can be told what to write before anything is asked: METADATA and YAML that two readers
/// understand differently, a value given twice. What is refused here is a mistake in a file, not a gate that cannot decide.
pub fn check_files(policies: &[SourceFile], data: &[SourceFile]) -> Result<(), PolicyError> {
    for file in policies.iter().filter(|file| !is_test(&file.name)) {
        metadata::blocks(&file.name, &file.text)?;
    }
    data_documents::merge(data, &[]).map(drop)
}

/// Asks every declared rule. An error means that nothing was decided.
pub fn evaluate(request: &EvaluationRequest, limits: &EvaluationLimits) -> Result<RuleResults, PolicyError> {
    let started = Instant::now();
    let mut policies = Policies::new(&request.policies, &request.data, limits)?;
    let facts = policies.facts(&request.input)?;
    let mut results = policies.ask(&facts)?;
    if results.answers.iter().any(|answer| matches!(answer.says(), Says::Deny { .. } | Says::Contradiction(_))) {
        // What is left of the time: an explanation makes no denial late.
        let spent = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let left = EvaluationLimits { milliseconds: limits.milliseconds.saturating_sub(spent), ..limits.clone() };
        if left.milliseconds > 0 {
            let named = guarded(|| {
                name_clauses(request, &left, &mut results);
                Ok(())
            });
            // What keeps it from being found out leaves it unsaid.
            drop(named);
        }
    }
    Ok(results)
}

/// Policies and data that were read once, to be asked about facts as often as there are some.
pub struct Policies {
    loaded: Loaded,
    limits: EvaluationLimits,
    warnings: Vec<Warning>,
}

/// Facts that were read once.
pub struct ReadFacts(regorus::Value);

impl Policies {
    /// Reads them, and refuses what must not be evaluated.
    pub fn new(policies: &[SourceFile], data: &[SourceFile], limits: &EvaluationLimits) -> Result<Self, PolicyError> {
        let loaded = guarded(|| {
            let mut loaded = Loaded::new(policies, limits)?;
            loaded.engine.set_data(data, limits)?;
            Ok(loaded)
        })?;
        let odd = data.iter().flat_map(data_documents::odd_values).map(|(place, msg)| Warning {
            package: "data".to_owned(),
            code: None,
            msg: format!("{place}: data: {msg}"),
            fields: BTreeMap::new(),
        });
        Ok(Self { loaded, limits: limits.clone(), warnings: odd.collect() })
    }

    /// Reads facts, the text of a JSON object.
    pub fn facts(&self, input: &RawValue) -> Result<ReadFacts, PolicyError> {
        guarded(|| LimitedEngine::read_input(input.get(), &self.limits)).map(ReadFacts)
    }

    /// Asks every declared rule about these facts.
    pub fn ask(&mut self, facts: &ReadFacts) -> Result<RuleResults, PolicyError> {
        let Self { loaded: Loaded { engine, rules, sets }, limits, warnings } = self;
        guarded(|| {
            engine.take_input(facts.0.clone());
            let said = engine.ask(&answers::query(sets), limits)?;
            let said = said.ok_or_else(|| PolicyError::Engine { reason: "the answers have no value".to_owned() })?;
            let mut results = answers::read(rules, sets, &said, limits)?;
            for answer in &mut results.answers {
                let fields = answer.rule.requires_fields.iter();
                answer.lacking = fields.filter(|pointer| !engine.input_has(pointer)).cloned().collect();
            }
            results.warnings.extend(warnings.iter().cloned());
            Ok(results)
        })
    }
}

/// Violations of one rule of which the clause is found out.
const MAX_EXPLAINED: usize = 500;

/// Says of each violation which clause gave it. Whatever keeps that from being found out leaves it unsaid.
fn name_clauses(request: &EvaluationRequest, limits: &EvaluationLimits, results: &mut RuleResults) {
    let asked: Vec<_> = request.policies.iter().filter(|file| !is_test(&file.name)).collect();
    let Ok(engine) = LimitedEngine::parse(&asked, limits) else { return };
    let (copies, clauses) = triggers::copies(&asked, engine.modules());
    let mut policies = request.policies.clone();
    policies.extend(copies);
    let found = || -> Result<_, PolicyError> {
        let asked: Vec<_> = policies.iter().filter(|file| !is_test(&file.name)).collect();
        let more = EvaluationLimits { files: limits.files.saturating_mul(2), ..limits.clone() };
        let mut engine = LimitedEngine::new(&asked, &more)?;
        engine.set_data(&request.data, limits)?;
        engine.set_input(request.input.get(), limits)?;
        engine.ask(&answers::query(&triggers::sets(&clauses)), limits)
    };
    let Ok(Some(said)) = found() else { return };
    for clause in &clauses {
        let Ok(given) = said[clause.package.as_str()][clause.set.as_str()].as_set() else { continue };
        let given: Vec<Violation> = given.iter().filter_map(|value| answers::violation_in(value, limits)).collect();
        for answer in &mut results.answers {
            if let Outcome::Deny(violations) | Outcome::Contradiction(violations) = &mut answer.outcome {
                for violation in
                    violations.iter_mut().take(MAX_EXPLAINED).filter(|violation| violation.clause.is_none())
                {
                    if given.contains(violation) {
                        violation.clause = Some(clause.place.clone());
                    }
                }
            }
        }
    }
}

/// Whether a file holds tests and no policies.
pub fn is_test(name: &str) -> bool {
    name.ends_with("_test.rego")
}

/// Policies that were read and may be asked.
struct Loaded {
    engine: LimitedEngine,
    rules: Vec<RuleDeclaration>,
    /// The packages that have `pass`, `deny` or `warn`, and which.
    sets: BTreeMap<String, Vec<String>>,
}

impl Loaded {
    fn new(policies: &[SourceFile], limits: &EvaluationLimits) -> Result<Self, PolicyError> {
        let asked: Vec<_> = policies.iter().filter(|file| !is_test(&file.name)).collect();
        let engine = LimitedEngine::new(&asked, limits)?;
        rule_declarations::check_heads(engine.modules())?;
        let rules = rule_declarations::read(&asked, engine.modules())?;
        let sets = rule_declarations::answering_sets(engine.modules(), &rules)?;
        if rules.is_empty() {
            return Err(PolicyError::NoCodes);
        }
        Ok(Self { engine, rules, sets })
    }
}
