//! JUnit XML reports, as surefire, pytest, gotestsum and jest write them: bytes to the names of tests and how each ended.
//!
//! There is no standard; <https://github.com/testmoapp/junitxml> collects the dialects. What a test did is read from its own element,
//! never from the sums that suites carry. A sum that claims more than the elements show is an error: then the report is cut or hides
//! something. A report is written by the code under test, so it is read as a stream, within limits, and anything that two readers
//! could understand differently is refused.

mod words;

use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};

use self::words::{Said, Words};
use crate::{
    Error, unsupported,
    xml_rules::{self, shortened},
};

/// Bytes of one report.
pub const MAX_REPORT: usize = 16 * 1024 * 1024;
/// Tests in one report.
pub const MAX_CASES: usize = 100_000;
/// Elements, comments and processing instructions in one report.
const MAX_NODES: usize = 1_000_000;
/// Elements inside each other.
const MAX_DEPTH: usize = 64;
/// Attributes of one element.
const MAX_ATTRIBUTES: usize = 128;
/// Characters of a test's name; what is longer is cut there and ends in `…`.
const MAX_NAME: usize = 200;

const WHAT: &str = "the JUnit report";

/// The tests of one report, each in exactly one list, in the report's order. A name is `classname.name`, or `suite.name` where the
/// test has no class; it may stand there several times, as parametrised tests do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JUnit {
    /// Executed without a failure and without an error.
    pub passed: Vec<String>,
    /// With a `failure`.
    pub failed: Vec<String>,
    /// With an `error`; also suites that carry a failure or an error of their own, outside any test.
    pub errors: Vec<String>,
    /// Not executed.
    pub skipped: Vec<String>,
}

impl JUnit {
    /// Reads a report. It has one root, `testsuites` or `testsuite`; suites may be nested. A test with `failure` or `error` did not
    /// pass; `rerunFailure`, `flakyFailure` and their like say what happened before the last attempt and are not looked at.
    ///
    /// Errors: not UTF-8, not well-formed, cut, a DOCTYPE or an entity, a limit, an element where no dialect has it, and a suite
    /// whose `tests`, `failures`, `errors` or `skipped` is larger than what its tests show.
    pub fn read(report: &[u8]) -> Result<Self, Error> {
        Limits::default().read(report)
    }

    /// How many tests were executed, whatever came of it.
    pub fn executed(&self) -> usize {
        self.passed.len() + self.failed.len() + self.errors.len()
    }
}

/// Its own type so that tests reach a limit without a report of its size.
struct Limits {
    bytes: usize,
    cases: usize,
    nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: MAX_REPORT, cases: MAX_CASES, nodes: MAX_NODES }
    }
}

impl Limits {
    fn read(self, report: &[u8]) -> Result<JUnit, Error> {
        if report.len() > self.bytes {
            return Err(Error::TooLarge { what: WHAT, limit: self.bytes });
        }
        let mut reader = Reader::from_str(xml_rules::text(report).map_err(malformed)?);
        reader.config_mut().expand_empty_elements = true;
        let mut reading = Reading::new(self);
        let mut first = true;
        loop {
            let event = reader.read_event().map_err(|error| malformed(error.to_string()))?;
            match event {
                Event::Decl(declaration) => {
                    if !first {
                        return Err(malformed("a declaration that is not at the beginning".to_owned()));
                    }
                    if let Some(encoding) = xml_rules::foreign_encoding(&declaration).map_err(malformed)? {
                        return Err(unsupported("encoding of a JUnit report", &encoding));
                    }
                }
                Event::Start(tag) => reading.start(&tag)?,
                Event::End(_) => reading.end()?,
                Event::Text(text) => reading.text(text.trim().is_empty())?,
                Event::CData(_) => reading.text(false)?,
                Event::GeneralRef(name) => {
                    reading.text(false)?;
                    if !xml_rules::is_known_reference(&name) {
                        return Err(unsupported("entity in a JUnit report", &name));
                    }
                }
                Event::Comment(_) | Event::PI(_) => reading.count_node()?,
                Event::DocType(name) => return Err(unsupported("DOCTYPE in a JUnit report", &name)),
                // Not given by a reader that expands empty elements; refused rather than lost.
                Event::Empty(_) => return Err(malformed("an empty element".to_owned())),
                Event::Eof => return reading.finish(),
            }
            first = false;
        }
    }
}

/// What has been read so far.
struct Reading {
    limits: Limits,
    out: JUnit,
    open: Vec<Open>,
    cases: usize,
    nodes: usize,
    root_seen: bool,
}

/// An element that is not closed yet.
enum Open {
    Suite(Suite),
    Case(Case),
    Other,
}

struct Suite {
    name: String,
    said: Option<Said>,
    claimed: Sums,
    shown: Sums,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    tests: u64,
    failures: u64,
    errors: u64,
    skipped: u64,
}

struct Case {
    name: String,
    said: Option<Said>,
    failures: u64,
    errors: u64,
    skipped: bool,
}

impl Reading {
    fn new(limits: Limits) -> Self {
        Self { limits, out: JUnit::default(), open: Vec::new(), cases: 0, nodes: 0, root_seen: false }
    }

    fn start(&mut self, tag: &BytesStart<'_>) -> Result<(), Error> {
        self.count_node()?;
        if self.open.len() == MAX_DEPTH {
            return Err(Error::TooMany { what: "elements inside each other in a JUnit report", limit: MAX_DEPTH });
        }
        // A failure is one in any namespace.
        let name = xml_rules::local(tag.name().0).map_err(malformed)?;
        let attributes = Attributes::of(tag)?;
        // A failure that is spelt in capitals is no less one. No writer spells a suite or a test so, and for some readers it is none.
        let lower = name.to_ascii_lowercase();
        let spelt = match lower.as_str() {
            "failure" | "error" | "skipped" | "disabled" => lower.as_str(),
            "testsuites" | "testsuite" | "testcase" if lower != name => {
                let reason = format!("the element {name} is spelt in another letter case; write {lower}");
                return Err(Error::Invalid { what: WHAT, reason });
            }
            _ => name,
        };
        let around_skipped = self.open.iter().any(|open| matches!(open, Open::Suite(suite) if suite.is_skipped()));
        let opened = match (spelt, self.open.last_mut()) {
            (_, None) if self.root_seen => return Err(malformed("something follows the root".to_owned())),
            ("testsuites" | "testsuite", None) | ("testsuite", Some(Open::Suite(_))) => {
                let name = cut(attributes.name);
                let said = attributes.words.said("suite", &name)?;
                Open::Suite(Suite { name, said, claimed: attributes.sums, shown: Sums::default() })
            }
            (other, None) => return Err(unsupported("root of a JUnit report", other)),
            ("testcase", Some(Open::Suite(suite))) => {
                counted(&mut self.cases, &self.limits)?;
                let place = if attributes.class.is_empty() { &suite.name } else { &attributes.class };
                let name = if attributes.name.is_empty() { "(without a name)" } else { &attributes.name };
                let name = if place.is_empty() { cut(name.to_owned()) } else { cut(format!("{place}.{name}")) };
                let said = attributes.words.said("test", &name)?;
                let skipped = said == Some(Said::Skipped) || around_skipped;
                Open::Case(Case { name, said, failures: 0, errors: 0, skipped })
            }
            ("failure", Some(Open::Case(case))) => {
                case.failures += 1;
                Open::Other
            }
            ("error", Some(Open::Case(case))) => {
                case.errors += 1;
                Open::Other
            }
            ("skipped" | "disabled", Some(Open::Case(case))) => {
                case.skipped = true;
                Open::Other
            }
            ("failure", Some(Open::Suite(suite))) => {
                counted(&mut self.cases, &self.limits)?;
                suite.shown.failures += 1;
                self.out.errors.push(suite.name.clone());
                Open::Other
            }
            ("error", Some(Open::Suite(suite))) => {
                counted(&mut self.cases, &self.limits)?;
                suite.shown.errors += 1;
                self.out.errors.push(suite.name.clone());
                Open::Other
            }
            ("testsuites" | "testsuite" | "testcase" | "failure" | "error", Some(_)) => {
                return Err(Error::Invalid { what: WHAT, reason: format!("{name} stands where no dialect has it") });
            }
            _ => Open::Other,
        };
        self.root_seen = true;
        self.open.push(opened);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        match self.open.pop() {
            Some(Open::Other) => {}
            Some(Open::Case(mut case)) => {
                // Some dialects say in a word what others say with an element; who does both means one failure.
                if case.failures + case.errors == 0 {
                    case.failures = u64::from(case.said == Some(Said::Failed));
                    case.errors = u64::from(case.said == Some(Said::Error));
                }
                let list = if case.errors > 0 {
                    &mut self.out.errors
                } else if case.failures > 0 {
                    &mut self.out.failed
                } else if case.skipped {
                    &mut self.out.skipped
                } else {
                    &mut self.out.passed
                };
                list.push(case.name);
                self.show(Sums {
                    tests: 1,
                    failures: case.failures,
                    errors: case.errors,
                    skipped: u64::from(case.skipped),
                });
            }
            Some(Open::Suite(mut suite)) => {
                // Of a suite that failed and shows no failure nobody knows what failed.
                if suite.shown.failures + suite.shown.errors == 0 && suite.said.is_some_and(Said::is_against) {
                    counted(&mut self.cases, &self.limits)?;
                    suite.shown.failures = u64::from(suite.said == Some(Said::Failed));
                    suite.shown.errors = u64::from(suite.said == Some(Said::Error));
                    self.out.errors.push(suite.name.clone());
                }
                suite.check()?;
                self.show(suite.shown);
            }
            None => return Err(malformed("an end without a beginning".to_owned())),
        }
        Ok(())
    }

    /// Adds to the sums of the suite around.
    fn show(&mut self, more: Sums) {
        if let Some(Open::Suite(suite)) = self.open.last_mut() {
            suite.shown.tests += more.tests;
            suite.shown.failures += more.failures;
            suite.shown.errors += more.errors;
            suite.shown.skipped += more.skipped;
        }
    }

    fn text(&self, blank: bool) -> Result<(), Error> {
        if self.open.is_empty() && !blank { Err(malformed("text outside the root".to_owned())) } else { Ok(()) }
    }

    fn count_node(&mut self) -> Result<(), Error> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            return Err(Error::TooMany { what: "elements of a JUnit report", limit: self.limits.nodes });
        }
        Ok(())
    }

    fn finish(self) -> Result<JUnit, Error> {
        if !self.root_seen {
            return Err(malformed("no element".to_owned()));
        }
        if !self.open.is_empty() {
            return Err(malformed("it ends before its root is closed".to_owned()));
        }
        Ok(self.out)
    }
}

impl Suite {
    fn is_skipped(&self) -> bool {
        self.said == Some(Said::Skipped)
    }

    /// A sum may be smaller than what is shown: dialects differ in what they count. A larger one says that something is not shown.
    fn check(&self) -> Result<(), Error> {
        let (claimed, shown) = (&self.claimed, &self.shown);
        for (sum, claimed, shown) in [
            ("tests", claimed.tests, shown.tests),
            ("failures", claimed.failures, shown.failures),
            ("errors", claimed.errors, shown.errors),
            ("skipped", claimed.skipped, shown.skipped),
        ] {
            if claimed > shown {
                let reason = format!("the suite {:?} claims {claimed} {sum} and shows {shown}", self.name);
                return Err(Error::Invalid { what: WHAT, reason });
            }
        }
        Ok(())
    }
}

/// What is taken from an element's attributes.
#[derive(Default)]
struct Attributes {
    name: String,
    class: String,
    words: Words,
    sums: Sums,
}

impl Attributes {
    fn of(tag: &BytesStart<'_>) -> Result<Self, Error> {
        let is_suite = tag.name().0.contains("testsuite");
        let mut out = Self::default();
        for (count, attribute) in xml_rules::attributes(tag).map_err(malformed)?.enumerate() {
            if count == MAX_ATTRIBUTES {
                return Err(Error::TooMany { what: "attributes in a JUnit report", limit: MAX_ATTRIBUTES });
            }
            let attribute = attribute.map_err(malformed)?;
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|error| malformed(format!("attribute {}: {error}", shortened(attribute.key.0))))?;
            let sum = || {
                value.trim().parse().map_err(|_| Error::Invalid {
                    what: WHAT,
                    reason: format!("{} is {:?}, which is no number", attribute.key.0, shortened(&value)),
                })
            };
            if out.words.take(attribute.key.0, &value) {
                continue;
            }
            match attribute.key.0 {
                "name" => out.name = cut(value.into_owned()),
                "classname" => out.class = cut(value.into_owned()),
                "tests" if is_suite => out.sums.tests = sum()?,
                "failures" if is_suite => out.sums.failures = sum()?,
                "errors" if is_suite => out.sums.errors = sum()?,
                "skipped" if is_suite => out.sums.skipped = sum()?,
                _ => {}
            }
        }
        Ok(out)
    }
}

/// One more entry of the lists, whatever element it comes from.
fn counted(cases: &mut usize, limits: &Limits) -> Result<(), Error> {
    *cases += 1;
    if *cases > limits.cases {
        return Err(Error::TooMany { what: "tests in a JUnit report", limit: limits.cases });
    }
    Ok(())
}

/// A name as it is kept: on one line and not longer than the limit.
fn cut(text: String) -> String {
    if text.chars().nth(MAX_NAME).is_none() && !text.contains(char::is_control) {
        return text;
    }
    let mut out: String = text.chars().take(MAX_NAME - 1).map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.chars().nth(MAX_NAME - 1) {
        Some(last) if text.chars().nth(MAX_NAME).is_none() => out.push(if last.is_control() { ' ' } else { last }),
        Some(_) => out.push('…'),
        None => {}
    }
    out
}

fn malformed(reason: String) -> Error {
    Error::Form { what: WHAT, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<JUnit, Error> {
        JUnit::read(text.as_bytes())
    }

    fn refusal(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    const PYTEST: &str = r#"<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1" skipped="1" tests="4" time="0.04" timestamp="2026-11-28T10:00:00" hostname="h"><testcase classname="tests.test_shop" name="test_adds" time="0.001" /><testcase classname="tests.test_shop" name="test_prices[a&lt;b]" time="0.001"><failure message="assert 1 == 2&#10; where">def f(): &gt; x</failure><system-out><![CDATA[<failure>]]></system-out></testcase><testcase classname="tests.test_shop" name="test_linux" time="0"><skipped type="pytest.skip" message="no">x</skipped></testcase><testcase classname="tests.test_shop" name="test_fixture" time="0"><error message="failed on setup">E</error></testcase></testsuite></testsuites>"#;

    const SUREFIRE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuite xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="https://maven.apache.org/surefire/maven-surefire-plugin/xsd/surefire-test-report.xsd" version="3.0" name="com.example.ShopTest" time="0.1" tests="3" errors="0" skipped="0" failures="1">
  <properties><property name="java.version" value="21"/></properties>
  <testcase name="adds" classname="com.example.ShopTest" time="0.01"/>
  <testcase name="flaky" classname="com.example.ShopTest" time="0.01">
    <flakyFailure message="once" type="java.lang.AssertionError"><stackTrace>x</stackTrace><system-out>&#27;[1m</system-out></flakyFailure>
  </testcase>
  <testcase name="broken" classname="com.example.ShopTest" time="0.01">
    <failure message="no" type="java.lang.AssertionError"/>
    <rerunFailure message="no" type="java.lang.AssertionError"/>
  </testcase>
</testsuite>
"#;

    const GOTESTSUM: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="2" failures="0" errors="0" time="0.2">
	<testsuite tests="2" failures="0" skipped="1" time="0.002" name="example/shop" timestamp="2026-11-28T10:00:00Z">
		<properties><property name="go.version" value="go1.26"></property></properties>
		<testcase classname="example/shop" name="TestAdd" time="0.000000"></testcase>
		<testcase classname="" name="TestSkip" time="0.000000"><skipped message="=== RUN"></skipped></testcase>
	</testsuite>
</testsuites>
"#;

    const JEST: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="jest tests" tests="1" failures="0" errors="0" time="1.2">
  <testsuite name="shop" errors="0" failures="0" skipped="0" timestamp="2026-11-28T10:00:00" time="0.9" tests="1">
    <testcase classname="shop adds" name="shop adds" time="0.003">
    </testcase>
  </testsuite>
</testsuites>"#;

    #[test]
    fn each_dialect_says_which_tests_passed_and_which_did_not() {
        let pytest = read(PYTEST).unwrap();
        assert_eq!(pytest.passed, ["tests.test_shop.test_adds"]);
        assert_eq!(pytest.failed, ["tests.test_shop.test_prices[a<b]"]);
        assert_eq!(pytest.errors, ["tests.test_shop.test_fixture"]);
        assert_eq!(pytest.skipped, ["tests.test_shop.test_linux"]);
        let surefire = read(SUREFIRE).unwrap();
        assert_eq!(surefire.passed, ["com.example.ShopTest.adds", "com.example.ShopTest.flaky"]);
        assert_eq!(surefire.failed, ["com.example.ShopTest.broken"]);
        let go = read(GOTESTSUM).unwrap();
        assert_eq!(
            (go.passed, go.skipped),
            (vec!["example/shop.TestAdd".into()], vec!["example/shop.TestSkip".into()])
        );
        assert_eq!(read(JEST).unwrap().passed, ["shop adds.shop adds"]);
    }

    #[test]
    fn nested_suites_are_read_and_a_report_without_tests_lists_none() {
        let nested = r#"<testsuites><testsuite name="a" tests="2" failures="1"><testsuite name="b"><testcase name="x"/><testcase name="y"><failure/></testcase></testsuite></testsuite></testsuites>"#;
        let read_ = read(nested).unwrap();
        assert_eq!(
            (read_.passed.as_slice(), read_.failed.as_slice()),
            (&["b.x".to_owned()][..], &["b.y".to_owned()][..])
        );
        assert_eq!(read("<testsuites/>").unwrap(), JUnit::default());
        assert_eq!(read("\u{feff}<testsuite tests='0'></testsuite>\n").unwrap().executed(), 0);
    }

    #[test]
    fn what_only_an_attribute_or_the_suite_says_counts_against_the_tests() {
        let one = |attributes: &str| {
            read(&format!("<testsuite name='s'><testcase name='x' {attributes}/></testsuite>")).unwrap()
        };
        assert_eq!(one("status='run' result='completed'").passed.len(), 1);
        assert_eq!(one("status='fail'").failed.len(), 1);
        assert_eq!(one("status='notrun' result='suppressed'").skipped.len(), 1);
        let suite = read("<testsuite name='s'><testcase name='x'/><error>could not load</error></testsuite>").unwrap();
        assert_eq!((suite.passed.len(), suite.errors), (1, vec!["s".to_owned()]));
        let other =
            read("<testsuite xmlns:j='u' name='s'><testcase name='x'><j:failure/></testcase></testsuite>").unwrap();
        assert_eq!((other.passed.len(), other.failed.len()), (0, 1));
    }

    #[test]
    fn only_known_words_count_and_one_that_is_not_known_is_named() {
        let with =
            |attributes: &str| read(&format!("<testsuite name='s'><testcase name='x' {attributes}/></testsuite>"));
        let counts = |attributes: &str| {
            let found = with(attributes).unwrap();
            [found.passed.len(), found.failed.len(), found.errors.len(), found.skipped.len()]
        };
        for passed in [
            "",
            "status=''",
            "status='passed'",
            "status='PASSED'",
            "status='pass'",
            "result='success'",
            "outcome='ok'",
            "status='run'",
            "status='run' result='completed'",
            "status='completed' result='completed'",
            "result='completed'",
            "success='true'",
            "success='True'",
            "time='failed'",
        ] {
            assert_eq!(counts(passed), [1, 0, 0, 0], "{passed}");
        }
        for failed in [
            "status='fail'",
            "status='FAILED'",
            "result='failure'",
            "outcome='failed'",
            "success='false'",
            "success='FALSE'",
            "status='passed' result='failed'",
            "status='failed' result='passed'",
            "Status='failed'",
            "j:status='failed'",
            "status='skipped' outcome='failed'",
            "status='run' success='false'",
            "status=' failed '",
        ] {
            assert_eq!(counts(failed), [0, 1, 0, 0], "{failed}");
        }
        assert_eq!(counts("status='error'"), [0, 0, 1, 0]);
        assert_eq!(counts("status='failed' outcome='error'"), [0, 0, 1, 0]);
        for skipped in [
            "status='notrun'",
            "status='disabled'",
            "result='Skipped'",
            "status='notrun' result='suppressed'",
            "status='run' result='skipped'",
        ] {
            assert_eq!(counts(skipped), [0, 0, 0, 1], "{skipped}");
        }
        for (unknown, says) in [
            ("status='broken'", "the test \"s.x\" has status=\"broken\""),
            ("result='unstable'", "result=\"unstable\""),
            ("outcome='xpassed'", "outcome=\"xpassed\""),
            ("status='completed'", "status=\"completed\""),
            ("result='run'", "result=\"run\""),
            ("success='passed'", "success=\"passed\""),
            ("success='0'", "success=\"0\""),
            ("status='passed' result='huh'", "result=\"huh\""),
        ] {
            let error = with(unknown).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("make the report say"), "{unknown}: {error}");
        }
    }

    #[test]
    fn a_failure_in_another_letter_case_is_one() {
        let with = |element: &str| {
            read(&format!("<testsuite name='s'><testcase name='x'>{element}</testcase></testsuite>"))
                .map(|found| [found.passed.len(), found.failed.len(), found.errors.len(), found.skipped.len()])
        };
        for (element, counts) in [
            ("<note/>", [1, 0, 0, 0]),
            ("<flakyFailure/>", [1, 0, 0, 0]),
            ("<Failure/>", [0, 1, 0, 0]),
            ("<FAILURE>no</FAILURE>", [0, 1, 0, 0]),
            ("<j:Failure/>", [0, 1, 0, 0]),
            ("<ERROR/>", [0, 0, 1, 0]),
            ("<Skipped/>", [0, 0, 0, 1]),
        ] {
            assert_eq!(with(element).unwrap(), counts, "{element}");
        }
        assert_eq!(read("<testsuite name='s'><testcase name='x'/><Error/></testsuite>").unwrap().errors, ["s"]);
        let good = "<testsuite name='s'><testcase name='x'/></testsuite>";
        assert_eq!(read(good).unwrap().passed.len(), 1);
        for (from, to) in [("testcase", "TestCase"), ("testsuite", "TestSuite"), ("<testcase", "<TESTSUITE/><testcase")]
        {
            assert!(refusal(&good.replace(from, to)).contains("letter case"), "{to}");
        }
    }

    #[test]
    fn what_a_suite_says_of_itself_counts_against_its_tests() {
        let suite = |attributes: &str, tests: &str| {
            read(&format!("<testsuites><testsuite name='s' {attributes}>{tests}</testsuite></testsuites>"))
                .map(|found| [found.passed.len(), found.failed.len(), found.errors.len(), found.skipped.len()])
        };
        let (passed, failed) = ("<testcase name='x'/>", "<testcase name='x'><failure/></testcase>");
        assert_eq!(suite("status='passed'", passed).unwrap(), [1, 0, 0, 0]);
        for against in ["status='failed'", "result='error'", "success='false'", "status='failed' failures='1'"] {
            assert_eq!(suite(against, passed).unwrap(), [1, 0, 1, 0], "{against}");
        }
        assert_eq!(suite("status='failed'", failed).unwrap(), [0, 1, 0, 0], "it is shown already");
        assert_eq!(suite("status='skipped'", passed).unwrap(), [0, 0, 0, 1]);
        assert_eq!(suite("status='skipped'", failed).unwrap(), [0, 1, 0, 0]);
        let error = suite("status='odd'", passed).unwrap_err().to_string();
        assert!(error.contains("the suite \"s\" has status=\"odd\""), "{error}");
        let root =
            read("<testsuites name='all' status='failed'><testsuite><testcase name='x'/></testsuite></testsuites>");
        assert_eq!(root.unwrap().errors, ["all"]);
    }

    #[test]
    fn a_suite_that_claims_more_than_it_shows_is_refused() {
        for (sum, said) in [
            ("tests=\"4\"", "tests"),
            ("failures=\"1\"", "failures"),
            ("errors=\"1\"", "errors"),
            ("skipped=\"1\"", "skipped"),
        ] {
            let number: u64 = sum.split('"').nth(1).unwrap().parse().unwrap();
            let more = sum.replace(&number.to_string(), &(number + 1).to_string());
            assert!(PYTEST.contains(sum));
            let says = refusal(&PYTEST.replacen(sum, &more, 1));
            assert!(says.contains(&format!("claims {} {said} and shows {number}", number + 1)), "{says}");
            let fewer = sum.replace(&number.to_string(), &(number - 1).to_string());
            assert!(read(&PYTEST.replacen(sum, &fewer, 1)).is_ok());
        }
        let root = GOTESTSUM.replacen("failures=\"0\" errors=\"0\" time", "failures=\"0\" errors=\"1\" time", 1);
        assert!(refusal(&root).contains("claims 1 errors and shows 0"));
        assert!(refusal(&JEST.replacen("tests=\"1\"", "tests=\"many\"", 1)).contains("no number"));
        assert!(refusal(&JEST.replacen("failures=\"0\"", "failures=\"-1\"", 1)).contains("no number"));
    }

    #[test]
    fn a_report_that_is_cut_anywhere_is_refused() {
        for report in [PYTEST, SUREFIRE, GOTESTSUM, JEST] {
            let report = report.trim_end();
            for end in 0..report.len() {
                assert!(read(&report[..end]).is_err(), "{}", &report[..end]);
            }
            assert!(read(report).is_ok());
        }
    }

    #[test]
    fn what_is_not_plain_xml_is_refused() {
        let good = "<testsuite name='s'><testcase name='x'/></testsuite>";
        assert!(read(good).is_ok());
        assert!(JUnit::read(&[good.as_bytes(), &[0xff]].concat()).is_err());
        let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(JUnit::read(&utf16).is_err());
        for (bad, says) in [
            (format!("<!DOCTYPE x>{good}"), "DOCTYPE"),
            (format!("<!DOCTYPE x [<!ENTITY a 'b'>]>{good}"), "DOCTYPE"),
            (good.replace("<testcase", "&a;<testcase"), "entity"),
            (good.replace("'x'", "'&a;'"), "name"),
            (format!("{good}{good}"), "follows the root"),
            (format!("{good}x"), "outside the root"),
            (format!("{good}<![CDATA[x]]>"), "outside the root"),
            (format!("x{good}"), "outside the root"),
            (format!("{good}</testsuite>"), "testsuite"),
            (format!("<?xml version='1.0' encoding='utf-16'?>{good}"), "encoding"),
            (format!(" <?xml version='1.0'?>{good}"), "beginning"),
            (good.replace("'x'", "'<failure/>'"), "inside a tag"),
            (good.replace("'x'", "'x' name='y'"), ""),
            (good.replace("'x'", "'x\u{1b}'"), "can't stand"),
            (good.replace("<testcase name='x'/>", "<testcase name='x'><failure/ ></failure/ ></testcase>"), ""),
            (good.replace("testsuite", "html"), "root"),
            (good.replace("testsuite", "testcase"), "root"),
            ("<testsuites><testcase name='x'><testcase name='y'/></testcase></testsuites>".to_owned(), "no dialect"),
            ("<testsuite><properties><testcase name='y'/></properties></testsuite>".to_owned(), "no dialect"),
            ("<testsuite><testcase name='y'><a><failure/></a></testcase></testsuite>".to_owned(), "no dialect"),
            (String::new(), "no element"),
            ("{}".to_owned(), "outside the root"),
        ] {
            let found = refusal(&bad);
            assert!(found.contains(says), "{bad}: {found}");
        }
    }

    #[test]
    fn limits_hold_at_n_and_fail_at_n_plus_1() {
        let two = "<testsuite><testcase name='x'/><testcase name='y'/></testsuite>";
        let within = |bytes, cases, nodes| Limits { bytes, cases, nodes }.read(two.as_bytes());
        assert!(within(two.len(), 2, 3).is_ok());
        assert!(matches!(within(two.len() - 1, 2, 3), Err(Error::TooLarge { .. })));
        assert!(matches!(within(two.len(), 1, 3), Err(Error::TooMany { .. })));
        assert!(matches!(within(two.len(), 2, 2), Err(Error::TooMany { .. })));
        let nested = |depth: usize| {
            read(&format!("<testsuite>{}{}</testsuite>", "<a>".repeat(depth - 1), "</a>".repeat(depth - 1)))
        };
        assert!(nested(MAX_DEPTH).is_ok());
        assert!(matches!(nested(MAX_DEPTH + 1), Err(Error::TooMany { .. })));
        let many = |n: usize| {
            let attributes: String = (0..n).map(|i| format!(" a{i}=''")).collect();
            read(&format!("<testsuite{attributes}/>"))
        };
        assert!(many(MAX_ATTRIBUTES).is_ok());
        assert!(matches!(many(MAX_ATTRIBUTES + 1), Err(Error::TooMany { .. })));
    }

    #[test]
    fn names_are_cut_and_stay_on_one_line() {
        let named =
            |name: &str| read(&format!("<testsuite><testcase name='{name}'/></testsuite>")).unwrap().passed.remove(0);
        assert_eq!(named(&"é".repeat(MAX_NAME)), "é".repeat(MAX_NAME));
        assert_eq!(named(&"é".repeat(MAX_NAME + 1)), format!("{}…", "é".repeat(MAX_NAME - 1)));
        assert_eq!(named("a&#10;b\u{85}c"), "a b c");
    }
}
