//! What was found about rules, as other programs read it: JUnit's XML, SARIF, annotations of GitHub's workflows, a table of Markdown.
//!
//! One list of items for all of them, so that no form says more or less than another. Texts of strangers are made harmless before they are
//! escaped.

use quick_xml::escape::escape;
use serde_json::{Value, json};
use sluicegate_policy::{
    judge::{Denial, Word},
    rego::{Place, RuleAnswer, RuleDeclaration},
};

use crate::{
    arguments::Format,
    words::{Words, harmless, printable},
};

/// Items about rules.
#[derive(Default)]
pub(crate) struct Report {
    /// What was asked, such as `policy check`.
    pub(crate) title: String,
    /// The rules that items may name.
    pub(crate) rules: Vec<RuleDeclaration>,
    pub(crate) items: Vec<Item>,
}

/// One thing that was found.
pub(crate) struct Item {
    /// The rule's code, or the kind of what was found.
    pub(crate) code: String,
    /// What it is about: a test, a package, an advisory.
    pub(crate) name: String,
    pub(crate) level: Level,
    /// In one line.
    pub(crate) message: String,
    /// Where.
    pub(crate) place: Option<Place>,
    /// What to do, if that is known.
    pub(crate) solution: Option<String>,
}

/// What an item comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// All is well.
    Pass,
    /// Not looked at.
    Skipped,
    /// To be known.
    Warning,
    /// It fails.
    Error,
    /// It could not be decided.
    Open,
}

impl Report {
    /// The items of a verdict: each rule that passes, each denial, each reason for which nothing is decided, and what is to be known.
    pub(crate) fn of_verdict(title: &str, answers: &[RuleAnswer], word: &Word, warnings: &[String]) -> Self {
        let mut report = Self {
            title: title.to_owned(),
            rules: answers.iter().map(|answer| answer.rule.clone()).collect(),
            items: Vec::new(),
        };
        for answer in answers.iter().filter(|answer| answer.says().word() == "pass") {
            report.items.push(Item {
                code: answer.rule.code.clone(),
                name: answer.rule.title.clone(),
                level: Level::Pass,
                message: answer.rule.title.clone(),
                place: Some(place_of(&answer.rule.place())),
                solution: None,
            });
        }
        match word {
            Word::Allow => {}
            Word::Deny(denials) => report.items.extend(denials.iter().map(|denial| Item::of_denial(None, denial))),
            Word::Undecided(reasons) => {
                report.items.extend(reasons.iter().map(|reason| Item::open(None, &reason.to_string())));
            }
        }
        report.warn(warnings);
        report
    }

    /// Adds what is to be known.
    pub(crate) fn warn(&mut self, warnings: &[String]) {
        self.items.extend(warnings.iter().map(|warning| Item {
            code: "warning".to_owned(),
            name: warning.clone(),
            level: Level::Warning,
            message: warning.clone(),
            place: None,
            solution: None,
        }));
    }

    /// Prints it, if the form is one of other programs.
    pub(crate) fn print(&self, words: &Words, format: Format) {
        let text = match format {
            Format::Table | Format::Json => return,
            Format::Junit => self.junit(),
            Format::Sarif => return words.document(&self.sarif()),
            Format::Github => self.github(),
            Format::Markdown => self.markdown(),
        };
        words.line(text.trim_end());
    }

    fn junit(&self) -> String {
        let count = |levels: &[Level]| self.items.iter().filter(|item| levels.contains(&item.level)).count();
        let xml = |text: &str| escape(printable(text)).into_owned();
        let (failures, errors) = (count(&[Level::Error]), count(&[Level::Open]));
        let skipped = count(&[Level::Skipped, Level::Warning]);
        let counts =
            format!("tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\"", self.items.len());
        let title = xml(&self.title);
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"{title}\" {counts}>\n  <testsuite name=\"{title}\" {counts}>\n"
        );
        for item in &self.items {
            let place =
                item.place.as_ref().map(|place| format!(" file=\"{}\" line=\"{}\"", xml(&place.file), place.line));
            let head = format!(
                "    <testcase classname=\"{}\" name=\"{}\"{}",
                xml(&item.code),
                xml(&item.name),
                place.unwrap_or_default()
            );
            let solution = item.solution.as_deref().map(&xml).unwrap_or_default();
            let inner = |element: &str| {
                format!(
                    "{head}>\n      <{element} message=\"{}\">{solution}</{element}>\n    </testcase>\n",
                    xml(&item.message)
                )
            };
            text.push_str(&match item.level {
                Level::Pass => format!("{head}/>\n"),
                Level::Skipped | Level::Warning => {
                    format!("{head}>\n      <skipped message=\"{}\"/>\n    </testcase>\n", xml(&item.message))
                }
                Level::Error => inner("failure"),
                Level::Open => inner("error"),
            });
        }
        text.push_str("  </testsuite>\n</testsuites>\n");
        text
    }

    fn sarif(&self) -> Value {
        let mut rules: Vec<Value> = self
            .rules
            .iter()
            .map(|rule| {
                let tags: Vec<String> = rule
                    .controls
                    .iter()
                    .flat_map(|(framework, ids)| ids.iter().map(move |id| format!("{framework}/{id}")))
                    .collect();
                json!({
                    "id": rule.code,
                    "shortDescription": {"text": harmless(&rule.title)},
                    "fullDescription": {"text": harmless(&rule.description)},
                    "help": {"text": harmless(&rule.solution)},
                    "properties": {"tags": tags},
                })
            })
            .collect();
        let shown = self.items.iter().filter(|item| !matches!(item.level, Level::Pass | Level::Skipped));
        let mut results = Vec::new();
        for item in shown {
            if !rules.iter().any(|rule| rule["id"] == json!(item.code)) {
                rules.push(json!({"id": item.code, "shortDescription": {"text": harmless(&item.code)}}));
            }
            let index = rules.iter().position(|rule| rule["id"] == json!(item.code));
            let mut result = json!({
                "ruleId": item.code,
                "ruleIndex": index,
                "level": if item.level == Level::Warning { "warning" } else { "error" },
                "message": {"text": harmless(&item.message)},
                "partialFingerprints": {"subject": harmless(&item.name)},
            });
            if let Some(place) = &item.place {
                let mut region = json!({"startLine": place.line.max(1)});
                if place.column > 0 {
                    region["startColumn"] = json!(place.column);
                }
                result["locations"] = json!([{
                    "physicalLocation": {"artifactLocation": {"uri": uri(&place.file)}, "region": region},
                }]);
            }
            results.push(result);
        }
        json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": {"driver": {
                    "name": "sluicegate",
                    "version": env!("CARGO_PKG_VERSION"),
                    "informationUri": "https://sluicegate.dev",
                    "rules": rules,
                }},
                "results": results,
            }],
        })
    }

    fn github(&self) -> String {
        let data = |text: &str| printable(text).replace('%', "%25");
        let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
        let mut text = String::new();
        for item in &self.items {
            let command = match item.level {
                Level::Pass | Level::Skipped => continue,
                Level::Warning => "warning",
                Level::Error | Level::Open => "error",
            };
            let mut properties = vec![format!("title={}", property(&item.code))];
            if let Some(place) = &item.place {
                properties.push(format!("file={},line={}", property(&place.file), place.line));
                properties.extend((place.column > 0).then(|| format!("col={}", place.column)));
            }
            let solution = item.solution.as_deref().map(|solution| format!(". To fix: {solution}")).unwrap_or_default();
            text.push_str(&format!(
                "::{command} {}::{}{}\n",
                properties.join(","),
                data(&item.message),
                data(&solution)
            ));
        }
        text
    }

    fn markdown(&self) -> String {
        // What a table of Markdown, or the HTML in it, would take for its own.
        let cell = |text: &str| {
            let text = printable(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            text.replace('\\', "\\\\").replace('|', "\\|").replace('`', "\\`").replace('[', "\\[").replace('*', "\\*")
        };
        let mut text = format!("### {}\n\n| | rule | what | to fix |\n| --- | --- | --- | --- |\n", cell(&self.title));
        for item in &self.items {
            let mark = match item.level {
                Level::Pass => "pass",
                Level::Skipped => "skipped",
                Level::Warning => "warning",
                Level::Error => "**fail**",
                Level::Open => "**open**",
            };
            text.push_str(&format!(
                "| {mark} | {} | {} | {} |\n",
                cell(&item.code),
                cell(&item.message),
                cell(item.solution.as_deref().unwrap_or_default())
            ));
        }
        text
    }
}

impl Item {
    /// Of an index, `platform` says which image.
    pub(crate) fn of_denial(platform: Option<&str>, denial: &Denial) -> Self {
        let violation = &denial.violation;
        let of = platform.map(|platform| format!("{platform}: ")).unwrap_or_default();
        let name: Vec<&str> = violation.term.iter().chain(&violation.subject).map(String::as_str).collect();
        Self {
            code: denial.code.clone(),
            name: if name.is_empty() { violation.msg.clone() } else { format!("{of}{}", name.join(" in ")) },
            level: Level::Error,
            message: format!("{of}{}", violation.msg),
            place: Some(place_of(violation.clause.as_deref().unwrap_or(&denial.rule))),
            solution: Some(denial.solution.clone()),
        }
    }

    pub(crate) fn open(platform: Option<&str>, reason: &str) -> Self {
        let of = platform.map(|platform| format!("{platform}: ")).unwrap_or_default();
        Self {
            code: "undecided".to_owned(),
            name: format!("{of}{reason}"),
            level: Level::Open,
            message: format!("{of}{reason}"),
            place: None,
            solution: None,
        }
    }
}

/// `FILE:LINE` as a place.
pub(crate) fn place_of(text: &str) -> Place {
    let (file, line) = text.rsplit_once(':').unwrap_or((text, "0"));
    Place { file: file.to_owned(), line: line.parse().unwrap_or(0), column: 0 }
}

/// A path as a relative reference (RFC 3986).
fn uri(path: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let item = |code: &str, level: Level, message: &str| Item {
            code: code.to_owned(),
            name: "a name".to_owned(),
            level,
            message: message.to_owned(),
            place: Some(Place { file: "policies/a b.rego".to_owned(), line: 7, column: 2 }),
            solution: Some("do <better>".to_owned()),
        };
        Report {
            title: "policy check".to_owned(),
            rules: Vec::new(),
            items: vec![
                item("a.one", Level::Pass, "fine"),
                item("a.two", Level::Error, "50% | <script>\n::error::x"),
                item("a.three", Level::Open, "nobody knows"),
                item("a.four", Level::Warning, "look"),
                item("a.five", Level::Skipped, "later"),
            ],
        }
    }

    #[test]
    fn junit_counts_and_escapes() {
        let text = report().junit();
        assert!(text.contains("tests=\"5\" failures=\"1\" errors=\"1\" skipped=\"2\""), "{text}");
        assert!(text.contains("message=\"50% | &lt;script&gt;"), "{text}");
        assert!(!text.contains("<script>") && text.contains("do &lt;better&gt;"), "{text}");
        let read = sluicegate_attestation::junit::JUnit::read(text.as_bytes()).unwrap();
        assert_eq!([read.passed.len(), read.failed.len(), read.errors.len(), read.skipped.len()], [1, 1, 1, 2]);
    }

    #[test]
    fn annotations_stay_on_their_line() {
        let text = report().github();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.lines().all(|line| line.starts_with("::error ") || line.starts_with("::warning ")), "{text}");
        assert!(text.contains("50%25 | <script>"), "{text}");
        assert!(text.contains("file=policies/a b.rego,line=7,col=2"), "{text}");
    }

    #[test]
    fn a_table_of_markdown_keeps_its_cells() {
        let text = report().markdown();
        let rows = text.lines().filter(|line| line.starts_with("| "));
        for row in rows.skip(2) {
            assert_eq!(row.replace("\\|", "").matches('|').count(), 5, "{row}");
        }
        assert!(!text.contains("<script>"), "{text}");
    }

    #[test]
    fn sarif_names_what_fails_where_it_stands() {
        let document = report().sarif();
        let results = document["runs"][0]["results"].as_array().unwrap();
        assert_eq!(results.len(), 3);
        let place = &results[0]["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "policies/a%20b.rego");
        assert_eq!((&place["region"]["startLine"], &place["region"]["startColumn"]), (&json!(7), &json!(2)));
        let rules = document["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
        for result in results {
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[index]["id"], result["ruleId"]);
        }
    }
}
