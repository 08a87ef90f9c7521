//! Where in a file something stands, and how that looks.

use std::fmt;

use granit_parser::{Event, Parser, Span};

/// A place in a file: its name, and where it is known the line and what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    file: String,
    place: Option<(usize, usize)>,
    excerpt: String,
}

impl Spot {
    /// A file as a whole.
    pub(crate) fn file(file: &str) -> Self {
        Self(Box::new(Inner { file: file.to_owned(), place: None, excerpt: String::new() }))
    }

    /// `width` characters from a line and a column on, both counted from 1.
    pub(crate) fn at(file: &str, text: &str, line: usize, column: usize, width: usize) -> Self {
        let excerpt = excerpt(text, line, column, width).unwrap_or_default();
        Self(Box::new(Inner { file: file.to_owned(), place: Some((line, column)), excerpt }))
    }

    /// What stands at `path`, which is written `steps.build.needs[1]`, or as much of that path as there is.
    pub(crate) fn of(file: &str, text: &str, path: &str, aim: Aim) -> Self {
        match locate(text, path, aim) {
            Some((_, Found { line, column, width })) => Self::at(file, text, line, column, width),
            None => Self::file(file),
        }
    }

    /// Whether something stands at the whole of `path`.
    pub(crate) fn is_there(text: &str, path: &str) -> bool {
        locate(text, path, Aim::Key).is_some_and(|(matched, _)| matched == path.len())
    }

    /// The same without the line: what stands there is nobody's to read who reads an error.
    #[must_use]
    pub(crate) fn unshown(self) -> Self {
        Self(Box::new(Inner { excerpt: String::new(), ..*self.0 }))
    }

    /// The file and the line, `waivers.yaml:12`, as programs write them.
    pub fn file_and_line(&self) -> String {
        match self.0.place {
            Some((line, _)) => format!("{}:{line}", self.0.file),
            None => self.0.file.clone(),
        }
    }

    /// The line with a caret below it, each on a line of its own after a line feed; empty where no line is known.
    pub fn excerpt(&self) -> &str {
        &self.0.excerpt
    }
}

/// The file, and line and column where they are known, with a colon behind each.
impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.0.file)?;
        match self.0.place {
            Some((line, column)) => write!(f, "line {line}, column {column}: "),
            None => Ok(()),
        }
    }
}

/// Which half of a mapping's entry is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// The value, if it is a text; of a list or mapping its key is shown.
    Value,
    /// The key.
    Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    line: usize,
    column: usize,
    width: usize,
}

impl Found {
    fn of(span: &Span) -> Self {
        let (start, end) = (&span.start, &span.end);
        let width = if start.line() == end.line() { end.col().saturating_sub(start.col()) } else { usize::MAX };
        Self { line: start.line(), column: start.col() + 1, width }
    }
}

/// A list or a mapping that is being walked through.
struct Level {
    /// How much of the path leads here.
    matched: Option<usize>,
    kind: Kind,
}

enum Kind {
    Sequence { next: usize },
    Mapping { key: Option<(Option<usize>, Found)> },
}

/// Walks through the document, keeping nothing but the way to where it is: what is looked for is asked once, when something is wrong,
/// and an index of everything would be as large as its author likes. Gives how much of the path leads there, too.
fn locate(text: &str, path: &str, aim: Aim) -> Option<(usize, Found)> {
    let mut levels: Vec<Level> = Vec::new();
    let mut best: Option<(usize, Found)> = None;
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { break };
        let (scalar, kind) = match &event {
            Event::Scalar(value, ..) => (Some(value.as_ref()), None),
            Event::SequenceStart(..) => (None, Some(Kind::Sequence { next: 0 })),
            Event::MappingStart(..) => (None, Some(Kind::Mapping { key: None })),
            Event::SequenceEnd | Event::MappingEnd => {
                levels.pop();
                continue;
            }
            _ => continue,
        };
        let here = Found::of(&span);
        let matched = match levels.last_mut() {
            None => Some(0),
            Some(Level { matched, kind: Kind::Sequence { next } }) => {
                let item = matched.and_then(|from| advance_item(path, from, *next));
                *next += 1;
                consider(&mut best, item, here);
                item
            }
            Some(Level { matched, kind: Kind::Mapping { key } }) => match key.take() {
                None => {
                    let from = matched.zip(scalar);
                    *key = Some((from.and_then(|(from, name)| advance(path, from, name)), here));
                    None
                }
                Some((matched, at_key)) => {
                    let is_end = matched == Some(path.len());
                    consider(
                        &mut best,
                        matched,
                        if is_end && aim == Aim::Value && scalar.is_some() { here } else { at_key },
                    );
                    matched
                }
            },
        };
        if best.as_ref().is_some_and(|(matched, _)| *matched == path.len()) {
            break;
        }
        levels.extend(kind.map(|kind| Level { matched, kind }));
    }
    best
}

/// A key of a mapping, or the number of an entry of a list.
pub(crate) enum Part {
    /// The key.
    Key(String),
    /// The number, counted from 0.
    Item(usize),
}

/// The parts that lead to what begins at this line and column, both counted from 1, and whether that is a key. A mapping may begin where
/// its first key does: `aim` says which of them is meant. Without a place, or where nothing begins, as far as the document can be read.
pub(crate) fn parts_to(text: &str, place: Option<(usize, usize)>, aim: Aim) -> (Vec<Part>, bool) {
    struct Level {
        part: Part,
        /// Whether a key waits for its value.
        has_key: bool,
    }
    let mut levels: Vec<Level> = Vec::new();
    // Whether the mapping that is meant, or its first key is, has just begun.
    let mut begun = false;
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { break };
        let (scalar, inner) = match &event {
            Event::Scalar(value, ..) => (Some(value.as_ref()), None),
            Event::SequenceStart(..) => (None, Some(Part::Item(0))),
            Event::MappingStart(..) => (None, Some(Part::Key(String::new()))),
            Event::SequenceEnd | Event::MappingEnd => {
                levels.pop();
                if begun {
                    break;
                }
                if let Some(Level { part: Part::Item(next), .. }) = levels.last_mut() {
                    *next += 1;
                }
                continue;
            }
            _ => continue,
        };
        let is_here = place == Some((span.start.line(), span.start.col() + 1));
        let is_key = match levels.last_mut() {
            Some(Level { part: Part::Key(key), has_key: has_key @ false }) => {
                *key = scalar.unwrap_or_default().to_owned();
                *has_key = true;
                true
            }
            Some(level) => {
                level.has_key = false;
                false
            }
            None => false,
        };
        if is_here && (aim == Aim::Value || !matches!(event, Event::MappingStart(..))) {
            return (levels.into_iter().map(|level| level.part).collect(), is_key);
        }
        if begun {
            // Its first key stands elsewhere.
            levels.pop();
            return (levels.into_iter().map(|level| level.part).collect(), false);
        }
        begun = is_here;
        match (inner, levels.last_mut()) {
            (Some(part), _) => levels.push(Level { part, has_key: false }),
            (None, Some(Level { part: Part::Item(next), .. })) => *next += 1,
            (None, _) => {}
        }
    }
    // A mapping that has begun and has no key yet leads nowhere.
    if matches!(levels.last(), Some(Level { part: Part::Key(key), .. }) if key.is_empty()) {
        levels.pop();
    }
    (levels.into_iter().map(|level| level.part).collect(), false)
}

/// Parts as a path is written: `steps.build.needs[1]`.
pub(crate) fn written(parts: &[Part]) -> String {
    let mut path = String::new();
    for part in parts {
        match part {
            Part::Item(nth) => path.push_str(&format!("[{nth}]")),
            Part::Key(key) if path.is_empty() => path.push_str(key),
            Part::Key(key) => path.push_str(&format!(".{key}")),
        }
    }
    path
}

/// Of two places the one to which more of the path leads, and of equals the first.
fn consider(best: &mut Option<(usize, Found)>, matched: Option<usize>, found: Found) {
    if let Some(matched) = matched
        && best.as_ref().is_none_or(|(before, _)| matched > *before)
    {
        *best = Some((matched, found));
    }
}

fn advance(path: &str, from: usize, key: &str) -> Option<usize> {
    let rest = path.get(from..)?;
    let rest = if from == 0 { rest } else { rest.strip_prefix('.')? };
    let after = rest.strip_prefix(key).filter(|_| !key.is_empty())?;
    (after.is_empty() || after.starts_with(['.', '['])).then(|| path.len() - after.len())
}

fn advance_item(path: &str, from: usize, nth: usize) -> Option<usize> {
    let (number, after) = path.get(from..)?.strip_prefix('[')?.split_once(']')?;
    (number.parse() == Ok(nth)).then(|| path.len() - after.len())
}

/// Characters of a line that an error shows.
const MAX_SHOWN: usize = 100;
/// Characters before the place that is shown, where a line is too long.
const BEFORE: usize = 60;

fn excerpt(text: &str, line: usize, column: usize, width: usize) -> Option<String> {
    let whole = text.split('\n').nth(line.checked_sub(1)?)?;
    let whole = whole.strip_suffix('\r').unwrap_or(whole);
    let whole = whole.strip_prefix('\u{feff}').unwrap_or(whole);
    let column = column.checked_sub(1)?;
    let skipped = if column >= MAX_SHOWN { column - BEFORE } else { 0 };
    let mut shown: String = if skipped > 0 { "…".to_owned() } else { String::new() };
    let before = column - skipped + shown.chars().count();
    let mut rest = whole.chars().skip(skipped);
    shown.extend(rest.by_ref().take(MAX_SHOWN).map(harmless));
    let carets = shown.chars().count().saturating_sub(before).clamp(1, width.max(1));
    if rest.next().is_some() {
        shown.push('…');
    }
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    Some(format!("\n{number} | {}\n{margin} | {}{}", shown.trim_end(), " ".repeat(before), "^".repeat(carets)))
}

/// The same character, or one that takes no command of a terminal and turns no direction of writing.
pub(crate) fn harmless(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => '\u{fffd}',
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "version: 1\nsteps:\n  build:\n    needs: [a, b]\n    inputs:\n      /usr/lib/x.so: app\n    limits: { timeout: 10 }\n? [odd, key]\n: v\n";

    fn place(path: &str, aim: Aim) -> Option<(usize, usize, usize)> {
        locate(TEXT, path, aim).map(|(_, found)| (found.line, found.column, found.width))
    }

    #[test]
    fn a_path_leads_to_its_value_or_key_or_as_near_as_there_is() {
        for (path, aim, found) in [
            ("version", Aim::Value, (1, 10, 1)),
            ("version", Aim::Key, (1, 1, 7)),
            ("steps.build", Aim::Value, (3, 3, 5)),
            ("steps.build.needs[1]", Aim::Value, (4, 16, 1)),
            ("steps.build.needs", Aim::Value, (4, 5, 5)),
            ("steps.build.inputs./usr/lib/x.so", Aim::Value, (6, 22, 3)),
            ("steps.build.inputs./usr/lib/x.so", Aim::Key, (6, 7, 13)),
            ("steps.build.limits.timeout", Aim::Value, (7, 24, 2)),
            ("steps.build.limits.memory", Aim::Value, (7, 5, 6)),
            ("steps.build.needs[7]", Aim::Value, (4, 5, 5)),
            ("steps.buildings", Aim::Value, (2, 1, 5)),
        ] {
            assert_eq!(place(path, aim), Some(found), "{path}");
        }
        assert_eq!(place("nothing", Aim::Value), None);
        assert_eq!(place("", Aim::Value), None);
    }

    #[test]
    fn an_excerpt_is_bounded_and_does_nothing_to_a_terminal() {
        assert_eq!(excerpt("a: x\nb: why\n", 2, 4, 3).unwrap(), "\n2 | b: why\n  |    ^^^");
        assert_eq!(excerpt("a:\u{1b}[31m\t\u{202e}x\r\n", 1, 3, 1).unwrap(), "\n1 | a:\u{fffd}[31m \u{fffd}x\n  |   ^");
        for (column, width) in [(1, usize::MAX), (5, 3), (9_000, 40), (10_000, 1), (20_000, 5)] {
            let found = excerpt(&"w".repeat(10_000), 1, column, width).unwrap();
            assert!(found.chars().count() < 2 * MAX_SHOWN + 40 || column > 10_000, "{column}: {found}");
            assert!(found.contains('^'), "{found}");
        }
        assert_eq!(excerpt("a\n", 9, 1, 1), None);
        assert_eq!(excerpt("a\n", 0, 0, 1), None);
    }

    #[test]
    fn deep_and_wide_files_are_walked_through_in_little_memory() {
        let long = "k".repeat(1000);
        let text = format!("{long}: [{}]\nz: 1\n", "x, ".repeat(150_000));
        assert_eq!(locate(&text, "z", Aim::Value).map(|(_, found)| found.line), Some(2));
    }

    #[test]
    fn the_parts_that_lead_to_a_place_are_those_that_lead_back() {
        let text = "a: x\nb:\n  c: [1, { d: 2 }, [3]]\n  e:\n    f: 4\n\"g.h\": 5\n";
        let found = |line: usize, column: usize| {
            let (parts, is_key) = parts_to(text, Some((line, column)), Aim::Value);
            (written(&parts), is_key)
        };
        for (place, path, is_key) in [
            ((1, 4), "a", false),
            ((2, 1), "b", true),
            ((3, 6), "b.c", false),
            ((3, 7), "b.c[0]", false),
            ((3, 10), "b.c[1]", false),
            ((3, 12), "b.c[1].d", true),
            ((3, 15), "b.c[1].d", false),
            ((3, 21), "b.c[2][0]", false),
            ((4, 3), "b.e", true),
            ((5, 8), "b.e.f", false),
            ((6, 8), "g.h", false),
        ] {
            assert_eq!(found(place.0, place.1), (path.to_owned(), is_key), "{place:?}");
        }
        // The first key of a block begins where the block does.
        assert_eq!(found(5, 5), ("b.e".to_owned(), false));
        let key = |line: usize, column: usize| {
            let (parts, is_key) = parts_to(text, Some((line, column)), Aim::Key);
            (written(&parts), is_key)
        };
        assert_eq!(key(5, 5), ("b.e.f".to_owned(), true));
        assert_eq!(key(3, 10), ("b.c[1]".to_owned(), false));
        assert_eq!(key(1, 4), ("a".to_owned(), false));
        let empty = parts_to("a: { b: {}, c: 1 }\n", Some((1, 9)), Aim::Key);
        assert_eq!((written(&empty.0), empty.1), ("a.b".to_owned(), false));
        assert_eq!(written(&parts_to("a:\n  - b: [1, 2\nc: 3\n", None, Aim::Value).0), "a[0].b[1]");
        // Depth costs what it costs to read.
        let deep = "[".repeat(100_000);
        assert!(parts_to(&deep, None, Aim::Value).0.len() <= 100_000);
    }
}
