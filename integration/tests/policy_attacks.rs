//! What hostile policies, data and facts come to: each ends, soon, without an allow, without a crash and without a flood of words. The
//! attacks stand in `policy_attacks/attacks.json`; nobody measures a time here, as the child ends itself, and a hang would be one of the
//! test.

use std::fs;

use integration::Project;
use serde_json::{Value, json};

/// The text of an attack: written out, or a part that is repeated.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(generated) if generated.contains_key("repeat") => {
            let repeat = &generated["repeat"];
            let of = |key: &str| repeat[key].as_str().unwrap_or_default();
            let times = usize::try_from(repeat["times"].as_u64().unwrap()).unwrap();
            format!("{}{}{}", of("before"), of("part").repeat(times), of("after"))
        }
        other => other.to_string(),
    }
}

#[test]
fn attacks_by_policies_data_and_facts_end_without_an_allow() {
    let attacks: Vec<Value> = serde_json::from_str(include_str!("policy_attacks/attacks.json")).unwrap();
    assert!(attacks.len() >= 60, "{}", attacks.len());
    let project = Project::empty();
    let mut faults = Vec::new();
    for attack in &attacks {
        let name = attack["name"].as_str().unwrap();
        let policy = if attack["policy"].is_null() { &attack["generate"] } else { &attack["policy"] };
        fs::write(project.path("attack.rego"), text(policy)).unwrap();
        let input =
            if attack["input"].is_null() { json!({"x": 1, "list": [1, 2, 3]}) } else { attack["input"].clone() };
        fs::write(project.path("input.json"), text(&input)).unwrap();
        let mut arguments = vec!["policy", "eval", "attack.rego", "--input", "input.json"];
        if !attack["data"].is_null() {
            fs::write(project.path("data.yaml"), text(&attack["data"])).unwrap();
            arguments.extend(["--data", "data.yaml"]);
        }
        let ended = project.sluicegate(&arguments);
        let said = ended.stdout.len() + ended.stderr.len();
        let (refused, short) = (matches!(ended.code, 1..=3), said < 1 << 20);
        if !refused || !short {
            let words: String = format!("{}{}", ended.stdout, ended.stderr).chars().take(300).collect();
            faults.push(format!("{name}: code {}, {said} bytes: {words}", ended.code));
        }
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), attacks.len(), faults.join("\n"));
}

/// A rule `x` of package `a` that passes, and what else its file holds.
fn hostile(rest: &str) -> String {
    format!(
        "package a\n\n# METADATA\n# title: t\n# description: d\n# custom: {{ short_name: x, solution: s, requires: [] }}\npass contains \"a.x\" if f(1)\n\n{rest}"
    )
}

#[test]
fn a_policy_changes_nothing_that_another_one_sees() {
    let victim = "package b\n\n# METADATA\n# title: t\n# description: d\n# custom: { short_name: why, solution: s, requires: [] }\ndeny contains {\"code\": \"b.why\", \"msg\": \"x is 1\"} if input.x == 1\n\npass contains \"b.why\" if input.x != 1\n";
    let project = Project::empty();
    fs::write(project.path("b.rego"), victim).unwrap();
    fs::write(project.path("input.json"), r#"{"x": 1}"#).unwrap();
    let ask = |attack: &str| {
        fs::write(project.path("a.rego"), hostile(attack)).unwrap();
        project.sluicegate(&["policy", "eval", "a.rego", "b.rego", "--input", "input.json"])
    };
    // The ground: a policy that minds its own business leaves the denial where it is.
    ask("f(_) := true\n").assert(1, "b.why");
    for attack in [
        "boom contains z if {\n\tsome q in 5\n\tz := q\n}\n\nf(_) if boom[_] == 1 with input as {\"x\": 2}\n\nf(_) := true\n",
        "boom contains z if {\n\tsome q in 5\n\tz := q\n}\n\nf(_) if boom[_] == 1 with data.b.deny as set() with data.b.pass as {\"b.why\"}\n\nf(_) := true\n",
        "f(_) if q1\n\nf(_) := true\n\nq1 if q2\n\nq2 if q1\n",
    ] {
        let ended = ask(attack);
        assert_eq!(ended.code, 3, "{attack}: {}", ended.stdout);
        assert!(ended.stdout.contains("a.rego:"), "{}", ended.stdout);
    }
    // A package above another one does not answer for it.
    let below = "package a.c\n\n# METADATA\n# title: t\n# description: d\n# custom: { short_name: why, solution: s, requires: [] }\npass contains \"a.c.why\" if input.never\n";
    fs::write(project.path("b.rego"), below).unwrap();
    ask("f(_) := true\n").assert(3, "a.c.why gave no answer");
    ask("f(_) := true\n\nc.pass contains \"a.c.why\" if true\n").assert(3, "c.pass");
}

#[test]
fn facts_and_data_are_read_within_limits() {
    let project = Project::empty();
    fs::write(project.path("a.rego"), hostile("f(_) := true\n")).unwrap();
    let ask = |input: &str, data: Option<(&str, &str)>| {
        fs::write(project.path("input.json"), input).unwrap();
        let mut arguments = vec!["policy", "eval", "a.rego", "--input", "input.json"];
        if let Some((name, text)) = data {
            fs::write(project.path(name), text).unwrap();
            arguments.extend(["--data", name]);
        }
        project.sluicegate(&arguments)
    };
    ask("{\"x\": 1}", None).assert(0, "WOULD BE ALLOWED");
    let many = |count: usize| format!("{{\"x\": [{}0]}}", "{\"\": 0},".repeat(count));
    ask(&many(100_000), None).assert(0, "WOULD BE ALLOWED");
    ask(&many(1_000_000), None).assert(2, "values");
    ask("{\"x\": 1, \"x\": 2}", None).assert(2, "given twice");
    ask("{\"x\": 1}", Some(("d.json", &many(1_000_000)))).assert(2, "values");
    ask("{\"x\": 1}", Some(("d.yaml", &format!("z: >\n{}", "\n".repeat(5 << 20))))).assert(2, "YAML document");
}
