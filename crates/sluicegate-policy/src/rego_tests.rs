//! Runs the Rego tests that stand beside policies, as `opa test` does: every rule `test_…` of a file `*_test.rego` must be true.

use serde::{Deserialize, Serialize};

use crate::{
    call_graph::{head_reference, place, static_path},
    limited_engine::{LimitedEngine, guarded},
    rego::{EvaluationLimits, PolicyError, SourceFile, is_test},
};

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
}

/// Runs every test in `files`, policies and tests together, with `data` below them. The limits hold for each test.
///
/// An error if the files can't be loaded, hold no tests, or one test file holds none: a suite that is empty proves nothing.
pub fn run(files: &[SourceFile], data: &[SourceFile], limits: &EvaluationLimits) -> Result<Vec<RegoTest>, PolicyError> {
    guarded(|| {
        let all: Vec<_> = files.iter().collect();
        let mut engine = LimitedEngine::new(&all, limits)?;
        engine.set_data(data, limits)?;
        engine.set_input("{}", limits)?;
        let mut tests = Vec::new();
        for (file, module) in files.iter().zip(engine.modules()).filter(|(file, _)| is_test(&file.name)) {
            let package = static_path(&module.package.refr).join(".");
            let before = tests.len();
            for rule in &module.policy {
                let reference = head_reference(rule);
                let path = static_path(reference).join(".");
                let name = format!("{package}.{path}");
                if path.starts_with("test_") && tests.iter().all(|test: &RegoTest| test.name != name) {
                    let line = place(reference).line;
                    tests.push(RegoTest { name, file: file.name.clone(), line, failure: None });
                }
            }
            if tests.len() == before {
                return Err(PolicyError::NoTests { file: file.name.clone() });
            }
        }
        if tests.is_empty() {
            return Err(PolicyError::NoTests { file: "the folder".to_owned() });
        }
        for test in &mut tests {
            test.failure = match engine.ask(&format!("data.{}", test.name), limits) {
                Ok(Some(value)) if value == true.into() => None,
                Ok(Some(_)) => Some("it is not true".to_owned()),
                Ok(None) => Some("it is undefined".to_owned()),
                Err(error) => Some(error.to_string()),
            };
        }
        Ok(tests)
    })
}
