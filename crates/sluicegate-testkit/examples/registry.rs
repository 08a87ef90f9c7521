#![allow(clippy::print_stdout, reason = "this program is for a terminal")]
//! The registry of the tests by itself, to try other programs against it:
//! `cargo run -p sluicegate-testkit --example registry -- auth,uses=4`.
//!
//! It prints its address, serves until its input ends, and then prints what it was asked.

use std::{io::Read, process::ExitCode};

use sluicegate_testkit::{Behaviour, TestRegistry};

fn main() -> ExitCode {
    let words = std::env::args().skip(1).collect::<Vec<_>>().join(",");
    let behaviour = match words.parse::<Behaviour>() {
        Ok(behaviour) => behaviour,
        Err(reason) => {
            println!("{reason}");
            return ExitCode::from(2);
        }
    };
    let registry = TestRegistry::start(behaviour);
    println!("{}", registry.host());
    let ended = std::io::stdin().read_to_end(&mut Vec::new());
    for request in registry.log() {
        let auth = if request.had_authorization { "auth" } else { "-" };
        println!("{} {} {} {auth} {}", request.status, request.method, request.path_and_query, request.body_bytes);
    }
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
