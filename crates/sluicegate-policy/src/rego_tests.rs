//! Runs the Rego tests that stand beside policies, as `opa test` does: every rule `test_…` of a file `*_test.rego` must be true. What is
//! called `todo_test_…` is told and not run.

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{
    call_graph::{head_reference, place, static_path},
    limited_engine::{LimitedEngine, guarded},
    rego::{EvaluationLimits, PolicyError, SourceFile, is_test},
};

/// What to run, and what to say of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestRequest {
    /// Policies and tests.
    pub files: Vec<SourceFile>,
    /// Data below them.
    pub data: Vec<SourceFile>,
    /// Only tests whose name (`package.test_name`) has this regular expression in it.
    pub filter: Option<String>,
    /// Whether to say which lines were reached.
    pub coverage: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestResults {
    /// One for each test, in the order of the files.
    pub tests: Vec<RegoTest>,
    /// One for each policy, if it was asked for; tests are not counted.
    pub coverage: Vec<FileCoverage>,
}

/// One test and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegoTest {
    /// `package.test_name`.
    pub name: String,
    /// The file.
    pub file: String,
    /// The line.
    pub line: u64,
    /// Why it failed; `None` if it passed.
    pub failure: Option<String>,
    /// Whether it is still to be done (`todo_test_…`), and was not run.
    #[serde(default)]
    pub todo: bool,
    /// What it printed.
    #[serde(default)]
    pub printed: Vec<String>,
}

/// Which lines of a policy tests reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileCoverage {
    /// The file.
    pub file: String,
    /// Lines that were reached.
    pub covered: Vec<u32>,
    /// Lines that could have been, and were not.
    pub uncovered: Vec<u32>,
}

/// Runs the tests that are asked for, policies and tests together. The limits hold for each test.
///
/// An error if the files can't be loaded, hold no tests, or one test file holds none, or none has the name that is asked for: a suite
/// that is empty proves nothing.
pub fn run(request: &TestRequest, limits: &EvaluationLimits) -> Result<TestResults, PolicyError> {
    let filter = request.filter.as_deref().map(Regex::new).transpose();
    let filter = filter.map_err(|error| PolicyError::Input { reason: format!("the filter: {error}") })?;
    guarded(|| {
        let all: Vec<_> = request.files.iter().collect();
        let mut engine = LimitedEngine::new(&all, limits)?;
        engine.set_data(&request.data, limits)?;
        engine.set_input("{}", limits)?;
        let found = tests(&request.files, &engine)?;
        let asked = |test: &RegoTest| filter.as_ref().is_none_or(|filter| filter.is_match(&test.name));
        let mut tests: Vec<RegoTest> = found.into_iter().filter(asked).collect();
        if tests.is_empty() {
            let file = request.filter.as_ref().map_or_else(|| "the folder".to_owned(), |filter| format!("{filter:?}"));
            return Err(PolicyError::NoTests { file });
        }
        if request.coverage {
            engine.watch_coverage();
        }
        for test in tests.iter_mut().filter(|test| !test.todo) {
            test.failure = match engine.ask(&format!("data.{}", test.name), limits) {
                Ok(Some(value)) if value == true.into() => None,
                Ok(Some(_)) => Some("it is not true".to_owned()),
                Ok(None) => Some("it is undefined".to_owned()),
                Err(error) => Some(error.to_string()),
            };
            test.printed = engine.take_printed();
        }
        let coverage = if request.coverage { engine.coverage()? } else { Vec::new() };
        let coverage = coverage.into_iter().filter(|file| !is_test(&file.file)).collect();
        Ok(TestResults { tests, coverage })
    })
}

/// Every test in the files.
fn tests(files: &[SourceFile], engine: &LimitedEngine) -> Result<Vec<RegoTest>, PolicyError> {
    let mut tests: Vec<RegoTest> = Vec::new();
    for (file, module) in files.iter().zip(engine.modules()).filter(|(file, _)| is_test(&file.name)) {
        let package = static_path(&module.package.refr).join(".");
        let before = tests.len();
        for rule in &module.policy {
            let reference = head_reference(rule);
            let path = static_path(reference).join(".");
            let name = format!("{package}.{path}");
            let todo = path.starts_with("todo_test_");
            if (path.starts_with("test_") || todo) && tests.iter().all(|test| test.name != name) {
                let line = place(reference).line;
                let file = file.name.clone();
                tests.push(RegoTest { name, file, line, failure: None, todo, printed: Vec::new() });
            }
        }
        if tests.len() == before {
            return Err(PolicyError::NoTests { file: file.name.clone() });
        }
    }
    Ok(tests)
}
