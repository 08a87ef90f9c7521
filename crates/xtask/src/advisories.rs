//! Reads `fixtures/advisories/advisories.txt`: real advisories in a line format that needs no library. The format is described at
//! the head of that file; anything it does not describe is an error with its line.

use std::fmt;

use crate::calendar;

/// One published advisory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Advisory {
    /// Its CVE number.
    pub id: String,
    /// Its other name, as a rule the GHSA.
    pub also: Option<String>,
    /// One line for a person.
    pub title: String,
    /// How bad it is.
    pub severity: Severity,
    /// Score, as it is written, and vector of CVSS 3.1.
    pub cvss: Option<(String, String)>,
    /// The moment at which the day of publication began.
    pub published: String,
    /// Where these facts can be read again.
    pub source: String,
    /// Whom it concerns, at least one.
    pub affects: Vec<Affected>,
}

/// How bad, in Trivy's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Severity {
    /// 1.
    #[default]
    Low,
    /// 2.
    Medium,
    /// 3.
    High,
    /// 4.
    Critical,
}

impl Severity {
    /// As Trivy's database writes it in words.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
            Self::Critical => "CRITICAL",
        }
    }

    /// As Trivy's database writes it in numbers.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8 + 1
    }
}

/// A package that an advisory concerns.
#[derive(Debug, PartialEq, Eq)]
pub enum Affected {
    /// A package of a language, with the version ranges that are affected and the versions that end them.
    Library {
        /// `npm` or `pip`.
        ecosystem: String,
        /// The package.
        package: String,
        /// Ranges; the conditions of one are separated by blanks.
        ranges: Vec<String>,
        /// The fixed versions, one for each range.
        fixed: Vec<String>,
    },
    /// A source package of a distribution.
    Distribution {
        /// `debian 12`, `ubuntu 24.04`.
        release: String,
        /// The source package.
        package: String,
        /// The fixed version; none where the distribution does not fix it.
        fixed: Option<String>,
        /// The distribution's notice.
        notice: Option<String>,
    },
}

/// A line that the format does not allow.
#[derive(Debug, PartialEq, Eq)]
pub struct AdvisoryError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for AdvisoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "advisories, line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for AdvisoryError {}

/// Reads every advisory of `text`, at least one.
pub fn parse(text: &str) -> Result<Vec<Advisory>, AdvisoryError> {
    let mut advisories = Vec::new();
    let mut open: Option<Advisory> = None;
    let mut last = 0;
    // One more empty line closes the last stanza.
    for (line, content) in text.lines().chain([""]).enumerate().map(|(index, content)| (index + 1, content.trim())) {
        last = line;
        if content.starts_with('#') {
            continue;
        }
        if content.is_empty() {
            if let Some(advisory) = open.take() {
                advisories.push(complete(advisory).map_err(|reason| AdvisoryError { line, reason })?);
            }
            continue;
        }
        set_field(open.get_or_insert_default(), content).map_err(|reason| AdvisoryError { line, reason })?;
    }
    if advisories.is_empty() {
        return Err(AdvisoryError { line: last, reason: "there is no advisory at all".to_owned() });
    }
    Ok(advisories)
}

fn set_field(advisory: &mut Advisory, content: &str) -> Result<(), String> {
    let (key, value) = content.split_once(':').ok_or("a line is `key: value`")?;
    let value = value.trim();
    if value.is_empty() {
        return Err(format!("{key} has no value"));
    }
    match key {
        "id" => set_once(&mut advisory.id, key, value),
        "also" if advisory.also.is_none() => {
            advisory.also = Some(value.to_owned());
            Ok(())
        }
        "title" => set_once(&mut advisory.title, key, value),
        "severity" => {
            advisory.severity = severity(value)?;
            Ok(())
        }
        "cvss" => {
            let (score, vector) = value.split_once(' ').ok_or("cvss is SCORE VECTOR")?;
            if score.parse::<f32>().is_err() || !vector.starts_with("CVSS:3.1/") {
                return Err("cvss is SCORE VECTOR, the vector of CVSS 3.1".to_owned());
            }
            advisory.cvss = Some((score.to_owned(), vector.to_owned()));
            Ok(())
        }
        "published" => {
            let moment = format!("{value}T00:00:00Z");
            calendar::from_rfc3339(&moment).ok_or("published is a day, YYYY-MM-DD")?;
            set_once(&mut advisory.published, key, &moment)
        }
        "source" => set_once(&mut advisory.source, key, value),
        "affects" => {
            advisory.affects.push(affected(value)?);
            Ok(())
        }
        _ => Err(format!("{key} is not a key here, or is given twice")),
    }
}

fn set_once(field: &mut String, key: &str, value: &str) -> Result<(), String> {
    if !field.is_empty() {
        return Err(format!("{key} is given twice"));
    }
    value.clone_into(field);
    Ok(())
}

fn severity(word: &str) -> Result<Severity, String> {
    match word {
        "low" => Ok(Severity::Low),
        "medium" => Ok(Severity::Medium),
        "high" => Ok(Severity::High),
        "critical" => Ok(Severity::Critical),
        _ => Err(format!("{word} is not a severity: low, medium, high or critical")),
    }
}

fn affected(value: &str) -> Result<Affected, String> {
    let parts: Vec<&str> = value.split('|').map(str::trim).collect();
    let (ecosystem, package, ranges, fixed, notice) = match parts[..] {
        [ecosystem, package, ranges, fixed] => (ecosystem, package, ranges, fixed, None),
        [ecosystem, package, ranges, fixed, notice] => (ecosystem, package, ranges, fixed, Some(notice.to_owned())),
        _ => return Err("affects is ECOSYSTEM | PACKAGE | RANGES | FIXED [| NOTICE]".to_owned()),
    };
    if package.is_empty() || fixed.is_empty() {
        return Err("affects names no package or no fix".to_owned());
    }
    let package = package.to_owned();
    match ecosystem.split_once(' ') {
        None if matches!(ecosystem, "npm" | "pip") && notice.is_none() => {
            let list = |text: &str| text.split(',').map(|part| part.trim().to_owned()).collect::<Vec<_>>();
            let (ranges, fixed) = (list(ranges), list(fixed));
            if ranges.len() != fixed.len() || ranges.iter().chain(&fixed).any(String::is_empty) {
                return Err("each range has the version that ends it".to_owned());
            }
            Ok(Affected::Library { ecosystem: ecosystem.to_owned(), package, ranges, fixed })
        }
        Some(("debian" | "ubuntu", _)) if ranges == "-" => {
            let fixed = (fixed != "will_not_fix").then(|| fixed.to_owned());
            Ok(Affected::Distribution { release: ecosystem.to_owned(), package, fixed, notice })
        }
        _ => Err(format!("{ecosystem} is not an ecosystem here, or its RANGES are not what it takes")),
    }
}

fn complete(advisory: Advisory) -> Result<Advisory, String> {
    for (key, value) in [
        ("id", &advisory.id),
        ("title", &advisory.title),
        ("published", &advisory.published),
        ("source", &advisory.source),
    ] {
        if value.is_empty() {
            return Err(format!("the advisory above has no {key}"));
        }
    }
    if advisory.affects.is_empty() {
        return Err("the advisory above affects nothing".to_owned());
    }
    Ok(advisory)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "id: CVE-2025-1\ntitle: a: b\nseverity: high\ncvss: 7.5 CVSS:3.1/AV:N\npublished: 2025-04-24\nsource: here\n\
                       affects: pip | h11 | <0.16.0 | 0.16.0\naffects: debian 12 | zlib | - | will_not_fix\n";

    #[test]
    fn a_stanza_is_read() {
        let read = parse(ONE).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].title.as_str(), read[0].severity.number(), read[0].severity.word()), ("a: b", 3, "HIGH"));
        assert_eq!(read[0].published, "2025-04-24T00:00:00Z");
        assert!(matches!(&read[0].affects[0], Affected::Library { ranges, .. } if ranges == &["<0.16.0"]));
        assert!(matches!(&read[0].affects[1], Affected::Distribution { fixed: None, .. }));
    }

    #[test]
    fn every_fault_is_refused_with_its_line() {
        for (from, to, line) in [
            ("title: a: b", "title a", 2),
            ("title: a: b", "title:", 2),
            ("severity: high", "severity: bad", 3),
            ("severity: high", "id: CVE-2", 3),
            ("cvss: 7.5 CVSS:3.1/AV:N", "cvss: 7.5", 4),
            ("published: 2025-04-24", "published: 2025-04-31", 5),
            ("source: here\n", "", 8),
            ("pip | h11 | <0.16.0 | 0.16.0", "pip | h11 | <0.16.0, <1 | 0.16.0", 7),
            ("pip | h11", "cargo | h11", 7),
            ("| - | will_not_fix", "| <1 | will_not_fix", 8),
            ("| - | will_not_fix", "| -", 8),
        ] {
            let text = ONE.replace(from, to);
            assert_ne!(text, ONE);
            let error = parse(&text).unwrap_err();
            assert_eq!(error.line, line, "{to}: {error}");
        }
        assert!(parse("# nothing\n\n").is_err());
    }
}
