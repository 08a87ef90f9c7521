//! Records, the ledger, and what signed statements say it was.

use std::path::Path;

use serde_json::json;
use sluicegate_attestation::{identifiers::BUNDLE, predicate::PredicateType, summary::LedgerHead};
use sluicegate_flow::evidence::{Against, fsck, head, record};
use sluicegate_ports::{
    evidence::{NewRecord, Record, RecordKind},
    ledger::Ledger,
};
use sluicegate_testkit::{MemoryLedger, VirtualSigner, sign_statement, today};
use sluicegate_types::{
    Digest,
    checks::{Check, is_on},
};

use crate::{
    fixture::{Said, Tried, about, promotion, said},
    gate_world::{SOURCE, World, deny, pass},
};

fn new(number: u64) -> NewRecord {
    NewRecord {
        kind: RecordKind::Decision,
        at: today().plus(number),
        subject: None,
        environment: None,
        outcome: "deny".to_owned(),
        body: json!({"number": number}),
    }
}

/// Three records with their leaves, changed by `damage` behind the back of whoever wrote them.
fn kept(damage: impl FnOnce(&mut Vec<Record>)) -> World {
    let (world, _) = World::good();
    world.with_ports(|ports| (0..3).for_each(|number| drop(record(ports, &new(number)).unwrap())));
    world.evidence.tamper(damage);
    world
}

fn checked(world: &World, against: Option<&Against<'_>>) -> Said {
    let report = fsck(&world.evidence, &world.ledger, &world.store, against).map_err(|error| error.to_string())?;
    match report.failure() {
        None => Ok(()),
        Some(_) => Err(format!("{:?} {:?}", report.damage, report.unanchored)),
    }
}

/// One record says something else, and the next one follows it all the same.
fn rewritten(at: usize) -> impl FnOnce(&mut Vec<Record>) {
    move |records| {
        records[at].digest = Digest::of(b"another record");
        if let Some(next) = records.get_mut(at + 1) {
            next.previous = Some(Digest::of(b"another record"));
        }
    }
}

pub(crate) fn tm16_nothing_is_recorded_behind_a_record_that_is_not_its_leaf() -> Tried {
    let ask = |world: &World| said(world.with_ports(|ports| record(ports, &new(3))));
    Tried::good(ask(&kept(|_| {}))).fault(
        "rewritten",
        "is not the record that the ledger's leaf",
        ask(&kept(rewritten(2))),
    )
}

pub(crate) fn tm16_every_record_is_its_leaf() -> Tried {
    let ask = |at: usize| checked(&kept(rewritten(at)), None);
    Tried::good(checked(&kept(|_| {}), None))
        .fault("the first", "it is not the record that the ledger's leaf 0", ask(0))
        .fault("the last", "it is not the record that the ledger's leaf 2", ask(2))
}

pub(crate) fn tm16_every_leaf_has_its_record() -> Tried {
    let cut = kept(|records| drop(records.pop()));
    Tried::good(checked(&kept(|_| {}), None)).fault("the last is gone", "record 3 is missing", checked(&cut, None))
}

/// What fsck says of a ledger of three, against a statement that says it was this.
fn anchored(edit: impl FnOnce(&mut LedgerHead)) -> Said {
    let world = kept(|_| {});
    let mut then = world.with_ports(|ports| head(ports).unwrap());
    edit(&mut then);
    let mut promotion = promotion(world.image.digest(), None);
    promotion.ledger = then;
    let statement = about(world.image.digest(), PredicateType::Promotion, promotion.to_predicate());
    let bundle = sign_statement(&VirtualSigner::new("recorder"), &world.log, &statement);
    world.places.attach(SOURCE, &world.image, BUNDLE, &[(BUNDLE, &bundle)]);
    let against = Against {
        places: &world.places,
        references: &["oci:out/shop".parse().unwrap()],
        folder: Path::new("/project"),
        trust: &world.trust,
        at: today(),
    };
    assert_eq!(world.ledger.head().unwrap().size, 3);
    checked(&world, Some(&against))
}

pub(crate) fn tm16_a_ledger_is_not_shorter_than_a_signed_statement_says() -> Tried {
    Tried::good(anchored(|_| {})).fault("one more then", "the evidence was cut back", anchored(|then| then.size = 4))
}

pub(crate) fn tm16_a_ledger_has_the_root_that_a_signed_statement_says() -> Tried {
    let other = anchored(|then| then.root = Digest::of(b"another root"));
    Tried::good(anchored(|_| {})).fault("another root", "the evidence was rewritten", other)
}

pub(crate) fn tm16_what_records_name_is_in_the_store_as_it_was() -> Tried {
    let after = |damage: fn(&World)| {
        let (world, _) = World::good();
        world.promote(&deny()).map_err(|error| error.to_string())?;
        world.promote(&pass()).map_err(|error| error.to_string())?;
        damage(&world);
        checked(&world, None)
    };
    fn named(world: &World, record: usize, member: &str) -> Digest {
        let body = &world.evidence.records()[record].body;
        body[member].as_str().unwrap_or_else(|| body[member][0].as_str().unwrap()).parse().unwrap()
    }
    let gone = "is not in the store any more";
    Tried::good(after(|_| {}))
        .fault("a document gone", gone, after(|world| world.store.remove(&named(world, 0, "document"))))
        .fault(
            "facts",
            "its bytes have the digest",
            after(|world| world.store.replace(named(world, 0, "facts"), b"{}")),
        )
        .fault("a list of inputs", gone, after(|world| world.store.remove(&named(world, 0, "replay"))))
        .fault("a denial", gone, after(|world| world.store.remove(&named(world, 1, "summary"))))
        .fault("a statement", gone, after(|world| world.store.remove(&named(world, 3, "statements"))))
        .fault("an input", gone, after(|world| world.store.remove(&Digest::of(b"gateway"))))
}

pub(crate) fn tm16_nothing_is_promoted_over_what_was_decided_under_more_of_the_ledger() -> Tried {
    let after = |damage: fn(&mut World)| {
        let (mut world, _) = World::good();
        world.promote(&pass()).map_err(|error| error.to_string())?;
        damage(&mut world);
        let count = world.evidence.records().len();
        let promoted = world.promote(&pass());
        if promoted.is_err() && is_on(Check::OccupantLedger) {
            assert_eq!(world.evidence.records().len(), count, "something was recorded behind it");
        }
        said(promoted)
    };
    // Another home has a history of its own, from its beginning.
    let another_home = after(|world| {
        world.evidence.tamper(Vec::clear);
        world.ledger = MemoryLedger::new("another.example");
    });
    Tried::good(after(|_| {}).and(another_home))
        .fault(
            "cut back",
            "the evidence was cut back",
            after(|world| {
                world.evidence.tamper(Vec::clear);
                world.ledger.tamper(Vec::clear);
            }),
        )
        .fault(
            "written anew",
            "the evidence was rewritten",
            after(|world| {
                world.evidence.tamper(Vec::clear);
                world.ledger.tamper(Vec::clear);
                world.with_ports(|ports| (0..3).for_each(|number| drop(record(ports, &new(number)).unwrap())));
            }),
        )
}
