//! What tests that ask OPA too have in common.

use std::{
    env,
    io::{self, Write},
    path::PathBuf,
};

/// The same numbers each time (Marsaglia, Xorshift RNGs, 2003).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    pub(crate) fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// OPA itself, where the environment names it.
pub(crate) fn opa() -> Option<PathBuf> {
    let found = env::var_os("SLUICEGATE_OPA").map(PathBuf::from);
    if found.is_none() {
        assert!(
            env::var_os("SLUICEGATE_REQUIRE_PEERS").is_none(),
            "SLUICEGATE_OPA names no opa, and peers are demanded"
        );
        // Straight to standard error, because the harness hides what a passing test prints.
        let line = "skipped: SLUICEGATE_OPA does not name an opa program, so nothing was compared with it\n";
        io::stderr().write_all(line.as_bytes()).unwrap();
    }
    found
}
