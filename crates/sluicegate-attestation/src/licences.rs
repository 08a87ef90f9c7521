//! Licences as SBOMs write them, in one form: SPDX identifiers, and which of them may be chosen. Policies compare identifiers; what an
//! expression allows is worked out here, once.

use std::collections::{BTreeMap, BTreeSet};

use spdx::{
    Expression, ParseMode,
    expression::{ExprNode, Operator},
};

/// Alternatives of one component, and identifiers in one of them: an expression can have many more than anybody means.
const MAX_OPTIONS: usize = 64;
const MAX_IDS: usize = 256;
/// Bytes of one text.
const MAX_TEXT: usize = 4096;

/// One entry of a component's licences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// An SPDX identifier.
    Id(String),
    /// Whatever its author calls it.
    Name(String),
    /// An SPDX expression.
    Expression(String),
}

/// Sets of identifiers, each of which suffices, all of whose members apply together. No set: nothing is said. `None`: too much, or no
/// expression.
pub type Options = Option<Vec<Vec<String>>>;

/// What licences with a reference of the document's own (`LicenseRef-…`) are called there.
pub type Named<'a> = BTreeMap<&'a str, &'a str>;

/// All identifiers of a component's licences, sorted (where they can't be read, what is written), and which may be chosen.
pub fn read(entries: &[Written], named: &Named<'_>) -> (Vec<String>, Options) {
    let options = options(entries, named);
    let mut listed: Vec<String> = match &options {
        Some(options) => options.iter().flatten().cloned().collect(),
        None => entries.iter().map(|entry| entry.text().to_owned()).collect(),
    };
    listed.sort_unstable();
    listed.dedup();
    (listed, options)
}

/// What all entries of a component come to: they apply together.
fn options(entries: &[Written], named: &Named<'_>) -> Options {
    let mut all: Option<Vec<BTreeSet<String>>> = None;
    for entry in entries {
        let own = of(entry, named)?;
        all = Some(match all {
            None => own,
            Some(before) => both(&before, &own)?,
        });
    }
    let sets: BTreeSet<Vec<String>> =
        all.unwrap_or_default().into_iter().map(|set| set.into_iter().collect()).collect();
    Some(sets.into_iter().collect())
}

impl Written {
    /// What is written.
    pub fn text(&self) -> &str {
        match self {
            Self::Id(text) | Self::Name(text) | Self::Expression(text) => text,
        }
    }
}

/// One entry's own alternatives.
fn of(entry: &Written, named: &Named<'_>) -> Option<Vec<BTreeSet<String>>> {
    if entry.text().len() > MAX_TEXT {
        return None;
    }
    match entry {
        Written::Id(text) | Written::Name(text) => match identifier(text) {
            Some(id) => called(id, named),
            // Trivy and others write expressions where names belong.
            None => expression(text, named).or_else(|| Some(vec![BTreeSet::from([reference(text)])])),
        },
        Written::Expression(text) => expression(text, named),
    }
}

/// The alternatives of one identifier: those of its name where the document gives it one, which stands for no other reference.
fn called(id: String, named: &Named<'_>) -> Option<Vec<BTreeSet<String>>> {
    match named.get(id.as_str()) {
        Some(name) => of(&Written::Name((*name).to_owned()), &Named::new()),
        None => Some(vec![BTreeSet::from([id])]),
    }
}

/// The identifier that one name means: SPDX's own, a short name of Debian's, or the whole name of a licence.
fn identifier(text: &str) -> Option<String> {
    let text = text.trim();
    if let Some(id) = spdx::license_id(text) {
        return Some(id.name.to_owned());
    }
    if text.starts_with("LicenseRef-") && text.chars().all(is_of_reference) {
        return Some(text.to_owned());
    }
    let lower = text.to_ascii_lowercase();
    if is_family(text) {
        return Some(reference(text));
    }
    if let Some((_, id)) = OTHERS_NAMES.iter().find(|(name, _)| *name == lower) {
        return Some((*id).to_owned());
    }
    match spdx::imprecise_license_id(text) {
        Some((id, length)) if length == text.len() => Some(id.name.to_owned()),
        _ => None,
    }
}

/// Names that packages of Debian and others have for licences, in lower case.
const OTHERS_NAMES: &[(&str, &str)] = &[
    ("expat", "MIT"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("gpl-1", "GPL-1.0-only"),
    ("gpl-1+", "GPL-1.0-or-later"),
    ("gpl-2", "GPL-2.0-only"),
    ("gpl-2+", "GPL-2.0-or-later"),
    ("gpl-3", "GPL-3.0-only"),
    ("gpl-3+", "GPL-3.0-or-later"),
    ("lgpl-2", "LGPL-2.0-only"),
    ("lgpl-2+", "LGPL-2.0-or-later"),
    ("lgpl-2.1", "LGPL-2.1-only"),
    ("lgpl-2.1+", "LGPL-2.1-or-later"),
    ("lgpl-3", "LGPL-3.0-only"),
    ("lgpl-3+", "LGPL-3.0-or-later"),
    ("agpl-3", "AGPL-3.0-only"),
    ("agpl-3+", "AGPL-3.0-or-later"),
    ("gfdl-1.2", "GFDL-1.2-only"),
    ("gfdl-1.2+", "GFDL-1.2-or-later"),
    ("gfdl-1.3", "GFDL-1.3-only"),
    ("gfdl-1.3+", "GFDL-1.3-or-later"),
    ("apache 2.0", "Apache-2.0"),
    ("apache-2", "Apache-2.0"),
    ("apache license 2.0", "Apache-2.0"),
    ("mpl-2", "MPL-2.0"),
    ("psf", "PSF-2.0"),
    ("zlib/libpng", "Zlib"),
];

/// Names that several licences share: to take one of them for what is meant could be an allowance that nobody gave.
const FAMILIES: [&str; 11] = ["agpl", "apache", "artistic", "bsd", "cc", "epl", "eupl", "gfdl", "gpl", "lgpl", "mpl"];

fn is_family(name: &str) -> bool {
    FAMILIES.iter().any(|family| name.trim().eq_ignore_ascii_case(family))
}

/// Whether one of the licences that an expression joins is no more than a family's name.
fn names_a_family(text: &str) -> bool {
    let mut operands = vec![String::new()];
    for word in text.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')')) {
        match word.to_ascii_lowercase().as_str() {
            "and" | "or" | "with" => operands.push(String::new()),
            _ => {
                if let Some(operand) = operands.last_mut() {
                    operand.push_str(word);
                    operand.push(' ');
                }
            }
        }
    }
    operands.iter().any(|operand| is_family(operand))
}

fn expression(text: &str, named: &Named<'_>) -> Option<Vec<BTreeSet<String>>> {
    if names_a_family(text) {
        return None;
    }
    let parsed = Expression::parse_mode(text, ParseMode::LAX).ok()?;
    let mut stack: Vec<Vec<BTreeSet<String>>> = Vec::new();
    for node in parsed.iter() {
        let next = match node {
            ExprNode::Req(required) => called(required.req.to_string(), named)?,
            ExprNode::Op(operator) => {
                let (second, first) = (stack.pop()?, stack.pop()?);
                match operator {
                    Operator::And => both(&first, &second)?,
                    Operator::Or => {
                        let mut either = first;
                        either.extend(second);
                        either
                    }
                }
            }
        };
        if next.len() > MAX_OPTIONS {
            return None;
        }
        stack.push(next);
    }
    stack.pop().filter(|_| stack.is_empty())
}

fn both(first: &[BTreeSet<String>], second: &[BTreeSet<String>]) -> Option<Vec<BTreeSet<String>>> {
    if first.len() * second.len() > MAX_OPTIONS {
        return None;
    }
    let joined = first.iter().flat_map(|one| second.iter().map(move |other| one | other));
    let joined: Vec<BTreeSet<String>> = joined.collect();
    joined.iter().all(|set| set.len() <= MAX_IDS).then_some(joined)
}

/// A reference of our own for a licence that SPDX does not know (SPDX 2.3, annex D).
fn reference(text: &str) -> String {
    let kept: String = text.trim().chars().map(|c| if is_of_reference(c) { c } else { '-' }).collect();
    format!("LicenseRef-{}", kept.trim_matches('-'))
}

fn is_of_reference(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '.'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(options: &[&[&str]]) -> Options {
        Some(options.iter().map(|set| set.iter().map(|id| (*id).to_owned()).collect()).collect())
    }

    fn alone(entries: &[Written]) -> Options {
        options(entries, &Named::new())
    }

    #[test]
    fn names_of_one_licence_are_one_identifier() {
        for (text, id) in [
            ("MIT", "MIT"),
            ("Expat", "MIT"),
            ("GPL-2+", "GPL-2.0-or-later"),
            ("GPL-2.0-only", "GPL-2.0-only"),
            ("Apache License 2.0", "Apache-2.0"),
            ("LicenseRef-own", "LicenseRef-own"),
            ("BSD-3-clause", "BSD-3-Clause"),
            ("BSD", "LicenseRef-BSD"),
            (" gpl ", "LicenseRef-gpl"),
            ("MIT or (BSD)", "LicenseRef-MIT-or--BSD"),
            ("My own <b>terms</b>", "LicenseRef-My-own--b-terms--b"),
        ] {
            assert_eq!(alone(&[Written::Name(text.to_owned())]), sets(&[&[id]]), "{text}");
        }
    }

    #[test]
    fn an_expression_is_what_may_be_chosen() {
        let expression = |text: &str| alone(&[Written::Expression(text.to_owned())]);
        assert_eq!(expression("MIT OR Apache-2.0"), sets(&[&["Apache-2.0"], &["MIT"]]));
        assert_eq!(expression("MIT AND (ISC OR Zlib)"), sets(&[&["ISC", "MIT"], &["MIT", "Zlib"]]));
        let with = expression("GPL-2.0-only WITH Classpath-exception-2.0");
        assert_eq!(with, sets(&[&["GPL-2.0-only WITH Classpath-exception-2.0"]]));
        assert_eq!(expression("MIT OR"), None);
        assert_eq!(expression("MIT AND BSD"), None, "which one of them nobody says");
        assert_eq!(expression("MIT OR GPL-2.0-only"), sets(&[&["GPL-2.0-only"], &["MIT"]]));
        assert_eq!(expression(""), None);
        let many = vec!["(MIT OR ISC)"; 20].join(" AND ");
        assert_eq!(expression(&many), None, "too many alternatives");
        assert_eq!(alone(&[Written::Name("MIT or Apache-2.0".to_owned())]), sets(&[&["Apache-2.0"], &["MIT"]]));
    }

    #[test]
    fn entries_apply_together_and_none_says_nothing() {
        let entries = [Written::Id("MIT".to_owned()), Written::Expression("ISC OR Zlib".to_owned())];
        assert_eq!(alone(&entries), sets(&[&["ISC", "MIT"], &["MIT", "Zlib"]]));
        assert_eq!(alone(&[]), sets(&[]));
        let entries = [Written::Id("MIT".to_owned()), Written::Expression("no expression".to_owned())];
        assert_eq!(alone(&entries), None);
    }

    #[test]
    fn a_reference_is_what_the_document_calls_it() {
        let named = Named::from([
            ("LicenseRef-1", "GPL-2+"),
            ("LicenseRef-2", "MIT or Apache-2.0"),
            ("LicenseRef-3", "LicenseRef-1"),
            ("LicenseRef-4", "Our own terms"),
        ]);
        let written = |text: &str| options(&[Written::Expression(text.to_owned())], &named);
        assert_eq!(written("LicenseRef-1 AND ISC"), sets(&[&["GPL-2.0-or-later", "ISC"]]));
        assert_eq!(written("LicenseRef-2"), sets(&[&["Apache-2.0"], &["MIT"]]));
        assert_eq!(written("LicenseRef-3"), sets(&[&["LicenseRef-1"]]), "a name leads to no further one");
        assert_eq!(written("LicenseRef-4"), sets(&[&["LicenseRef-Our-own-terms"]]));
        assert_eq!(written("LicenseRef-5"), sets(&[&["LicenseRef-5"]]));
        assert_eq!(options(&[Written::Name("LicenseRef-1".to_owned())], &named), sets(&[&["GPL-2.0-or-later"]]));
    }
}
