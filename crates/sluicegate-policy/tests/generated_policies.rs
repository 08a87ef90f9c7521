//! Policies of chance, asked of our engine and of OPA: what is undefined in one place must be undefined in the other. Every difference that was
//! found in this way is one of the engine's (`definedness`, `negations`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde_json::{Value, value::RawValue};
use sluicegate_policy::rego::{EvaluationLimits, Outcome, Policies, SourceFile};

use crate::beside_opa::{Random, opa};

const COUNT: usize = 200;

/// Every element lacks something or has it in another form.
const FACTS: &str = r#"{
    "l": [
        {"i": 0, "n": "a", "d": "1", "e": {"f": 1}, "s": ["a", "b"]},
        {"i": 1, "n": "b"},
        {"i": 2, "n": "ab", "d": "3", "e": {}},
        {"i": 3, "d": "x", "e": {"f": null}, "s": []},
        {"i": 4, "n": "c", "d": "1", "e": {"f": false}, "s": ["c"]}
    ],
    "m": {"i": 9, "n": "a", "e": {"g": 2}},
    "t": true
}"#;

/// What every package has; `NUMBER` is its own.
const FRAME: &str = r#"package pNUMBER

# METADATA
# title: A set
# description: Each element of k is a denial.
# custom:
#   short_name: said
#   solution: none
#   requires: []
deny contains {"code": "pNUMBER.said", "msg": message} if {
	some value in k
	message := json.marshal(value)
}

k contains "always" if true

has_n(x) := x.n if x.n

same(x) := object.get({"": x}, "", null)

pair(x, y) := [x, y] if x != y

is_a(x) if x == "a"

is_a(x) if x == 1

constant := "a"

nothing := input.nothing

something if input.t
"#;

#[test]
fn opa_says_the_same_of_200_generated_policies() {
    let Some(opa) = opa() else { return };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated_policies");
    fs::create_dir_all(&folder).unwrap();
    let mut random = Random(0x0b5e_55ed);
    let mut files = Vec::new();
    for number in 0..COUNT {
        let clauses: Vec<String> = (0..2).map(|part| clause(part, &mut random)).collect();
        let text = format!("{}\n{}\n", FRAME.replace("NUMBER", &number.to_string()), clauses.join("\n\n"));
        fs::write(folder.join(format!("p{number}.rego")), &text).unwrap();
        files.push(SourceFile { name: format!("p{number}.rego"), text });
    }
    fs::write(folder.join("facts.json"), FACTS).unwrap();
    let denials: Vec<String> = (0..COUNT).map(|number| format!("data.p{number}.deny")).collect();
    let output = Command::new(opa)
        .args(["eval", "--format=json", "--input"])
        .arg(folder.join("facts.json"))
        .args(files.iter().flat_map(|file| ["--data".into(), folder.join(&file.name)]))
        .arg(format!("[{}]", denials.join(", ")))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let theirs: Vec<BTreeSet<String>> =
        said["result"][0]["expressions"][0]["value"].as_array().unwrap().iter().map(messages).collect();

    let limits = EvaluationLimits { milliseconds: 60_000, ..EvaluationLimits::default() };
    let mut policies = Policies::new(&files, &[], &limits).unwrap();
    let facts = policies.facts(&RawValue::from_string(FACTS.to_owned()).unwrap()).unwrap();
    let results = policies.ask(&facts).unwrap();
    let ours: BTreeMap<String, BTreeSet<String>> = results
        .answers
        .iter()
        .map(|answer| {
            let Outcome::Deny(violations) = &answer.outcome else { panic!("{}: {answer:?}", answer.rule.code) };
            (answer.rule.code.clone(), violations.iter().map(|violation| violation.msg.clone()).collect())
        })
        .collect();
    let mut sizes = BTreeSet::new();
    for (number, theirs) in theirs.iter().enumerate() {
        assert_eq!(&ours[&format!("p{number}.said")], theirs, "{}", files[number].text);
        sizes.insert(theirs.len());
    }
    assert_eq!(theirs.len(), COUNT);
    // Were every set empty or whole, equal answers would say nothing.
    assert!(sizes.len() > 4, "{sizes:?}");
}

fn messages(denials: &Value) -> BTreeSet<String> {
    denials.as_array().unwrap().iter().map(|denial| denial["msg"].as_str().unwrap().to_owned()).collect()
}

/// Clauses that fill `k`; those of one part have names of their own.
fn clause(part: usize, random: &mut Random) -> String {
    let (value, key) = (term("x", 0, random), reference("x", random));
    let holds = condition("x", 0, random);
    let body = body(random);
    match random.below(8) {
        0 | 1 => format!("k contains {value} if {body}"),
        2 => format!("o{part}[x.i] := {value} if {body}\n\nk contains [\"o\", i, v] if some i, v in o{part}"),
        3 => format!("o{part}[{key}] contains {value} if {body}\n\nk contains [\"o\", i] if o{part}[i]"),
        4 => format!("p{part} contains {value} if {body}\n\nk contains [\"p\", count(p{part})] if true"),
        5 => format!(
            "fn{part}(x) := {value} if {holds} else := {} if {}\n\nk contains [\"fn\", fn{part}(x)] if some x in input.l",
            term("x", 1, random),
            condition("x", 1, random)
        ),
        6 => format!(
            "ok{part}(x) if {holds}\n\nk contains [\"not\", x.i] if {{ some x in input.l; not ok{part}(x) }}\n\n\
             k contains [\"not e\", x.i] if {{ some x in input.l; not ok{part}(x.e) }}"
        ),
        _ => format!(
            "k contains [\"list\", x.i, [y.i | some y in input.l; {}]] if {{ some x in input.l; {holds} }}",
            condition("y", 1, random)
        ),
    }
}

fn body(random: &mut Random) -> String {
    let count = random.below(3);
    let mut statements = vec!["some x in input.l".to_owned()];
    statements.extend((0..count).map(|_| condition("x", 0, random)));
    match random.below(3) {
        0 if count == 0 => statements.remove(0),
        0 | 1 => format!("{{\n\t{}\n}}", statements.join("\n\t")),
        _ => format!("{{ {} }}", statements.join("; ")),
    }
}

fn condition(of: &str, depth: usize, random: &mut Random) -> String {
    let (left, right) = (term(of, 1, random), term(of, 1, random));
    let said = match random.below(8) {
        0 => reference(of, random),
        1 => format!("{left} == {right}"),
        2 => format!("{left} != {right}"),
        3 => format!("startswith({of}.n, \"a\")"),
        4 => format!("{left} in [{right}, \"b\"]"),
        5 => format!("is_a({left})"),
        6 => return format!("not ({left} == {right})"),
        _ if depth == 0 => return format!("every y in input.l {{ y.i >= 0; {} }}", condition("y", 1, random)),
        _ => format!("pair({left}, {right}) == same([{left}, {right}])"),
    };
    if random.below(5) < 2 { format!("not {said}") } else { said }
}

fn reference(of: &str, random: &mut Random) -> String {
    let paths = [".n", ".d", ".e.f", ".e", "[\"n\"]", ".s"];
    match random.below(8) {
        0 => "input.nothing".to_owned(),
        1 => "input.l[0].n".to_owned(),
        2 => format!("input.m[{of}.nothing]"),
        _ => format!("{of}{}", random.of(&paths)),
    }
}

/// Through `same`, of which OPA's checker of types does not know what comes out: it refuses most of what chance compares.
fn term(of: &str, depth: usize, random: &mut Random) -> String {
    let inner = reference(of, random);
    if depth > 1 || random.below(5) < 2 {
        return match random.below(6) {
            0 => format!("same({})", random.of(&["\"a\"", "1", "null", "constant", "nothing", "something"])),
            _ => inner,
        };
    }
    let value = match random.below(11) {
        0 => return format!("has_n({of})"),
        1 => term(of, depth + 1, random),
        2 => format!("pair({inner}, {})", reference(of, random)),
        3 => format!("count({of}.s)"),
        4 => format!("[{}, {inner}]", term(of, depth + 1, random)),
        5 => format!("{{\"a\": {}}}", term(of, depth + 1, random)),
        6 => format!("lower({of}.n)"),
        7 => format!("object.get({of}, \"d\", {inner})"),
        8 => format!("to_number({of}.d)"),
        9 => format!("[z.i | some z in input.l; z.n == {inner}]"),
        _ => format!("sprintf(\"%v\", [{inner}])"),
    };
    format!("same({value})")
}
