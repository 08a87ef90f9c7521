//! What a `not` stands on. Rego takes out of a negation what a call in it is given: where `component.purl` is undefined, `not banned(component.purl)`
//! does not hold. The engine leaves it inside, and the negation of an undefined call is true (regorus 0.14.1): a rule would pass because of what
//! is missing. So each negation is given a statement before it that holds only where all of that is defined. As in OPA, a variable that
//! has its values from a negation alone is an error: it would mean "some" in one place and "none" in the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use regorus::unstable::{Expr, Literal, Module, Ref, Span};

use crate::{
    call_graph::{each_statement, head_parts, head_reference, inside, static_path},
    definedness::{GUARD, Piece, Token, tokens, written},
    policy_error::{Place, PolicyError},
};

/// What has to be put in before negations: where, and what.
pub(crate) type Guards = BTreeMap<usize, Vec<Piece>>;

/// The statements that negations of a file need, by the place of their `not`. A negation that can't be taken apart is an error.
pub(crate) fn guards(module: &Module) -> Result<Guards, PolicyError> {
    let mut guards = Guards::new();
    let mut unread = None;
    for rule in &module.policy {
        each_statement(rule, &mut |statement| {
            let Literal::NotExpr { span, .. } = &statement.literal else { return };
            let (start, text) = (span.start as usize, written(span));
            let Some(tokens) = tokens(text) else {
                unread.get_or_insert(PolicyError::Syntax {
                    place: place_of(span),
                    reason: "what is negated is too long: give it a name before".to_owned(),
                });
                return;
            };
            let negated = tokens.get(1..).unwrap_or_default();
            let mut needed = Vec::new();
            operands(negated, &mut needed);
            if needed.is_empty() {
                return;
            }
            let mut pieces = vec![Piece::Ours(format!("{GUARD}{} := [", guards.len()))];
            for range in needed {
                pieces.push(Piece::Original(start + range.start..start + range.end));
                pieces.push(Piece::Ours(", ".to_owned()));
            }
            pieces.pop();
            pieces.push(Piece::Ours("]".to_owned()));
            // In a test it stands under the same replacements.
            let (end, all) = (start + text.len(), statement.span.start as usize + written(&statement.span).len());
            if end < all {
                pieces.push(Piece::Original(end..all));
            }
            pieces.push(Piece::Ours("; ".to_owned()));
            guards.insert(start, pieces);
        });
    }
    unread.map_or(Ok(guards), Err)
}

/// Where in a negated text all has to be defined for the negation to be asked at all.
fn operands(tokens: &[Token<'_>], needed: &mut Vec<Range<usize>>) {
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { return };
    if first.text == "(" && closing(tokens, 0) == Some(tokens.len() - 1) {
        return operands(&tokens[1..tokens.len() - 1], needed);
    }
    if let Some((at, is_equality)) = weakest_operator(tokens) {
        for side in [&tokens[..at], &tokens[at + 1..]] {
            // Two references are compared inside: of a missing one nobody says that it is equal.
            if is_equality && is_reference(side) {
                operands(side, needed);
            } else if let (Some(first), Some(last)) = (side.first(), side.last()) {
                needed.push(first.range.start..last.range.end);
            }
        }
        return;
    }
    if !is_name(first) {
        // A value that is written out, with or without a path into it.
        if tokens.len() > 1 {
            needed.push(first.range.start..last.range.end);
        }
        return;
    }
    let mut at = 1;
    while let Some(token) = tokens.get(at) {
        let end = match token.text {
            "(" | "[" => closing(tokens, at),
            _ => Some(at),
        };
        let Some(end) = end else { return };
        let inner = &tokens[(at + 1).min(end)..end];
        if let (Some(from), Some(to)) = (inner.first(), inner.last()) {
            let is_call = token.text == "(";
            if is_call || inner.len() > 1 {
                needed.push(from.range.start..to.range.end);
            }
            // What a path leads on from.
            if is_call && end + 1 < tokens.len() {
                needed.push(first.range.start..tokens[end].range.end);
            }
        }
        at = end + 1;
    }
}

/// Names, dots and brackets, or one word: what may be undefined without anything being wrong.
fn is_reference(tokens: &[Token<'_>]) -> bool {
    let Some((first, mut rest)) = tokens.split_first() else { return false };
    if rest.is_empty() {
        return true;
    }
    if !is_name(first) {
        return false;
    }
    while let Some(token) = rest.first() {
        rest = match token.text {
            "." => rest.get(2..).unwrap_or_default(),
            "[" => match closing(rest, 0) {
                Some(end) => &rest[end + 1..],
                None => return false,
            },
            _ => return false,
        };
    }
    true
}

fn is_name(token: &Token<'_>) -> bool {
    token.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The bracket that closes the one at `at`.
fn closing(tokens: &[Token<'_>], at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

/// The operator outside of all brackets that binds least, and whether it says that two things are equal.
fn weakest_operator(tokens: &[Token<'_>]) -> Option<(usize, bool)> {
    const LEVELS: [&[&str]; 7] =
        [&[":=", "="], &["in"], &["==", "!=", "<", ">", "<=", ">="], &["|"], &["&"], &["+", "-"], &["*", "/", "%"]];
    let mut depth = 0_usize;
    let mut weakest: Option<(usize, usize)> = None;
    for (index, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            // A sign is no operator.
            text if depth == 0 && index > 0 => {
                let level = LEVELS.iter().position(|operators| operators.contains(&text));
                if let Some(level) = level
                    && weakest.is_none_or(|(found, _)| level <= found)
                {
                    weakest = Some((level, index));
                }
            }
            _ => {}
        }
    }
    weakest.map(|(_, index)| (index, matches!(tokens[index].text, "==" | "=" | ":=")))
}

/// Variables of negations that have their values from nowhere else, each with its place.
pub(crate) fn unsafe_variables(modules: &[Ref<Module>]) -> Vec<PolicyError> {
    let mut globals: BTreeMap<Vec<String>, BTreeSet<String>> = BTreeMap::new();
    for module in modules {
        let names = globals.entry(static_path(&module.package.refr)).or_default();
        names.extend(module.policy.iter().filter_map(|rule| static_path(head_reference(rule)).into_iter().next()));
    }
    let mut found = Vec::new();
    for module in modules {
        let mut known: BTreeSet<String> = ["input", "data"].map(str::to_owned).into();
        known.extend(globals.get(&static_path(&module.package.refr)).into_iter().flatten().cloned());
        known.extend(module.imports.iter().filter_map(|import| match &import.r#as {
            Some(alias) => Some(alias.text().to_owned()),
            None => static_path(&import.refr).pop(),
        }));
        for rule in &module.policy {
            let (mut bound, mut negated) = (Vec::new(), Vec::new());
            let mut head = Vec::new();
            head_parts(rule, &mut head);
            head.into_iter().for_each(|part| variables(part, &mut bound));
            each_statement(rule, &mut |statement| match &statement.literal {
                Literal::NotExpr { expr, .. } => variables(expr, &mut negated),
                Literal::SomeVars { .. } => {}
                Literal::Every { key, value, domain, .. } => {
                    bound.extend(key.iter().chain([value]));
                    variables(domain, &mut bound);
                }
                Literal::SomeIn { key, value, collection, .. } => {
                    key.iter().chain([value, collection]).for_each(|part| variables(part, &mut bound));
                }
                Literal::Expr { expr, .. } => variables(expr, &mut bound),
            });
            let bound: BTreeSet<&str> = bound.into_iter().map(Span::text).collect();
            for span in negated {
                let name = span.text();
                if name == "_" || !(bound.contains(name) || known.contains(name)) {
                    found.push(PolicyError::UnsafeVariable { place: place_of(span), variable: name.to_owned() });
                }
            }
        }
    }
    found
}

fn place_of(span: &Span) -> Place {
    Place { file: span.source.file().to_string(), line: span.line.into(), column: span.col.into() }
}

/// The variables of an expression; comprehensions have their own.
fn variables<'a>(expression: &'a Expr, found: &mut Vec<&'a Span>) {
    let mut expressions = vec![expression];
    while let Some(expression) = expressions.pop() {
        match expression {
            Expr::Var { span, .. } => found.push(span),
            Expr::RefDot { refr, .. } => expressions.push(refr),
            Expr::RefBrack { refr, index, .. } => expressions.extend([refr.as_ref(), index.as_ref()]),
            // The name of a function is none.
            Expr::Call { params, .. } => expressions.extend(params.iter().map(AsRef::as_ref)),
            Expr::ArrayCompr { .. } | Expr::SetCompr { .. } | Expr::ObjectCompr { .. } => {}
            other => inside(other, &mut expressions, &mut Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        limited_engine::LimitedEngine,
        policy_error::PolicyError,
        rego::{EvaluationLimits, SourceFile},
    };

    fn holds(clauses: &str) -> Result<bool, PolicyError> {
        let file = SourceFile { name: "p.rego".into(), text: format!("package p\n{clauses}\n{FUNCTIONS}") };
        let limits = EvaluationLimits::default();
        let mut engine = LimitedEngine::new(&[&file], &limits)?;
        engine.set_input(INPUT, &limits)?;
        Ok(engine.ask("data.p.k", &limits)?.is_some())
    }

    const INPUT: &str = r#"{"l":[{"n":"a","d":"1"},{"n":"b"},{"n":"c","d":"3"}]}"#;

    const FUNCTIONS: &str =
        "f(x) if x == 1\ng(x) := x\nh(x) := y if { x == 2; y := 3 }\npair(x, y) if x == y\nr := input.zz\n";

    /// What OPA 1.22.2 says of each.
    #[test]
    fn a_negation_of_what_is_given_nothing_does_not_hold() {
        for clause in [
            "k if not f(input.zz)",
            "k if not startswith(input.zz, \"a\")",
            "k if not input.zz < 1",
            "k if not \"a\" < input.zz",
            "k if not input.zz in [1]",
            "k if not \"a\" in input.zz",
            "k if not f(g(input.zz))",
            "k if not g(input.zz) == 1",
            "k if not count(input.zz) == 0",
            "k if not count(input.zz) > 0",
            "k if { x := input.l[0]; not f([x.zz]) }",
            "k if not pair({\"a\": input.zz}, 1)",
            "k if not input.zz.a[input.yy]",
            "k if not input.l[input.yy]",
            "k if not f(r)",
            "k if not data.p.f(data.p.r)",
            "k if not startswith(lower(input.zz), \"a\")",
            "k if not input.n + 1 == 2",
            "k if not {input.zz} == {1}",
            "k if not [input.zz] == [1]",
            "k if not {\"a\": input.zz}.a == 1",
            "k if not f(h(1))",
            "k if not regex.match(\"a\", input.zz)",
            "k if { x := input.l[0]; not x.zz in {1} }",
            "k if { some x in input.l; x.n == \"b\"; not pair(x.d, x.n) }",
            "k if not ({1} - {input.zz} == set())",
            "k if not input[lower(input.zz)] == 1",
            "k if not h(1) == 2",
            "k if count([x | some x in input.l; not f(x.zz)]) > 0",
            "k if every x in input.l { not f(x.d) }",
            "k := 1 if not f(input.zz) else := 2 if not f(input.yy)",
            "k if {\n\tnot f(\n\t\tinput.zz, # nothing\n\t)\n}",
        ] {
            assert!(!holds(clause).unwrap_or_else(|error| panic!("{clause}: {error}")), "{clause}");
        }
    }

    #[test]
    fn a_negation_of_many_lines_is_no_other_one() {
        let lines = "\n".repeat(30_000);
        assert!(!holds(&format!("k if not f({lines}input.zz)")).unwrap());
        assert!(holds(&format!("k if not f({lines}input.l)")).unwrap());
    }

    #[test]
    fn a_negation_of_what_is_undefined_itself_holds() {
        for clause in [
            "k if not input.zz",
            "k if not input.zz == 1",
            "k if not (input.zz == 1)",
            "k if not input.zz = 1",
            "k if not input[\"zz\"] == 1",
            "k if not input.l[0].zz == input.l[1].zz",
            "k if not f(input.l)",
            "k if not f(2)",
            "k if not h(1)",
            "k if not data.p.zz.yy",
            "k if not every_one\nevery_one if every x in input.zz { x }",
            "k if not [x | x := input.zz] == [1]",
            "k if { x := 1; y := 2; not x == y }",
            "k if { some i; input.l[i]; not input.l[i].zz }",
            "k if not pair(\"}\", input.l)",
            "k if { some x in input.l; not x.d in {\"1\"} }",
            "k if { some x in input.l; not pair(x.n, \"a\") }",
            "k if not g([false])[0]",
            "k if not f(-1)",
            "k := 1 if not f(1) else := 2 if not f(input.l)",
        ] {
            assert!(holds(clause).unwrap(), "{clause}");
        }
    }

    #[test]
    fn a_variable_of_a_negation_alone_is_refused() {
        for (clause, variable) in [
            ("k if not input.l[_].zz", "_"),
            ("k if not f(input.l[_].n)", "_"),
            ("k if not input.l[i].n == \"q\"", "i"),
            ("k if { x := [1, 2][_]; not x in [input.l[_].n] }", "_"),
            ("k if not pair(x, 1)", "x"),
        ] {
            let error = holds(clause).unwrap_err();
            assert!(
                matches!(&error, PolicyError::UnsafeVariable { variable: named, .. } if named == variable),
                "{clause}: {error}"
            );
        }
        assert!(holds("k if not count([x | some x in input.l]) == 4").unwrap());
    }
}
