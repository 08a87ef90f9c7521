//! Recording with the real store and the real ledger: each row has its leaf, what was left behind is caught up, and nothing is recorded
//! behind damage (trust model 16).

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::{Arc, Barrier},
    thread,
};

use serde_json::json;
use sluicegate_flow::{
    Error, Failure,
    evidence::{Standing, begin, head, list, record, show},
    promote::Promoted,
    replay::replay,
};
use sluicegate_ports::{
    evidence::{EvidenceError, EvidenceLog, NewRecord, RecordKind},
    ledger::{Ledger, LedgerError},
};
use sluicegate_testkit::{MemoryEvidence, MemoryLedger, MemoryStore, today};
use sluicegate_types::Digest;

use crate::{
    evidence_home::{Home, new, warned, with_ports},
    gate_world::{Crash, LEDGER, SOURCE, TARGET, World, pass},
};

#[test]
fn each_record_is_one_leaf_with_its_digest() {
    let home = Home::of(3);
    let mut digests: Vec<Digest> = home.store().list(10).unwrap().iter().map(|record| record.digest).collect();
    digests.reverse();
    assert_eq!(home.reader().leaves(0, 10).unwrap(), digests);
    home.assert_whole(3);
    let report = home.fsck();
    assert_eq!((report.pending(), report.ledger), (0, Some(home.head())));
}

#[test]
fn tm16_a_row_that_was_committed_without_its_leaf_is_taken_along_in_the_open() {
    let home = Home::of(2);
    let ((), none) = warned(&home.store(), &home.ledger(), |ports| drop(record(ports, &new(2)).unwrap()));
    assert_eq!((none, home.store().check().unwrap()), (Vec::new(), 3), "nobody else's rows were there");
    // A process died in between; twice. Or somebody wrote into the database.
    home.store().append(&new(3)).unwrap();
    home.store().append(&new(4)).unwrap();
    let report = home.fsck();
    assert_eq!((report.failure(), report.records, report.pending()), (Some(Failure::Undecided), Some(5), 2));
    assert_eq!(home.fsck().pending(), 2, "fsck changes nothing");
    let (made, warnings) = warned(&home.store(), &home.ledger(), |ports| record(ports, &new(5)).unwrap());
    assert_eq!(made.sequence, 7);
    assert!(warnings.len() == 1 && warnings[0].contains("evidence records 4 to 5,"), "{warnings:?}");
    let said = home.store().show(6).unwrap();
    assert_eq!((said.kind, said.outcome.as_str()), (RecordKind::Ledger, "adopted"));
    assert_eq!(said.body, json!({"from": 4, "to": 5}));
    home.assert_whole(7);
    // Whoever asks what to sign takes along, too.
    home.store().append(&new(6)).unwrap();
    let (asked, warnings) = warned(&home.store(), &home.ledger(), |ports| head(ports).unwrap());
    assert_eq!((asked.size, &asked), (9, &home.head()));
    assert!(warnings.len() == 1 && warnings[0].contains("evidence record 8,"), "{warnings:?}");
    home.assert_whole(9);
}

#[test]
fn tm16_a_row_that_comes_in_between_is_taken_along_in_the_open() {
    let intruded = MemoryEvidence::new();
    let ledger = MemoryLedger::new(LEDGER);
    with_ports(&intruded, &ledger, |ports| drop(record(ports, &new(0)).unwrap()));
    intruded.append_meanwhile(&new(7));
    let (made, warnings) = warned(&intruded, &ledger, |ports| record(ports, &new(1)).unwrap());
    assert_eq!(made.sequence, 3);
    assert!(warnings.len() == 1 && warnings[0].contains("evidence record 2,"), "{warnings:?}");
    assert_eq!(intruded.records()[3].body, json!({"from": 2, "to": 2}));
    assert_eq!(ledger.all().len(), 4);
}

#[test]
fn tm16_a_row_that_comes_in_while_others_are_taken_along_is_one_of_them() {
    let (intruded, ledger) = (MemoryEvidence::new(), MemoryLedger::new(LEDGER));
    with_ports(&intruded, &ledger, |ports| drop(record(ports, &new(0)).unwrap()));
    intruded.append(&new(1)).unwrap();
    intruded.append_meanwhile(&new(7));
    let (made, warnings) = warned(&intruded, &ledger, |ports| record(ports, &new(2)).unwrap());
    assert_eq!((made.sequence, ledger.all().len()), (6, 6));
    assert!(warnings[0].contains("evidence record 2,") && warnings[1].contains("evidence record 3,"), "{warnings:?}");
    let standings: Vec<Standing> =
        list(&intruded, &ledger, 10).unwrap().into_iter().rev().map(|(_, standing)| standing).collect();
    let (logged, taken) = (Standing::Logged, |by| Standing::Adopted { by });
    assert_eq!(standings, [logged, taken(4), taken(5), logged, logged, logged]);
    for (sequence, standing) in (1..).zip(&standings) {
        assert_eq!(show(&intruded, &ledger, sequence).unwrap().1, *standing);
    }
    // Before there is a ledger, too.
    let (before, ledger) = (MemoryEvidence::new(), MemoryLedger::new(LEDGER));
    before.append(&new(0)).unwrap();
    before.append_meanwhile(&new(7));
    assert_eq!(begin(&before, &ledger, today()).unwrap(), Some((1, 1)));
    assert_eq!((ledger.all().len(), before.records()[3].body.clone()), (4, json!({"from": 2, "to": 2})));
}

#[test]
fn tm16_a_forged_record_makes_no_other_look_forged() {
    let home = Home::of(2);
    let forged = |from: u64, to: u64| NewRecord {
        kind: RecordKind::Ledger,
        outcome: "adopted".to_owned(),
        body: json!({"from": from, "to": to}),
        ..new(9)
    };
    home.store().append(&forged(1, (1 << 53) - 1)).unwrap();
    home.store().append(&forged(1, 2)).unwrap();
    home.with(|ports| record(ports, &new(3)).unwrap());
    home.with(|ports| record(ports, &new(4)).unwrap());
    let standing = |sequence| show(&home.store(), &home.reader(), sequence).unwrap().1;
    for sequence in [1, 2, 5, 6, 7] {
        assert_eq!(standing(sequence), Standing::Logged, "{sequence}");
    }
    for sequence in [3, 4] {
        assert_eq!(standing(sequence), Standing::Adopted { by: 5 }, "{sequence}");
    }
}

#[test]
fn tm16_what_is_said_to_be_recorded_is_in_the_ledger() {
    let (evidence, ledger) = (MemoryEvidence::new(), MemoryLedger::new(LEDGER));
    with_ports(&evidence, &ledger, |ports| drop(record(ports, &new(0)).unwrap()));
    evidence.swallows(true);
    let failed = with_ports(&evidence, &ledger, |ports| record(ports, &new(1)));
    let Err(Error::Evidence(EvidenceError::Damaged { sequence: 2, reason })) = failed else { panic!("{failed:?}") };
    assert!(reason.contains("not in the ledger"), "{reason}");
    evidence.swallows(false);
    assert_eq!(with_ports(&evidence, &ledger, |ports| record(ports, &new(1)).unwrap()).sequence, 2);
    // Another leaf in its place: somebody took another row along.
    ledger.grows_meanwhile(&[Digest::of(b"another record")]);
    let failed = with_ports(&evidence, &ledger, |ports| record(ports, &new(2)));
    assert!(matches!(failed, Err(Error::Evidence(EvidenceError::Damaged { sequence: 3, .. }))), "{failed:?}");
}

#[test]
fn tm16_a_trigger_that_swallows_a_record_is_an_error_and_nothing_is_said_to_be_recorded() {
    for name in ["more", "records"] {
        let home = Home::of(2);
        let sql = format!("CREATE TRIGGER {name} BEFORE INSERT ON records BEGIN SELECT RAISE(IGNORE); END");
        rusqlite::Connection::open(home.path("evidence.db")).unwrap().execute_batch(&sql).unwrap();
        let failed = home.with(|ports| record(ports, &new(2)));
        assert!(matches!(failed, Err(Error::Evidence(EvidenceError::Corrupt { .. }))), "{failed:?}");
        assert!(home.damage().contains(&format!("the trigger {name:?}")), "{}", home.damage());
        let drop = format!("DROP TRIGGER {name}");
        rusqlite::Connection::open(home.path("evidence.db")).unwrap().execute_batch(&drop).unwrap();
        assert_eq!(home.with(|ports| record(ports, &new(2)).unwrap()).sequence, 3);
        home.assert_whole(3);
    }
}

#[test]
fn tm16_a_record_that_is_read_is_compared_with_its_leaf() {
    let home = Home::of(3);
    let (store, reader) = (home.store(), home.reader());
    let standings = |limit| list(&store, &reader, limit).unwrap().into_iter().map(|(_, standing)| standing);
    assert!(standings(10).all(|standing| standing == Standing::Logged));
    assert_eq!(show(&store, &reader, 2).unwrap().1, Standing::Logged);
    store.append(&new(3)).unwrap();
    assert_eq!(standings(2).collect::<Vec<_>>(), [Standing::Pending, Standing::Logged]);
    assert_eq!((show(&store, &reader, 4).unwrap().1, standings(0).count()), (Standing::Pending, 0));
    // A store that is whole in itself and another one, then one that is shorter.
    let (home, other) = (Home::of(3), Home::of(1));
    [7, 2].into_iter().for_each(|number| drop(other.store().append(&new(number)).unwrap()));
    home.restore(&other.backup(), true, false);
    let (store, reader) = (home.store(), home.reader());
    let found: Vec<Standing> = list(&store, &reader, 9).unwrap().into_iter().map(|(_, standing)| standing).collect();
    assert_eq!(found, [Standing::Differs, Standing::Differs, Standing::Logged]);
    let is_damaged = |number| {
        let shown = show(&store, &reader, number);
        assert!(matches!(shown, Err(Error::Evidence(EvidenceError::Damaged { sequence, .. })) if sequence == number));
    };
    [2, 3].into_iter().for_each(is_damaged);
    assert!(show(&store, &reader, 1).is_ok());
    let none = show(&store, &reader, 4);
    assert!(matches!(none, Err(Error::Evidence(EvidenceError::NoRecord { sequence: 4 }))), "{none:?}");
    let home = Home::of(3);
    home.tamper("DELETE FROM records WHERE sequence = 3");
    let (store, reader) = (home.store(), home.reader());
    for failed in [show(&store, &reader, 3).map(drop), list(&store, &reader, 1).map(drop)] {
        assert!(matches!(failed, Err(Error::Evidence(EvidenceError::Damaged { sequence: 3, .. }))), "{failed:?}");
    }
}

#[test]
fn tm16_a_record_that_its_writer_did_not_log_proves_no_decision() {
    let home = Home::of(2);
    let kept = MemoryStore::new();
    let replayed = |sequence| {
        let said = replay(&home.store(), &home.reader(), &kept, &Crash, sequence).unwrap_err();
        (said.failure(), said.to_string())
    };
    let standing = |sequence| show(&home.store(), &home.reader(), sequence).unwrap().1;
    home.store().append(&new(3)).unwrap();
    assert_eq!(standing(3), Standing::Pending);
    let (failure, said) = replayed(3);
    assert!(failure == Failure::Undecided && said.contains("not in the ledger yet"), "{said}");
    home.with(|ports| record(ports, &new(4)).unwrap());
    assert_eq!(standing(3), Standing::Adopted { by: 4 });
    let (failure, said) = replayed(3);
    assert!(failure == Failure::Undecided && said.contains("did not log it (see evidence record 4)"), "{said}");
    let listed = list(&home.store(), &home.reader(), 10).unwrap();
    let adopted = listed.iter().filter(|(_, standing)| *standing != Standing::Logged);
    assert_eq!(adopted.map(|(record, _)| record.sequence).collect::<Vec<_>>(), [3]);
    // The others are looked at further, and nothing was judged in them.
    for sequence in [1, 2, 4, 5] {
        assert_eq!(standing(sequence), Standing::Logged);
        assert_eq!(replayed(sequence).0, Failure::Usage);
    }
}

#[test]
fn a_store_that_was_there_before_the_ledger_is_taken_along() {
    let home = Home::of(0);
    let store = home.store();
    assert_eq!(begin(&store, &home.ledger(), today()).unwrap(), None);
    assert_eq!(store.check().unwrap(), 0, "nothing was there, so nothing is said");
    (0..5).for_each(|number| drop(store.append(&new(number)).unwrap()));
    assert_eq!(home.fsck().pending(), 5);
    assert_eq!(begin(&store, &home.ledger(), today()).unwrap(), Some((1, 5)));
    assert_eq!(store.show(6).unwrap().body, json!({"from": 1, "to": 5}));
    let (_, warnings) = warned(&store, &home.ledger(), |ports| record(ports, &new(5)).unwrap());
    assert_eq!(warnings, Vec::<String>::new());
    home.assert_whole(7);
    assert_eq!(home.head().size, 7);
}

#[test]
fn rows_that_somebody_else_took_along_are_not_logged_twice() {
    let home = Home::of(0);
    let store = home.store();
    let first = store.append(&new(0)).unwrap().digest;
    let ledger = MemoryLedger::new(LEDGER);
    // Between the question how large the ledger is and the append, another process appends this very row.
    ledger.grows_meanwhile(&[first]);
    assert_eq!(with_ports(&store, &ledger, |ports| head(ports).unwrap()).size, 2);
    assert_eq!(ledger.all(), [first, store.show(2).unwrap().digest]);
}

#[test]
fn a_ledger_that_takes_nothing_leaves_the_row_pending_and_says_so() {
    let home = Home::of(0);
    let store = home.store();
    let ledger = MemoryLedger::new(LEDGER);
    ledger.breaks(true);
    let failed = with_ports(&store, &ledger, |ports| record(ports, &new(0)));
    assert!(matches!(failed, Err(Error::Ledger(LedgerError::Io { .. }))), "{failed:?}");
    assert_eq!((store.check().unwrap(), ledger.all().len()), (1, 0));
    ledger.breaks(false);
    with_ports(&store, &ledger, |ports| record(ports, &new(1))).unwrap();
    assert_eq!((store.check().unwrap(), ledger.all().len()), (3, 3));
}

#[test]
fn nothing_is_recorded_behind_a_store_that_was_cut_back_or_exchanged() {
    for (sql, word) in [
        ("DELETE FROM records WHERE sequence = 3", "it is missing"),
        ("DELETE FROM records", "it is missing"),
        ("UPDATE records SET outcome = 'allow' WHERE sequence = 3", "recorded with"),
    ] {
        let home = Home::of(3);
        home.tamper(sql);
        let failed = home.with(|ports| record(ports, &new(3)));
        let Err(Error::Evidence(EvidenceError::Damaged { sequence: 3, reason })) = failed else { panic!("{failed:?}") };
        assert!(reason.contains(word), "{reason}");
        assert_eq!(home.head().size, 3);
    }
    // Another store with as many records.
    let (home, other) = (Home::of(3), Home::of(0));
    other.with(|ports| (5..8).for_each(|number| drop(record(ports, &new(number)).unwrap())));
    home.restore(&other.backup(), true, false);
    let failed = home.with(|ports| record(ports, &new(3)));
    assert!(matches!(failed, Err(Error::Evidence(EvidenceError::Damaged { sequence: 3, .. }))), "{failed:?}");
    let home = Home::of(3);
    assert_eq!(home.with(|ports| record(ports, &new(3)).unwrap()).sequence, 4);
}

#[test]
fn several_processes_that_record_at_once_keep_one_ledger() {
    let home = Arc::new(Home::of(0));
    let start = Arc::new(Barrier::new(4));
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let (home, start) = (Arc::clone(&home), Arc::clone(&start));
            thread::spawn(move || {
                let (store, ledger) = (home.store(), home.ledger());
                start.wait();
                let ((), warnings) = warned(&store, &ledger, |ports| {
                    (0..8).for_each(|number| drop(record(ports, &new(thread * 100 + number)).unwrap()));
                });
                assert_eq!(warnings, Vec::<String>::new(), "nobody takes another's row for one that was left behind");
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    home.assert_whole(32);
    assert_eq!((home.head().size, home.fsck().pending()), (32, 0));
}

#[test]
fn nothing_is_promoted_when_the_decision_does_not_come_into_the_ledger() {
    let (world, _) = World::good();
    world.ledger.breaks(true);
    assert!(matches!(world.promote(&pass()), Err(Error::Ledger(LedgerError::Io { .. }))));
    assert_eq!((world.places.occupant(TARGET), world.places.blobs(TARGET)), (None, Vec::new()));
    world.ledger.breaks(false);
    assert!(world.promote(&pass()).is_ok());
    assert_eq!(world.ledger.all().len(), world.evidence.records().len());
}

const CHILD: &str = "SLUICEGATE_TEST_EVIDENCE_CHILD";

#[test]
fn tm16_nothing_is_recorded_behind_a_ledger_that_was_cut_back_whatever_else_is_wrong() {
    let (world, build) = World::good();
    world.promote(&pass()).unwrap();
    let before = world.evidence.records().len();
    world.places.drop_blob(SOURCE, &build.digest("sbom"));
    assert!(matches!(world.promote(&pass()), Ok(Promoted::Undecided { .. })), "a whole ledger goes on");
    assert_eq!(world.evidence.records().len(), before + 1);
    world.evidence.tamper(Vec::clear);
    world.ledger.tamper(Vec::clear);
    let error = world.promote(&pass()).unwrap_err();
    assert!(matches!(error, Error::CutBack(_)), "{error}");
    assert_eq!(world.evidence.records().len(), 0);
}

#[test]
fn tm16_what_another_home_decided_before_is_told_and_on_record() {
    let (mut world, _) = World::good();
    world.promote(&pass()).unwrap();
    assert!(world.evidence.records().iter().all(|record| record.body["otherLedgers"].is_null()));
    world.evidence = MemoryEvidence::default();
    world.ledger = MemoryLedger::new("another.example");
    world.promote(&pass()).unwrap();
    assert!(world.told.borrow().iter().any(|line| line.contains(&format!("under another ledger, {LEDGER}"))));
    let decided = world.evidence.records().into_iter().find(|record| record.outcome == "allow").unwrap();
    assert_eq!(decided.body["otherLedgers"], json!([LEDGER]));
}

#[test]
fn what_a_killed_process_recorded_is_kept_and_caught_up() {
    if let Some(folder) = std::env::var_os(CHILD) {
        let home = Home::at(folder.into());
        home.with(|ports| {
            for number in 0.. {
                let made = record(ports, &new(number)).unwrap();
                // A pipe, not the macro that the test harness swallows; it breaks when the parent is gone.
                writeln!(std::io::stdout().lock(), "RECORDED {} {}", made.sequence, made.digest).unwrap();
            }
        });
    }
    let home = Home::of(0);
    let mut promised: Vec<(u64, Digest)> = Vec::new();
    for lines in [1, 4, 9] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "recording::what_a_killed_process_recorded_is_kept_and_caught_up", "--nocapture"])
            .env(CHILD, home.folder())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let keep = |line: String, promised: &mut Vec<(u64, Digest)>| {
            // The harness may print in front of the first line.
            if let Some((sequence, digest)) = line.split_once("RECORDED ").and_then(|(_, rest)| rest.split_once(' ')) {
                promised.push((sequence.parse().unwrap(), digest.parse().unwrap()));
            }
        };
        let enough = promised.len() + lines;
        while promised.len() < enough {
            keep(output.next().unwrap(), &mut promised);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        output.for_each(|line| keep(line, &mut promised));
        let report = home.fsck();
        assert_eq!(report.failure(), (report.pending() > 0).then_some(Failure::Undecided), "{report:?}");
        assert!(report.pending() <= 1, "{report:?}");
        for (sequence, digest) in &promised {
            assert_eq!(home.reader().leaves(sequence - 1, 1).unwrap(), [*digest]);
        }
    }
    home.with(|ports| record(ports, &new(1000)).unwrap());
    let report = home.fsck();
    assert_eq!((report.failure(), report.pending()), (None, 0));
}
