//! What the documents cite is there: each test by its name, each source file by the end of its path.
#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use xtask::workspace::Workspace;

/// The documents that say which test shows what.
const DOCUMENTS: [&str; 2] = ["THREAT_MODEL.md", "crates/README.md"];
/// Where source files are.
const FOLDERS: [&str; 2] = ["crates", "integration"];

/// What a document cites.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cited {
    tests: BTreeSet<String>,
    files: BTreeSet<String>,
}

/// Reads the words between backticks. A test is a lower-case word of three parts or more where `Tests:` stands before it in the same
/// paragraph or item of a list, and of four parts or more anywhere else: fields and keys have shorter names. A file ends with `.rs`.
fn cited(document: &str) -> Cited {
    let mut found = Cited::default();
    for item in items(document) {
        let mut least = 4;
        for (place, word) in item.split('`').enumerate() {
            if place % 2 == 0 {
                least = if word.contains("Tests:") { 3 } else { least };
            } else if word.ends_with(".rs") {
                found.files.insert(word.to_owned());
            } else if is_name(word) && word.split('_').count() >= least {
                found.tests.insert(word.to_owned());
            }
        }
    }
    found
}

/// Paragraphs and items of lists, each on its own; a block of code is none.
fn items(document: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut in_code = false;
    for line in document.lines() {
        in_code ^= line.starts_with("```");
        let begins = line.is_empty() || line.starts_with("- ") || line.starts_with('|') || line.starts_with("```");
        if begins {
            items.push(String::new());
        }
        if !in_code && let Some(item) = items.last_mut() {
            item.push_str(line.trim_start_matches("```"));
            item.push('\n');
        }
    }
    items
}

fn is_name(word: &str) -> bool {
    word.split('_')
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()))
}

/// What `cited` names and the sources, paths with their texts, do not have.
fn missing(cited: &Cited, sources: &[(String, String)]) -> Vec<String> {
    let has_test = |name: &String| {
        let head = format!("fn {name}(");
        sources.iter().any(|(_, text)| text.contains(&head))
    };
    // `cli/src/wire.rs` is short for `crates/sluicegate-cli/src/wire.rs`.
    let has_file = |end: &String| {
        let ends = |path: &str| path.strip_suffix(end.as_str()).is_some_and(|before| before.ends_with(['/', '-']));
        sources.iter().any(|(path, _)| ends(path))
    };
    let tests = cited.tests.iter().filter(|name| !has_test(name));
    tests.chain(cited.files.iter().filter(|end| !has_file(end))).cloned().collect()
}

fn read_sources(folder: &Path, sources: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            read_sources(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            sources.push((path.to_str().unwrap().to_owned(), text));
        }
    }
}

#[test]
fn every_test_and_every_file_that_the_documents_cite_is_there() {
    let workspace = Workspace::locate().unwrap();
    let mut sources = Vec::new();
    FOLDERS.iter().for_each(|folder| read_sources(&workspace.path(folder), &mut sources));
    for document in DOCUMENTS {
        let cited = cited(&fs::read_to_string(workspace.path(document)).unwrap());
        assert!(!cited.files.is_empty(), "{document} cites no file: it is not read as it is written");
        assert_eq!(missing(&cited, &sources), [] as [&str; 0], "{document} cites these, and they are not there");
    }
}

#[test]
fn a_name_that_no_test_and_no_file_has_is_missed() {
    let document = "\
**1. A line.** Said by `sluicegate_exit_code` and shown by `a_test_cited_in_passing`.

- Code: `flow/src/gate.rs` (`says_what_is`). Tests: `tests/gate.rs` (`it_is_there`,
  `it_is_gone`).
- Not built: `three_short_words`.

```text
`nobody_reads_what_is_code`
```
";
    let cited = cited(document);
    let tests: Vec<&str> = cited.tests.iter().map(String::as_str).collect();
    assert_eq!(tests, ["a_test_cited_in_passing", "it_is_gone", "it_is_there"]);
    let source = |path: &str, name: &str| (path.to_owned(), format!("#[test]\nfn {name}() {{}}\n"));
    let mut sources = vec![
        source("crates/sluicegate-flow/src/gate.rs", "a_test_cited_in_passing"),
        source("crates/sluicegate-flow/tests/investigate.rs", "it_is_there_too"),
    ];
    assert_eq!(missing(&cited, &sources), ["it_is_gone", "it_is_there", "tests/gate.rs"]);
    sources.push(source("integration/tests/gate.rs", "it_is_there"));
    assert_eq!(missing(&cited, &sources), ["it_is_gone"]);
    sources.push(source("integration/tests/other.rs", "it_is_gone"));
    assert_eq!(missing(&cited, &sources), [] as [&str; 0]);
}
