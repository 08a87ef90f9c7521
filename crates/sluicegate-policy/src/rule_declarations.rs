use std::collections::BTreeMap;

use regorus::unstable::{Module, Ref, Rule, RuleHead};
use serde::{Deserialize, Serialize};

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
    /// The file of its first clause.
    pub file: String,
    /// The line of its first clause.
    pub line: u64,
}

/// The names of the sets in which a package answers.
const ANSWERS: [&str; 3] = ["deny", "pass", "warn"];

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
            if is_habit_of_others(name) && is_set(rule) {
                return Err(PolicyError::Unread { place, name: name.clone() });
            }
            if !ANSWERS.contains(&name.as_str()) {
                continue;
            }
            if !is_set(rule) || head.len() != 1 {
                return Err(PolicyError::NotASet { place, name: name.clone() });
            }
            let prefix = format!("{package}.");
            let is_declared = rules
                .iter()
                .any(|rule| rule.code.strip_prefix(&prefix).is_some_and(|short_name| !short_name.contains('.')));
            if !is_declared && name != "warn" {
                return Err(PolicyError::NoCodeInPackage { place, package, rule: name.clone() });
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
