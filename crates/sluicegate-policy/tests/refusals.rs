//! What is refused, each beside the same thing without the fault.

use serde_json::json;
use sluicegate_policy::{
    rego::{EvaluationLimits, EvaluationRequest, Outcome, PolicyError, RuleResults, SourceFile, evaluate, rules},
    rego_tests,
};

const METADATA: &str = "\
# METADATA
# title: One
# description: It is one.
# custom:
#   short_name: one
#   solution: Make it one.
#   requires: []
";

fn file(name: &str, text: &str) -> SourceFile {
    SourceFile { name: name.to_owned(), text: text.to_owned() }
}

/// A file whose only rule is `a.one`; `rest` holds its clauses, the first right below the block.
fn policy(rest: &str) -> String {
    format!("package a\n\n{METADATA}{rest}")
}

fn ask_with(
    policies: &[SourceFile],
    data: &[SourceFile],
    limits: &EvaluationLimits,
) -> Result<RuleResults, PolicyError> {
    let input = serde_json::value::to_raw_value(&json!({"x": [1, 2, 3], "text": "abc"})).unwrap();
    evaluate(&EvaluationRequest { policies: policies.to_vec(), data: data.to_vec(), input }, limits)
}

/// Slow machines test debug builds: only the tests of the time limit are about time.
fn patient() -> EvaluationLimits {
    EvaluationLimits { milliseconds: 60_000, ..EvaluationLimits::default() }
}

fn ask(rest: &str) -> Result<RuleResults, PolicyError> {
    ask_with(&[file("p/a.rego", &policy(rest))], &[], &patient())
}

fn outcome(rest: &str) -> Outcome {
    ask(rest).unwrap().answers.remove(0).outcome
}

fn refusal(rest: &str) -> String {
    ask(rest).unwrap_err().to_string()
}

/// What a good file says, so that each test shows that only the fault is refused.
const GOOD: &str = "pass contains \"a.one\" if input.text == \"abc\"\n";

fn run_tests(files: &[SourceFile]) -> Result<Vec<rego_tests::RegoTest>, PolicyError> {
    let request = rego_tests::TestRequest { files: files.to_vec(), ..Default::default() };
    rego_tests::run(&request, &patient()).map(|results| results.tests)
}

#[test]
fn four_outcomes() {
    assert_eq!(outcome(GOOD), Outcome::Pass);
    assert_eq!(outcome("pass contains \"a.one\" if input.text == \"other\"\n"), Outcome::Silent);
    let deny = "deny contains {\"code\": \"a.one\", \"msg\": \"m\", \"term\": \"t\", \"subject\": \"s\", \"n\": 1, \"b\": true}\n";
    let Outcome::Deny(violations) = outcome(deny) else { unreachable!() };
    let violation = violations.first();
    assert_eq!(
        (violation.msg.as_str(), violation.term.as_deref(), violation.subject.as_deref()),
        ("m", Some("t"), Some("s"))
    );
    assert_eq!(json!(violation.fields), json!({"b": true, "n": 1}));
    assert!(
        matches!(outcome(&format!("{deny}{GOOD}")), Outcome::Contradiction(violations) if violations.as_slice().len() == 1)
    );
}

#[test]
fn no_policies_and_no_codes_decide_nothing() {
    assert_eq!(rules(&[]).unwrap_err(), PolicyError::NoCodes);
    assert_eq!(ask_with(&[], &[], &patient()).unwrap_err(), PolicyError::NoCodes);
    let library = file("p/library.rego", "package library\n\nf(x) := x\n");
    assert_eq!(rules(std::slice::from_ref(&library)).unwrap_err(), PolicyError::NoCodes);
    let only_a_test = file("p/a_test.rego", &policy(GOOD));
    assert_eq!(rules(&[only_a_test]).unwrap_err(), PolicyError::NoCodes);
    assert_eq!(rules(&[library, file("p/a.rego", &policy(GOOD))]).unwrap().len(), 1);
}

#[test]
fn rules_declare_what_they_are() {
    let rule = rules(&[file("p/a.rego", &policy(GOOD))]).unwrap().remove(0);
    assert_eq!((rule.code.as_str(), rule.title.as_str(), rule.solution.as_str()), ("a.one", "One", "Make it one."));
    assert_eq!((rule.file.as_str(), rule.line), ("p/a.rego", 10));
}

#[test]
fn a_file_that_only_denies_is_told_what_to_add() {
    let text = "package b\n\ndeny contains \"no\" if input.x\n";
    let error = rules(&[file("p/a.rego", &policy(GOOD)), file("p/b.rego", text)]).unwrap_err().to_string();
    assert!(error.starts_with("p/b.rego:3:1: package b has \"deny\" but declares no code"), "{error}");
    assert!(error.contains("custom.short_name") && error.contains("custom.requires_fields"), "{error}");
    let with = |fields: &str| {
        let metadata =
            METADATA.replace("#   requires: []", &format!("#   requires_fields: {fields}\n#   requires: []"));
        rules(&[file("p/a.rego", &format!("package a\n\n{metadata}{GOOD}"))])
    };
    assert_eq!(with("[/a, /b~1c/0]").unwrap()[0].requires_fields, ["/a", "/b~1c/0"]);
    for odd in ["[]", "[a]", "[/]", "[/a~2]", "[\"\"]"] {
        let error = with(odd).unwrap_err().to_string();
        assert!(error.contains("lists at least one JSON pointer"), "{odd}: {error}");
    }
}

#[test]
fn a_date_from_which_a_rule_decides_is_a_moment() {
    let with = |date: &str| {
        let metadata = METADATA.replace("#   requires: []", &format!("#   effective_on: {date}\n#   requires: []"));
        rules(&[file("p/a.rego", &format!("package a\n\n{metadata}{GOOD}"))])
    };
    let rule = with("2027-01-01T00:00:00+01:00").unwrap().remove(0);
    assert_eq!(rule.effective_on.unwrap().to_string(), "2026-12-31T23:00:00Z");
    assert!(rule.is_effective("2026-12-31T23:00:00Z".parse().unwrap()));
    assert!(!rule.is_effective("2026-12-31T22:59:59Z".parse().unwrap()));
    for odd in ["next year", "2027-13-01T00:00:00Z", "2027-01-01T00:00:00", "\"\""] {
        let error = with(odd).unwrap_err().to_string();
        assert!(error.contains("custom.effective_on: "), "{odd}: {error}");
    }
}

#[test]
fn a_denial_that_is_no_object_is_refused_where_it_stands() {
    for (head, line) in [
        ("deny contains \"no\" if input.x", 11),
        ("deny contains 7 if input.x", 11),
        ("deny contains [1] if input.x", 11),
        ("deny contains msg if {\n\tinput.x\n\tmsg := \"no\"\n}", 11),
        ("deny contains msg if {\n\tmsg = sprintf(\"%v\", [input.x])\n}", 11),
        ("pass contains {\"code\": \"a.one\"} if input.x", 11),
    ] {
        let text = format!("{}\n{head}\n", policy(GOOD).trim_end());
        let error = rules(&[file("p/a.rego", &text)]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("p/a.rego:{line}:")) && error.contains("contains"), "{head}: {error}");
    }
    for fine in [
        "deny contains {\"code\": \"a.one\", \"msg\": \"no\"} if input.x",
        "deny contains v if {\n\tsome v in input.bad\n}",
        "deny contains v if {\n\tv := {\"code\": \"a.one\", \"msg\": \"no\"}\n}",
    ] {
        assert!(rules(&[file("p/a.rego", &format!("{}\n{fine}\n", policy(GOOD).trim_end()))]).is_ok(), "{fine}");
    }
}

#[test]
fn a_missing_metadata_key_is_named_with_its_place() {
    for (key, line) in [
        ("title", "# title: One\n"),
        ("description", "# description: It is one.\n"),
        ("custom.short_name", "#   short_name: one\n"),
        ("custom.solution", "#   solution: Make it one.\n"),
        ("custom.requires", "#   requires: []\n"),
    ] {
        let error = rules(&[file("p/a.rego", &policy(GOOD).replace(line, ""))]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("p/a.rego:3: METADATA: {key} is missing")), "{error}");
    }
}

#[test]
fn a_block_stands_above_a_clause_that_answers() {
    for elsewhere in [
        format!("package a\n\n{METADATA}f(x) := x\n\n{GOOD}"),
        format!("package a\n\n{METADATA}warn contains \"w\"\n\n{GOOD}"),
        format!("{METADATA}package a\n\n{GOOD}"),
        format!("package a\n\n{GOOD}\n{METADATA}"),
    ] {
        let error = rules(&[file("p/a.rego", &elsewhere)]).unwrap_err().to_string();
        assert!(error.contains("belongs right above"), "{elsewhere}\n{error}");
    }
    let after_imports = format!("package a\n\nimport data.b\n\n{METADATA}\n{GOOD}");
    assert_eq!(rules(&[file("p/a.rego", &after_imports)]).unwrap().len(), 1);
}

#[test]
fn a_code_declared_twice_names_both_places() {
    let (one, two) = (file("p/a.rego", &policy(GOOD)), file("p/b.rego", &policy(GOOD)));
    let error = rules(&[one.clone(), two]).unwrap_err().to_string();
    assert!(error.starts_with("p/b.rego:10: the code a.one is declared already at p/a.rego:10"), "{error}");
    let other = policy(GOOD).replace("short_name: one", "short_name: two").replace("a.one", "a.two");
    assert_eq!(rules(&[one, file("p/b.rego", &other)]).unwrap().len(), 2);
}

#[test]
fn answers_that_are_none_are_refused() {
    for (answer, reason) in [
        ("pass contains \"a.other\"\n", "no METADATA block declares this code"),
        ("pass contains \"one\"\n", "no METADATA block declares this code"),
        ("pass contains x if some x in [1]\n", "a code is a text"),
        ("pass contains x if some x in [{\"code\": \"a.one\"}]\n", "a code is a text"),
        ("deny contains x if some x in [\"a.one\"]\n", "write deny contains {"),
        ("deny contains {\"msg\": \"m\"}\n", "it has no \"code\""),
        ("deny contains {\"code\": \"a.other\", \"msg\": \"m\"}\n", "no METADATA block declares this code"),
        ("deny contains {\"code\": \"a.one\"}\n", "it has no \"msg\""),
        ("deny contains {\"code\": \"a.one\", \"msg\": \" \"}\n", "it has no \"msg\""),
        ("deny contains {\"code\": \"a.one\", \"msg\": 1}\n", "\"msg\" is a text"),
        ("deny contains {\"code\": \"a.one\", \"msg\": \"m\", \"term\": [1]}\n", "\"term\" is a text"),
        ("deny contains {\"code\": \"a.one\", \"msg\": \"m\", \"more\": {}}\n", "neither text"),
        ("deny contains {1: \"a.one\"}\n", "a field's name is a text"),
    ] {
        let error = refusal(answer);
        assert!(error.starts_with("package a: ") && error.contains(reason), "{answer}{error}");
        // A good answer beside it saves nothing.
        assert!(ask(&format!("{answer}{GOOD}")).is_err());
    }
    let other = policy("pass contains \"a.one\"\n").replace("package a", "package b");
    let error = ask_with(&[file("p/a.rego", &policy(GOOD)), file("p/b.rego", &other)], &[], &patient()).unwrap_err();
    assert!(error.to_string().contains("another package's"), "{error}");
}

#[test]
fn answers_are_sets_with_the_names_that_are_read() {
    let error = refusal(&format!("{GOOD}\ndeny := [] if input.x\n"));
    assert!(error.starts_with("p/a.rego:12:1: deny is a list and must be a set: write `deny contains …`"), "{error}");
    for name in ["deny_more", "violation", "warn_more", "exception", "pass_more"] {
        let error = refusal(&format!("{GOOD}\n{name} contains \"x\" if input.x\n"));
        assert!(error.starts_with(&format!("p/a.rego:12:1: a rule named \"{name}\"")), "{error}");
    }
    assert_eq!(outcome(&format!("{GOOD}\nmore contains \"x\" if input.x\n")), Outcome::Pass);
}

#[test]
fn warnings_inform() {
    let results = ask(&format!(
        "{GOOD}\nwarn contains \"old\"\n\nwarn contains {{\"code\": \"a.one\", \"msg\": \"older\", \"term\": \"t\"}}\n"
    ))
    .unwrap();
    assert_eq!(results.answers[0].outcome, Outcome::Pass);
    assert_eq!(results.warnings.len(), 2);
    assert_eq!((results.warnings[0].msg.as_str(), results.warnings[0].code.as_deref()), ("old", None));
    assert_eq!((results.warnings[1].msg.as_str(), results.warnings[1].code.as_deref()), ("older", Some("a.one")));
    assert_eq!(json!(results.warnings[1].fields), json!({"term": "t"}));
    assert!(refusal(&format!("{GOOD}\nwarn contains 1\n")).contains("warn gives a number"));
}

#[test]
fn what_cannot_be_replayed_is_refused_with_its_line() {
    for (call, name) in [
        ("time.now_ns() > 0", "time.now_ns"),
        ("rand.intn(\"x\", 2) < 5", "rand.intn"),
        ("uuid.rfc4122(\"x\") != \"\"", "uuid.rfc4122"),
        ("opa.runtime().version", "opa.runtime"),
        ("http.send({\"method\": \"get\", \"url\": \"x\"}).status_code == 200", "http.send"),
        ("not http.send({\"method\": \"get\", \"url\": \"x\"})", "http.send"),
        ("count(net.lookup_ip_addr(\"x\")) > 0", "net.lookup_ip_addr"),
    ] {
        let error = refusal(&format!("{GOOD}\nhelper if {call}\n"));
        assert!(error.starts_with("p/a.rego:12:") && error.contains(&format!("{name} is refused")), "{error}");
    }
    assert_eq!(
        outcome(&format!("{GOOD}\nhelper if time.parse_rfc3339_ns(\"2026-11-25T00:00:00Z\") > 0\n")),
        Outcome::Pass
    );
    // A function of the policies with such a name is another function.
    let own = file("p/time.rego", "package time\n\nnow_ns() := 1\n\nother(x) := x\n");
    let uses = policy("pass contains \"a.one\" if time.other(1) == 1\n")
        .replace("package a\n", "package a\n\nimport data.time\n");
    let results = ask_with(&[own, file("p/a.rego", &uses)], &[], &patient());
    assert!(matches!(results.as_ref().map(|r| &r.answers[0].outcome), Ok(Outcome::Pass)), "{results:?}");
}

#[test]
fn what_replaces_facts_data_or_functions_is_for_tests() {
    for replaces in [
        "helper if input.x == 1 with input as {\"x\": 1}\n",
        "helper if {\n\tsome x in [1] with data.a as {}\n}\n",
        "helper if not count(\"x\") == 1 with count as 1\n",
        "helper := [x | x := 1 with input.y as 2]\n",
        "f(x) := {y: 1 | some y in x with input as {}}\n",
        "helper if every x in [1] { x == 1 with input as {} }\n",
        "helper := count({z | z := [y | y := 1 with input as {}]})\n",
    ] {
        let error = refusal(&format!("{GOOD}\n{replaces}"));
        assert!(error.starts_with("p/a.rego:1") && error.contains("`with` is for tests"), "{replaces}{error}");
    }
    let tests = file("p/a_test.rego", "package a_test\n\ntest_it if data.a.pass with input as {\"x\": 1}\n");
    assert!(run_tests(&[file("p/a.rego", &policy(GOOD)), tests]).is_ok());
}

#[test]
fn an_unknown_function_is_refused_even_where_the_engine_would_not_notice() {
    let error = refusal("pass contains \"a.one\" if f(1)\n\nf(x) if crypto.md5(\"x\") == x\n\nf(1) := true\n");
    assert!(error.starts_with("p/a.rego:12:9: there is no function crypto.md5"), "{error}");
    assert_eq!(
        outcome("pass contains \"a.one\" if f(1)\n\nf(x) if count(\"x\") == x\n\nf(1) := true\n"),
        Outcome::Pass
    );
}

#[test]
fn recursion_of_functions_is_refused_before_it_is_evaluated() {
    for recursive in [
        "f(x) := f(x)\n",
        "f(x) := g(x)\n\ng(x) := f(x)\n",
        "f(x) := y if { y := [z | some z in f(x)] }\n",
        "f(x) := data.a.f(x)\n",
        "f(x) := data[\"a\"].f(x)\n",
        "f(x) := y if { every z in x { y := f(z) } }\n",
        "f(x) := {f(y): 1 | some y in x}\n",
        "f(x) := r\n\nr := f(1)\n",
        "f(x) if r1\n\nr1 if r2\n\nr2 if r1\n",
    ] {
        let error = refusal(&format!("{GOOD}\n{recursive}"));
        assert!(
            error.starts_with("p/a.rego:1") && error.contains("recursion is not allowed: a."),
            "{recursive}{error}"
        );
    }
    assert_eq!(outcome(&format!("{GOOD}\nf(x) := g(x)\n\ng(x) := x\n")), Outcome::Pass);
    let across = file("p/b.rego", "package b\n\nimport data.a as other\n\ng(x) := other.f(x)\n");
    let one = policy(&format!("{GOOD}\nf(x) := data.b.g(x)\n"));
    assert!(matches!(ask_with(&[file("p/a.rego", &one), across], &[], &patient()), Err(PolicyError::Recursion { .. })));
}

#[test]
fn recursion_of_rules_is_an_error() {
    let error = refusal("pass contains \"a.one\" if p\n\np if q\n\nq if p\n");
    assert!(error.contains("recursion"), "{error}");
    assert_eq!(outcome("pass contains \"a.one\" if p\n\np if q\n\nq if input.x\n"), Outcome::Pass);
}

#[test]
fn nesting_has_limits() {
    let sum = |count: usize| format!("{GOOD}\nx := {}\n", vec!["1"; count].join("\n+ "));
    assert_eq!(outcome(&sum(50)), Outcome::Pass);
    let error = refusal(&sum(1_000));
    assert!(error.contains("expressions nested more than 64 deep"), "{error}");
    let chain = |count: usize| {
        let functions: Vec<_> = (0..count).map(|i| format!("f{i}(x) := f{}(x)\n", i + 1)).collect();
        format!("pass contains \"a.one\" if f0(1) == 1\n\n{}\nf{count}(x) := x\n", functions.join("\n"))
    };
    assert_eq!(outcome(&chain(60)), Outcome::Pass);
    let error = refusal(&chain(100));
    assert!(error.contains("stand on each other nested more than 512 deep"), "{error}");
    let rules = |count: usize| {
        let rules: Vec<_> = (0..count).map(|i| format!("r{i} if r{}\n", i + 1)).collect();
        format!("pass contains \"a.one\" if r0\n\n{}\nr{count} if input.x\n", rules.join("\n"))
    };
    assert_eq!(outcome(&rules(60)), Outcome::Pass);
    assert!(refusal(&rules(110)).contains("nested more than 512 deep"));
    let arrays = |depth: usize| format!("{GOOD}\nx := {}{}\n", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(outcome(&arrays(12)), Outcome::Pass);
    assert!(refusal(&arrays(13)).contains("arrays, sets and objects nested more than 12 deep"));
}

#[test]
fn an_endless_loop_is_stopped() {
    let loops = |count: usize| {
        format!(
            "{GOOD}\npass contains \"a.one\" if {{\n\tsome x in numbers.range(1, {count})\n\tsome y in numbers.range(1, {count})\n\tx * y == 0\n}}\n"
        )
    };
    let limits = EvaluationLimits { milliseconds: 200, ..EvaluationLimits::default() };
    let stopped = ask_with(&[file("p/a.rego", &policy(&loops(3_000)))], &[], &limits).unwrap_err();
    assert_eq!(stopped, PolicyError::TimedOut { milliseconds: 200 });
    assert_eq!(outcome(&loops(3)), Outcome::Pass);
}

#[test]
fn a_time_out_inside_a_clause_is_not_forgotten_when_another_clause_succeeds() {
    let text = "pass contains \"a.one\" if f(1)\n\nf(1) if {\n\tsome x in numbers.range(1, 3000)\n\tsome y in numbers.range(1, 3000)\n\tx * y == 0\n}\n\nf(1) := true\n";
    let limits = EvaluationLimits { milliseconds: 200, ..EvaluationLimits::default() };
    let stopped = ask_with(&[file("p/a.rego", &policy(text))], &[], &limits).unwrap_err();
    assert_eq!(stopped, PolicyError::TimedOut { milliseconds: 200 });
    assert_eq!(outcome(&text.replace("3000", "3")), Outcome::Pass);
}

#[test]
fn a_range_has_a_limit() {
    let range = |count: usize| format!("pass contains \"a.one\" if count(numbers.range(1, {count})) == {count}\n");
    assert_eq!(outcome(&range(1_000_000)), Outcome::Pass);
    let error = refusal(&range(1_000_001));
    assert!(error.starts_with("p/a.rego:10:") && error.contains("numbers.range is refused"), "{error}");
    let step = "pass contains \"a.one\" if numbers.range_step(1, 6, 2) == [1, 3, 5]\n";
    assert_eq!(outcome(step), Outcome::Pass);
    assert_eq!(outcome("pass contains \"a.one\" if numbers.range(3, 1) == [3, 2, 1]\n"), Outcome::Pass);
    // The engine drops an error of one clause; it is remembered all the same.
    let hidden = "pass contains \"a.one\" if f(1)\n\nf(1) if count(numbers.range(1, 2000000)) == 0\n\nf(1) := true\n";
    assert!(matches!(ask(hidden), Err(PolicyError::RefusedBuiltin { builtin, .. }) if builtin == "numbers.range"));
}

#[test]
fn a_builtin_that_panics_in_the_engine_does_not_here() {
    assert_eq!(outcome("pass contains \"a.one\" if strings.count(\"\", \"\") == 1\n"), Outcome::Pass);
    assert_eq!(outcome("pass contains \"a.one\" if strings.count(\"aaaa\", \"aa\") == 2\n"), Outcome::Pass);
}

#[test]
fn a_builtin_that_fails_is_undefined_as_in_opa() {
    assert_eq!(outcome("pass contains \"a.one\" if to_number(input.text) == 1\n"), Outcome::Silent);
    assert_eq!(outcome("pass contains \"a.one\" if not to_number(input.text)\n"), Outcome::Pass);
}

#[test]
fn a_syntax_error_names_file_line_and_column() {
    let error = refusal("pass contains \"a.one\" if input.x ==\n");
    assert!(error.starts_with("p/a.rego:"), "{error}");
    let places: Vec<_> = error.splitn(4, ':').collect();
    assert!(places[1].parse::<u64>().unwrap() >= 10 && places[2].parse::<u64>().is_ok(), "{error}");
    assert!(!places[3].contains("-->"), "{error}");
    assert!(refusal("pass contains \"a.one\" { input.x }\n").starts_with("p/a.rego:10:"), "old Rego is no Rego v1");
}

#[test]
fn an_error_while_evaluating_names_its_line() {
    let error =
        refusal(&format!("{GOOD}\nr := 1 if input.x\n\nr := 2 if input.x\n\npass contains \"a.one\" if r == 1\n"));
    assert!(error.starts_with("p/a.rego:1") && error.contains("cannot evaluate"), "{error}");
}

#[test]
fn data_that_contradicts_itself_is_refused() {
    let policies = [file("p/a.rego", &policy("pass contains \"a.one\" if data.s.x + data.s.y == 3\n"))];
    let (x, y) = (file("x.yaml", "s:\n  x: 1\n"), file("y.json", "{\"s\": {\"y\": 2}}"));
    let results = ask_with(&policies, &[x.clone(), y], &patient()).unwrap();
    assert_eq!(results.answers[0].outcome, Outcome::Pass);
    let error = ask_with(&policies, &[x, file("z.yaml", "s: { x: 1 }")], &patient()).unwrap_err();
    assert_eq!(error.to_string(), "data.s.x is given by x.yaml and by z.yaml: leave one of them");
    let error = ask_with(&policies, &[file("x.yaml", "a: { pass: [a.one] }")], &patient()).unwrap_err();
    assert_eq!(error.to_string(), "data.a is given by x.yaml and by package a: leave one of them");
}

#[test]
fn missing_data_passes_nothing() {
    assert_eq!(outcome("pass contains \"a.one\" if data.s.x == 1\n"), Outcome::Silent);
}

#[test]
fn the_input_is_an_object() {
    let ask = |input: &str| {
        let input = serde_json::value::RawValue::from_string(input.to_owned()).unwrap();
        let policies = vec![file("p/a.rego", &policy("pass contains \"a.one\"\n"))];
        evaluate(&EvaluationRequest { policies, data: Vec::new(), input }, &patient())
    };
    assert!(ask("{}").is_ok());
    for input in ["[]", "null", "\"x\""] {
        assert!(matches!(ask(input), Err(PolicyError::Input { .. })));
    }
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(200), "]".repeat(200));
    assert!(matches!(ask(&deep), Err(PolicyError::Input { .. })));
}

#[test]
fn sizes_and_counts_have_limits_at_n_and_one_more() {
    let text = policy(GOOD);
    let policies = [file("p/a.rego", &text)];
    let data = [file("d.json", "{\"s\": 1}")];
    let ask = |limits: EvaluationLimits| ask_with(&policies, &data, &limits);
    const INPUT_BYTES: u64 = r#"{"text":"abc","x":[1,2,3]}"#.len() as u64;
    let base = patient();
    let bytes = text.len() as u64;
    assert!(ask(EvaluationLimits { policy_bytes: bytes, ..base.clone() }).is_ok());
    assert!(matches!(
        ask(EvaluationLimits { policy_bytes: bytes - 1, ..base.clone() }),
        Err(PolicyError::TooMuch { .. })
    ));
    assert!(ask(EvaluationLimits { data_bytes: 8, ..base.clone() }).is_ok());
    assert!(matches!(ask(EvaluationLimits { data_bytes: 7, ..base.clone() }), Err(PolicyError::TooMuch { .. })));
    assert!(ask(EvaluationLimits { input_bytes: INPUT_BYTES, ..base.clone() }).is_ok());
    assert!(matches!(
        ask(EvaluationLimits { input_bytes: INPUT_BYTES - 1, ..base.clone() }),
        Err(PolicyError::TooMuch { .. })
    ));
    assert!(ask(EvaluationLimits { files: 1, ..base.clone() }).is_ok());
    assert!(matches!(ask(EvaluationLimits { files: 0, ..base.clone() }), Err(PolicyError::TooMuch { .. })));
    assert!(ask(EvaluationLimits { answers: 1, ..base.clone() }).is_ok());
    assert!(matches!(ask(EvaluationLimits { answers: 0, ..base.clone() }), Err(PolicyError::TooMuch { .. })));
    assert!(ask(EvaluationLimits { answer_text_bytes: 5, ..base.clone() }).is_ok());
    assert!(matches!(ask(EvaluationLimits { answer_text_bytes: 4, ..base }), Err(PolicyError::TooMuch { .. })));
}

#[test]
fn a_denial_stays_one_however_much_it_says() {
    let rest = concat!(
        "deny contains {\"code\": \"a.one\", \"msg\": msg, \"why\": msg} if {\n",
        "    some n in [1, 2, 3, 4, 5]\n",
        "    msg := sprintf(\"%d %s\", [n, \"ééé\"])\n}\n",
    );
    let limits = EvaluationLimits { answers: 3, answer_text_bytes: 5, ..patient() };
    let results = ask_with(&[file("p/a.rego", &policy(rest))], &[], &limits).unwrap();
    let Outcome::Deny(violations) = &results.answers[0].outcome else { panic!("{results:?}") };
    assert_eq!(violations.as_slice().len(), 3);
    assert_eq!((violations.first().msg.as_str(), &violations.first().fields["why"]), ("1 é…", &json!("1 é…")));
    assert!(results.warnings[0].msg.starts_with("2 of the members of deny are beyond the limit"), "{results:?}");
    let whole = ask_with(&[file("p/a.rego", &policy(rest))], &[], &patient()).unwrap();
    assert!(whole.warnings.is_empty());
    let Outcome::Deny(violations) = &whole.answers[0].outcome else { panic!("{whole:?}") };
    assert_eq!((violations.as_slice().len(), violations.first().msg.as_str()), (5, "1 ééé"));
}

#[test]
fn long_lines_are_no_error() {
    assert_eq!(outcome(&format!("{GOOD}\nlong := \"{}\"\n", "x".repeat(100_000))), Outcome::Pass);
}

#[test]
fn two_files_with_one_name_are_refused() {
    let library = file("p/a.rego", "package b\n");
    let error = rules(&[file("p/a.rego", &policy(GOOD)), library]).unwrap_err();
    assert_eq!(error, PolicyError::SameName { name: "p/a.rego".into() });
}

#[test]
fn tests_beside_the_policies_are_never_asked() {
    let broken = file("p/a_test.rego", "this is not Rego");
    let results = ask_with(&[file("p/a.rego", &policy(GOOD)), broken], &[], &patient()).unwrap();
    assert_eq!(results.answers[0].outcome, Outcome::Pass);
}

#[test]
fn requests_results_and_errors_travel_as_json() {
    let request = json!({
        "policies": [{"name": "p/a.rego", "text": policy(GOOD)}],
        "data": [],
        "input": {"text": "abc"},
    });
    let request: EvaluationRequest = serde_json::from_slice(request.to_string().as_bytes()).unwrap();
    let results = evaluate(&request, &patient()).unwrap();
    let sent = serde_json::to_string(&results).unwrap();
    assert_eq!(serde_json::from_str::<RuleResults>(&sent).unwrap(), results);
    let error = ask("deny contains 1\n").unwrap_err();
    let sent = serde_json::to_string(&error).unwrap();
    assert_eq!(serde_json::from_str::<PolicyError>(&sent).unwrap(), error);
}

#[test]
fn rego_tests_are_run_and_an_empty_suite_is_an_error() {
    let policy = file("p/a.rego", &policy(GOOD));
    let tests = file(
        "p/a_test.rego",
        "package a_test\n\ntest_true if \"a.one\" in data.a.pass with input as {\"text\": \"abc\"}\n\ntest_false if \"a.one\" in data.a.pass\n\nhelper := 1\n",
    );
    let ran = run_tests(&[policy.clone(), tests]).unwrap();
    let ended: Vec<_> = ran.iter().map(|test| (test.name.as_str(), test.line, test.failure.is_none())).collect();
    assert_eq!(ended, [("a_test.test_true", 3, true), ("a_test.test_false", 5, false)]);
    let empty = file("p/a_test.rego", "package a_test\n");
    assert!(matches!(run_tests(&[policy.clone(), empty]), Err(PolicyError::NoTests { .. })));
    assert!(matches!(run_tests(&[policy]), Err(PolicyError::NoTests { .. })));
}

#[test]
fn tests_are_chosen_by_name_and_say_which_lines_they_reached() {
    let policy =
        file("a.rego", "package a\n\nx := 1\n\ny if input.z == 1\n\nunreached if {\n\tinput.never\n\tinput.more\n}\n");
    let tests = file(
        "a_test.rego",
        "package a_test\nimport data.a\ntest_one if a.x == 1\ntest_two if {\n\tprint(\"seen\", a.x)\n\ta.y with input as {\"z\": 1}\n}\ntest_three if a.x == 2\ntodo_test_four if a.x == 3\n",
    );
    let ask = |filter: Option<&str>| {
        let request = rego_tests::TestRequest {
            files: vec![policy.clone(), tests.clone()],
            filter: filter.map(str::to_owned),
            coverage: true,
            ..Default::default()
        };
        rego_tests::run(&request, &patient())
    };
    let all = ask(None).unwrap();
    let said: Vec<_> = all.tests.iter().map(|test| (test.name.as_str(), test.failure.is_none(), test.todo)).collect();
    assert_eq!(
        said,
        [
            ("a_test.test_one", true, false),
            ("a_test.test_two", true, false),
            ("a_test.test_three", false, false),
            ("a_test.todo_test_four", true, true)
        ]
    );
    assert!(all.tests[1].printed[0].contains("seen 1"), "{:?}", all.tests[1].printed);
    assert_eq!(all.coverage.len(), 1, "tests are not counted");
    assert!(all.coverage[0].covered.contains(&5) && all.coverage[0].uncovered.contains(&9), "{:?}", all.coverage);
    let some = ask(Some("t(hre|w)")).unwrap();
    assert_eq!(some.tests.len(), 2);
    assert!(matches!(ask(Some("no such")), Err(PolicyError::NoTests { .. })));
    assert!(matches!(ask(Some("(")), Err(PolicyError::Input { .. })));
}
