use std::collections::BTreeMap;

use regorus::unstable::{Expr, Literal, Module, Ref, Rule, RuleHead};
use serde::{Deserialize, Serialize};
use sluicegate_types::UnixTime;

use crate::{
    call_graph::{head_reference, place, static_path},
    metadata,
    policy_error::{Place, PolicyError},
    rego::SourceFile,
};

/// What a rule says about itself in its METADATA block, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleDeclaration {
    /// `package.short_name`, the name by which answers, waivers and decisions call it.
    pub code: String,
    /// One line: what it demands.
    pub title: String,
    /// Why, and exactly what.
    pub description: String,
    /// What to do when it denies (`custom.solution`).
    pub solution: String,
    /// Predicate types without which the rule can't be asked (`custom.requires`).
    pub requires: Vec<String>,
    /// JSON pointers into the facts, each of which must lead to something (`custom.requires_fields`). A rule that has some may say
    /// nothing but `deny`: with all of them there, its silence is a pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires_fields: Vec<String>,
    /// From when on the rule decides (`custom.effective_on`); before, what it says is a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_on: Option<UnixTime>,
    /// Which controls of which frameworks it serves, by framework (`custom.controls`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub controls: BTreeMap<String, Vec<String>>,
    /// The file of its first clause.
    pub file: String,
    /// The line of its first clause.
    pub line: u64,
}

impl RuleDeclaration {
    /// The package that answers for it.
    pub fn package(&self) -> &str {
        self.code.rsplit_once('.').map_or("", |(package, _)| package)
    }

    /// Where it stands: file and line.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }

    /// Whether what it says decides at `now`.
    pub fn is_effective(&self, now: UnixTime) -> bool {
        self.effective_on.is_none_or(|from| from <= now)
    }
}

/// The names of the sets in which a package answers.
const ANSWERS: [&str; 3] = ["deny", "pass", "warn"];

/// Refuses what looks like answers and is none: sets that other tools read and nobody here, and `pass`, `deny` and `warn` that are no
/// sets, of which Rego makes an object or a list that holds as if nothing were denied.
pub(crate) fn check_heads(modules: &[Ref<Module>]) -> Result<(), PolicyError> {
    for rule in modules.iter().flat_map(|module| &module.policy) {
        let reference = head_reference(rule);
        let head = static_path(reference);
        let Some(name) = head.first() else { continue };
        let place = place(reference);
        if is_habit_of_others(name) && is_set(rule) {
            return Err(PolicyError::Unread { place, name: name.clone() });
        }
        // `c.pass` in package a would answer for package a.c.
        if head.iter().skip(1).any(|part| ANSWERS.contains(&part.as_str())) {
            return Err(PolicyError::Unread { place, name: head.join(".") });
        }
        if ANSWERS.contains(&name.as_str()) && (!is_set(rule) || head.len() != 1) {
            return Err(PolicyError::NotASet { place, name: name.clone(), found: shape(rule).to_owned() });
        }
    }
    Ok(())
}

/// What a rule that is no set makes.
fn shape(rule: &Rule) -> &'static str {
    match rule {
        Rule::Spec { head: RuleHead::Func { .. }, .. } => "a function",
        Rule::Spec { head: RuleHead::Compr { refr, assign, .. }, .. } => match (refr.as_ref(), assign) {
            (Expr::RefBrack { .. } | Expr::RefDot { .. }, _) => "an object",
            (_, Some(assign)) => match assign.value.as_ref() {
                Expr::Array { .. } | Expr::ArrayCompr { .. } => "a list",
                Expr::Object { .. } | Expr::ObjectCompr { .. } => "an object",
                _ => "one value",
            },
            (_, None) => "true or undefined",
        },
        _ => "one value",
    }
}

/// Reads the declarations of `files`, which `modules` were parsed from in the same order. Sorted by code.
pub(crate) fn read(files: &[&SourceFile], modules: &[Ref<Module>]) -> Result<Vec<RuleDeclaration>, PolicyError> {
    let mut rules: BTreeMap<String, RuleDeclaration> = BTreeMap::new();
    for (file, module) in files.iter().zip(modules) {
        let package = static_path(&module.package.refr).join(".");
        for block in metadata::blocks(&file.name, &file.text)? {
            let at = Place { file: file.name.clone(), line: block.line, column: 0 };
            let below = below(module, block.last_line);
            let owes_a_code =
                matches!(&below, Below::Rule(rule) if answers(rule) && !block.annotation.is_about_a_package());
            let Some(declared) = block.annotation.declared(&at, owes_a_code)? else { continue };
            let Below::Rule(rule) = below else {
                return Err(misplaced(at));
            };
            if !owes_a_code {
                return Err(misplaced(at));
            }
            let rule_place = place(head_reference(rule));
            let code = format!("{package}.{}", declared.short_name);
            if let Some(first) = rules.get(&code) {
                return Err(PolicyError::DuplicateCode {
                    code,
                    first: Place { file: first.file.clone(), line: first.line, column: 0 },
                    second: Place { column: 0, ..rule_place },
                });
            }
            let declaration = RuleDeclaration {
                code: code.clone(),
                title: declared.title,
                description: declared.description,
                solution: declared.solution,
                requires: declared.requires,
                requires_fields: declared.requires_fields,
                effective_on: declared.effective_on,
                controls: declared.controls,
                file: rule_place.file,
                line: rule_place.line,
            };
            rules.insert(code, declaration);
        }
    }
    Ok(rules.into_values().collect())
}

/// The packages that answer, each with the names of its sets; refuses what looks like an answer and would be read by nobody.
pub(crate) fn answering_sets(
    modules: &[Ref<Module>],
    rules: &[RuleDeclaration],
) -> Result<BTreeMap<String, Vec<String>>, PolicyError> {
    let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for module in modules {
        let path = static_path(&module.package.refr);
        let package = path.join(".");
        for rule in &module.policy {
            let reference = head_reference(rule);
            let head = static_path(reference);
            let place = place(reference);
            let Some(name) = head.first() else { continue };
            if !ANSWERS.contains(&name.as_str()) {
                continue;
            }
            let prefix = format!("{package}.");
            let is_declared = rules
                .iter()
                .any(|rule| rule.code.strip_prefix(&prefix).is_some_and(|short_name| !short_name.contains('.')));
            if !is_declared && name != "warn" {
                return Err(PolicyError::NoCodeInPackage { place, package, rule: name.clone() });
            }
            if let Some(found) = no_answer(name, rule) {
                let expected = match name.as_str() {
                    "pass" => format!("pass contains \"{package}.SHORT_NAME\""),
                    _ => format!("{name} contains {{\"code\": \"{package}.SHORT_NAME\", \"msg\": …}}"),
                };
                return Err(PolicyError::NotAnAnswer { place, set: name.clone(), found, expected });
            }
            if let Some(odd) = path.iter().find(|part| !metadata::is_identifier(part)) {
                return Err(PolicyError::Syntax {
                    place,
                    reason: format!("{odd:?} in the package's name can't be part of a code: use a-z, 0-9 and _"),
                });
            }
            let names = sets.entry(package.clone()).or_default();
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    Ok(sets)
}

/// What stands below a block.
enum Below<'a> {
    Rule(&'a Rule),
    SomethingElse,
}

/// The first statement after `line`.
fn below(module: &Module, line: u64) -> Below<'_> {
    let others = [u64::from(module.package.span.line)];
    let other = others
        .into_iter()
        .chain(module.imports.iter().map(|import| u64::from(import.span.line)))
        .filter(|start| *start > line)
        .min();
    let rule = module
        .policy
        .iter()
        .map(|rule| (place(head_reference(rule)).line, rule))
        .filter(|(start, _)| *start > line)
        .min_by_key(|(start, _)| *start);
    match (rule, other) {
        (Some((start, rule)), other) if other.is_none_or(|other| start < other) => Below::Rule(rule),
        _ => Below::SomethingElse,
    }
}

/// Whether the rule is a clause of `pass` or `deny`.
fn answers(rule: &Rule) -> bool {
    is_set(rule) && matches!(static_path(head_reference(rule)).as_slice(), [name] if name == "pass" || name == "deny")
}

fn is_set(rule: &Rule) -> bool {
    matches!(rule, Rule::Spec { head: RuleHead::Set { .. }, .. })
}

/// What a clause gives, if it can be seen that it is no answer: a text or a list where an object belongs, or the other way round. What
/// cannot be seen here is looked at when it is said.
fn no_answer(set: &str, rule: &Rule) -> Option<String> {
    let Rule::Spec { head: RuleHead::Set { key: Some(key), .. }, bodies, .. } = rule else { return None };
    let given = match key.as_ref() {
        Expr::Var { value, .. } => {
            let bound =
                bodies.iter().flat_map(|body| &body.query.stmts).find_map(|statement| match &statement.literal {
                    Literal::Expr { expr, .. } => match expr.as_ref() {
                        Expr::AssignExpr { lhs, rhs, .. } => {
                            let is_it = matches!(lhs.as_ref(), Expr::Var { value: name, .. } if name == value);
                            is_it.then_some(rhs.as_ref())
                        }
                        _ => None,
                    },
                    _ => None,
                });
            bound?
        }
        other => other,
    };
    let found = match given {
        Expr::String { .. } | Expr::RawString { .. } => "a text",
        Expr::Number { .. } => "a number",
        Expr::Bool { .. } => "a truth value",
        Expr::Null { .. } => "null",
        Expr::Array { .. } | Expr::ArrayCompr { .. } => "a list",
        Expr::Set { .. } | Expr::SetCompr { .. } => "a set",
        Expr::Object { .. } | Expr::ObjectCompr { .. } => "an object",
        Expr::Call { fcn, .. } if TEXT_FUNCTIONS.contains(&static_path(fcn).join(".").as_str()) => "a text",
        _ => return None,
    };
    let fits = match set {
        "pass" => found == "a text",
        "deny" => found == "an object",
        _ => matches!(found, "a text" | "an object"),
    };
    (!fits).then(|| found.to_owned())
}

/// Builtins with which messages are written.
const TEXT_FUNCTIONS: [&str; 6] = ["concat", "format_int", "lower", "sprintf", "trim_space", "upper"];

/// Sets that conftest and Gatekeeper read.
fn is_habit_of_others(name: &str) -> bool {
    ["violation", "exception"].contains(&name)
        || ["deny_", "warn_", "pass_", "violation_"].iter().any(|prefix| name.starts_with(prefix))
}

fn misplaced(place: Place) -> PolicyError {
    PolicyError::Metadata {
        place,
        reason:
            "custom.short_name declares a code, so the block belongs right above the first `pass contains` or `deny \
                 contains` clause of its rule"
                .to_owned(),
    }
}
