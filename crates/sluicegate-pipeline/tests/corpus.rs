//! Files that are accepted and files that are refused, one thing in each. What is said about a file that is refused stands beside it;
//! `SLUICEGATE_BLESS=1 cargo test -p sluicegate-pipeline --test corpus` writes that anew.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is not as it should be")]

use std::{fs, path::PathBuf};

use sluicegate_pipeline::{Error, gateway::Gateway, pipeline::Pipeline, trust::TrustFile, waivers};

#[test]
fn pipelines_are_accepted_or_refused_with_these_words() {
    walk("pipeline", 70, |file, text| Pipeline::parse(file, text).map(drop));
}

#[test]
fn gateways_are_accepted_or_refused_with_these_words() {
    walk("gateway", 20, |file, text| Gateway::parse(file, text).map(drop));
}

#[test]
fn trust_files_are_accepted_or_refused_with_these_words() {
    walk("trust", 20, |file, text| TrustFile::parse(file, text).map(drop));
}

#[test]
fn waivers_are_accepted_or_refused_with_these_words() {
    walk("waivers", 20, |file, text| waivers::parse(file, text).map(drop));
}

/// At least `least` files, so that a corpus that isn't found is no success.
fn walk(kind: &str, least: usize, parse: impl Fn(&str, &str) -> Result<(), Error>) {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(kind);
    let bless = std::env::var_os("SLUICEGATE_BLESS").is_some();
    let mut faults = Vec::new();
    let mut seen = 0;
    for is_valid in [true, false] {
        let mut files: Vec<PathBuf> = fs::read_dir(corpus.join(if is_valid { "valid" } else { "invalid" }))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
            .collect();
        files.sort();
        for path in files {
            seen += 1;
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let said = parse(&name, &fs::read_to_string(&path).unwrap()).map_err(|error| format!("{error}\n"));
            match (is_valid, said) {
                (true, Ok(())) => {}
                (true, Err(said)) => faults.push(format!("{kind}/valid/{said}")),
                (false, Ok(())) => faults.push(format!("{kind}/invalid/{name} is accepted")),
                (false, Err(said)) => {
                    let words = path.with_extension("txt");
                    if bless {
                        fs::write(&words, &said).unwrap();
                    }
                    let expected = fs::read_to_string(&words).unwrap_or_default();
                    if said != expected {
                        faults.push(format!("{kind}/invalid/{name}:\n{said}in place of\n{expected}"));
                    }
                }
            }
        }
    }
    assert!(seen >= least, "{seen} files in {}", corpus.display());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
