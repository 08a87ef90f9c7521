//! The passphrase of the home's keys: `COSIGN_PASSWORD`, else asked for at the terminal.

use std::io::IsTerminal;

use sluicegate_types::Secret;

use crate::words::Problem;

/// The passphrase. An empty `COSIGN_PASSWORD` is an empty passphrase, as cosign has it.
pub(crate) fn ask(new: bool) -> Result<Secret, Problem> {
    if let Some(value) = std::env::var_os("COSIGN_PASSWORD") {
        return Ok(Secret::new(value.into_encoded_bytes()));
    }
    let nobody = || {
        Problem::usage(
            "the keys need a passphrase and there is nobody to ask",
            "set COSIGN_PASSWORD, or run this at a terminal",
        )
    };
    if !std::io::stdin().is_terminal() {
        return Err(nobody());
    }
    let prompt =
        |text: &str| rpassword::prompt_password(text).map(|t| Secret::new(t.into_bytes())).map_err(|_| nobody());
    let first = prompt("Passphrase of the keys: ")?;
    if new && prompt("Once more: ")? != first {
        return Err(Problem::usage("the two passphrases differ", "run this again"));
    }
    Ok(first)
}
