//! Looks policies and data through without asking them anything: what a gate would refuse, and what it would take although its author
//! probably means something else.

use std::collections::BTreeSet;

use regorus::unstable::{Expr, Literal, Module, Query, Ref, Rule};
use serde::{Deserialize, Serialize};

use crate::{
    call_graph::{head_reference, static_path},
    data_documents,
    limited_engine::{LimitedEngine, guarded},
    metadata,
    policy_error::{Place, PolicyError},
    rego::{EvaluationLimits, SourceFile, is_test},
    rule_declarations::{self, RuleDeclaration},
};

/// Something that is wrong, or probably not what is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Finding {
    /// Whether a gate refuses it.
    pub severity: Severity,
    /// A short name for what it is, such as `recursion`.
    pub kind: String,
    /// Where; `None` if it is about no one place.
    pub place: Option<Place>,
    /// What is wrong, and what to write.
    pub message: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// A gate with it decides nothing.
    Error,
    /// A gate takes it.
    Warning,
}

/// Every finding about `policies` and `data`, by place. Each file is looked at by itself first, so that a mistake in one hides none in
/// another.
pub fn check(policies: &[SourceFile], data: &[SourceFile], limits: &EvaluationLimits) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |error: PolicyError| {
        let place = error.place().cloned();
        let words = error.to_string();
        // The place is told once.
        let message = place.as_ref().and_then(|place| words.strip_prefix(&format!("{place}: "))).unwrap_or(&words);
        let finding =
            Finding { severity: Severity::Error, kind: error.kind().to_owned(), message: message.to_owned(), place };
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    };
    let asked: Vec<&SourceFile> = policies.iter().filter(|file| !is_test(&file.name)).collect();
    let mut warned = Vec::new();
    for file in &asked {
        // Functions of other files are unknown in one alone: that is looked at with all of them together.
        match guarded(|| LimitedEngine::parse(&[file], limits).map(|engine| warnings(file, engine.modules()))) {
            Ok(warnings) => warned.extend(warnings),
            Err(error) => found(error),
        }
    }
    let whole = guarded(|| {
        let engine = LimitedEngine::parse(&asked, limits)?;
        let mut errors = engine.unfit_calls();
        if let Err(error) = rule_declarations::check_heads(engine.modules()) {
            errors.push(error);
            return Ok(errors);
        }
        match rule_declarations::read(&asked, engine.modules()) {
            Ok(rules) => {
                errors.extend(rule_declarations::answering_sets(engine.modules(), &rules).err());
                if rules.is_empty() {
                    errors.push(PolicyError::NoCodes);
                }
                let about = |rule: &RuleDeclaration, kind: &str, message: String| Finding {
                    severity: Severity::Warning,
                    kind: kind.to_owned(),
                    place: Some(Place { file: rule.file.clone(), line: rule.line, column: 0 }),
                    message,
                };
                let bare = rules.iter().filter(|rule| rule.controls.is_empty()).map(|rule| {
                    let code = &rule.code;
                    let message = format!(
                        "{code} names no control that it serves: list them under custom.controls, by framework"
                    );
                    about(rule, "no-controls", message)
                });
                let alone = rules.iter().filter(|rule| !rule.requires_fields.is_empty()).map(|rule| {
                    let code = &rule.code;
                    let message = format!(
                        "the silence of {code} is a pass: `pass contains` says what must hold, and a mistake in it is never green"
                    );
                    about(rule, "deny-only", message)
                });
                warned.extend(bare.chain(alone));
            }
            Err(error) => errors.push(error),
        }
        Ok(errors)
    });
    match whole {
        Ok(errors) => errors.into_iter().for_each(&mut found),
        Err(error) => found(error),
    }
    if let Err(error) = data_documents::merge(data, &[]) {
        found(error);
    }
    findings.extend(warned);
    findings.extend(data.iter().flat_map(data_documents::odd_values).map(|(place, message)| Finding {
        severity: Severity::Warning,
        kind: "odd-value".to_owned(),
        place: Some(place),
        message,
    }));
    findings.sort_by(|a, b| (&a.place, a.severity, &a.message).cmp(&(&b.place, b.severity, &b.message)));
    findings
}

/// What one file does that is probably not meant.
fn warnings(file: &SourceFile, modules: &[Ref<Module>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let blocks = metadata::blocks(&file.name, &file.text).unwrap_or_default();
    let fine = blocks.into_iter().filter_map(|block| block.annotation.custom?.none_is_fine).flatten();
    let fine: BTreeSet<String> = fine.collect();
    for rule in modules.iter().flat_map(|module| &module.policy) {
        let Rule::Spec { bodies, .. } = &**rule else { continue };
        // Where a denial takes an empty list for a fault, that is the safe side.
        if matches!(static_path(head_reference(rule)).first().map(String::as_str), Some("deny" | "warn")) {
            continue;
        }
        for body in bodies {
            unsure_promises(&body.query, &fine, &mut findings);
        }
    }
    findings
}

/// `every` over something of which nothing beside it says that it is not empty: of nothing everything is true.
fn unsure_promises(query: &Query, fine: &BTreeSet<String>, findings: &mut Vec<Finding>) {
    let counted = counted(query);
    for statement in &query.stmts {
        let Literal::Every { domain, query, span, .. } = &statement.literal else { continue };
        let what = written(domain);
        let is_sure = match domain.as_ref() {
            Expr::Array { items, .. } | Expr::Set { items, .. } => !items.is_empty(),
            _ => counted.contains(&what) || fine.contains(&what),
        };
        if !is_sure {
            let place = Place { file: span.source.file().to_string(), line: span.line.into(), column: span.col.into() };
            findings.push(Finding {
                severity: Severity::Warning,
                kind: "every-of-none".to_owned(),
                place: Some(place),
                message: format!(
                    "`every` holds where {what} is empty: write count({what}) > 0 beside it, or list {what:?} under \
                     custom.none_is_fine of the rule"
                ),
            });
        }
        unsure_promises(query, fine, findings);
    }
}

/// What a body asks the count of, or a member.
fn counted(query: &Query) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut open: Vec<&Expr> = Vec::new();
    for statement in &query.stmts {
        match &statement.literal {
            Literal::Expr { expr, .. } => open.push(expr),
            Literal::SomeIn { collection, .. } => {
                names.insert(written(collection));
            }
            _ => {}
        }
    }
    while let Some(expr) = open.pop() {
        match expr {
            Expr::Call { fcn, params, .. } if static_path(fcn) == ["count"] => {
                names.extend(params.iter().map(|param| written(param)));
            }
            Expr::BoolExpr { lhs, rhs, .. } | Expr::AssignExpr { lhs, rhs, .. } => {
                open.extend([lhs.as_ref(), rhs.as_ref()])
            }
            _ => {}
        }
    }
    names
}

/// An expression as its author writes it, but for blanks; of one that is more than names, calls and values, the beginning.
fn written(expr: &Expr) -> String {
    match expr {
        Expr::RefDot { refr, field, .. } => format!("{}.{}", written(refr), field.0.text()),
        Expr::RefBrack { refr, index, .. } => format!("{}[{}]", written(refr), written(index)),
        Expr::Call { fcn, params, .. } => {
            let params: Vec<String> = params.iter().map(|param| written(param)).collect();
            format!("{}({})", written(fcn), params.join(", "))
        }
        other => other.span().text().split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = "# METADATA\n# title: One\n# description: It is one.\n# custom:\n#   short_name: one\n#   solution: Make it one.\n#   requires: []\n#   controls: { soc2: [CC8.1] }\n";

    fn file(name: &str, text: &str) -> SourceFile {
        SourceFile { name: name.to_owned(), text: text.to_owned() }
    }

    /// Severity, kind, line and the beginning of the message.
    fn found(policies: &[SourceFile], data: &[SourceFile]) -> Vec<String> {
        check(policies, data, &EvaluationLimits::default())
            .into_iter()
            .map(|finding| {
                let place = finding.place.map(|place| format!("{}:{}", place.file, place.line)).unwrap_or_default();
                format!("{:?} {} {place}", finding.severity, finding.kind)
            })
            .collect()
    }

    fn policy(body: &str) -> SourceFile {
        file("a.rego", &format!("package a\n\n{METADATA}{body}"))
    }

    #[test]
    fn a_good_policy_has_no_findings() {
        assert_eq!(found(&[policy("pass contains \"a.one\" if input.x\n")], &[]), [] as [&str; 0]);
    }

    #[test]
    fn each_fault_is_found_with_its_line_beside_the_others() {
        let text = "pass contains \"a.one\" if f(input.x)\nf(x) if g(x)\ng(x) if f(x)\nh if no_such(1)\ni if http.send({})\nj if not_either(1)\n";
        assert_eq!(
            found(&[policy(text)], &[]),
            [
                "Error recursion a.rego:12",
                "Error unknown-function a.rego:14",
                "Error refused-builtin a.rego:15",
                "Error unknown-function a.rego:16"
            ]
        );
        let other = file("b.rego", "package b\ndeny contains {\"code\": \"b.x\", \"msg\": \"no\"} if input.x\n");
        assert_eq!(
            found(&[policy("pass contains \"a.one\" if input.x\n"), other, file("c.rego", "package c\nx := \n")], &[]),
            ["Error syntax c.rego:3"],
            "what stands beside a file that is no Rego is not known together"
        );
        let bare = file(
            "a.rego",
            &format!(
                "package a\n\n{}pass contains \"a.one\" if input.x\n",
                METADATA.replace("#   controls: { soc2: [CC8.1] }\n", "#   requires_fields: [/x]\n")
            ),
        );
        assert_eq!(found(&[bare], &[]), ["Warning no-controls a.rego:11", "Warning deny-only a.rego:11"]);
    }

    #[test]
    fn a_promise_about_all_of_none_is_found() {
        let every = |more: &str| {
            found(
                &[policy(&format!(
                    "pass contains \"a.one\" if {{\n\t{more}every x in input.reviews {{ x.good }}\n}}\n"
                ))],
                &[],
            )
        };
        assert_eq!(every(""), ["Warning every-of-none a.rego:12"]);
        assert_eq!(every("count(input.reviews) > 0\n\t"), [] as [&str; 0]);
        assert_eq!(every("count(input.other) > 0\n\t"), ["Warning every-of-none a.rego:13"]);
        assert_eq!(every("some r in input.reviews\n\t"), [] as [&str; 0]);
        let fine = METADATA.to_owned() + "#   none_is_fine: [input.reviews]\n";
        let text = format!("package a\n\n{fine}pass contains \"a.one\" if every x in input.reviews {{ x.good }}\n");
        assert_eq!(found(&[file("a.rego", &text)], &[]), [] as [&str; 0]);
        // A denial that an empty list makes is on the safe side.
        let denies = policy(
            "pass contains \"a.one\" if input.x\n\ndeny contains {\"code\": \"a.one\", \"msg\": \"no\"} if every x in input.l { x }\n",
        );
        assert_eq!(found(&[denies], &[]), [] as [&str; 0]);
    }

    #[test]
    fn data_that_others_read_differently_is_found() {
        let good = policy("pass contains \"a.one\" if input.x\n");
        let data = |text: &str| found(std::slice::from_ref(&good), &[file("d.yaml", text)]);
        assert_eq!(data("a: true\nb: [1.5, 2, \"1.10\", \"0755\"]\nc: 10\n\"no\": 0.5\n"), [] as [&str; 0]);
        assert_eq!(data("a: 1\nb: \"false\"\n"), ["Warning odd-value d.yaml:2"]);
        assert_eq!(data("a: 1\nb: [1.10, 1.5]\n"), ["Warning odd-value d.yaml:2"]);
        assert_eq!(data("a:\n- x: 0755\n"), ["Warning odd-value d.yaml:2"]);
        assert_eq!(data("a: no\n"), ["Error data d.yaml:1"]);
        assert_eq!(data("a: 1\na: 2\n"), ["Error data d.yaml:2"]);
        assert_eq!(
            found(std::slice::from_ref(&good), &[file("d.yaml", "a: 1"), file("e.yaml", "a: 2")]),
            ["Error data-conflict "]
        );
    }
}
