//! How long a gate's rules take in one process: read once, asked often, about facts that are read each time and about facts that are
//! read once.
//!
//! `cargo run --release -p sluicegate-policy --example policy_load -- POLICIES DATA FACTS ROUNDS`, where POLICIES is a folder. Prints one
//! line of JSON: the times of each round in milliseconds, and how many answers were passes.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that stops at the first thing that is wrong"
)]

use std::{fs, time::Instant};

use serde_json::{json, value::RawValue};
use sluicegate_policy::rego::{EvaluationLimits, Policies, SourceFile, is_test};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, data, facts, rounds] = arguments.as_slice() else { panic!("POLICIES DATA FACTS ROUNDS") };
    let file = |path: &str| SourceFile { name: path.to_owned(), text: fs::read_to_string(path).unwrap() };
    let mut paths: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().display().to_string())
        .filter(|path| path.ends_with(".rego") && !is_test(path))
        .collect();
    paths.sort();
    let policies: Vec<SourceFile> = paths.iter().map(|path| file(path)).collect();
    let limits = EvaluationLimits { milliseconds: 60_000, ..EvaluationLimits::default() };
    let started = Instant::now();
    let mut policies = Policies::new(&policies, &[file(data)], &limits).unwrap();
    let load = started.elapsed().as_secs_f64() * 1e3;
    let text = RawValue::from_string(fs::read_to_string(facts).unwrap()).unwrap();
    let (mut whole, mut asked, mut passes) = (Vec::new(), Vec::new(), 0);
    // One more, that warms up and is not counted.
    for round in 0..=rounds.parse::<usize>().unwrap() {
        let started = Instant::now();
        let facts = policies.facts(&text).unwrap();
        let read = Instant::now();
        let results = policies.ask(&facts).unwrap();
        let done = Instant::now();
        passes = results.answers.iter().filter(|answer| answer.says().word() == "pass").count();
        if round > 0 {
            whole.push((done - started).as_secs_f64() * 1e3);
            asked.push((done - read).as_secs_f64() * 1e3);
        }
    }
    println!("{}", json!({"load": load, "whole": whole, "asked": asked, "passes": passes}));
}
