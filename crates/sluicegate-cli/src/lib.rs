#![forbid(unsafe_code)]
//! The command line: arguments, wiring, words and exit codes. Only this crate prints, exits and reads the environment.

mod amounts;
mod arguments;
mod broken_off;
mod commands;
mod gateway_folder;
mod home;
mod interrupts;
mod outbound_environment;
mod passphrase;
mod policy_child;
mod policy_files;
mod progress;
mod registry_environment;
mod report;
mod wire;
mod words;

use std::process::ExitCode;

use clap::Parser;
use sluicegate_ports::Clock;
use sluicegate_types::UnixTime;

use crate::{
    arguments::{Arguments, Command, Format},
    wire::SystemClock,
    words::{Problem, Words},
};

/// Runs the program: parses the command line, does what it says, prints, and returns the exit code of DESIGN section 3.
pub fn main() -> ExitCode {
    if policy_child::is_asked() {
        return policy_child::serve();
    }
    let words = Words::from_environment(std::env::args_os());
    broken_off::listen();
    words::or_unwritten(
        broken_off::guarded(|| asked(words)).unwrap_or_else(|problem| Words::of_this_process().problem(&problem)),
    )
}

fn asked(words: Words) -> ExitCode {
    if let Some(word) = arguments::reserved_command(std::env::args_os()) {
        return words
            .problem(&Problem::usage(format!("sluicegate {word}: not in this version"), "see sluicegate --help"));
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return words.arguments(&error),
    };
    let words = words.with(&arguments);
    if !matches!(arguments.format, Format::Table | Format::Json) && !arguments.command.reports_rules() {
        let text = "this form of result is for reports about rules: promote, and policy check, test, eval and diff";
        return words.problem(&Problem::usage(text, "write -o json for a program"));
    }
    // Libraries below panic on what is later, and every statement would bear this moment.
    if SystemClock.now() >= UnixTime::LAST {
        let problem =
            Problem::usage(format!("the clock is at or behind {}", UnixTime::LAST), "set the clock of this machine");
        return words.problem(&problem);
    }
    let done = match arguments.command {
        Command::Init(init) => commands::init::init(&words, &init),
        Command::Image(image) => commands::image::image(&words, &image),
        Command::Run(run) => commands::run::run(&words, &run),
        Command::Plan(plan) => commands::plan::plan(&words, &plan),
        Command::Explain(explain) => commands::plan::explain(&words, &explain),
        Command::Try(try_step) => commands::try_step::try_step(&words, &try_step),
        Command::Shell(shell) => commands::try_step::shell(&words, &shell),
        Command::Logs(logs) => commands::logs::logs(&words, &logs),
        Command::Promote(promote) => commands::promote::promote(&words, &promote, arguments.format),
        Command::Policy(policy) => commands::policy::policy(&words, &policy, arguments.format),
        Command::Verify(verify) => commands::verify::verify(&words, &verify),
        Command::Copy(copy) => commands::copy::copy(&words, &copy),
        Command::Doctor(doctor) => commands::doctor::doctor(&words, &doctor),
        Command::Attest(attest) => commands::attest::attest(&words, &attest),
        Command::Keys(keys) => commands::keys::keys(&words, &keys),
        Command::Evidence(evidence) => commands::evidence::evidence(&words, &evidence),
        Command::Log(log) => commands::log::log(&words, &log),
        Command::Completion(completion) => commands::completion::completion(&words, &completion),
        Command::Prune(prune) => commands::prune::prune(&words, &prune),
        Command::Trust(trust) => commands::trust::trust(&words, &trust),
    };
    match done {
        Ok(code) => code,
        Err(problem) => words.problem(&problem),
    }
}
