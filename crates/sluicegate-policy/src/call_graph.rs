//! What policies call and mention, read from the syntax tree before anything is evaluated: refused and unknown functions,
//! recursion, and nesting that could overflow the engine's stack (which ends the process, not the evaluation).

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{BUILTINS, Expr, Literal, LiteralStmt, Module, Query, Ref, Rule, RuleHead};

use crate::{
    builtins, negations,
    policy_error::{Place, PolicyError},
    rego::is_test,
    shadowed_builtins,
};

/// How deep expressions may be nested.
const EXPRESSION_DEPTH: usize = 64;

/// How deep arrays, sets and objects may be written into each other: the engine's preparation, which no timer watches, takes
/// twice as long for each level (measured: 1 ms at 4, 1.2 s at 16, unoptimised).
const LITERAL_DEPTH: usize = 12;

/// How many levels of expressions may be open at once, over all rules and functions that stand on each other.
const STACK_DEPTH: usize = 512;

/// Levels that entering a rule or a function costs.
const CALL_LEVELS: usize = 4;

/// Refuses what must not be evaluated.
pub(crate) fn check(modules: &[Ref<Module>]) -> Result<(), PolicyError> {
    check_all(modules).into_iter().next().map_or(Ok(()), Err)
}

/// Everything that must not be evaluated, in the order of the files; of circles and of what is too deep, the first.
pub(crate) fn check_all(modules: &[Ref<Module>]) -> Vec<PolicyError> {
    let mut errors: Vec<PolicyError> = modules.iter().flat_map(|module| replacements(module)).collect();
    errors.extend(negations::unsafe_variables(modules));
    let mut graph = Graph::default();
    for module in modules {
        let package = static_path(&module.package.refr);
        for rule in &module.policy {
            graph.define(&package, rule);
        }
    }
    for module in modules {
        let scope = Scope::of(module);
        for rule in &module.policy {
            let from = graph.index[&absolute(&scope.package, &static_path(head_reference(rule)))];
            let (mentions, levels) = match mentions(rule) {
                Ok(found) => found,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            };
            graph.nodes[from].levels = graph.nodes[from].levels.max(levels + CALL_LEVELS);
            for mention in mentions {
                errors.extend(graph.connect(from, &scope, &mention).err());
            }
        }
    }
    errors.extend(graph.refuse_recursion_and_depth().err());
    errors
}

/// Each `with` outside of tests. The engine leaves what it replaced in its place where the statement ends in an error, and drops that
/// error where another clause of a function answers: a policy could change what every later one sees (found by attack; regorus 0.14.1,
/// `eval_stmts_in_loop`).
fn replacements(module: &Module) -> Vec<PolicyError> {
    let mut found = Vec::new();
    for rule in &module.policy {
        each_statement(rule, &mut |statement| {
            if let Some(with) = statement.with_mods.first() {
                let place = place(&with.refr);
                if !is_test(&place.file) {
                    found.push(PolicyError::WithOutsideTests { place });
                }
            }
        });
    }
    found
}

/// Every statement of a rule, also those inside of others.
pub(crate) fn each_statement<'a>(rule: &'a Rule, each: &mut dyn FnMut(&'a LiteralStmt)) {
    let Rule::Spec { bodies, .. } = rule else { return };
    let mut queries: Vec<&Query> = bodies.iter().map(|body| &*body.query).collect();
    let mut expressions: Vec<&Expr> = Vec::new();
    head_parts(rule, &mut expressions);
    while !queries.is_empty() || !expressions.is_empty() {
        while let Some(expression) = expressions.pop() {
            inside(expression, &mut expressions, &mut queries);
        }
        let Some(query) = queries.pop() else { continue };
        for statement in &query.stmts {
            each(statement);
            expressions.extend(statement.with_mods.iter().map(|with| with.r#as.as_ref()));
            match &statement.literal {
                Literal::SomeVars { .. } => {}
                Literal::SomeIn { key, value, collection, .. } => {
                    expressions.extend(key.iter().chain([value, collection]).map(|part| part.as_ref()));
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => expressions.push(expr),
                Literal::Every { domain, query, .. } => {
                    expressions.push(domain);
                    queries.push(query);
                }
            }
        }
    }
}

/// The expressions in a rule's head.
pub(crate) fn head_parts<'a>(rule: &'a Rule, expressions: &mut Vec<&'a Expr>) {
    match rule {
        Rule::Spec { head, bodies, .. } => {
            match head {
                RuleHead::Compr { refr, assign, .. } => {
                    expressions.push(refr);
                    expressions.extend(assign.iter().map(|assign| assign.value.as_ref()));
                }
                RuleHead::Set { refr, key, .. } => {
                    expressions.push(refr);
                    expressions.extend(key.iter().map(AsRef::as_ref));
                }
                RuleHead::Func { args, assign, .. } => {
                    expressions.extend(args.iter().map(AsRef::as_ref));
                    expressions.extend(assign.iter().map(|assign| assign.value.as_ref()));
                }
            }
            expressions.extend(bodies.iter().filter_map(|body| Some(body.assign.as_ref()?.value.as_ref())));
        }
        Rule::Default { value, .. } => expressions.push(value),
    }
}

/// What stands directly inside an expression.
pub(crate) fn inside<'a>(expression: &'a Expr, expressions: &mut Vec<&'a Expr>, queries: &mut Vec<&'a Query>) {
    let mut parts = Vec::new();
    look_at_expression(expression, Depth::default(), &mut parts, &mut Vec::new());
    for part in parts {
        match part {
            Part::Expression(inner, _) => expressions.push(inner),
            Part::Query(query, _) => queries.push(query),
        }
    }
}

/// The components of a reference up to its first part that is not written out, without `data`'s quotes: `a.b["c"][x]` is a, b, c.
pub(crate) fn static_path(reference: &Expr) -> Vec<String> {
    let mut backwards = Vec::new();
    let mut at = reference;
    loop {
        match at {
            Expr::Var { span, .. } => {
                backwards.push(Some(span.text().to_owned()));
                break;
            }
            Expr::RefDot { refr, field, .. } => {
                backwards.push(Some(field.0.text().to_owned()));
                at = refr;
            }
            Expr::RefBrack { refr, index, .. } => {
                backwards.push(match index.as_ref() {
                    Expr::String { value, .. } | Expr::RawString { value, .. } => {
                        value.as_string().ok().map(|text| text.to_string())
                    }
                    _ => None,
                });
                at = refr;
            }
            _ => {
                backwards.push(None);
                break;
            }
        }
    }
    backwards.into_iter().rev().map_while(|component| component).collect()
}

/// The reference that names the rule: `deny` in `deny contains …`.
pub(crate) fn head_reference(rule: &Rule) -> &Expr {
    match rule {
        Rule::Spec {
            head: RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. },
            ..
        }
        | Rule::Default { refr, .. } => refr,
    }
}

/// Where `expression` begins; the engine's span of `a.b` is that of the dot.
pub(crate) fn place(expression: &Expr) -> Place {
    let mut first = expression;
    while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = first {
        first = refr;
    }
    let span = first.span();
    Place { file: span.source.file().to_string(), line: span.line.into(), column: span.col.into() }
}

/// A reference somewhere in a rule.
struct Mention {
    path: Vec<String>,
    place: Place,
    kind: MentionKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MentionKind {
    Called,
    /// The target of a `with`, which a builtin can be too.
    Replaced,
    Read,
}

/// Names as one file sees them.
struct Scope {
    package: Vec<String>,
    imports: BTreeMap<String, Vec<String>>,
}

impl Scope {
    fn of(module: &Module) -> Self {
        let imports = module.imports.iter().filter_map(|import| {
            let path = static_path(&import.refr);
            let name = match &import.r#as {
                Some(alias) => alias.text().to_owned(),
                None => path.last()?.clone(),
            };
            (path.first()? == "data").then(|| (name, path[1..].to_vec()))
        });
        Self { package: static_path(&module.package.refr), imports: imports.collect() }
    }

    /// The places below `data` that `path` may mean.
    fn meanings(&self, path: &[String]) -> Vec<Vec<String>> {
        let Some((root, rest)) = path.split_first() else { return Vec::new() };
        let mut meanings = vec![absolute(&self.package, path)];
        if root == "data" {
            meanings.push(rest.to_vec());
        }
        if let Some(target) = self.imports.get(root) {
            meanings.push(absolute(target, rest));
        }
        meanings
    }
}

fn absolute(package: &[String], path: &[String]) -> Vec<String> {
    package.iter().chain(path).cloned().collect()
}

/// Rules and functions, and which mentions which.
#[derive(Default)]
struct Graph {
    index: BTreeMap<Vec<String>, usize>,
    nodes: Vec<Node>,
}

struct Node {
    name: String,
    place: Place,
    is_function: bool,
    /// How many levels of expressions are open at once in it alone.
    levels: usize,
    mentions: BTreeSet<usize>,
}

impl Graph {
    fn define(&mut self, package: &[String], rule: &Rule) {
        let reference = head_reference(rule);
        let path = absolute(package, &static_path(reference));
        let is_function = match rule {
            Rule::Spec { head, .. } => matches!(head, RuleHead::Func { .. }),
            Rule::Default { args, .. } => !args.is_empty(),
        };
        let nodes = &mut self.nodes;
        let node = *self.index.entry(path).or_insert_with_key(|path| {
            nodes.push(Node {
                name: path.join("."),
                place: place(reference),
                is_function: false,
                levels: 0,
                mentions: BTreeSet::new(),
            });
            nodes.len() - 1
        });
        self.nodes[node].is_function |= is_function;
    }

    fn connect(&mut self, from: usize, scope: &Scope, mention: &Mention) -> Result<(), PolicyError> {
        let mut is_defined = false;
        for meaning in scope.meanings(&mention.path) {
            let above = (1..=meaning.len()).filter_map(|length| self.index.get(&meaning[..length]));
            let below = self
                .index
                .range(meaning.clone()..)
                .take_while(|(path, _)| path.starts_with(&meaning))
                .map(|(_, node)| node);
            let found: BTreeSet<usize> = above.chain(below).copied().collect();
            is_defined |= self.index.get(&meaning).is_some_and(|node| self.nodes[*node].is_function);
            self.nodes[from].mentions.extend(found);
        }
        if is_defined || mention.kind == MentionKind::Read {
            return Ok(());
        }
        let name = mention.path.join(".");
        let place = mention.place.clone();
        if let Some(reason) = shadowed_builtins::refusal(&name) {
            return Err(PolicyError::RefusedBuiltin { place, builtin: name, reason: reason.to_owned() });
        }
        if mention.kind == MentionKind::Called
            && name != "print"
            && !BUILTINS.contains_key(name.as_str())
            && !builtins::is_one(&name)
        {
            return Err(PolicyError::UnknownFunction { place, name });
        }
        Ok(())
    }

    /// Tarjan's strongly connected components with an explicit stack: they come out callees first, so that the depth of each
    /// is known when it is closed. Circles of rules are refused like those of functions: the engine reports them by itself, and drops
    /// that again where another clause of a function answers.
    fn refuse_recursion_and_depth(&self) -> Result<(), PolicyError> {
        const UNSEEN: usize = usize::MAX;
        let count = self.nodes.len();
        let (mut order, mut low, mut depth) = (vec![UNSEEN; count], vec![0; count], vec![0_usize; count]);
        let mut is_open = vec![false; count];
        let (mut open, mut next) = (Vec::new(), 0);
        for start in 0..count {
            if order[start] != UNSEEN {
                continue;
            }
            let mut path = vec![(start, self.nodes[start].mentions.iter())];
            order[start] = next;
            low[start] = next;
            next += 1;
            open.push(start);
            is_open[start] = true;
            while let Some((node, mentioned)) = path.last_mut() {
                let node = *node;
                if let Some(&callee) = mentioned.next() {
                    if order[callee] == UNSEEN {
                        order[callee] = next;
                        low[callee] = next;
                        next += 1;
                        open.push(callee);
                        is_open[callee] = true;
                        path.push((callee, self.nodes[callee].mentions.iter()));
                    } else if is_open[callee] {
                        low[node] = low[node].min(order[callee]);
                    }
                    continue;
                }
                path.pop();
                if let Some((caller, _)) = path.last() {
                    low[*caller] = low[*caller].min(low[node]);
                }
                if low[node] == order[node] {
                    let first = open.iter().rposition(|member| *member == node).unwrap_or(0);
                    let circle = open.split_off(first);
                    self.refuse_circle(&circle)?;
                    let own = circle.iter().map(|member| self.nodes[*member].levels).max().unwrap_or(0);
                    let below = circle
                        .iter()
                        .flat_map(|member| &self.nodes[*member].mentions)
                        .filter(|callee| !is_open[**callee])
                        .map(|callee| depth[*callee])
                        .max();
                    for member in circle {
                        is_open[member] = false;
                        depth[member] = below.unwrap_or(0) + own;
                    }
                    if depth[node] > STACK_DEPTH {
                        return Err(PolicyError::TooDeep {
                            place: self.nodes[node].place.clone(),
                            what: "expressions, rules and functions that stand on each other".to_owned(),
                            limit: STACK_DEPTH as u64,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    fn refuse_circle(&self, circle: &[usize]) -> Result<(), PolicyError> {
        let is_circle = circle.len() > 1 || circle.iter().any(|node| self.nodes[*node].mentions.contains(node));
        if !is_circle {
            return Ok(());
        }
        let function = circle.iter().map(|node| &self.nodes[*node]).find(|node| node.is_function);
        let function = function.unwrap_or(&self.nodes[circle[0]]);
        let mut names: Vec<_> = circle.iter().map(|node| self.nodes[*node].name.as_str()).take(8).collect();
        names.push(names[0]);
        Err(PolicyError::Recursion { place: function.place.clone(), cycle: names.join(" -> ") })
    }
}

/// A part of the syntax tree still to be looked at, with its nesting.
enum Part<'a> {
    Expression(&'a Expr, Depth),
    Query(&'a Query, Depth),
}

/// How deep a part is nested, and in how many arrays, sets and objects.
#[derive(Clone, Copy, Default)]
struct Depth {
    all: usize,
    literals: usize,
}

impl Depth {
    fn into(self, expression: &Expr) -> Result<Self, PolicyError> {
        let is_literal = matches!(expression, Expr::Array { .. } | Expr::Set { .. } | Expr::Object { .. });
        let inner = Self { all: self.all + 1, literals: self.literals + usize::from(is_literal) };
        for (what, depth, limit) in
            [("expressions", inner.all, EXPRESSION_DEPTH), ("arrays, sets and objects", inner.literals, LITERAL_DEPTH)]
        {
            if depth > limit {
                let (place, limit) = (place(expression), limit as u64);
                return Err(PolicyError::TooDeep { place, what: what.to_owned(), limit });
            }
        }
        Ok(inner)
    }
}

/// Every reference in `rule` except the name in its head, and how deep its expressions are nested. The work list is a vector,
/// because the tree's depth is the author's.
fn mentions(rule: &Rule) -> Result<(Vec<Mention>, usize), PolicyError> {
    let top = Depth::default();
    let mut arguments = BTreeSet::new();
    let mut parts = Vec::new();
    match rule {
        Rule::Spec { head, bodies, .. } => {
            let assigned = match head {
                RuleHead::Compr { refr, assign, .. } => {
                    push_indexes(refr, top, &mut parts);
                    assign.as_ref()
                }
                RuleHead::Set { refr, key, .. } => {
                    push_indexes(refr, top, &mut parts);
                    parts.extend(key.iter().map(|key| Part::Expression(key, top)));
                    None
                }
                RuleHead::Func { args, assign, .. } => {
                    arguments.extend(args.iter().filter_map(|argument| match argument.as_ref() {
                        Expr::Var { span, .. } => Some(span.text()),
                        _ => None,
                    }));
                    parts.extend(args.iter().map(|argument| Part::Expression(argument, top)));
                    assign.as_ref()
                }
            };
            parts.extend(assigned.map(|assign| Part::Expression(&assign.value, top)));
            for body in bodies {
                parts.extend(body.assign.iter().map(|assign| Part::Expression(&assign.value, top)));
                parts.push(Part::Query(&body.query, top));
            }
        }
        Rule::Default { value, .. } => parts.push(Part::Expression(value, top)),
    }
    let (mut found, mut deepest) = (Vec::new(), 0);
    while let Some(part) = parts.pop() {
        match part {
            Part::Expression(expression, depth) => {
                let depth = depth.into(expression)?;
                deepest = deepest.max(depth.all);
                look_at_expression(expression, depth, &mut parts, &mut found);
            }
            Part::Query(query, depth) => {
                look_at_query(query, Depth { all: depth.all + 1, ..depth }, &mut parts, &mut found);
            }
        }
    }
    found.retain(|mention| mention.path.len() != 1 || !arguments.contains(mention.path[0].as_str()));
    Ok((found, deepest))
}

fn look_at_expression<'a>(expr: &'a Expr, depth: Depth, parts: &mut Vec<Part<'a>>, found: &mut Vec<Mention>) {
    let mut push = |inner: &'a Expr| parts.push(Part::Expression(inner, depth));
    match expr {
        Expr::String { .. } | Expr::RawString { .. } | Expr::Number { .. } | Expr::Bool { .. } | Expr::Null { .. } => {}
        Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => {
            found.push(mention(expr, MentionKind::Read));
            push_indexes(expr, depth, parts);
        }
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().for_each(|item| push(item)),
        Expr::Object { fields, .. } => fields.iter().for_each(|(_, key, value)| {
            push(key);
            push(value);
        }),
        Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
            push(term);
            parts.push(Part::Query(query, depth));
        }
        Expr::ObjectCompr { key, value, query, .. } => {
            push(key);
            push(value);
            parts.push(Part::Query(query, depth));
        }
        Expr::Call { fcn, params, .. } => {
            params.iter().for_each(|parameter| push(parameter));
            found.push(mention(fcn, MentionKind::Called));
            push_indexes(fcn, depth, parts);
        }
        Expr::UnaryExpr { expr, .. } => push(expr),
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => {
            push(lhs);
            push(rhs);
        }
        Expr::Membership { key, value, collection, .. } => {
            key.iter().for_each(|key| push(key));
            push(value);
            push(collection);
        }
    }
}

fn look_at_query<'a>(query: &'a Query, depth: Depth, parts: &mut Vec<Part<'a>>, found: &mut Vec<Mention>) {
    for statement in &query.stmts {
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                parts.extend(key.iter().chain([value, collection]).map(|part| Part::Expression(part, depth)));
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => parts.push(Part::Expression(expr, depth)),
            Literal::Every { domain, query, .. } => {
                parts.push(Part::Expression(domain, depth));
                parts.push(Part::Query(query, depth));
            }
        }
        for with in &statement.with_mods {
            found.push(mention(&with.refr, MentionKind::Replaced));
            parts.push(Part::Expression(&with.r#as, depth));
        }
    }
}

fn mention(reference: &Expr, kind: MentionKind) -> Mention {
    Mention { path: static_path(reference), place: place(reference), kind }
}

/// The expressions between the brackets of a reference, and what it starts from if that is no name.
fn push_indexes<'a>(reference: &'a Expr, depth: Depth, parts: &mut Vec<Part<'a>>) {
    let mut at = reference;
    loop {
        match at {
            Expr::RefDot { refr, .. } => at = refr,
            Expr::RefBrack { refr, index, .. } => {
                parts.push(Part::Expression(index, depth));
                at = refr;
            }
            Expr::Var { .. } => return,
            other => return parts.push(Part::Expression(other, depth)),
        }
    }
}
