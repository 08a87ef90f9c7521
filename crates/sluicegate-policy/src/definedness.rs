//! Gives clauses another form where the engine means something else by "undefined" than Rego does.
//!
//! In `deny contains s.msg if some s in input.list` Rego leaves out an element of which nothing is defined; the engine forgets every element
//! that the clause gave before, or ends with an error (regorus 0.14.1, `eval_output_expr_in_loop`): a denial would be lost because of another
//! one's missing field. What is written there moves into the body, where the engine does as Rego does:
//! `deny contains v if { some s in input.list; v := s.msg }`. The same holds for keys and values of objects and for rules of one value. Of a
//! function whose value is undefined Rego asks what stands after `else`; the engine does so only where the body does not hold. What negations need
//! is put before them (`negations`).

use std::{
    num::{NonZeroU32, NonZeroUsize},
    ops::Range,
};

use regorus::unstable::{Expr, Lexer, Module, Rule, RuleAssign, RuleBody, RuleHead, Source, Span, TokenKind};

use crate::{
    call_graph::{head_reference, place},
    negations::{self, Guards},
    policy_error::{Place, PolicyError},
};

/// How what is put in is called; no policy has names of its own that begin so.
const HEAD: &str = "sluicegate_head_";
pub(crate) const GUARD: &str = "sluicegate_defined_";

/// How many times as long as it was a file may become: negations in what negations are given are written twice each.
const GROWTH: usize = 8;

/// A file as the engine is given it.
pub(crate) struct Rewritten {
    pub(crate) text: String,
    /// For each of its lines the one that it was in the file.
    lines: Vec<u32>,
}

impl Rewritten {
    /// The line of the file that `line` of the text was.
    pub(crate) fn original_line(&self, line: u32) -> u32 {
        let index = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
        self.lines.get(index).copied().unwrap_or(line)
    }
}

/// The file in the form in which the engine means what Rego means; nothing if it is that already. A clause that can't be taken apart is an
/// error, and so is a name that is ours.
pub(crate) fn rewrite(file: &str, text: &str, module: &Module) -> Result<Option<Rewritten>, PolicyError> {
    refuse_our_names(file, text)?;
    let guards = negations::guards(module)?;
    let mut out = Pieces::of(text, &guards);
    let mut done = 0;
    for rule in &module.policy {
        let Rule::Spec { span, head, bodies } = &**rule else { continue };
        let moves = match head {
            RuleHead::Func { assign, .. } => {
                bodies.iter().any(|body| body.is_else) && values_of(assign.as_ref(), bodies).any(is_open)
            }
            RuleHead::Set { refr, key, .. } => {
                // Under a key that is a name the engine makes a set before it knows whether anything is in it.
                has_index(refr, &|index| !is_scalar(index)) || key.as_ref().is_some_and(|key| is_open(key))
            }
            RuleHead::Compr { refr, assign, .. } => {
                has_index(refr, &is_open) || values_of(assign.as_ref(), bodies).any(is_open)
            }
        };
        let (start, written) = (span.start as usize, written(span));
        if !moves && guards.range(start..start + written.len()).next().is_none() {
            continue;
        }
        let blocks = bodies.iter().map(|body| {
            let query = &body.query;
            // A body without braces has one statement, and begins with it.
            query.stmts.first().is_some_and(|first| first.span.start > query.span.start)
        });
        let clause = Clause::read(start, written, blocks.collect(), moves).ok_or_else(|| PolicyError::Syntax {
            place: place(head_reference(rule)),
            reason: "the value in its head may be undefined: give it a name in the body, and the name in the head"
                .to_owned(),
        })?;
        out.keep(done..start);
        clause.write(&mut out);
        done = clause.end;
        if out.is_full() {
            return Err(PolicyError::TooDeep {
                place: place(head_reference(rule)),
                what: "negations".to_owned(),
                limit: GROWTH as u64,
            });
        }
    }
    if done == 0 {
        return Ok(None);
    }
    out.keep(done..text.len());
    Ok(Some(Rewritten { text: out.text, lines: out.lines }))
}

/// A rule or a variable with a name that is put in would be taken for what is put in.
fn refuse_our_names(file: &str, text: &str) -> Result<(), PolicyError> {
    let is_ours = |word: &str| word.starts_with(HEAD) || word.starts_with(GUARD);
    if !text.contains(HEAD) && !text.contains(GUARD) {
        return Ok(());
    }
    let Some(named) = tokens(text).into_iter().flatten().find(|token| is_ours(token.text)) else { return Ok(()) };
    let before = text.get(..named.range.start).unwrap_or_default();
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let (line, column) = (before.matches('\n').count() + 1, column);
    Err(PolicyError::Syntax {
        place: Place { file: file.to_owned(), line: line as u64, column: column as u64 },
        reason: format!("names that begin with {HEAD} or {GUARD} are the program's own: use another"),
    })
}

/// What a rule says in its head and after each `else`.
fn values_of<'a>(head: Option<&'a RuleAssign>, bodies: &'a [RuleBody]) -> impl Iterator<Item = &'a Expr> {
    head.into_iter().chain(bodies.iter().filter_map(|body| body.assign.as_ref())).map(|assign| assign.value.as_ref())
}

/// The text of a rule or a statement; the engine's span ends before the quote of a string that is last.
pub(crate) fn written(span: &Span) -> &str {
    let text = span.source.contents();
    let (start, end) = (span.start as usize, span.end as usize);
    let rest = text.get(end..).unwrap_or_default();
    let quote = usize::from(rest.starts_with(['"', '`']) && is_open_string(text.get(start..end).unwrap_or_default()));
    text.get(start..end + quote).unwrap_or_default()
}

/// Whether a string that begins in `text` does not end there.
fn is_open_string(text: &str) -> bool {
    tokens(text).is_none()
}

/// Whether what `expression` is in one round of a loop may be undefined, and in another not.
fn is_open(expression: &Expr) -> bool {
    match expression {
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. }
        | Expr::Var { .. }
        | Expr::ArrayCompr { .. }
        | Expr::SetCompr { .. }
        | Expr::ObjectCompr { .. } => false,
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().any(|item| is_open(item)),
        Expr::Object { fields, .. } => fields.iter().any(|(_, key, value)| is_open(key) || is_open(value)),
        Expr::RefDot { refr, .. } => !is_of_a_document(refr),
        Expr::RefBrack { refr, index, .. } => !is_of_a_document(refr) || !is_scalar(index),
        _ => true,
    }
}

/// Whether it is a path of input or data that is the same in each round.
fn is_of_a_document(reference: &Expr) -> bool {
    match reference {
        Expr::Var { span, .. } => matches!(span.text(), "input" | "data"),
        Expr::RefDot { refr, .. } => is_of_a_document(refr),
        Expr::RefBrack { refr, index, .. } => is_of_a_document(refr) && is_scalar(index),
        _ => false,
    }
}

fn is_scalar(expression: &Expr) -> bool {
    matches!(
        expression,
        Expr::String { .. } | Expr::RawString { .. } | Expr::Number { .. } | Expr::Bool { .. } | Expr::Null { .. }
    )
}

/// Whether a rule's reference has a key in brackets that is such a one.
fn has_index(reference: &Expr, is_such: &dyn Fn(&Expr) -> bool) -> bool {
    match reference {
        Expr::RefBrack { refr, index, .. } => is_such(index) || has_index(refr, is_such),
        Expr::RefDot { refr, .. } => has_index(refr, is_such),
        _ => false,
    }
}

/// Where the parts of a clause stand, in bytes of the file.
struct Clause {
    start: usize,
    end: usize,
    /// What stands in the brackets of its reference.
    keys: Vec<Range<usize>>,
    /// Where the reference of a set ends.
    set: Option<usize>,
    /// Each value, that of the head and those after `else`.
    values: Vec<Option<Range<usize>>>,
    bodies: Vec<Body>,
    /// Whether keys and values move.
    moves: bool,
}

/// A body without `if` and, if it is a block, without its braces.
struct Body {
    /// From `if` to the end of what follows.
    whole: Range<usize>,
    inside: Range<usize>,
}

impl Clause {
    /// Reads a clause that begins at `start` of the file. Nothing if its tokens do not make a clause.
    fn read(start: usize, text: &str, blocks: Vec<bool>, moves: bool) -> Option<Self> {
        let tokens = tokens(text)?;
        let (keys, bodies) = (Vec::new(), Vec::new());
        let mut clause = Self { start, end: start + text.len(), keys, set: None, values: vec![None], bodies, moves };
        let mut part = Part::Reference;
        let (mut depth, mut began) = (0_usize, start);
        let mut blocks = blocks.into_iter();
        let mut index = 0;
        while let Some(Token { text, range }) = tokens.get(index) {
            match *text {
                "[" | "{" | "(" => {
                    if depth == 0 {
                        began = if part == Part::Reference { start + range.end } else { began };
                    }
                    depth += 1;
                }
                "]" | "}" | ")" => {
                    depth = depth.checked_sub(1)?;
                    let is_key = depth == 0 && part == Part::Reference && *text == "]";
                    // One that is written out stays.
                    if is_key
                        && !tokens.get(index.checked_sub(1)?).is_some_and(|token| token.is_written_out(&tokens, index))
                    {
                        clause.keys.push(began..start + range.start);
                    }
                }
                "contains" | ":=" | "=" if depth == 0 && part == Part::Reference => {
                    clause.set = (*text == "contains").then_some(start + range.start);
                    (part, began) = (Part::Value, start + range.end);
                }
                "if" if depth == 0 && part != Part::Body => {
                    if part == Part::Value {
                        *clause.values.last_mut()? = Some(began..start + range.start);
                    }
                    let (body, next) = body(start, &tokens, index, blocks.next()?)?;
                    clause.bodies.push(body);
                    part = Part::Body;
                    index = next;
                    continue;
                }
                "else" if depth == 0 && part == Part::Body => {
                    clause.values.push(None);
                    part = Part::Reference;
                }
                _ => {}
            }
            index += 1;
        }
        if part == Part::Value {
            *clause.values.last_mut()? = Some(began..clause.end);
        }
        Some(clause)
    }

    /// Writes it with every key and value in its bodies, if they move.
    fn write(&self, out: &mut Pieces<'_>) {
        let keys: &[_] = if self.moves { &self.keys } else { &[] };
        let mut at = self.start;
        for (number, key) in keys.iter().enumerate() {
            out.keep(at..key.start);
            out.put(&format!("{HEAD}{number}"));
            at = key.end;
        }
        for (number, value) in self.values.iter().enumerate() {
            let value = value.as_ref().filter(|_| self.moves);
            let name = format!("{HEAD}{}", keys.len() + number);
            if let Some(value) = value {
                out.keep(at..value.start);
                out.put(&format!(" {name} "));
                at = value.end;
            }
            match self.bodies.get(number) {
                Some(body) => {
                    out.keep(at..body.whole.start);
                    out.put("if {");
                    out.keep(body.inside.clone());
                    at = body.whole.end;
                }
                None if self.moves => out.put(" if { true"),
                None => break,
            }
            for (number, key) in keys.iter().enumerate() {
                out.put(&format!("; {HEAD}{number} := "));
                out.keep(key.clone());
            }
            if let Some(value) = value {
                out.put(&format!("; {name} := "));
                out.keep(value.clone());
            }
            out.put("}");
        }
        out.keep(at..self.end);
        if let Some(end) = self.set
            && !keys.is_empty()
        {
            self.write_nothing(end, keys, out);
        }
    }

    /// Sets under keys of which there are none are an empty object; the engine has no object then. A clause that adds nothing makes one.
    fn write_nothing(&self, end: usize, keys: &[Range<usize>], out: &mut Pieces<'_>) {
        out.new_line();
        let mut at = self.start;
        for (number, key) in keys.iter().enumerate() {
            out.keep(at..key.start);
            out.put(&format!("{HEAD}{number}"));
            at = key.end;
        }
        out.keep(at..end);
        out.put(":= true if { false");
        for number in 0..keys.len() {
            out.put(&format!("; {HEAD}{number} := 0"));
        }
        out.put(" }");
    }
}

#[derive(PartialEq, Eq)]
enum Part {
    Reference,
    Value,
    Body,
}

/// The body whose `if` is token `index`, and the first token after it.
fn body(start: usize, tokens: &[Token<'_>], index: usize, is_block: bool) -> Option<(Body, usize)> {
    let (mut depth, mut end) = (0_usize, index + 1);
    while let Some(token) = tokens.get(end) {
        match token.text {
            "[" | "{" | "(" => depth += 1,
            "]" | "}" | ")" => depth = depth.checked_sub(1)?,
            "else" if depth == 0 => break,
            _ => {}
        }
        end += 1;
        if is_block && depth == 0 {
            break;
        }
    }
    let (begin, last) = (&tokens.get(index)?.range, &tokens.get(end.checked_sub(1)?)?.range);
    let inside = if is_block { tokens.get(index + 1)?.range.end..last.start } else { begin.end..last.end };
    let within = |range: Range<usize>| start + range.start..start + range.end;
    Some((Body { whole: within(begin.start..last.end), inside: within(inside) }, end))
}

/// A word, a number or a symbol; a string has no text.
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    /// Where it stands, quotes included.
    pub(crate) range: Range<usize>,
}

impl Token<'_> {
    /// Whether it is a value that stands alone before the bracket at `closing`.
    fn is_written_out(&self, tokens: &[Token<'_>], closing: usize) -> bool {
        let alone = closing.checked_sub(2).and_then(|before| tokens.get(before)).is_some_and(|token| token.text == "[");
        let is_value =
            matches!(self.text, "" | "null" | "true" | "false") || self.text.starts_with(|c: char| c.is_ascii_digit());
        alone && is_value
    }
}

/// The tokens of a text; nothing if it is not made of tokens.
pub(crate) fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let source =
        Source::from_contents_with_limits(String::new(), text.to_owned(), NonZeroUsize::MAX, NonZeroUsize::MAX).ok()?;
    let mut lexer = Lexer::new(&source);
    lexer.set_max_col(NonZeroU32::MAX);
    let mut tokens = Vec::new();
    loop {
        let token = lexer.next_token().ok()?;
        let (start, end) = (token.1.start as usize, token.1.end as usize);
        tokens.push(match token.0 {
            TokenKind::Eof => return Some(tokens),
            TokenKind::String | TokenKind::RawString => Token { text: "", range: start.checked_sub(1)?..end + 1 },
            _ => Token { text: text.get(start..end)?, range: start..end },
        });
        // The engine takes `set(` for one word.
        if let Some(word @ Token { text: "set(", .. }) = tokens.last_mut() {
            *word = Token { text: "set", range: start..end - 1 };
            tokens.push(Token { text: "(", range: end - 1..end });
        }
    }
}

/// Part of what is put in.
pub(crate) enum Piece {
    Ours(String),
    /// What stands there in the file.
    Original(Range<usize>),
}

/// A text that is put together from pieces of a file and of our own.
struct Pieces<'a> {
    original: &'a str,
    guards: &'a Guards,
    /// Where the file's lines end.
    ends: Vec<usize>,
    text: String,
    lines: Vec<u32>,
}

impl<'a> Pieces<'a> {
    fn of(original: &'a str, guards: &'a Guards) -> Self {
        let ends = original.match_indices('\n').map(|(at, _)| at).collect();
        Self { original, guards, ends, text: String::with_capacity(original.len()), lines: vec![1] }
    }

    /// A piece of the file, with what its negations need.
    fn keep(&mut self, range: Range<usize>) {
        let guards = self.guards;
        let mut at = range.start;
        for (place, guard) in guards.range(range.clone()) {
            self.copy(at..*place);
            at = *place;
            for piece in guard {
                match piece {
                    Piece::Ours(text) => self.put(text),
                    Piece::Original(range) if !self.is_full() => self.keep(range.clone()),
                    Piece::Original(_) => {}
                }
            }
        }
        self.copy(at..range.end);
    }

    /// A piece of the file as it is.
    fn copy(&mut self, range: Range<usize>) {
        let mut line = u32::try_from(self.ends.partition_point(|end| *end < range.start) + 1).unwrap_or(u32::MAX);
        let piece = self.original.get(range).unwrap_or_default();
        if (self.text.is_empty() || self.text.ends_with('\n'))
            && let Some(last) = self.lines.last_mut()
        {
            *last = line;
        }
        for _ in piece.matches('\n') {
            line = line.saturating_add(1);
            self.lines.push(line);
        }
        self.text.push_str(piece);
    }

    /// A piece of ours, without a new line.
    fn put(&mut self, piece: &str) {
        self.text.push_str(piece);
    }

    /// A line of ours, which stands for the one before it.
    fn new_line(&mut self) {
        self.text.push('\n');
        self.lines.extend(self.lines.last().copied());
    }

    fn is_full(&self) -> bool {
        self.text.len() > self.original.len().saturating_mul(GROWTH).saturating_add(1 << 10)
    }
}

#[cfg(test)]
mod tests {
    use regorus::unstable::Parser;

    use super::*;
    use crate::{
        limited_engine::LimitedEngine,
        rego::{EvaluationLimits, SourceFile},
    };

    fn rewritten(text: &str) -> Option<Rewritten> {
        let text = format!("package p\n{text}");
        let source = Source::from_contents("p.rego".into(), text.clone()).unwrap();
        let mut parser = Parser::new(&source).unwrap();
        parser.enable_rego_v1().unwrap();
        rewrite("p.rego", &text, &parser.parse().unwrap()).unwrap()
    }

    #[test]
    fn what_may_be_undefined_moves_from_the_head_into_each_body() {
        for (clause, expected) in [
            (
                "d contains s.m if some s in input.l",
                "d contains sluicegate_head_0 if { some s in input.l; sluicegate_head_0 :=  s.m }",
            ),
            (
                "d contains {\"m\": s.m} if {\n  some s in input.l # all\n}",
                "d contains sluicegate_head_0 if {\n  some s in input.l # all\n; sluicegate_head_0 :=  {\"m\": s.m} }",
            ),
            ("d contains input.l[_].m", "d contains sluicegate_head_0  if { true; sluicegate_head_0 :=  input.l[_].m}"),
            (
                "d[s.n] := s.m if some s in input.l",
                "d[sluicegate_head_0] := sluicegate_head_1 if { some s in input.l; sluicegate_head_0 := s.n; sluicegate_head_1 :=  s.m }",
            ),
            (
                "d := s.m if [1] == [1] else := s.n if {x := \"if\"; x}",
                "d := sluicegate_head_0 if { [1] == [1]; sluicegate_head_0 :=  s.m } else := sluicegate_head_1 if {x := \"if\"; x; sluicegate_head_1 :=  s.n }",
            ),
            (
                "d contains s[\"}\"] if s == `{`",
                "d contains sluicegate_head_0 if { s == `{`; sluicegate_head_0 :=  s[\"}\"] }",
            ),
        ] {
            let found = rewritten(clause).unwrap();
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(words(&found.text), words(&format!("package p\n{expected}")), "{clause}");
        }
    }

    /// What OPA 1.22.2 says of each.
    #[test]
    fn what_is_undefined_in_one_round_takes_nothing_from_the_others() {
        for (clauses, expected) in [
            ("k contains s.d if { some s in input.l }", r#"["1","3"]"#),
            ("k contains {\"a\": s.d} if { s := input.l[_] }", r#"[{"a":"1"},{"a":"3"}]"#),
            ("k contains input.l[_].d", r#"["1","3"]"#),
            ("k contains input.l[i].d if i >= 0", r#"["1","3"]"#),
            ("k contains \"more\" if true\nk contains s.d if { some s in input.l }", r#"["1","3","more"]"#),
            ("k contains f(s) if some s in input.l\nf(s) := s.d", r#"["1","3"]"#),
            ("k[s.n] := s.d if some s in input.l", r#"{"a":"1","c":"3"}"#),
            ("k[s.d] := s.n if some s in input.l", r#"{"1":"a","3":"c"}"#),
            ("k[s.n] contains s.d if some s in input.l", r#"{"a":["1"],"c":["3"]}"#),
            ("k[s.n] contains s.x if some s in input.l", "{}"),
            ("k[\"a\"] contains s.x if some s in input.l", r#"{"a":[]}"#),
            ("k[name] contains s.x if some s in input.l\nname := \"a\"", "{}"),
            (
                "k[name] contains s.d if { some s in input.l; name := s.n }\nk.b contains 7 if input.l",
                r#"{"a":["1"],"b":[7],"c":["3"]}"#,
            ),
            ("k.a[s.n] := s.d if some s in input.l", r#"{"a":{"a":"1","c":"3"}}"#),
            ("k := s.d if { some s in input.l; not s.d == \"3\" }", r#""1""#),
            ("k := s.x if { some s in input.l } else := 7", "7"),
            ("default k := 8\nk := s.x if { some s in input.l }", "8"),
            ("k contains s.x if { some s in input.l }", "[]"),
            (
                "k contains e(s) if some s in input.l\ne(s) := s.d if s.n else := \"none\" if not s.d",
                r#"["1","3","none"]"#,
            ),
        ] {
            let file = SourceFile { name: "p.rego".into(), text: format!("package p\n{clauses}\n") };
            let limits = EvaluationLimits::default();
            let mut engine = LimitedEngine::new(&[&file], &limits).unwrap();
            let (with, without) = (r#"{"n":"a","d":"1"}"#, r#"{"n":"b"}"#);
            for list in [
                [without, with, r#"{"n":"c","d":"3"}"#],
                [with, without, r#"{"n":"c","d":"3"}"#],
                [with, r#"{"n":"c","d":"3"}"#, without],
            ] {
                engine.set_input(&format!("{{\"l\":[{}]}}", list.join(",")), &limits).unwrap();
                let said = engine.ask("data.p.k", &limits).unwrap().unwrap();
                assert_eq!(said.to_json_str().unwrap().split_whitespace().collect::<String>(), expected, "{clauses}");
            }
        }
    }

    #[test]
    fn what_is_defined_in_each_round_or_in_none_stays() {
        for clause in [
            "d contains v if { some s in input.l; v := s.m }",
            "d contains {\"a\": v, \"b\": [1, input.a.b[\"c\"]]} if some v in input.l",
            "d contains [x | x := s.m] if some s in input.l",
            "d[k] := input.x if some k in input.l",
            "f(s) := s.m if s.n",
            "d := 1",
        ] {
            assert!(rewritten(clause).is_none(), "{clause}");
        }
    }

    #[test]
    fn names_that_are_put_in_are_nobody_elses() {
        let asked = |clause: &str| {
            let file = SourceFile { name: "p.rego".into(), text: format!("package p\n{clause}\n") };
            LimitedEngine::new(&[&file], &EvaluationLimits::default()).map(drop).map_err(|error| error.to_string())
        };
        for name in ["sluicegate_head_0", "sluicegate_defined_7"] {
            let said = asked(&format!("x := 1\n\n{name} := 2")).unwrap_err();
            assert!(said.starts_with("p.rego:4:1: ") && said.contains("the program's own"), "{said}");
            assert!(asked(&format!("x if {{ {name} := 2; {name} > 1 }}")).is_err());
            assert_eq!(asked(&format!("x := \"{name}\" # {name}")), Ok(()));
        }
        assert_eq!(asked("x := input.sluicegate_counts"), Ok(()));
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let clause = "\nd contains {\n\t\"m\": s.m,\n} if {\n\tsome s in input.l\n}\n\nd contains \"x\" if input.y\n";
        let found = rewritten(clause).unwrap();
        let file = format!("package p\n{clause}");
        for (index, line) in found.text.lines().enumerate() {
            let original = file.lines().nth(found.original_line(index as u32 + 1) as usize - 1).unwrap();
            for word in ["\"m\"", "some s", "input.y", "package"] {
                if line.contains(word) {
                    assert!(original.contains(word), "{line} was {original}");
                }
            }
        }
    }
}
