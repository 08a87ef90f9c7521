//! What a user sees, on a terminal that is none, at times that are made up.

use std::collections::BTreeMap;

use sluicegate_flow::steps::{ImageStage, TakenFrom};
use sluicegate_types::{Digest, OutputName, UnixTime};

use super::*;

const RUN: &str = "r20261129093000-0a1b2c3d";

fn name(text: &str) -> StepName {
    text.parse().unwrap()
}

fn at(millis: u64) -> Now {
    let elapsed = Duration::from_millis(millis);
    Now { elapsed, at: Duration::from_secs(1_800_000_000) + elapsed }
}

/// What is shown, and all that was sent for it.
struct Watched {
    shown: Shown,
    sent: Arc<Mutex<String>>,
    size: (usize, usize),
    millis: u64,
}

impl Watched {
    fn new(form: Form, graph: &[(&str, &[&str])], size: (usize, usize), look: Look) -> Self {
        let needs: BTreeMap<StepName, Vec<StepName>> =
            graph.iter().map(|(step, needs)| (name(step), needs.iter().map(|one| name(one)).collect())).collect();
        let sent = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&sent);
        let sink: Sink = Box::new(move |text| to.lock().unwrap().push_str(text));
        let mut shown = Shown::new(form, Board::new(Some(RUN.parse().unwrap()), needs), look, sink);
        shown.begin("shop", at(0));
        let mut watched = Self { shown, sent, size, millis: 0 };
        let names: Vec<StepName> = graph.iter().map(|(step, _)| name(step)).collect();
        watched.event(&StepEvent::Planned(&names.iter().collect::<Vec<_>>()));
        watched
    }

    fn tree(graph: &[(&str, &[&str])], size: (usize, usize)) -> Self {
        Self::new(Form::Tree, graph, size, Look { colour: false, unicode: true })
    }

    fn event(&mut self, event: &StepEvent<'_>) {
        self.shown.event(event, at(self.millis), self.size);
    }

    fn start(&mut self, step: &str) {
        self.event(&StepEvent::Started(&name(step), 1));
    }

    fn print(&mut self, step: &str, bytes: impl AsRef<[u8]>) {
        self.event(&StepEvent::Output(&name(step), bytes.as_ref()));
    }

    fn pass(&mut self, step: &str) {
        self.event(&StepEvent::Logged(&name(step), Digest::of(b"log")));
        self.event(&StepEvent::Passed(&name(step)));
    }

    fn fail(&mut self, step: &str, reason: &str) {
        self.event(&StepEvent::Logged(&name(step), Digest::of(b"log")));
        self.event(&StepEvent::Failed(&name(step), &format!("step {step} {reason}"), false));
    }

    fn take(&mut self, step: &str) {
        let (run, finished_on) = ("r1".parse().unwrap(), UnixTime::from_seconds(1_800_000_000 - 3 * 3600).unwrap());
        let from = TakenFrom { bundle: Digest::of(b"bundle"), run: &run, finished_on };
        self.event(&StepEvent::Logged(&name(step), Digest::of(b"log")));
        self.event(&StepEvent::Taken(&name(step), from));
    }

    fn image(&mut self, stage: ImageStage) {
        let artifact: OutputName = "app".parse().unwrap();
        self.event(&StepEvent::Image(&artifact, stage));
    }

    fn after(&mut self, millis: u64) {
        self.millis += millis;
        self.shown.draw(at(self.millis), self.size);
    }

    fn end(&mut self) {
        self.shown.end(at(self.millis), self.size);
    }

    fn sent(&self) -> String {
        self.sent.lock().unwrap().clone()
    }

    /// What a terminal shows of all that was sent, without empty lines at the end.
    fn screen(&self) -> String {
        let (rows, columns) = self.size;
        let (rows, columns) = (u16::try_from(rows).unwrap(), u16::try_from(columns).unwrap());
        let mut terminal = vt100::Parser::new(rows.try_into().unwrap(), columns.try_into().unwrap(), 1000);
        terminal.process(self.sent().replace('\n', "\r\n").as_bytes());
        let lines: Vec<String> = terminal.screen().rows(0, columns).map(|row| row.trim_end().to_owned()).collect();
        lines.join("\n").trim_end().to_owned()
    }
}

/// Everything in a text that a terminal would do instead of showing it.
fn orders(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_control() && c != '\n') {
        let order = &rest[start..];
        let end = order.char_indices().skip(2).find(|(_, c)| c.is_ascii_alphabetic());
        let one = order.chars().next().map_or(0, char::len_utf8);
        let end = if order.starts_with("\x1b[") { end.map_or(order.len(), |(at, _)| at + 1) } else { one };
        found.push(order[..end].to_owned());
        rest = &order[end..];
    }
    found
}

/// What a step prints that wants to be taken for more than a step.
const HOSTILE: &[u8] =
    b"\x1b[2J\x1b[H\x1b[99A\x1b[1000Dok\x1b]0;owned\x07\x1b]52;c;aGk=\x1b\\\x1bc\x1b(0\x1b[?1049h\x1b[6n\
\x9b2J\xc2\x9b2J\x08\x08\x7f\x0e\xe2\x80\xae\xff\r\n\x1b[31mstep build passed in 0.0s\x1b[0m\n";

#[test]
fn a_tree_shows_every_step_as_it_is() {
    let graph: [(&str, &[&str]); 6] = [
        ("fetch", &[]),
        ("build", &["fetch"]),
        ("test", &["build"]),
        ("lint", &["build"]),
        ("package", &["test", "lint"]),
        ("report", &["package"]),
    ];
    let mut watched = Watched::tree(&graph, (24, 100));
    watched.take("fetch");
    watched.start("build");
    watched.print("build", "compiling one\ncompiling two");
    watched.after(1500);
    assert_eq!(
        watched.screen(),
        "\
✓ fetch     cached  3h ago, run r1
⠴ build       1.5s  compiling two
  · test
  · lint
· package
· report
1/6 steps  1.5s"
    );
    watched.pass("build");
    watched.start("test");
    watched.start("lint");
    watched.event(&StepEvent::Failed(&name("lint"), "step lint ended with code 1", true));
    watched.event(&StepEvent::Started(&name("lint"), 2));
    watched.print("test", "\u{1f600} 1 of 2\r\u{1f600} 2 of 2");
    watched.shown.tell("image base of the steps is scanned", at(1500), (24, 100));
    watched.after(62_000);
    assert_eq!(
        watched.screen(),
        "\
✓ fetch     cached  3h ago, run r1
✓ build       1.5s
  ⠴ test     1m02s  \u{1f600} 2 of 2
  ⠴ lint     1m02s  try 2
· package
· report
2/6 steps  1m03s  image base of the steps is scanned"
    );
    for line in 1..=12 {
        watched.print("lint", format!("finding {line}\n"));
    }
    watched.pass("test");
    watched.fail("lint", "ended with code 1");
    for step in ["package", "report"] {
        watched.event(&StepEvent::Skipped(&name(step)));
    }
    watched.end();
    assert_eq!(
        watched.screen(),
        format!(
            "\
✓ fetch     cached  3h ago, run r1
✓ build       1.5s
  ✓ test     1m02s
  ✗ lint     1m02s  try 2  ended with code 1
      │ finding 3
      │ finding 4
      │ finding 5
      │ finding 6
      │ finding 7
      │ finding 8
      │ finding 9
      │ finding 10
      │ finding 11
      │ finding 12
      all 12 lines: sluicegate logs {RUN} lint
- package  not run
- report   not run"
        )
    );
}

#[test]
fn images_follow_the_steps_and_words_before_them_scroll_away() {
    let mut watched = Watched::tree(&[], (24, 80));
    watched.shown.tell("pinned oci:base to sha256:aa", at(0), (24, 80));
    watched.event(&StepEvent::Planned(&[&name("build")]));
    watched.start("build");
    watched.after(2000);
    watched.pass("build");
    watched.image(ImageStage::Assembled);
    watched.after(300);
    watched.image(ImageStage::Scanned);
    watched.after(1000);
    watched.shown.warn("something \x1b[2Jodd", at(watched.millis), (24, 80));
    assert_eq!(
        watched.screen(),
        "\
pinned oci:base to sha256:aa
warning: something [2Jodd
✓ build         2.0s
⠸ image app     1.3s  is scanned
1/1 steps  3.3s"
    );
    watched.image(ImageStage::Written);
    watched.end();
    assert!(watched.screen().ends_with("✓ build         2.0s\n✓ image app     1.3s"), "{}", watched.screen());
    // The terminal of the tests leaves U+FFFD out; it is there.
    assert!(watched.sent().contains("something \u{fffd}[2Jodd"));
    // What breaks off while an image is made is said of the image.
    let mut watched = Watched::tree(&[("build", &[])], (24, 80));
    watched.image(ImageStage::Published);
    watched.end();
    assert!(watched.screen().ends_with("✗ image app     0.0s  is written with its evidence"), "{}", watched.screen());
}

#[test]
fn more_steps_than_rows_fold_into_a_count() {
    let names: Vec<String> = (0..50).map(|n| format!("step-{n:02}")).collect();
    let graph: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), &[][..])).collect();
    let size = (20, 40);
    let mut watched = Watched::tree(&graph, size);
    watched.shown.warn("this stays above", at(0), size);
    let frame = |watched: &Watched| tree(&watched.shown.board, at(watched.millis), size, watched.shown.look, false);
    let lines = |watched: &Watched| frame(watched).into_iter().map(|line| line.text).collect::<Vec<_>>();
    let first = lines(&watched);
    assert_eq!((first.len(), first[0].as_str(), first[16].as_str()), (19, "· step-00", "· step-16"));
    assert_eq!(first[17..], ["· 33 more waiting", "0/50 steps  0.0s"]);
    for (at, step) in names.iter().enumerate().take(40) {
        watched.start(step);
        watched.print(step, format!("the output of {step} is longer than forty columns: {}\n", "x".repeat(500)));
        watched.after(100);
        match at {
            7 => watched.take(step),
            30 => watched.fail(step, "ended with code 1"),
            _ => watched.pass(step),
        }
        assert_eq!(lines(&watched).len(), 19, "{at}");
    }
    for step in &names[40..43] {
        watched.start(step);
    }
    watched.after(100);
    let seen = watched.screen();
    assert!(
        seen.contains("✓ 34 more done, 1 of them cached\n✗ step-30     0.1s  ended with code 1\n    │ the"),
        "{seen}"
    );
    assert!(seen.contains("⠙ step-42     0.1s") && seen.contains("· step-49"), "{seen}");
    assert!(seen.ends_with("39/50 steps  1 failed  4.1s"), "{seen}");
    // One frame stands on the terminal, not what is left of others.
    assert_eq!(seen.matches("more done").count(), 1, "{seen}");
    assert_eq!(seen.lines().count(), 19);
    // However low it is, there is a frame that fits, and it says how much is left out.
    for rows in 1..=30 {
        let lines = tree(&watched.shown.board, at(0), (rows, 40), watched.shown.look, false);
        assert!(lines.len() < rows.max(2), "{rows}");
    }
}

#[test]
fn no_line_is_wider_than_the_terminal_whatever_is_printed() {
    let long = "a-very-long-name-of-a-step-that-nobody-can-read";
    for columns in 1..=60 {
        for unicode in [true, false] {
            let look = Look { colour: true, unicode };
            let mut watched =
                Watched::new(Form::Tree, &[(long, &[]), ("b", &[long]), ("c", &[long])], (12, columns), look);
            watched.start(long);
            watched.print(long, "\u{754c}\u{754c}\u{1f468}\u{200d}\u{1f469} e\u{301}\u{301}\u{301}\u{301} ".repeat(20));
            watched.after(100);
            for line in tree(&watched.shown.board, at(100), watched.size, look, false) {
                let plain = strip(&line.text);
                let width = unicode_width::UnicodeWidthStr::width(plain.as_str());
                assert!(width <= line.width && line.width < columns.max(2), "{columns}: {width} {plain:?}");
            }
            if columns > 20 {
                // Nothing was broken: each line that was sent is one on the terminal.
                assert_eq!(watched.screen().lines().count(), 4, "{columns}: {}", watched.screen());
            }
        }
    }
}

/// A text without what paints it.
fn strip(text: &str) -> String {
    orders(text).iter().fold(text.to_owned(), |text, order| text.replace(order, ""))
}

#[test]
fn a_terminal_that_became_narrower_is_drawn_over_from_the_top() {
    let mut screen = Screen::default();
    let line = |width: usize| screen::DrawnLine { text: "x".repeat(width), width };
    assert!(screen.draw(&[line(60), line(10), line(0)], (24, 80)).starts_with("\rx"));
    // Now the first line takes two rows of the terminal.
    assert!(screen.draw(&[line(10)], (24, 40)).starts_with("\r\x1b[4A"));
    assert_eq!(screen.above("a\nb\n", (24, 40)), "\r\x1b[1Aa\x1b[K\nb\x1b[K\n");
    assert_eq!(screen.draw(&[], (24, 40)), "\r\x1b[J");
    // No further up than the terminal reaches.
    screen.draw(&[line(400), line(400)], (24, 401));
    assert!(screen.draw(&[], (10, 4)).starts_with("\r\x1b[9A"));
}

#[test]
fn a_step_cannot_drive_the_terminal_nor_forge_what_is_ours() {
    for form in [Form::Tree, Form::Plain, Form::Quiet, Form::Json] {
        for colour in [true, false] {
            let look = Look { colour, unicode: true };
            let mut watched = Watched::new(form, &[("evil", &[]), ("build", &["evil"])], (24, 80), look);
            watched.start("evil");
            watched.print("evil", HOSTILE);
            watched.print("evil", &HOSTILE[..40]);
            watched.after(100);
            watched.fail("evil", "ended with code 1\x1b[2J\nstep build passed");
            watched.end();
            let sent = watched.sent();
            for order in orders(&sent) {
                let ours = match form {
                    Form::Tree => ["\r", "\x1b[K", "\x1b[J"].contains(&order.as_str()) || order.ends_with(['A', 'm']),
                    _ => order.ends_with('m'),
                };
                assert!(ours && (colour || !order.ends_with('m')), "{form:?} {colour}: {order:?} in {sent:?}");
            }
            if matches!(form, Form::Plain | Form::Quiet) {
                let lines: Vec<String> = sent.lines().map(strip).collect();
                let forged = lines.iter().filter(|line| line.starts_with("step build"));
                assert_eq!(forged.count(), 0, "{lines:#?}");
                assert!(lines.contains(&"evil | step build passed in 0.0s".to_owned()), "{lines:#?}");
            }
        }
    }
    assert_eq!(orders("a\x1b[2Jb\x07\x1b[31m\n\u{9b}"), ["\x1b[2J", "\x07", "\x1b[31m", "\u{9b}"]);
}

#[test]
fn plain_lines_are_whole_and_a_tail_is_repeated_only_where_it_was_lost() {
    let look = Look { colour: false, unicode: false };
    let mut watched = Watched::new(Form::Plain, &[("a", &[]), ("b", &[]), ("c", &["a"])], (24, 80), look);
    watched.shown.tell("pinned", at(0), (24, 80));
    watched.start("a");
    watched.start("b");
    watched.print("a", "first of a, ");
    watched.print("b", "one of b\ntwo");
    watched.print("a", "whole\nsecond of a\n");
    watched.print("b", " of b\n");
    watched.after(1200);
    watched.fail("a", "ended with code 1");
    watched.print("b", "three of b, without an end");
    watched.fail("b", "was killed after 60 s (limits.timeout)");
    watched.event(&StepEvent::Skipped(&name("c")));
    watched.end();
    assert_eq!(
        watched.sent(),
        "\
pinned
step a runs
step b runs
b | one of b
a | first of a, whole
a | second of a
b | two of b
step a failed after 1.2s: ended with code 1
a | first of a, whole
a | second of a
b | three of b, without an end
step b failed after 1.2s: was killed after 60 s (limits.timeout)
b | one of b
b | two of b
b | three of b, without an end
step c does not run
"
    );
    let mut watched = Watched::new(Form::Plain, &[("a", &[]), ("b", &[])], (24, 80), look);
    watched.take("a");
    watched.start("b");
    watched.event(&StepEvent::Failed(&name("b"), "step b ended with code 1", true));
    watched.event(&StepEvent::Started(&name("b"), 2));
    watched.after(1200);
    watched.pass("b");
    watched.image(ImageStage::Scanned);
    watched.image(ImageStage::Written);
    let taken = format!("step a is taken from {} of run r1", Digest::of(b"bundle"));
    assert_eq!(
        watched.sent(),
        format!(
            "{taken}\nstep b runs\nstep b ended with code 1; it is tried again\nstep b runs, try 2\nstep b passed in 1.2s\nimage app is \
             written with its evidence\n"
        )
    );
    // Alone, its last lines are the last ones anyway.
    let mut watched = Watched::new(Form::Plain, &[("a", &[])], (24, 80), look);
    watched.start("a");
    watched.print("a", "one\ntwo\n");
    watched.after(61_000);
    watched.fail("a", "ended with code 1");
    assert_eq!(watched.sent(), "step a runs\na | one\na | two\nstep a failed after 1m01s: ended with code 1\n");
}

#[test]
fn quiet_says_what_failed_with_its_tail_and_nothing_else() {
    let look = Look { colour: false, unicode: false };
    let mut watched = Watched::new(Form::Quiet, &[("a", &[]), ("b", &["a"])], (24, 80), look);
    watched.shown.tell("step a runs", at(0), (24, 80));
    watched.start("a");
    watched.print("a", "a\n");
    watched.pass("a");
    assert_eq!(watched.sent(), "");
    watched.start("b");
    for line in 1..=11 {
        watched.print("b", format!("{line}\n"));
    }
    watched.fail("b", "ended with code 1");
    watched.shown.warn("look", at(0), (24, 80));
    let sent = watched.sent();
    assert!(sent.starts_with("step b failed after 0.0s: ended with code 1\nb | 2\n"), "{sent}");
    assert!(sent.ends_with(&format!("b | 11\nall 11 lines: sluicegate logs {RUN} b\nwarning: look\n")), "{sent}");
}

#[test]
fn every_event_is_a_json_object_on_its_line() {
    let look = Look { colour: true, unicode: true };
    let graph: [(&str, &[&str]); 4] = [("a", &[]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"])];
    let mut watched = Watched::new(Form::Json, &graph, (24, 80), look);
    watched.take("a");
    watched.start("b");
    watched.print("b", b"one\nt\x1b[31mw\"o\xff");
    watched.event(&StepEvent::Failed(&name("b"), "step b ended with code 1", true));
    watched.event(&StepEvent::Started(&name("b"), 2));
    watched.after(1200);
    watched.pass("b");
    watched.start("c");
    watched.print("c", b"\xff\n");
    watched.fail("c", "ended with code 1");
    watched.event(&StepEvent::Skipped(&name("d")));
    watched.image(ImageStage::Scanned);
    watched.image(ImageStage::Written);
    watched.shown.tell("pinned", at(0), (24, 80));
    watched.shown.warn("odd", at(0), (24, 80));
    watched.shown.stopping(at(0), (24, 80));
    watched.end();
    let sent = watched.sent() + &finished(6, Some(serde_json::json!({"exit": 6})));
    let events: Vec<serde_json::Value> = sent.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let schema: serde_json::Value = serde_json::from_slice(&std::fs::read(events::tests::FILE).unwrap()).unwrap();
    for event in &events {
        assert_eq!(event["schemaVersion"], 1);
        // Each has exactly the members that the schema gives its kind, and what both lines have.
        let kinds = schema["oneOf"].as_array().unwrap();
        let kind = kinds.iter().find(|kind| kind["properties"]["event"]["const"] == event["event"]).unwrap();
        for member in event.as_object().unwrap().keys() {
            assert!(["schemaVersion", "time"].contains(&member.as_str()) || kind["properties"][member].is_object());
        }
        for member in kind["required"].as_array().unwrap() {
            assert!(event.get(member.as_str().unwrap()).is_some(), "{event} {member}");
        }
    }
    let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
    let kinds: std::collections::BTreeSet<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds.len(), schema["oneOf"].as_array().unwrap().len(), "all of them: {kinds:?}");
    assert_eq!(of("step-waiting")[3]["needs"], serde_json::json!(["b", "c"]));
    assert_eq!(of("step-cached")[0]["originRun"], "r1");
    assert_eq!(of("step-output")[2]["line"], "\u{fffd}");
    assert_eq!(of("step-retrying")[0]["attempt"], 1);
    assert_eq!(of("step-finished")[0]["milliseconds"], 1200);
    assert_eq!(of("step-failed")[0]["tail"], serde_json::json!(["\u{fffd}"]));
    assert_eq!((&of("run-finished")[0]["outcome"], &of("run-started")[0]["run"]), (&"step-failed".into(), &RUN.into()));
}

#[test]
fn reasons_are_told_to_programs_without_what_would_drive_a_terminal() {
    let mut watched = Watched::new(Form::Json, &[("a", &[])], (24, 80), Look { colour: true, unicode: true });
    watched.start("a");
    let reason = "left an output that cannot be kept: \"\u{9b}2J\u{202e}\u{2066}\u{1b}c\"\nas git says: über";
    watched.event(&StepEvent::Failed(&name("a"), reason, true));
    watched.fail("a", reason);
    let sent = watched.sent();
    let reasons: Vec<String> = sent
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter_map(|event| event["reason"].as_str().map(str::to_owned))
        .collect();
    let told = "left an output that cannot be kept: \"\u{fffd}2J\u{fffd}\u{fffd}\u{fffd}c\"\nas git says: über";
    assert_eq!(reasons, [told.to_owned(), format!("step a {told}")]);
}

#[test]
fn who_asks_a_run_to_end_is_told_once_that_it_does() {
    for form in [Form::Tree, Form::Plain, Form::Quiet, Form::Json] {
        let mut watched = Watched::new(form, &[("a", &[])], (24, 80), Look { colour: false, unicode: true });
        watched.start("a");
        let before = watched.sent();
        watched.shown.stopping(at(0), (24, 80));
        let said = watched.sent().split_off(before.len());
        match form {
            Form::Tree => {
                watched.shown.tell("step a is proved", at(0), (24, 80));
                watched.after(100);
                let line = "0/1 steps  0.1s  stopping; once more ends it at once";
                assert_eq!(watched.screen().lines().last(), Some(line));
            }
            Form::Plain => assert_eq!(said, "stopping; once more ends it at once\n"),
            Form::Json => assert!(said.ends_with("\"event\":\"stopping\"}\n"), "{said}"),
            Form::Quiet => assert_eq!(said, ""),
        }
        let before = watched.sent();
        watched.shown.stopping(at(0), (24, 80));
        assert_eq!(watched.sent(), before, "{form:?}");
        watched.end();
        assert!(form != Form::Tree || !watched.screen().contains("stopping"), "{}", watched.screen());
        // A signal that comes when all is over is nothing to tell.
        let mut watched = Watched::new(form, &[("a", &[])], (24, 80), Look { colour: false, unicode: true });
        watched.end();
        let before = watched.sent();
        watched.shown.stopping(at(0), (24, 80));
        assert_eq!(watched.sent(), before, "{form:?}");
    }
}

#[test]
fn what_is_remembered_of_a_step_does_not_grow_with_what_it_prints() {
    let mut watched = Watched::tree(&[("a", &[])], (24, 80));
    watched.start("a");
    for _ in 0..64 {
        watched.print("a", [b'x'; 64 * 1024]);
        watched.print("a", "line\n".repeat(10_000));
    }
    let row = watched.shown.board.row(&name("a")).unwrap();
    assert!(row.printed > 600_000);
    assert!(row.tail().len() == board::TAIL && row.tail().all(|line| line.len() <= 512));
    // Output is drawn with the next tick, not with each piece of it.
    assert!(watched.sent().len() < 64 * 1024);
}
