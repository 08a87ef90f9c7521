//! Refuses expressions so long, or brackets so deep, that the engine would overflow its stack over their syntax tree: it parses
//! `1+1+1+…`, `a.b.b.b…` and bodies of `every` in each other without a limit, and a stack overflow ends the process.
//!
//! This is a look at the tokens alone, before anything is parsed. Where an expression surely ends, the count begins anew: at a
//! comma, at a semicolon, and where a term is followed by a word on a new line, since no two terms stand side by side in Rego.

use std::num::{NonZeroU32, NonZeroUsize};

use regorus::unstable::{Lexer, Source, Token, TokenKind};

use crate::policy_error::{Place, PolicyError};

/// Tokens of one expression on one level of brackets.
const TOKENS: u64 = 2_000;

/// Brackets open at once.
const BRACKETS: u64 = 64;

/// Words that join what stands before and after them, or expect something after them.
const JOINING: [&str; 10] = ["as", "contains", "else", "every", "if", "in", "not", "some", "with", "default"];

/// Looks at `text`. What is no Rego at all is left to the parser, which says so better.
pub(crate) fn check(file: &str, text: &str) -> Result<(), PolicyError> {
    // The file's own size and lines are limited elsewhere; a limit here would leave a long file unseen.
    let limit = NonZeroUsize::MAX;
    let Ok(source) = Source::from_contents_with_limits(file.to_owned(), text.to_owned(), limit, limit) else {
        return Ok(());
    };
    let mut lexer = Lexer::new(&source);
    lexer.set_max_col(NonZeroU32::MAX);
    let mut levels = vec![0_u64];
    let mut before: Option<Token> = None;
    while let Ok(token) = lexer.next_token() {
        let Token(kind, span) = &token;
        if *kind == TokenKind::Eof {
            break;
        }
        let place = || Place { file: file.to_owned(), line: span.line.into(), column: span.col.into() };
        let symbol = if *kind == TokenKind::Symbol { span.text() } else { "" };
        if matches!(symbol, ")" | "]" | "}") && levels.len() > 1 {
            levels.pop();
        }
        if let Some(count) = levels.last_mut() {
            let ends = matches!(symbol, "," | ";") || before.as_ref().is_some_and(|before| begins_anew(before, &token));
            *count = if ends { 0 } else { *count + 1 };
            if *count > TOKENS {
                return Err(PolicyError::TooLong { place: place(), limit: TOKENS });
            }
        }
        if matches!(symbol, "(" | "[" | "{") {
            levels.push(0);
            if levels.len() as u64 > BRACKETS {
                return Err(PolicyError::TooDeep { place: place(), what: "brackets".to_owned(), limit: BRACKETS });
            }
        }
        before = Some(token);
    }
    Ok(())
}

/// Whether `next` can't belong to the expression that `before` is part of.
fn begins_anew(Token(before_kind, before): &Token, Token(kind, next): &Token) -> bool {
    let ends_a_term = match before_kind {
        TokenKind::String | TokenKind::RawString | TokenKind::Number => true,
        TokenKind::Ident => !JOINING.contains(&before.text()),
        TokenKind::Symbol => matches!(before.text(), ")" | "]" | "}"),
        _ => false,
    };
    let is_word = *kind == TokenKind::Ident
        && (!JOINING.contains(&next.text()) || ["every", "not", "some", "default"].contains(&next.text()));
    ends_a_term && is_word && next.line > before.line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_chains_and_deep_brackets_are_refused_before_they_are_parsed() {
        for (first, link) in [
            ("x := 1", "+1"),
            ("x := 1", "\n+ 1"),
            ("x := y", " +\ny"),
            ("x := {1}", " & {1}"),
            ("x if 1", " == 1"),
            ("x := a", ".b"),
            ("x := a", "[1]"),
            ("x", ".b"),
            ("x := ", "-"),
            ("x if 1 == 1", " with input as 1"),
            ("x if 1 == 1", "\nwith input\nas y"),
            ("x if y", " in y"),
        ] {
            let text = |count: usize| format!("package a\n{first}{}", link.repeat(count));
            assert_eq!(check("a.rego", &text(200)), Ok(()), "{link}");
            assert!(matches!(check("a.rego", &text(3_000)), Err(PolicyError::TooLong { .. })), "{link}");
        }
        let long = format!("package a\n{}x := 1{}", "\n".repeat(30_000), "+1".repeat(3_000));
        assert!(matches!(check("a.rego", &long), Err(PolicyError::TooLong { .. })), "in a file of many lines");
        for link in ["every y in [1] { ", "[", "f(", "{"] {
            let text = |count: usize| format!("package a\nx if {}", link.repeat(count));
            assert_eq!(check("a.rego", &text(60)), Ok(()), "{link}");
            assert!(matches!(check("a.rego", &text(65)), Err(PolicyError::TooDeep { .. })), "{link}");
        }
    }

    #[test]
    fn long_files_lists_and_bodies_are_fine() {
        let rules: String = (0..10_000).map(|i| format!("r{i} := {i}\n\ndefault f{i}(_) := false\n\n")).collect();
        assert_eq!(check("a.rego", &format!("package a\n{rules}")), Ok(()));
        assert_eq!(check("a.rego", &format!("package a\nx := [{}]", "{\"a\": 1}, ".repeat(10_000))), Ok(()));
        let body = "\tsome y in input.x\n\tnot y.z\n\ty.w == \"a\"\n".repeat(5_000);
        assert_eq!(check("a.rego", &format!("package a\nx if {{\n{body}}}")), Ok(()));
        assert_eq!(check("a.rego", "\u{1}"), Ok(()));
    }
}
