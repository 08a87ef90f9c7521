//! `fsck` with the real store and the real ledger: which damage is found, each kind beside the same evidence undamaged, and what signed
//! decisions prove (trust model 16).

use std::{fs, path::Path, sync::LazyLock};

use serde_json::{Value, json};
use sluicegate_attestation::{
    identifiers::{BUNDLE, IMAGE_MANIFEST},
    predicate::PredicateType,
    statement::{Statement, Subject},
    summary::{LedgerHead, Promotion, PromotionClaim, SummaryClaim, VerificationSummary},
};
use sluicegate_flow::{
    Failure,
    evidence::{Against, FsckReport, fsck, record},
};
use sluicegate_ports::{
    evidence::{EvidenceLog, NewRecord},
    ledger::Ledger,
    store::ContentStore,
};
use sluicegate_testkit::{MemoryStore, VirtualSigner, sign_statement, today};
use sluicegate_types::{Digest, ImageRef, NonEmpty};

use crate::{
    evidence_home::{Home, new, with_ports},
    gate_world::{LEDGER, SOURCE, World, deny, pass, promotion, summary},
};

/// What fsck says about what is attached to the world's image.
fn against(home: &Home, world: &World) -> FsckReport {
    fsck(&home.store(), &home.reader(), &world.store, Some(&shop(world))).unwrap()
}

fn shop(world: &World) -> Against<'_> {
    static SHOP: LazyLock<[ImageRef; 1]> = LazyLock::new(|| ["oci:out/shop".parse().unwrap()]);
    Against {
        places: &world.places,
        references: SHOP.as_slice(),
        folder: Path::new("/project"),
        trust: &world.trust,
        at: today(),
    }
}

/// What a gate says about the world's image, with `head`.
fn predicate(world: &World, kind: &PredicateType, ledger: LedgerHead) -> Value {
    let image = world.image.digest();
    if *kind == PredicateType::Promotion {
        Promotion { ledger, ..promotion(image, None) }.to_predicate()
    } else {
        VerificationSummary { ledger, ..summary(image) }.to_predicate()
    }
}

/// Attaches a statement of `signer` about the world's image that holds `head`.
fn attach(world: &World, signer: &str, kind: PredicateType, head: LedgerHead) {
    let mut predicate = predicate(world, &kind, head);
    if signer == "decider" && kind == PredicateType::Promotion {
        // What an environment's key promotes rests on its decision.
        predicate["sluicegate_basis"] = json!({"sha256": Digest::of(b"the decision").hex()});
    }
    attach_predicate(world, signer, kind, predicate);
}

fn attach_predicate(world: &World, signer: &str, kind: PredicateType, predicate: Value) {
    let subject = Subject { name: None, digest: world.image.digest(), media_type: Some(IMAGE_MANIFEST.to_owned()) };
    let statement = Statement { subjects: NonEmpty::one(subject), predicate_type: kind, predicate };
    let bundle = sign_statement(&VirtualSigner::new(signer), &world.log, &statement);
    world.places.attach(SOURCE, &world.image, BUNDLE, &[(BUNDLE, &bundle)]);
}

/// A world whose image bears the decision that was signed when `home` was as it is now.
fn anchored(home: &Home) -> World {
    let (world, _) = World::good();
    attach(&world, "decider", PredicateType::VerificationSummary, home.head());
    world
}

#[test]
fn tm16_an_edited_row_is_found() {
    let home = Home::of(4);
    home.assert_whole(4);
    home.tamper("UPDATE records SET outcome = 'allow' WHERE sequence = 2");
    assert!(home.damage().contains("evidence record 2 is damaged"));
}

#[test]
fn tm16_a_missing_row_is_found() {
    for (gone, word) in [
        (1, "evidence record 1 is damaged: it is missing"),
        (2, "evidence record 2 is damaged: it is missing"),
        (4, "evidence record 4 is missing"),
    ] {
        let home = Home::of(4);
        home.assert_whole(4);
        home.tamper(&format!("DELETE FROM records WHERE sequence = {gone}"));
        assert!(home.damage().contains(word), "{}", home.damage());
    }
    let home = Home::of(4);
    home.tamper("DELETE FROM records");
    assert!(home.damage().contains("evidence records 1 to 4 are missing"), "{}", home.damage());
}

#[test]
fn tm16_a_reordered_row_is_found() {
    let home = Home::of(4);
    home.assert_whole(4);
    home.tamper(
        "UPDATE records SET sequence = 9 WHERE sequence = 2; UPDATE records SET sequence = 2 WHERE sequence = 3; \
         UPDATE records SET sequence = 3 WHERE sequence = 9",
    );
    assert!(home.damage().contains("evidence record 2 is damaged"));
}

/// Whoever owns the file computes every digest anew, so that the chain is whole; the ledger still holds the old ones.
#[test]
fn tm16_rows_that_were_written_anew_differ_from_their_leaves() {
    let home = Home::of(4);
    home.assert_whole(4);
    let forger = Home::of(1);
    let store = forger.store();
    for number in [7, 2, 3] {
        store.append(&new(number)).unwrap();
    }
    assert_eq!(store.check().unwrap(), 4, "a chain that is whole in itself");
    drop(store);
    home.restore(&forger.backup(), true, false);
    let damage = home.damage();
    assert!(damage.contains("evidence record 2 is damaged: it is not the record that the ledger's leaf 1"), "{damage}");
    assert!(damage.contains("2 later ones"), "{damage}");
    // Two rows exchanged and everything behind them computed anew.
    let (home, forger) = (Home::of(3), Home::of(1));
    let store = forger.store();
    [2, 1].into_iter().for_each(|number| drop(store.append(&new(number)).unwrap()));
    drop(store);
    home.restore(&forger.backup(), true, false);
    assert!(home.damage().contains("evidence record 2 is damaged"));
}

#[test]
fn tm16_one_flipped_bit_is_found() {
    let home = Home::of(3);
    let backup = home.backup();
    home.assert_whole(3);
    for name in ["ledger/checkpoint", "ledger/tile/entries/000.p/3", "ledger/tile/0/000.p/3"] {
        let good = fs::read(home.path(name)).unwrap();
        for bit in (0..good.len() * 8).step_by(13) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(home.path(name), bad).unwrap();
            let damage = home.damage();
            assert!(damage.contains("the ledger in"), "{damage}");
        }
        fs::write(home.path(name), good).unwrap();
        home.assert_whole(3);
    }
    // In the database: every bit of the text of a record.
    let good = fs::read(home.path("evidence.db")).unwrap();
    let place = good.windows(12).position(|window| window == br#"{"number":1}"#).unwrap();
    for bit in 0..12 * 8 {
        let mut bad = good.clone();
        bad[place + bit / 8] ^= 1 << (bit % 8);
        fs::write(home.path("evidence.db"), bad).unwrap();
        assert!(home.damage().contains("evidence record 2 is damaged"));
    }
    home.restore(&backup, true, false);
    home.assert_whole(3);
}

#[test]
fn tm16_a_cut_tile_and_a_ledger_that_is_gone_are_found() {
    for name in ["ledger/tile/entries/000.p/3", "ledger/tile/0/000.p/3", "ledger/checkpoint"] {
        let home = Home::of(3);
        home.assert_whole(3);
        let good = fs::read(home.path(name)).unwrap();
        fs::write(home.path(name), &good[..good.len() - 1]).unwrap();
        let named = name.trim_start_matches("ledger/");
        assert!(home.damage().contains(named), "{}", home.damage());
        fs::remove_file(home.path(name)).unwrap();
        assert!(home.damage().contains(named), "{}", home.damage());
        fs::write(home.path(name), good).unwrap();
        home.assert_whole(3);
        fs::remove_dir_all(home.path("ledger")).unwrap();
        assert!(home.damage().contains("no checkpoint"), "{}", home.damage());
    }
}

#[test]
fn tm16_a_database_that_was_cut_back_alone_is_found_by_the_ledger() {
    let home = Home::of(3);
    let backup = home.backup();
    home.with(|ports| (3..5).for_each(|number| drop(record(ports, &new(number)).unwrap())));
    home.assert_whole(5);
    home.restore(&backup, true, false);
    assert!(home.damage().contains("evidence records 4 to 5 are missing"), "{}", home.damage());
}

#[test]
fn tm16_a_row_in_a_damaged_write_ahead_log_is_missed() {
    let home = Home::of(1);
    // A reader that stays keeps what follows in the write-ahead log.
    let (store, ledger) = (home.store(), home.ledger());
    with_ports(&store, &ledger, |ports| record(ports, &new(1)).unwrap());
    let copy = home.backup();
    let wal = home.path("evidence.db-wal");
    let mut bytes = fs::read(&wal).unwrap();
    drop((store, ledger));
    home.restore(&copy, true, false);
    fs::write(&wal, &bytes).unwrap();
    home.assert_whole(2);
    home.restore(&copy, true, false);
    let place = bytes.windows(12).rposition(|window| window == br#"{"number":1}"#).unwrap();
    bytes[place + 3] ^= 1;
    fs::write(&wal, &bytes).unwrap();
    assert!(home.damage().contains("evidence record 2 is missing"), "{}", home.damage());
}

#[test]
fn tm16_database_and_ledger_cut_back_together_are_found_by_a_decision() {
    let home = Home::of(3);
    let backup = home.backup();
    home.with(|ports| (3..5).for_each(|number| drop(record(ports, &new(number)).unwrap())));
    let world = anchored(&home);
    home.with(|ports| record(ports, &new(5)).unwrap());
    let report = against(&home, &world);
    assert_eq!((report.failure(), report.records), (None, Some(6)));
    assert_eq!(report.anchor().unwrap().head.size, 5);
    assert_eq!(report.to_json()["completeSince"]["size"], 5);
    home.restore(&backup, true, true);
    home.assert_whole(3);
    let report = against(&home, &world);
    assert_eq!(report.failure(), Some(Failure::Wrong));
    assert!(
        report.damage[0].contains("cut back") && report.damage[0].contains("records 4 to 5 are gone"),
        "{report:?}"
    );
    assert_eq!(report.to_json()["completeSince"], Value::Null);
    // What came after the last decision is the home's own word, and the report does not say otherwise.
    let home = Home::of(3);
    let (backup, world) = (home.backup(), anchored(&home));
    home.with(|ports| record(ports, &new(3)).unwrap());
    home.restore(&backup, true, true);
    let report = against(&home, &world);
    assert_eq!((report.failure(), report.anchor().unwrap().head.size, report.records), (None, 3, Some(3)));
}

/// Whoever holds the key of the ledger cuts both back and goes on: as many records, another history.
#[test]
fn tm16_a_history_that_was_rewritten_with_the_ledgers_own_key_is_found_by_a_decision() {
    let home = Home::of(2);
    let backup = home.backup();
    home.with(|ports| record(ports, &new(2)).unwrap());
    let world = anchored(&home);
    assert_eq!(against(&home, &world).failure(), None);
    home.restore(&backup, true, true);
    home.with(|ports| (7..10).for_each(|number| drop(record(ports, &new(number)).unwrap())));
    home.assert_whole(5);
    let report = against(&home, &world);
    assert_eq!(report.failure(), Some(Failure::Wrong));
    assert!(report.damage[0].contains("rewritten"), "{report:?}");
}

#[test]
fn tm16_a_checkpoint_that_went_back_alone_is_found_by_a_decision() {
    let home = Home::of(2);
    let backup = home.backup();
    home.with(|ports| record(ports, &new(2)).unwrap());
    let world = anchored(&home);
    home.restore(&backup, false, true);
    assert_eq!((home.fsck().failure(), home.fsck().pending()), (Some(Failure::Undecided), 1));
    assert!(against(&home, &world).damage[0].contains("cut back"));
}

#[test]
fn an_image_that_proves_nothing_about_this_ledger_leaves_it_open() {
    let home = Home::of(2);
    let open = |world: &World, word: &str| {
        let report = against(&home, world);
        assert_eq!((report.failure(), report.anchor()), (Some(Failure::Undecided), None));
        assert!(report.unanchored[0].1.contains(word), "{report:?}");
    };
    let (world, _) = World::good();
    open(&world, "holds a ledger's head");
    let summary = PredicateType::VerificationSummary;
    // A stranger, a key of another role, a decision of before there were ledgers, one about an empty one.
    attach(&world, "stranger", summary.clone(), home.head());
    attach(&world, "builder", summary.clone(), home.head());
    attach(&world, "builder", PredicateType::Promotion, home.head());
    let mut old = predicate(&world, &summary, home.head());
    old.as_object_mut().unwrap().remove("sluicegate_ledger").unwrap();
    attach_predicate(&world, "decider", summary.clone(), old);
    open(&world, "holds a ledger's head");
    let empty = LedgerHead { origin: LEDGER.to_owned(), size: 0, root: Digest::of(b"") };
    attach(&world, "decider", summary.clone(), empty);
    open(&world, "empty ledger");
    let elsewhere = LedgerHead { origin: "elsewhere.example".to_owned(), ..home.head() };
    attach(&world, "decider", summary.clone(), elsewhere);
    open(&world, "about elsewhere.example");
    // One that counts is enough, and junk beside it changes nothing.
    attach(&world, "decider", summary, home.head());
    assert_eq!(against(&home, &world).failure(), None);
    for (signer, kind) in [("recorder", PredicateType::Promotion), ("decider", PredicateType::Promotion)] {
        let (world, _) = World::good();
        attach(&world, signer, kind, home.head());
        let report = against(&home, &world);
        assert_eq!((report.failure(), report.anchor().unwrap().signer.as_str()), (None, signer));
    }
}

#[test]
fn tm16_a_list_of_inputs_that_is_none_is_damage() {
    let home = Home::of(1);
    let kept = MemoryStore::new();
    let list = kept.put_bytes(b"no list").unwrap();
    let checked = || fsck(&home.store(), &home.reader(), &kept, None).unwrap();
    assert_eq!(checked().failure(), None);
    let named = NewRecord { body: json!({"replay": list}), ..new(1) };
    home.with(|ports| record(ports, &named).unwrap());
    let report = checked();
    assert_eq!((report.failure(), report.contents, report.damage.len()), (Some(Failure::Wrong), 1, 1));
    assert!(report.damage[0].contains("says nothing of sense"), "{:?}", report.damage);
}

#[test]
fn damage_outweighs_an_image_that_proves_nothing() {
    let home = Home::of(2);
    let (world, _) = World::good();
    assert_eq!(against(&home, &world).failure(), Some(Failure::Undecided));
    home.tamper("UPDATE records SET outcome = 'allow' WHERE sequence = 1");
    assert_eq!(against(&home, &world).failure(), Some(Failure::Wrong));
}

#[test]
fn tm16_a_decision_bears_the_ledger_with_its_own_record_denials_too() {
    let (world, _) = World::good();
    world.promote(&deny()).unwrap();
    // The denial lies beside the image and vouches for its own record.
    let report = fsck(&world.evidence, &world.ledger, &world.store, Some(&shop(&world))).unwrap();
    assert_eq!((report.failure(), report.anchors.len(), report.anchors[0].head.size), (None, 1, 1));
    let (records, leaves) = (world.evidence.records(), world.ledger.all());
    world.evidence.tamper(Vec::clear);
    world.ledger.tamper(Vec::clear);
    assert_eq!(fsck(&world.evidence, &world.ledger, &world.store, None).unwrap().failure(), None);
    let report = fsck(&world.evidence, &world.ledger, &world.store, Some(&shop(&world))).unwrap();
    assert!(report.damage[0].contains("the evidence was cut back"), "{:?}", report.damage);
    world.evidence.tamper(|there| *there = records);
    world.ledger.tamper(|there| *there = leaves);
    let denial: Digest = world.last_record().body["summary"].as_str().unwrap().parse().unwrap();
    let claim = SummaryClaim::parse(&world.statement(&denial).predicate).unwrap();
    assert_eq!((claim.passed, claim.ledger.unwrap().size), (false, 1));
    world.promote(&pass()).unwrap();
    let bundles = world.bundles_at_target();
    let predicate = |kind: &str| world.statement(&bundles.iter().find(|(k, _)| k == kind).unwrap().1).predicate;
    let head = LedgerHead { origin: LEDGER.to_owned(), size: 3, root: world.ledger.root_at(3).unwrap() };
    assert_eq!(SummaryClaim::parse(&predicate("verification-summary")).unwrap().ledger.as_ref(), Some(&head));
    assert_eq!(PromotionClaim::parse(&predicate("promotion")).unwrap().ledger.as_ref(), Some(&head));
    assert_eq!(world.outcomes(), ["deny", "signed", "allow", "promoted"]);
    assert_eq!(world.ledger.all().len(), 4);
    // And these two are what fsck goes by.
    let references = ["oci:environments/production:current".parse().unwrap()];
    let here = Against { references: &references, folder: Path::new("/gateway"), ..shop(&world) };
    let report = fsck(&world.evidence, &world.ledger, &world.store, Some(&here)).unwrap();
    let kinds: Vec<_> = report.anchors.iter().map(|anchor| anchor.kind.as_str()).collect();
    assert_eq!((report.failure(), kinds.len()), (None, 2), "{kinds:?}");
    world.evidence.tamper(|records| records.truncate(1));
    world.ledger.tamper(|leaves| leaves.truncate(1));
    assert_eq!(fsck(&world.evidence, &world.ledger, &world.store, None).unwrap().failure(), None);
    assert_eq!(fsck(&world.evidence, &world.ledger, &world.store, Some(&here)).unwrap().damage.len(), 2);
}
