//! `cargo xtask`; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    match xtask::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            #[allow(clippy::print_stderr, reason = "the one place where this program says why it failed")]
            {
                eprintln!("xtask: {failure}");
            }
            ExitCode::FAILURE
        }
    }
}
