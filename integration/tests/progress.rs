//! What is seen of a run: at a terminal, in a pipe, by a program; and that steps, whatever they print, only stand there.

use std::{
    fs,
    io::{Read, Write},
    process::{Child, Command, Stdio},
};

use integration::{Project, can_run_steps, program};
use serde_json::{Value, json};
use sluicegate_types::Styling;

const RUN: [&str; 2] = ["run", "--no-scan"];

/// A step that wants the terminal, one that fails with much to say, and what depends on it.
const STEPS: &str = r#"steps:
  build:
    run: mkdir -p /out && cp /src/hello.txt /out/app && echo built
    inputs: { /src: src }
    outputs: { app: /out/app }
  evil:
    needs: [build]
    run: |
      printf '\033[2J\033[H\033[99Astep build passed in 0.0s\r\n'
      printf '\033]0;owned\007\033]52;c;aGk=\033\\\033c\033[?1049h\033[6n\302\233\233\377\000\010\177 \033[31mred\033[0m no end'
  fails:
    needs: [build]
    run: for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo "finding $n"; done; exit 3
  after:
    needs: [fails]
    run: "true"
"#;

/// What `evil` prints.
const EVIL: &[u8] = b"\x1b[2J\x1b[H\x1b[99Astep build passed in 0.0s\r\n\
\x1b]0;owned\x07\x1b]52;c;aGk=\x1b\\\x1bc\x1b[?1049h\x1b[6n\xc2\x9b\x9b\xff\x00\x08\x7f \x1b[31mred\x1b[0m no end";

fn pipeline(project: &Project, steps: &str) {
    let text = format!(
        "version: 1\nname: seen\nsources: {{ src: {{ path: src }} }}\ndefaults: {{ image: oci:images/base }}\n{steps}"
    );
    fs::write(project.path("sluicegate.yaml"), text).unwrap();
}

/// The program at a terminal of its own.
struct AtTerminal {
    child: Child,
    size: (u16, u16),
    shown: Vec<u8>,
}

impl AtTerminal {
    fn begin(project: &Project, arguments: &str, size: (u16, u16)) -> Self {
        let line = format!("stty rows {} cols {}; {} {arguments}", size.0, size.1, program().display());
        let mut command = Command::new("script");
        project.environment(&mut command);
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        command.env("TERM", "xterm-256color").env("LANG", "C.UTF-8").env("SHELL", "/bin/sh");
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Self { child, size, shown: Vec::new() }
    }

    fn type_in(&mut self, bytes: &[u8]) {
        self.child.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Reads until the screen has a text.
    fn until(&mut self, text: &str) {
        let mut piece = [0; 4096];
        while !self.screen().contains(text) {
            let read = self.child.stdout.as_mut().unwrap().read(&mut piece).unwrap();
            assert!(read > 0, "it ended before there was {text:?}:\n{}", self.screen());
            self.shown.extend_from_slice(&piece[..read]);
        }
    }

    /// The exit code.
    fn end(&mut self) -> i32 {
        self.child.stdout.as_mut().unwrap().read_to_end(&mut self.shown).unwrap();
        self.child.wait().unwrap().code().unwrap()
    }

    fn terminal(&self) -> vt100::Parser {
        let mut terminal = vt100::Parser::new(self.size.0.try_into().unwrap(), self.size.1.try_into().unwrap(), 100);
        terminal.process(&self.shown);
        terminal
    }

    /// What stands on the screen.
    fn screen(&self) -> String {
        let lines: Vec<String> =
            self.terminal().screen().rows(0, self.size.1).map(|row| row.trim_end().to_owned()).collect();
        lines.join("\n").trim_end().to_owned()
    }
}

/// A text without its times, whatever they are, and with one blank where there are several.
fn timeless(text: &str) -> String {
    let word = |word: &str| {
        let number = word.trim_end_matches(':').strip_suffix('s').and_then(|number| number.parse::<f64>().ok());
        number.map_or_else(|| word.to_owned(), |_| if word.ends_with(':') { "TIME:" } else { "TIME" }.to_owned())
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn in_a_pipe_there_are_whole_lines_and_no_step_drives_or_forges_anything() {
    if !can_run_steps("in_a_pipe_there_are_whole_lines_and_no_step_drives_or_forges_anything") {
        return;
    }
    let project = Project::prepared();
    pipeline(&project, STEPS);
    let failed = project.sluicegate(&["run", "--no-scan", "--keep-going", "--jobs", "1"]);
    failed.assert(6, "error: step fails ended with code 3");
    assert!(!failed.stderr.contains(|c: char| c.is_control() && c != '\n'), "{failed:?}");
    let lines: Vec<String> = timeless(&failed.stderr).lines().map(str::to_owned).collect();
    for line in [
        "build | built",
        "step build passed in TIME",
        "step fails failed after TIME: ended with code 3",
        "fails | finding 12",
        "step after does not run",
    ] {
        assert!(lines.iter().any(|said| said == line), "{line:?}: {failed:?}");
    }
    // What a step says of another one is what this step says.
    assert_eq!(failed.stderr.lines().filter(|line| line.starts_with("step build passed")).count(), 1, "{failed:?}");
    assert!(
        failed.stderr.contains("evil | \u{fffd}[2J\u{fffd}[H\u{fffd}[99Astep build passed in 0.0s\n"),
        "{failed:?}"
    );
    assert!(failed.stderr.contains(" red no end\n"), "{failed:?}");
    // Nobody else printed between: the tail of the one that failed is not said twice.
    assert_eq!(failed.stderr.matches("finding 12").count(), 1, "{failed:?}");
    // What is shown harmlessly is kept byte for byte, under its digest.
    let whole = project.command(&["logs", "LAST", "evil"]).output().unwrap().stdout;
    assert_eq!(whole, EVIL);
    let (_, listed) = project.json(&["logs", "LAST"]);
    let listed = listed["steps"].as_array().unwrap().iter().find(|step| step["step"] == "evil").unwrap().clone();
    assert_eq!(listed["log"], json!(sluicegate_types::Digest::of(EVIL)));
    let stored =
        project.path("home/store/blobs/sha256").join(listed["log"].as_str().unwrap().trim_start_matches("sha256:"));
    assert_eq!(fs::read(stored).unwrap(), EVIL);
}

#[test]
fn what_styles_a_secret_puts_it_together_nowhere() {
    if !can_run_steps("what_styles_a_secret_puts_it_together_nowhere") {
        return;
    }
    const SECRET: &str = "hunter22-long-secret";
    const HARMLESS: &str = "hun\u{1b}[01;31m\u{1b}[Kter\u{1b}[m\u{1b}[K33 \u{2764}\u{fe0f}\n";
    let mut project = Project::prepared();
    project.set("CI_TOKEN", SECRET);
    // As grep paints what it found, without a colour, and with a selector of variations.
    pipeline(
        &project,
        "steps:\n  use:\n    secrets: { TOKEN: { env: CI_TOKEN } }\n    run: |\n      \
         printf 'is hun\\033[01;31m\\033[Kter\\033[m\\033[K22-long-secret!\\n'\n      printf '%s\\n' \"is $TOKEN!\"\n      \
         printf 'is hun\\357\\270\\217ter22-long-secret!\\n'\n      \
         printf 'hun\\033[01;31m\\033[Kter\\033[m\\033[K33 \\342\\235\\244\\357\\270\\217\\n'\n      exit 3\n",
    );
    let masked = |text: &str, form: &str| {
        let joined = String::from_utf8(Styling::left_out_of(text.as_bytes())).unwrap();
        assert!(!text.contains(SECRET) && !joined.contains(SECRET), "{form}: {text}");
        assert!(text.matches("is ***!").count() >= 3 && text.contains("33 \u{2764}"), "{form}: {text}");
    };
    for form in ["plain", "json", "quiet"] {
        let failed = project.sluicegate(&["run", "--no-scan", "--progress", form]);
        assert_eq!(failed.code, 6, "{failed:?}");
        masked(&failed.stderr, form);
        assert!(failed.stderr.contains("hunter33"), "{form}: {failed:?}");
        let log = String::from_utf8(project.command(&["logs", "LAST", "use"]).output().unwrap().stdout).unwrap();
        masked(&log, form);
        assert!(log.ends_with(HARMLESS), "{log:?}");
    }
    let mut seen = AtTerminal::begin(&project, "run --no-scan --progress tree", (40, 100));
    assert_eq!(seen.end(), 6);
    masked(&seen.screen(), "tree");
    masked(&String::from_utf8_lossy(&seen.shown), "tree");
}

#[test]
fn quiet_and_forms_that_cannot_be_are_said() {
    if !can_run_steps("quiet_and_forms_that_cannot_be_are_said") {
        return;
    }
    let project = Project::prepared();
    pipeline(&project, STEPS);
    project.sluicegate(&["run", "--no-scan", "--progress", "tree"]).assert(2, "now: --progress plain writes lines");
    project.sluicegate(&["run", "--no-scan", "--progress", "plain", "-q"]).assert(2, "contradict each other");
    project
        .sluicegate(&["run", "--no-scan", "--progress", "sideways"])
        .assert(2, "[possible values: auto, tree, plain, json, quiet]");
    for quiet in [&["--progress", "quiet"][..], &["-q"]] {
        let failed = project.sluicegate(&[&["run", "--no-scan", "-k"], quiet].concat());
        assert_eq!(failed.code, 6);
        let said = timeless(&failed.stderr);
        assert!(said.starts_with("step fails failed after TIME: ended with code 3\nfails | finding 3\n"), "{failed:?}");
        assert!(said.contains("fails | finding 12\nall 12 lines: sluicegate logs r"), "{failed:?}");
        assert!(!said.contains("built") && !said.contains("pinned"), "{failed:?}");
        // The command that it names prints all of it.
        let command = failed.stderr.lines().find_map(|line| line.strip_prefix("all 12 lines: sluicegate ")).unwrap();
        let whole = project.must(&command.split(' ').collect::<Vec<_>>()).stdout;
        assert!(whole.starts_with("finding 1\n") && whole.ends_with("finding 12\n"));
        // Then the error, as ever.
        assert!(failed.stderr.lines().any(|line| line == "error: step fails ended with code 3"), "{failed:?}");
    }
}

#[test]
fn programs_read_an_event_a_line_and_nothing_else() {
    if !can_run_steps("programs_read_an_event_a_line_and_nothing_else") {
        return;
    }
    let project = Project::prepared();
    pipeline(&project, STEPS);
    let events = |arguments: &[&str], code: i32| -> Vec<Value> {
        let ended = project.sluicegate(&[arguments, &["--progress", "json", "-o", "json"]].concat());
        assert_eq!(ended.code, code, "{ended:?}");
        let document: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(document["schemaVersion"], 1);
        let events: Vec<Value> = ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(!ended.stderr.contains(|c: char| c.is_control() && c != '\n'), "{ended:?}");
        let last = events.last().unwrap();
        assert_eq!((&last["event"], &last["exit"]), (&json!("run-finished"), &json!(code)));
        assert_eq!(events.iter().filter(|event| event["event"] == "run-finished").count(), 1);
        assert!(events.iter().all(|event| event["schemaVersion"] == 1 && event["time"].is_string()));
        if code != 0 {
            assert_eq!(last["error"], document);
        }
        events
    };
    let of = |events: &[Value], step: &str| -> Vec<String> {
        let own = events.iter().filter(|event| event["step"] == step && event["event"] != "step-output");
        own.map(|event| event["event"].as_str().unwrap().to_owned()).collect()
    };
    let first = events(&["run", "--no-scan", "--keep-going"], 6);
    assert_eq!(first[0]["event"], "run-started");
    assert_eq!(of(&first, "build"), ["step-waiting", "step-started", "step-logged", "step-finished"]);
    assert_eq!(of(&first, "fails"), ["step-waiting", "step-started", "step-logged", "step-failed"]);
    assert_eq!(of(&first, "after"), ["step-waiting", "step-skipped"]);
    let failed = first.iter().find(|event| event["event"] == "step-failed").unwrap();
    assert_eq!((&failed["tail"][0], &failed["tail"][9]), (&json!("finding 3"), &json!("finding 12")));
    let lines: Vec<&str> =
        first.iter().filter(|event| event["step"] == "evil").filter_map(|event| event["line"].as_str()).collect();
    assert!(
        lines.len() == 2 && lines[0].ends_with("step build passed in 0.0s") && lines[1].ends_with("red no end"),
        "{lines:?}"
    );
    let logged = first.iter().find(|event| event["event"] == "step-logged" && event["step"] == "evil").unwrap();
    assert_eq!(logged["log"], json!(sluicegate_types::Digest::of(EVIL)));
    assert_eq!(first.last().unwrap()["outcome"], "step-failed");
    // What is taken says whose work it was.
    let second = events(&["run", "--no-scan", "build"], 0);
    assert_eq!(of(&second, "build"), ["step-waiting", "step-logged", "step-cached"]);
    let cached = second.iter().find(|event| event["event"] == "step-cached").unwrap();
    assert_eq!(cached["originRun"], first[0]["run"]);
    assert_eq!(second.last().unwrap()["error"], Value::Null);
    // A try is on no record and has no name; what is refused before anything begins has its end, too.
    let tried = events(&["try", "build"], 0);
    assert_eq!((&tried[0]["event"], &tried[0]["run"]), (&json!("run-started"), &Value::Null));
    let refused = events(&["run", "--no-scan", "-f", "missing.yaml"], 2);
    assert_eq!((refused.len(), &refused[0]["outcome"]), (1, &json!("usage")));
}

#[test]
fn at_a_terminal_there_is_a_tree_that_stays_when_the_run_is_over() {
    if !can_run_steps("at_a_terminal_there_is_a_tree_that_stays_when_the_run_is_over") {
        return;
    }
    let project = Project::prepared();
    pipeline(&project, STEPS);
    let mut seen = AtTerminal::begin(&project, "run --no-scan --keep-going", (40, 100));
    assert_eq!(seen.end(), 6);
    let screen = timeless(&seen.screen());
    for part in [
        "\n✓ build TIME\n✓ evil TIME\n✗ fails TIME ended with code 3\n│ finding 3\n",
        "│ finding 12\nall 12 lines: sluicegate logs r",
        "\n- after not run\nerror: step fails ended with code 3\n",
    ] {
        assert!(screen.contains(part), "{part:?}:\n{}", seen.screen());
    }
    assert!(!screen.contains("owned") && !screen.contains("steps TIME"), "{screen}");
    let terminal = seen.terminal();
    assert!(!terminal.screen().alternate_screen() && !terminal.screen().hide_cursor());
    // Now with an earlier result, without colours, and fewer columns than a line has characters.
    let mut project = project;
    project.set("NO_COLOR", "1");
    pipeline(&project, &STEPS.replace("exit 3", "exit 0"));
    let mut seen = AtTerminal::begin(&project, "run --no-scan", (40, 40));
    assert_eq!(seen.end(), 0);
    let screen = seen.screen();
    let cached = screen.lines().find(|line| line.starts_with("✓ build")).unwrap();
    assert!(cached.contains("cached") && cached.contains(" ago, run r") && cached.ends_with('…'), "{screen}");
    assert!(!String::from_utf8_lossy(&seen.shown).contains("\x1b[2m"), "{screen}");
    assert!(screen.lines().any(|line| line.starts_with("RAN  4 steps of run")), "{screen}");
    // In CI, and where the terminal can do nothing, it gets lines.
    for said in ["CI=true", "TERM=dumb"] {
        let command = format!("--version; {said} exec {} run --no-scan", program().display());
        let mut lines = AtTerminal::begin(&project, &command, (40, 100));
        assert_eq!(lines.end(), 0);
        assert!(
            !lines.shown.contains(&b'\x1b') && lines.screen().contains("step build is taken from"),
            "{}",
            lines.screen()
        );
    }
}

#[test]
fn an_interrupt_at_a_terminal_ends_the_run_as_it_should_and_leaves_the_terminal_clean() {
    if !can_run_steps("an_interrupt_at_a_terminal_ends_the_run_as_it_should_and_leaves_the_terminal_clean") {
        return;
    }
    let project = Project::prepared();
    pipeline(
        &project,
        "steps:\n  first:\n    run: echo done\n  long:\n    needs: [first]\n    run: echo waiting; sleep 1000\n",
    );
    let mut seen = AtTerminal::begin(&project, RUN.join(" ").as_str(), (24, 80));
    seen.until("waiting");
    // To the whole group of processes, as a terminal does it.
    seen.type_in(b"\x03");
    assert_eq!(seen.end(), 130, "{}", seen.screen());
    let screen = timeless(&seen.screen());
    assert_eq!(screen.matches("first").count(), 1, "one tree, and nothing of others: {screen}");
    assert!(screen.contains("✓ first TIME\n✗ long TIME was stopped\n│ waiting\n"), "{screen}");
    assert!(!screen.contains("^C"), "{screen}");
    assert_eq!(project.last_record("run")["outcome"], "aborted");
}

#[test]
fn an_interrupt_that_a_step_does_not_hear_is_seen_at_a_terminal() {
    if !can_run_steps("an_interrupt_that_a_step_does_not_hear_is_seen_at_a_terminal") {
        return;
    }
    let project = Project::prepared();
    pipeline(&project, "steps:\n  deaf:\n    run: trap '' INT TERM; echo waiting; sleep 1000\n");
    let mut seen = AtTerminal::begin(&project, RUN.join(" ").as_str(), (24, 80));
    seen.until("waiting");
    seen.type_in(b"\x03");
    seen.until("stopping; once more ends it at once");
    assert_eq!(seen.end(), 130, "{}", seen.screen());
    let screen = timeless(&seen.screen());
    assert!(screen.contains("✗ deaf TIME was stopped\n") && !screen.contains("stopping"), "{screen}");
}
