//! in-toto test-result v0.1, with the raw report and the attestation of the step that wrote it named by digest.
//!
//! The result is computed here from the report and the step's exit code. A claim that was read is believed only after
//! [`TestResultClaim::check`] has read the raw report again and computed the same.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluicegate_types::{
    Digest, RunId, StepName,
    checks::{Check, is_on},
};

use crate::{
    Error, form,
    identifiers::{BUNDLE, JUNIT_REPORT},
    junit::JUnit,
    statement::sha256_of,
};

/// Names in one list of the predicate; the counts beside the lists are exact.
pub const MAX_LISTED: usize = 1000;

/// What the tests of one step say: the predicate of `https://in-toto.io/attestation/test-result/v0.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestResult {
    /// The step that wrote the report.
    pub step: StepName,
    /// Its run.
    pub run: RunId,
    /// The code the step ended with.
    pub exit_code: i32,
    /// The raw JUnit report, which travels beside this statement.
    pub report: Digest,
    /// The bundle of the step's provenance.
    pub attestation: Digest,
    /// What the report says.
    pub junit: JUnit,
}

/// A test result as somebody claims it, not compared with its report yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestResultClaim {
    /// The result.
    pub result: ClaimedResult,
    /// The step that wrote the report.
    pub step: StepName,
    /// Its run.
    pub run: RunId,
    /// The code the step ended with.
    pub exit_code: i32,
    /// The raw report.
    pub report: Digest,
    /// The bundle of the step's provenance.
    pub attestation: Digest,
    /// How many tests ended in which way.
    pub counts: Counts,
    /// The first of those that passed.
    pub passed: Vec<String>,
    /// Tests with a warning. A report of ours has none.
    pub warned: Vec<String>,
    /// The first of those that failed, those with an error after them.
    pub failed: Vec<String>,
    /// The first of those that were not executed.
    pub skipped: Vec<String>,
}

/// The word for all tests together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ClaimedResult {
    /// All passed, and there was at least one.
    Passed,
    /// Passed with warnings; never written by us.
    Warned,
    /// At least one did not pass, or none was executed, or the step failed.
    Failed,
}

/// How many tests ended in which way; whole numbers, not cut where lists are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Executed, without a failure or an error.
    pub passed: u64,
    /// With a failure.
    pub failed: u64,
    /// With an error.
    pub errors: u64,
    /// Not executed.
    pub skipped: u64,
}

impl TestResult {
    /// Whether the tests passed: the step ended with 0, at least one test was executed, and none has a failure or an error. A skipped
    /// test was not executed.
    pub fn passed(&self) -> bool {
        self.exit_code == 0 && self.junit.executed() > 0 && self.junit.failed.is_empty() && self.junit.errors.is_empty()
    }

    /// The predicate as JSON.
    pub fn to_predicate(&self) -> Value {
        let claim = self.to_claim();
        json!({
            "result": claim.result,
            "configuration": [
                {"name": attestation_name(&self.step), "digest": {"sha256": self.attestation.hex()}, "mediaType": BUNDLE},
                {"name": report_name(&self.step), "digest": {"sha256": self.report.hex()}, "mediaType": JUNIT_REPORT},
            ],
            "passedTests": claim.passed,
            "warnedTests": claim.warned,
            "failedTests": claim.failed,
            "sluicegate_skipped_tests": claim.skipped,
            "sluicegate_counts": claim.counts,
            "sluicegate_step": self.step,
            "sluicegate_run": self.run,
            "sluicegate_exit_code": self.exit_code,
        })
    }

    /// Reads a predicate of ours; nothing in it is compared with the report yet. Refused: a field that we don't write, a list longer
    /// than [`MAX_LISTED`], and a configuration that is not exactly the step's attestation and its report.
    pub fn parse(predicate: &Value) -> Result<TestResultClaim, Error> {
        let wire = WireTestResult::deserialize(predicate).map_err(form("the test-result predicate"))?;
        for list in [&wire.passed_tests, &wire.warned_tests, &wire.failed_tests, &wire.sluicegate_skipped_tests] {
            if list.len() > MAX_LISTED {
                return Err(Error::TooMany { what: "tests listed in a test result", limit: MAX_LISTED });
            }
        }
        let step = wire.sluicegate_step;
        let named = |name: String, media_type: &str| -> Result<Digest, Error> {
            let mut found = wire.configuration.iter().filter(|descriptor| descriptor.name == name);
            match (found.next(), found.next()) {
                (Some(one), None) if one.media_type == media_type => sha256_of(&one.digest),
                (Some(one), None) => Err(crate::unsupported("configuration media type", &one.media_type)),
                _ => Err(Error::Invalid { what: "configuration", reason: format!("{name} is to stand there once") }),
            }
        };
        let attestation = named(attestation_name(&step), BUNDLE)?;
        let report = named(report_name(&step), JUNIT_REPORT)?;
        if wire.configuration.len() != 2 {
            let reason = "it names more than the step's attestation and its report".to_owned();
            return Err(Error::Invalid { what: "configuration", reason });
        }
        Ok(TestResultClaim {
            result: wire.result,
            run: wire.sluicegate_run,
            exit_code: wire.sluicegate_exit_code,
            report,
            attestation,
            counts: wire.sluicegate_counts,
            passed: wire.passed_tests,
            warned: wire.warned_tests,
            failed: wire.failed_tests,
            skipped: wire.sluicegate_skipped_tests,
            step,
        })
    }

    fn to_claim(&self) -> TestResultClaim {
        let first = |lists: [&[String]; 2]| lists.into_iter().flatten().take(MAX_LISTED).cloned().collect::<Vec<_>>();
        let JUnit { passed, failed, errors, skipped } = &self.junit;
        TestResultClaim {
            result: if self.passed() { ClaimedResult::Passed } else { ClaimedResult::Failed },
            step: self.step.clone(),
            run: self.run.clone(),
            exit_code: self.exit_code,
            report: self.report,
            attestation: self.attestation,
            counts: Counts {
                passed: passed.len() as u64,
                failed: failed.len() as u64,
                errors: errors.len() as u64,
                skipped: skipped.len() as u64,
            },
            passed: first([passed, &[]]),
            warned: Vec::new(),
            failed: first([failed, errors]),
            skipped: first([skipped, &[]]),
        }
    }
}

impl TestResultClaim {
    /// Reads the report itself. Refused: bytes without the digest that the claim names, a report that can't be read, and a claim whose
    /// result, counts or lists are not the ones that follow from the report and the exit code.
    ///
    /// Whether the exit code is the step's own is for the caller to compare with the provenance that `attestation` names.
    pub fn check(&self, raw: &[u8]) -> Result<TestResult, Error> {
        let found = Digest::of(raw);
        if found != self.report {
            return Err(contradiction(format!("the report has the digest {found}, not {}", self.report)));
        }
        let read = TestResult {
            step: self.step.clone(),
            run: self.run.clone(),
            exit_code: self.exit_code,
            report: self.report,
            attestation: self.attestation,
            junit: JUnit::read(raw)?,
        };
        let computed = read.to_claim();
        if !is_on(Check::TestRecomputed) {
            return Ok(read);
        }
        if self.result != computed.result {
            let (claimed, computed) = (self.result, computed.result);
            return Err(contradiction(format!("it claims {claimed:?}; report and exit code say {computed:?}")));
        }
        if self.counts != computed.counts {
            let (claimed, computed) = (self.counts, computed.counts);
            return Err(contradiction(format!("it claims {claimed:?}; the report has {computed:?}")));
        }
        if *self != computed {
            return Err(contradiction("its lists are not those of the report".to_owned()));
        }
        Ok(read)
    }
}

fn attestation_name(step: &StepName) -> String {
    format!("attestation:{step}")
}

fn report_name(step: &StepName) -> String {
    format!("report:{step}.junit")
}

fn contradiction(reason: String) -> Error {
    Error::Invalid { what: "the test result", reason }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireTestResult {
    result: ClaimedResult,
    configuration: Vec<WireDescriptor>,
    #[serde(rename = "passedTests")]
    passed_tests: Vec<String>,
    #[serde(rename = "warnedTests")]
    warned_tests: Vec<String>,
    #[serde(rename = "failedTests")]
    failed_tests: Vec<String>,
    sluicegate_skipped_tests: Vec<String>,
    sluicegate_counts: Counts,
    sluicegate_step: StepName,
    sluicegate_run: RunId,
    sluicegate_exit_code: i32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireDescriptor {
    name: String,
    digest: std::collections::BTreeMap<String, String>,
    media_type: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "<testsuite name='s'><testcase name='a'/><testcase name='b'><skipped/></testcase></testsuite>";
    const BAD: &str = "<testsuite name='s'><testcase name='a'/><testcase name='b'><failure/></testcase><testcase name='c'><error/></testcase></testsuite>";
    const ONLY_SKIPPED: &str = "<testsuite name='s'><testcase name='b'><skipped/></testcase></testsuite>";

    fn result(report: &str, exit_code: i32) -> TestResult {
        TestResult {
            step: "test".parse().unwrap(),
            run: "r1".parse().unwrap(),
            exit_code,
            report: Digest::of(report.as_bytes()),
            attestation: Digest::of(b"bundle"),
            junit: JUnit::read(report.as_bytes()).unwrap(),
        }
    }

    fn checked(predicate: &Value, report: &str) -> Result<TestResult, String> {
        TestResult::parse(predicate).and_then(|claim| claim.check(report.as_bytes())).map_err(|e| e.to_string())
    }

    #[test]
    fn tests_passed_if_one_was_executed_and_none_failed_and_the_step_ended_with_0() {
        assert!(result(GOOD, 0).passed());
        assert!(!result(GOOD, 1).passed());
        assert!(!result(BAD, 0).passed());
        assert!(!result(&BAD.replace("<failure/>", ""), 0).passed());
        assert!(!result(ONLY_SKIPPED, 0).passed());
        assert!(!result("<testsuites/>", 0).passed());
    }

    #[test]
    fn what_is_written_is_read_back_and_agrees_with_its_report() {
        for (report, code) in [(GOOD, 0), (GOOD, 1), (BAD, 0), (ONLY_SKIPPED, 0), ("<testsuites/>", 0)] {
            let written = result(report, code);
            assert_eq!(checked(&written.to_predicate(), report).unwrap(), written);
        }
        let predicate = result(BAD, 1).to_predicate();
        assert_eq!(predicate["result"], "FAILED");
        assert_eq!(predicate["failedTests"], json!(["s.b", "s.c"]));
        assert_eq!(predicate["sluicegate_counts"], json!({"passed": 1, "failed": 1, "errors": 1, "skipped": 0}));
    }

    #[test]
    fn a_claim_that_its_report_does_not_bear_out_is_refused() {
        let honest = result(BAD, 0).to_predicate();
        assert!(checked(&honest, BAD).is_ok());
        for (pointer, lie, says) in [
            ("/result", json!("PASSED"), "claims Passed"),
            ("/result", json!("WARNED"), "claims Warned"),
            ("/sluicegate_counts/failed", json!(0), "the report has"),
            ("/sluicegate_counts/passed", json!(3), "the report has"),
            ("/failedTests", json!([]), "lists"),
            ("/failedTests", json!(["s.c", "s.b"]), "lists"),
            ("/passedTests", json!(["s.a", "s.b"]), "lists"),
            ("/warnedTests", json!(["s.b"]), "lists"),
            ("/sluicegate_skipped_tests", json!(["s.b"]), "lists"),
        ] {
            let mut predicate = honest.clone();
            *predicate.pointer_mut(pointer).unwrap() = lie;
            let found = checked(&predicate, BAD).unwrap_err();
            assert!(found.contains(says), "{pointer}: {found}");
        }
        assert!(checked(&honest, GOOD).unwrap_err().contains("has the digest"));
        let mut failed_step = result(GOOD, 0).to_predicate();
        failed_step["sluicegate_exit_code"] = json!(1);
        assert!(checked(&failed_step, GOOD).unwrap_err().contains("claims Passed"));
    }

    #[test]
    fn a_claim_of_another_form_is_refused() {
        let good = result(GOOD, 0).to_predicate();
        assert!(TestResult::parse(&good).is_ok());
        for (pointer, value) in [
            ("/result", json!("passed")),
            ("/configuration/0/name", json!("attestation:other")),
            ("/configuration/1/name", json!("attestation:test")),
            ("/configuration/1/mediaType", json!("application/xml")),
            ("/configuration/1/digest", json!({"sha1": "00"})),
            ("/configuration", json!([])),
            ("/sluicegate_step", json!("Test")),
            ("/sluicegate_exit_code", json!("0")),
            ("/passedTests", json!(vec!["x"; MAX_LISTED + 1])),
        ] {
            let mut predicate = good.clone();
            *predicate.pointer_mut(pointer).unwrap() = value;
            assert!(TestResult::parse(&predicate).is_err(), "{pointer}");
        }
        let mut more = good.clone();
        more["configuration"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "x", "digest": {"sha256": Digest::of(b"x").hex()}, "mediaType": BUNDLE}));
        assert!(TestResult::parse(&more).is_err());
        for key in good.as_object().unwrap().keys() {
            let mut predicate = good.clone();
            predicate.as_object_mut().unwrap().remove(key);
            assert!(TestResult::parse(&predicate).is_err(), "{key}");
        }
    }

    #[test]
    fn lists_are_cut_and_counts_are_not() {
        let report = |n: usize| format!("<testsuite name='s'>{}</testsuite>", "<testcase name='a'/>".repeat(n));
        for (n, listed) in [(MAX_LISTED, MAX_LISTED), (MAX_LISTED + 1, MAX_LISTED)] {
            let written = result(&report(n), 0);
            let predicate = written.to_predicate();
            assert_eq!(predicate["passedTests"].as_array().unwrap().len(), listed);
            assert_eq!(predicate["sluicegate_counts"]["passed"], n);
            assert_eq!(checked(&predicate, &report(n)).unwrap(), written);
        }
    }
}
