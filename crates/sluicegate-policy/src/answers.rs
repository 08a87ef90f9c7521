//! Reads what `pass`, `deny` and `warn` hold. Whatever is no clear answer is an error, never left out.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Value;
use sluicegate_types::NonEmpty;

use crate::{
    policy_error::PolicyError,
    rego::{EvaluationLimits, Outcome, RuleAnswer, RuleResults, Violation, Warning},
    rule_declarations::RuleDeclaration,
};

/// One expression whose value holds every answering set: `{"a": {"deny": data.a.deny, …}, …}`. One query, so that rules that
/// share work share it, and one time limit holds for all.
pub(crate) fn query(sets: &BTreeMap<String, Vec<String>>) -> String {
    let packages: Vec<_> = sets
        .iter()
        .map(|(package, names)| {
            let names: Vec<_> = names.iter().map(|name| format!("\"{name}\": data.{package}.{name}")).collect();
            format!("\"{package}\": {{{}}}", names.join(", "))
        })
        .collect();
    format!("{{{}}}", packages.join(", "))
}

/// The answers in `said`, the value of [`query`].
pub(crate) fn read(
    rules: &[RuleDeclaration],
    sets: &BTreeMap<String, Vec<String>>,
    said: &Value,
    limits: &EvaluationLimits,
) -> Result<RuleResults, PolicyError> {
    let codes: BTreeSet<&str> = rules.iter().map(|rule| rule.code.as_str()).collect();
    let mut passed = BTreeSet::new();
    let mut denied: BTreeMap<String, Vec<Violation>> = BTreeMap::new();
    let mut warnings = Vec::new();
    let mut unlisted: BTreeMap<&str, u64> = BTreeMap::new();
    for (package, names) in sets {
        for name in names {
            let set = Set { package, name, codes: &codes, limits };
            let (answers, beyond) = set.members(said)?;
            if beyond > 0 {
                let msg = format!(
                    "{beyond} of the members of deny are beyond the limit of {} and not listed",
                    limits.answers
                );
                warnings.push(Warning { package: package.clone(), code: None, msg, fields: BTreeMap::new() });
                unlisted.insert(package.as_str(), beyond);
            }
            for answer in answers {
                match name.as_str() {
                    "pass" => {
                        passed.insert(set.own_code(answer, answer)?);
                    }
                    "deny" => {
                        let (code, violation) = set.violation(answer)?;
                        let code = code.ok_or_else(|| set.wrong(answer, "it has no \"code\""))?;
                        denied.entry(code).or_default().push(violation);
                    }
                    _ => {
                        let (code, Violation { msg, term, subject, mut fields, .. }) = set.violation(answer)?;
                        let named = [("term", term), ("subject", subject)];
                        fields.extend(named.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text?.into()))));
                        warnings.push(Warning { package: package.clone(), code, msg, fields });
                    }
                }
            }
        }
    }
    let answers = rules.iter().map(|rule| {
        let violations = denied.remove(&rule.code).and_then(|violations| NonEmpty::try_from(violations).ok());
        let outcome = match (passed.contains(&rule.code), violations) {
            (true, None) => Outcome::Pass,
            (false, Some(violations)) => Outcome::Deny(violations),
            (true, Some(violations)) => Outcome::Contradiction(violations),
            (false, None) => Outcome::Silent,
        };
        let unlisted = unlisted.get(rule.package()).copied().unwrap_or(0);
        RuleAnswer { rule: rule.clone(), outcome, lacking: Vec::new(), unlisted }
    });
    Ok(RuleResults { answers: answers.collect(), warnings })
}

/// The violation in one member of `deny`, whosever it is.
pub(crate) fn violation_in(value: &Value, limits: &EvaluationLimits) -> Option<Violation> {
    let code = value.as_object().ok()?.get(&Value::from("code"))?.as_string().ok()?.to_string();
    let package = code.rsplit_once('.')?.0;
    let set = Set { package, name: "deny", codes: &BTreeSet::from([code.as_str()]), limits };
    set.violation(value).ok().map(|(_, violation)| violation)
}

/// One set of one package.
struct Set<'a> {
    package: &'a str,
    name: &'a str,
    codes: &'a BTreeSet<&'a str>,
    limits: &'a EvaluationLimits,
}

impl Set<'_> {
    /// The members, and how many more there are: a denial stays one however much there is to deny.
    fn members<'v>(&self, said: &'v Value) -> Result<(Vec<&'v Value>, u64), PolicyError> {
        let set = said[self.package][self.name]
            .as_set()
            .map_err(|_| self.wrong(&said[self.package][self.name], "it is not a set"))?;
        let (found, limit) = (set.len() as u64, self.limits.answers);
        if found > limit && self.name == "deny" {
            let listed = usize::try_from(limit.max(1)).unwrap_or(usize::MAX);
            return Ok((set.iter().take(listed).collect(), found - limit.max(1)));
        }
        if found > limit {
            let what = format!("members of {} in package {}", self.name, self.package);
            return Err(PolicyError::TooMuch { what, found, limit });
        }
        Ok((set.iter().collect(), 0))
    }

    /// The code in `value`, which must be one that this package declares.
    fn own_code(&self, value: &Value, answer: &Value) -> Result<String, PolicyError> {
        let code = self.text(value, answer, "a code is a text")?;
        if !self.codes.contains(code.as_str()) {
            return Err(self.wrong(
                answer,
                "no METADATA block declares this code: correct it (it is the package, a dot and custom.short_name)",
            ));
        }
        match code.rsplit_once('.') {
            Some((package, _)) if package == self.package => Ok(code),
            _ => Err(self.wrong(answer, "the code is another package's, and each package answers for itself")),
        }
    }

    /// An object with `msg`, or for `warn` also a text alone.
    fn violation(&self, answer: &Value) -> Result<(Option<String>, Violation), PolicyError> {
        if self.name == "warn" && answer.as_string().is_ok() {
            let msg = self.words(answer, answer, "")?;
            return Ok((None, Violation { msg, term: None, subject: None, fields: BTreeMap::new(), clause: None }));
        }
        let object = answer
            .as_object()
            .map_err(|_| self.wrong(answer, &format!("write {} contains {{\"code\": …, \"msg\": …}}", self.name)))?;
        let (mut code, mut msg, mut term, mut subject) = (None, None, None, None);
        let mut fields = BTreeMap::new();
        for (key, value) in object.iter() {
            let key = self.text(key, answer, "a field's name is a text")?;
            match key.as_str() {
                "code" => code = Some(self.own_code(value, answer)?),
                "msg" => msg = Some(self.words(value, answer, "\"msg\" is a text")?),
                "term" => term = Some(self.words(value, answer, "\"term\" is a text")?),
                "subject" => subject = Some(self.words(value, answer, "\"subject\" is a text")?),
                _ => {
                    let value = match value {
                        Value::Null => serde_json::Value::Null,
                        Value::Bool(flag) => (*flag).into(),
                        Value::Number(_) => serde_json::to_value(value)
                            .map_err(|_| self.wrong(answer, "a number in it can't be written as JSON"))?,
                        _ => self
                            .words(value, answer, &format!("{key:?} is neither text, number, true, false nor null"))?
                            .into(),
                    };
                    fields.insert(key, value);
                }
            }
        }
        let msg = msg.filter(|msg| !msg.trim().is_empty()).ok_or_else(|| self.wrong(answer, "it has no \"msg\""))?;
        Ok((code, Violation { msg, term, subject, fields, clause: None }))
    }

    fn text(&self, value: &Value, answer: &Value, reason: &str) -> Result<String, PolicyError> {
        let text = value.as_string().map_err(|_| self.wrong(answer, reason))?;
        let (found, limit) = (text.len() as u64, self.limits.answer_text_bytes);
        if found > limit {
            let what = format!("bytes of a text in {} of package {}", self.name, self.package);
            return Err(PolicyError::TooMuch { what, found, limit });
        }
        Ok(text.to_string())
    }

    /// What is said of an image, whose names its project chooses: the beginning of a long text, so that none makes a denial fail.
    fn words(&self, value: &Value, answer: &Value, reason: &str) -> Result<String, PolicyError> {
        let text = value.as_string().map_err(|_| self.wrong(answer, reason))?;
        let limit = usize::try_from(self.limits.answer_text_bytes).unwrap_or(usize::MAX);
        Ok(match text.floor_char_boundary(limit) {
            end if end < text.len() => format!("{}…", &text[..end]),
            _ => text.to_string(),
        })
    }

    fn wrong(&self, answer: &Value, reason: &str) -> PolicyError {
        let answer = answer.to_json_str().unwrap_or_else(|_| "an unprintable value".to_owned());
        let answer: String = answer.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect();
        PolicyError::Answer {
            package: self.package.to_owned(),
            set: self.name.to_owned(),
            answer,
            reason: reason.to_owned(),
        }
    }
}
