//! OPA's own cases for Rego v1 (2,067, read from the folder that is shared beside the repository), asked of the engine as it is used here:
//! with every limit, every refusal (but that of `with`, which only tests may have) and every builtin of ours. What comes out otherwise stands, each by its name, in
//! `tests/opa_differences.txt`, which may only shrink: a case that agrees and is still listed is a failure too.
//!
//! `SLUICEGATE_BLESS=1` with this test writes the list anew.

use std::{collections::BTreeSet, env, fs, path::Path};

use regorus::Value;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::{
    limited_engine::{LimitedEngine, guarded},
    rego::{EvaluationLimits, PolicyError, SourceFile},
};

/// All there are.
const CASES: usize = 2067;

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    note: String,
    query: String,
    #[serde(default)]
    modules: Option<Vec<String>>,
    #[serde(default)]
    data: Option<Json>,
    #[serde(default)]
    input: Option<Json>,
    #[serde(default)]
    input_term: Option<String>,
    #[serde(default)]
    want_result: Option<Vec<Json>>,
    #[serde(default)]
    sort_bindings: bool,
    #[serde(default)]
    strict_error: bool,
}

#[test]
fn opas_own_cases_come_out_as_they_say_but_for_those_that_are_listed() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = env::var_os("SLUICEGATE_SHARED").filter(|v| !v.is_empty()).map_or_else(beside, Into::into);
    let suite = shared.join("conformance/opa/v1");
    if !suite.is_dir() {
        let demanded = env::var_os("SLUICEGATE_REQUIRE_PEERS").is_some();
        assert!(!demanded, "no {}, and peers are demanded", suite.display());
        println!("skipped: no {}", suite.display());
        return;
    }
    let mut paths = Vec::new();
    for group in fs::read_dir(&suite).unwrap() {
        for entry in fs::read_dir(group.unwrap().path()).unwrap() {
            paths.push(entry.unwrap().path());
        }
    }
    paths.sort();
    let (mut seen, mut differing) = (0, BTreeSet::new());
    for path in paths {
        let file: File = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for case in file.cases {
            seen += 1;
            if !agrees(&case) {
                // Two cases of one file may have one name.
                let name = path.file_stem().unwrap().to_str().unwrap();
                differing.insert(format!("{name}: {}", case.note));
            }
        }
    }
    assert_eq!(seen, CASES);
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/opa_differences.txt");
    if env::var_os("SLUICEGATE_BLESS").is_some() {
        let lines: String = differing.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&list, lines).unwrap();
    }
    let listed = fs::read_to_string(&list).unwrap_or_default();
    let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
    let new: Vec<_> = differing.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&differing).collect();
    assert!(new.is_empty(), "these came out as they say before: {new:#?}");
    assert!(gone.is_empty(), "these come out as they say now: take them off {}: {gone:#?}", list.display());
}

/// Whether the engine says of a case what the case says.
fn agrees(case: &Case) -> bool {
    let answer = guarded(|| answer(case));
    match (&case.want_result, answer) {
        (Some(wanted), Ok(found)) => same(wanted, found, case.sort_bindings),
        (None, Err(_)) => true,
        _ => false,
    }
}

fn same(wanted: &[Json], mut found: Vec<Json>, in_any_order: bool) -> bool {
    let mut wanted = wanted.to_vec();
    if in_any_order {
        wanted.iter_mut().chain(&mut found).for_each(sort);
    }
    let text = |list: &[Json]| {
        let mut texts: Vec<String> = list.iter().map(ToString::to_string).collect();
        texts.sort();
        texts
    };
    text(&wanted) == text(&found)
}

/// Lists in one order: a case that is not about the order says so.
fn sort(value: &mut Json) {
    match value {
        Json::Array(items) => {
            items.iter_mut().for_each(sort);
            items.sort_by_key(ToString::to_string);
        }
        Json::Object(items) => items.values_mut().for_each(sort),
        _ => {}
    }
}

fn answer(case: &Case) -> Result<Vec<Json>, PolicyError> {
    let limits = EvaluationLimits { milliseconds: 10_000, ..EvaluationLimits::default() };
    let modules = case.modules.iter().flatten().enumerate();
    let files: Vec<SourceFile> =
        modules.map(|(number, text)| SourceFile { name: format!("{number}_test.rego"), text: text.clone() }).collect();
    let files: Vec<&SourceFile> = files.iter().collect();
    let mut engine = LimitedEngine::new(&files, &limits)?;
    engine.be_strict(case.strict_error);
    let fault = |reason: String| PolicyError::Engine { reason };
    let value = |json: &Json| Value::from_json_str(&json.to_string()).map_err(|error| fault(error.to_string()));
    if let Some(data) = &case.data {
        engine.add_value(value(data)?)?;
    }
    if let Some(term) = &case.input_term {
        let mut helper = LimitedEngine::new(&[], &limits)?;
        let term = helper.ask(term, &limits)?.ok_or_else(|| fault("the input is undefined".to_owned()))?;
        engine.set_any_input(term);
    } else if let Some(input) = &case.input {
        engine.set_any_input(value(input)?);
    }
    let bindings = engine.ask_bindings(&case.query, &limits)?;
    bindings
        .into_iter()
        .map(|bindings| {
            let text = bindings.to_json_str().map_err(|error| fault(error.to_string()))?;
            serde_json::from_str(&text).map_err(|error| fault(error.to_string()))
        })
        .collect()
}
