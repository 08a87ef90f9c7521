//! Which clause of a rule gave a denial: each clause of `deny` is asked once more under a name of its own. It explains, and decides nothing.

use std::collections::BTreeMap;

use regorus::unstable::{Module, Ref, Rule, RuleHead};

use crate::{
    call_graph::{head_reference, place, static_path},
    definedness::written,
    rego::SourceFile,
};

/// How the copies of clauses are called, before the number of their file and their line.
const PREFIX: &str = "sluicegate_denial_";

/// A clause of `deny`, and the set that its copy fills.
pub(crate) struct Clause {
    pub(crate) package: String,
    pub(crate) set: String,
    /// File and line.
    pub(crate) place: String,
}

/// One more file beside each of `files` with a copy of each of its clauses of `deny`, in the same package and with the same imports.
pub(crate) fn copies(files: &[&SourceFile], modules: &[Ref<Module>]) -> (Vec<SourceFile>, Vec<Clause>) {
    let (mut copies, mut clauses) = (Vec::new(), Vec::new());
    for (number, (file, module)) in files.iter().zip(modules).enumerate() {
        let package = static_path(&module.package.refr).join(".");
        let mut text = format!("package {}\n", module.package.refr.span_text());
        for import in &module.imports {
            text.push_str(import.span.text());
            text.push('\n');
        }
        let before = clauses.len();
        for rule in &module.policy {
            let Rule::Spec { span, head: RuleHead::Set { .. }, .. } = &**rule else { continue };
            let head = head_reference(rule);
            if static_path(head) != ["deny"] {
                continue;
            }
            let Some(rest) = written(span).strip_prefix("deny") else { continue };
            let place = place(head);
            let set = format!("{PREFIX}{number}_{}_{}", place.line, place.column);
            text.push_str(&format!("{set}{rest}\n"));
            clauses.push(Clause { package: package.clone(), set, place: format!("{}:{}", file.name, place.line) });
        }
        if clauses.len() > before {
            copies.push(SourceFile { name: format!("{}#denials", file.name), text });
        }
    }
    (copies, clauses)
}

/// The packages of the clauses, each with the names of their sets.
pub(crate) fn sets(clauses: &[Clause]) -> BTreeMap<String, Vec<String>> {
    let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for clause in clauses {
        sets.entry(clause.package.clone()).or_default().push(clause.set.clone());
    }
    sets
}

/// The text that an expression was written as.
trait Written {
    fn span_text(&self) -> String;
}

impl Written for regorus::unstable::Expr {
    fn span_text(&self) -> String {
        let path = static_path(self);
        let quoted = |part: &String| format!("[{}]", serde_json::Value::from(part.as_str()));
        path.first().cloned().unwrap_or_default() + &path[1.min(path.len())..].iter().map(quoted).collect::<String>()
    }
}
