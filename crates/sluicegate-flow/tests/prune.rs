//! `prune`: what records refer to stays, whatever else goes; what can't be read ends it before anything goes; and a break in the middle
//! leaves nothing that dangles.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{ErrorKind, Read},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use sluicegate_flow::{
    Error, Failure, Ports,
    evidence::{fsck, record},
    prune::{BrokeOff, Keep, Materials, Parts, Plan, carry_out, plan},
};
use sluicegate_ports::{
    evidence::{EvidenceLog, NewRecord, RecordKind},
    ledger::Ledger,
    prune::{Disposable, Listed, PrunableStore, Thing, Tie},
    store::{ContentStore, StoreError},
};
use sluicegate_testkit::{MemoryStore, MemoryThings, VirtualImage, today};
use sluicegate_types::{Digest, UnixTime};

use crate::{
    evidence_home::{Home, new},
    gate_world::{World, deny, pass},
};

const DAY: u64 = 86_400;

/// What was used in the last ten days is kept.
fn keep() -> Keep {
    Keep { used_within: Some(Duration::from_secs(10 * DAY)), bytes: None, materials: Materials::Named, now: today() }
}

fn days_ago(days: i64) -> UnixTime {
    UnixTime::from_seconds(today().seconds() - days * 86_400).unwrap()
}

fn parts<'a>(
    store: &'a dyn PrunableStore,
    evidence: &'a dyn EvidenceLog,
    ledger: &'a dyn Ledger,
    disposable: &'a [&'a dyn Disposable],
) -> Parts<'a> {
    Parts { store, evidence, ledger, waiting: &[], disposable }
}

/// A world in which something was denied and promoted.
fn used_world() -> World {
    let (world, _) = World::good();
    world.promote(&deny()).unwrap();
    world.promote(&pass()).unwrap();
    world
}

fn pruned(world: &World, keep: &Keep, disposable: &[&dyn Disposable]) -> Plan {
    let parts = parts(&world.store, &world.evidence, &world.ledger, disposable);
    let plan = plan(&parts, keep).unwrap();
    carry_out(&parts, &plan).unwrap();
    plan
}

/// Puts on record what names this.
fn on_record(world: &World, body: Value) {
    on_record_as(RecordKind::Decision, world, body);
}

fn on_record_as(kind: RecordKind, world: &World, body: Value) {
    world.with_ports(|ports: &Ports<'_>| record(ports, &NewRecord { kind, body, ..new(9) }).unwrap());
}

/// Every text of a document, and of the statement in it if it is a bundle: read as what it is, not as a row of bytes.
fn texts(document: &Value, found: &mut BTreeSet<String>) {
    match document {
        Value::String(text) => drop(found.insert(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(members) => members.iter().for_each(|(name, member)| {
            found.insert(name.clone());
            let payload = member.as_str().filter(|_| name == "payload").and_then(|text| BASE64.decode(text).ok());
            match payload.and_then(|payload| serde_json::from_slice::<Value>(&payload).ok()) {
                Some(statement) => texts(&statement, found),
                None => texts(member, found),
            }
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// All that the records refer to and that the store has, found another way than `prune` does.
fn referred_to(world: &World) -> BTreeSet<Digest> {
    let mut named = BTreeSet::new();
    for record in world.evidence.records() {
        texts(&json!([record.subject, record.body]), &mut named);
    }
    let held: BTreeSet<Digest> = world.store.digests().into_iter().collect();
    let mut found: BTreeSet<Digest> = BTreeSet::new();
    loop {
        let is_named = |digest: &&Digest| named.contains(&digest.to_string()) || named.contains(&digest.hex());
        let new: Vec<Digest> =
            held.iter().filter(is_named).filter(|digest| !found.contains(*digest)).copied().collect();
        if new.is_empty() {
            return found;
        }
        for digest in new {
            found.insert(digest);
            if let Ok(document) = serde_json::from_slice(&world.store.read(&digest, u64::MAX).unwrap()) {
                texts(&document, &mut named);
            }
        }
    }
}

#[test]
fn what_records_refer_to_stays_and_all_else_goes() {
    let world = used_world();
    let referred_to = referred_to(&world);
    assert!(referred_to.len() > 10, "{referred_to:?}");
    let junk = world.store.put_bytes(b"nobody's").unwrap();
    let plan = pruned(&world, &keep(), &[]);
    assert!(plan.contents.iter().any(|content| content.digest == junk));
    assert_eq!(BTreeSet::from_iter(world.store.digests()), referred_to);
    assert_eq!(plan.recorded.count, referred_to.len() as u64);
    let report = fsck(&world.evidence, &world.ledger, &world.store, None).unwrap();
    assert_eq!(report.failure(), None, "{report:?}");
    // There is nothing left to do.
    assert_eq!(pruned(&world, &keep(), &[]).deleted().count, 0);
}

/// Where a content may be named: each kept for it, and gone without it.
#[test]
fn a_content_is_kept_for_each_way_in_which_it_is_referred_to() {
    let content = |world: &World, text: &str| world.store.put_bytes(text.as_bytes()).unwrap();
    let document = |world: &World, document: Value| content(world, &document.to_string());
    type Row<'a> = (&'a str, Box<dyn Fn(&World, Digest) + 'a>);
    let rows: Vec<Row<'_>> = vec![
        ("a member of a record", Box::new(|world, named| on_record(world, json!({"log": named})))),
        (
            "a member deep in a record",
            Box::new(|world, named| on_record(world, json!({"otherSteps": [{"outputs": {"app": named}}]}))),
        ),
        (
            "the subject of a record",
            Box::new(|world, named| {
                world.with_ports(|ports| {
                    record(ports, &NewRecord { subject: Some(named), ..new(9) }).map(drop).unwrap()
                });
            }),
        ),
        (
            "the configuration and a layer of an image",
            Box::new(|world, named| {
                let manifest = document(world, json!({"config": {"digest": named}, "layers": [{"digest": named}]}));
                on_record(world, json!({"image": manifest}));
            }),
        ),
        (
            "an image of an index",
            Box::new(|world, named| {
                let image = document(world, json!({"layers": [{"digest": named}]}));
                on_record(world, json!({"image": document(world, json!({"manifests": [{"digest": image}]}))}));
            }),
        ),
        (
            "a statement in a bundle",
            Box::new(|world, named| {
                let statement = json!({"predicate": {"byproducts": [{"digest": {"sha256": named.hex()}}]}}).to_string();
                let bundle = json!({"dsseEnvelope": {"payload": BASE64.encode(statement)}, "mediaType": "a later one"});
                on_record(world, json!({"evidence": [document(world, bundle)]}));
            }),
        ),
        (
            "the list of a decision's inputs",
            Box::new(|world, named| {
                let list = json!({"version": 1, "gateway": named, "files": {"a.rego": named}, "attached": [], "blobs": [],
                                  "scan": null});
                on_record(world, json!({"replay": document(world, list)}));
            }),
        ),
        (
            "a report that is larger than a bundle",
            Box::new(|world, named| {
                let report = json!({"padding": "x".repeat(17 << 20), "layer": named});
                on_record(world, json!({"report": document(world, report)}));
            }),
        ),
    ];
    for (what, refer) in rows {
        let world = used_world();
        let named = content(&world, "named");
        let other = content(&world, "other");
        refer(&world, named);
        pruned(&world, &keep(), &[]);
        let kept = world.store.digests();
        assert!(kept.contains(&named) && !kept.contains(&other), "{what}");
    }
    // A statement that still waits for its log is no content yet.
    let world = used_world();
    let (named, other) = (content(&world, "named"), content(&world, "other"));
    let waiting = [json!({"subject": [{"digest": {"sha256": named.hex()}}]}).to_string().into_bytes()];
    let parts = Parts { waiting: &waiting, ..parts(&world.store, &world.evidence, &world.ledger, &[]) };
    carry_out(&parts, &plan(&parts, &keep()).unwrap()).unwrap();
    assert!(world.store.digests().contains(&named) && !world.store.digests().contains(&other));
}

#[test]
fn results_are_kept_with_their_contents_as_long_as_they_are_used() {
    let world = used_world();
    let results = MemoryThings::new("step results");
    let add = |name: &str, used: UnixTime| {
        let output = world.store.put_bytes(format!("output of {name}").as_bytes()).unwrap();
        let bundle = world.store.put_bytes(json!({"output": output}).to_string().as_bytes()).unwrap();
        results.add(name, 72, used, Tie::LeadsTo(Some(bundle)));
        [output, bundle]
    };
    let used = add("used", days_ago(3));
    let just = add("just", days_ago(10));
    let late = add("late", UnixTime::from_seconds(days_ago(10).seconds() - 1).unwrap());
    let ahead = add("ahead", days_ago(-400));
    let broken = add("broken", days_ago(0));
    world.store.replace(broken[0], b"something else");
    let gone = add("gone", days_ago(0));
    world.store.remove(&gone[1]);
    results.add("junk", 5, days_ago(0), Tie::LeadsTo(None));

    let plan = pruned(&world, &keep(), &[&results]);
    assert_eq!(results.names(), ["used", "just", "ahead"]);
    let held = world.store.digests();
    for kept in [used, just, ahead].as_flattened() {
        assert!(held.contains(kept));
    }
    for deleted in [late, broken, gone].as_flattened() {
        assert!(!held.contains(deleted));
    }
    assert_eq!((plan.reusable.count, plan.kinds[0].kept.count, plan.kinds[0].deleted().count), (6, 3, 4));
    // Asked to keep none, it keeps none; what was recorded stays all the same.
    let recorded = referred_to(&world);
    pruned(&world, &Keep { used_within: None, ..keep() }, &[&results]);
    assert!(results.names().is_empty());
    assert_eq!(BTreeSet::from_iter(world.store.digests()), recorded);
}

#[test]
fn what_was_used_last_is_kept_within_a_number_of_bytes_and_what_two_share_counts_once() {
    let of = |bytes: u64| {
        let world = used_world();
        let results = MemoryThings::new("step results");
        let layers = MemoryThings::new("layers");
        let shared = world.store.put_bytes(&[7; 1000]).unwrap();
        for (name, days) in [("oldest", 9), ("middle", 5), ("newest", 1)] {
            let bundle = format!("{shared} {name:<width$}", width = 499 - shared.to_string().len());
            let bundle = world.store.put_bytes(bundle.as_bytes()).unwrap();
            results.add(name, 100, days_ago(days), Tie::LeadsTo(Some(bundle)));
        }
        layers.add("layer", 700, days_ago(3), Tie::Nothing);
        pruned(&world, &Keep { bytes: Some(bytes), ..keep() }, &[&results, &layers]);
        (results.names().join(" "), layers.names().len(), world.store.digests().contains(&shared))
    };
    let one = 500 + 100;
    let rows = [
        (1000 + 3 * one + 700, ("oldest middle newest", 1, true)),
        (1000 + 3 * one + 699, ("middle newest", 1, true)),
        (1000 + 2 * one + 699, ("newest", 1, true)),
        (1000 + one + 699, ("newest", 0, true)),
        (1000 + one - 1, ("", 0, false)),
        (1, ("", 0, false)),
    ];
    for (bytes, (results, layers, shared)) in rows {
        assert_eq!(of(bytes), (results.to_owned(), layers, shared), "{bytes}");
    }
}

#[test]
fn a_database_that_is_kept_keeps_what_it_was_unpacked_from() {
    let (fresh, old) = (days_ago(1), days_ago(20));
    for (used, kept) in [(fresh, true), (old, false)] {
        let world = used_world();
        let archive = world.store.put_bytes(b"archive").unwrap();
        let descriptor = |digest: Digest| json!({"mediaType": "x", "digest": digest, "size": 7});
        let manifest = |layer: Digest| {
            let manifest =
                json!({"schemaVersion": 2, "config": descriptor(Digest::of(b"{}")), "layers": [descriptor(layer)]});
            world.store.put_bytes(manifest.to_string().as_bytes()).unwrap()
        };
        let (own, other) = (manifest(archive), manifest(Digest::of(b"elsewhere")));
        let databases = MemoryThings::new("databases");
        databases.add("db", 9, used, Tie::MadeFrom(archive));
        pruned(&world, &keep(), &[&databases]);
        let held = world.store.digests();
        assert_eq!(
            (held.contains(&archive), held.contains(&own), held.contains(&other), databases.names().len()),
            (kept, kept, false, usize::from(kept))
        );
    }
}

#[test]
fn nothing_is_deleted_where_it_cannot_be_told_what_is_needed() {
    let refused = |damage: &dyn Fn(&World)| {
        let world = used_world();
        let manifest = json!({"layers": [{"digest": Digest::of(b"layer")}]}).to_string();
        let manifest = world.store.put_bytes(manifest.as_bytes()).unwrap();
        on_record(
            &world,
            json!({"evidence": [world.store.put_bytes(json!([manifest]).to_string().as_bytes()).unwrap()]}),
        );
        world.store.put_bytes(b"junk").unwrap();
        damage(&world);
        let held = world.store.digests();
        let parts = parts(&world.store, &world.evidence, &world.ledger, &[]);
        let planned = plan(&parts, &keep());
        assert_eq!(world.store.digests(), held);
        planned.map(|plan| plan.deleted().count > 0).map_err(|error| (error.failure(), error.to_string()))
    };
    fn named(world: &World, record: usize, member: &str) -> Digest {
        world.evidence.records()[record].body[member].as_str().unwrap().parse().unwrap()
    }
    let manifest = |_: &World| Digest::of(json!({"layers": [{"digest": Digest::of(b"layer")}]}).to_string().as_bytes());
    assert_eq!(refused(&|_| {}), Ok(true));
    type Damage<'a> = (&'a str, &'a dyn Fn(&World), &'a str);
    let damages: [Damage<'_>; 6] = [
        (
            "a document is gone",
            &|world| world.store.remove(&named(world, 0, "document")),
            "is not in the store any more",
        ),
        (
            "facts are others",
            &|world| world.store.replace(named(world, 0, "facts"), b"{}"),
            "its bytes have the digest",
        ),
        ("a list is cut", &|world| world.store.replace(named(world, 0, "replay"), b"{"), "the list of its inputs"),
        ("what a bundle names is damaged", &|world| world.store.replace(manifest(world), b"{}"), "is damaged"),
        (
            "the newest record is cut off",
            &|world| world.evidence.tamper(|records| drop(records.pop())),
            "evidence record 5 is missing",
        ),
        (
            "a record is another one",
            &|world| world.evidence.tamper(|records| records[1].digest = Digest::of(b"another")),
            "evidence record 3 is damaged",
        ),
    ];
    for (what, damage, says) in damages {
        let (failure, said) = refused(damage).unwrap_err();
        assert_eq!(failure, Failure::Wrong, "{what}: {said}");
        assert!(said.contains("nothing was deleted") && said.contains(says), "{what}: {said}");
    }
}

#[test]
fn a_database_of_evidence_that_is_cut_or_no_database_deletes_nothing() {
    let store = MemoryStore::new();
    let junk = store.put_bytes(b"junk").unwrap();
    let planned = |home: &Home| -> Result<usize, Error> {
        let (evidence, ledger) = (home.store(), home.reader());
        Ok(plan(&parts(&store, &evidence, &ledger, &[]), &keep())?.contents.len())
    };
    assert_eq!(planned(&Home::of(12)).unwrap(), 1);
    let home = Home::of(4);
    home.tamper("DELETE FROM records WHERE sequence > 2");
    assert!(matches!(planned(&home), Err(Error::Needed(_))));
    let home = Home::of(4);
    home.tamper("UPDATE records SET body = '{}' WHERE sequence = 2");
    assert!(matches!(planned(&home), Err(Error::Needed(_))));
    // The file loses its end while it is open.
    let home = Home::of(12);
    let (evidence, ledger) = (home.store(), home.reader());
    let length = fs::metadata(home.path("evidence.db")).unwrap().len();
    File::options().write(true).open(home.path("evidence.db")).unwrap().set_len(length / 2).unwrap();
    fs::write(home.path("evidence.db-wal"), "").unwrap();
    let cut = plan(&parts(&store, &evidence, &ledger, &[]), &keep());
    assert!(cut.is_err(), "{cut:?}");
    // The ledger is another home's.
    let (home, other) = (Home::of(4), Home::of(3));
    let (evidence, ledger) = (home.store(), other.reader());
    fs::remove_dir_all(other.path("ledger")).unwrap();
    assert!(plan(&parts(&store, &evidence, &ledger, &[]), &keep()).is_err());
    assert!(store.read(&junk, 9).is_ok());
}

/// A store and things of which only some more can be removed.
struct Breaking<'a, T>(&'a T, &'a AtomicU32);

impl<T> Breaking<'_, T> {
    fn take(&self) -> Result<(), StoreError> {
        let left = self.1.load(Ordering::Relaxed).checked_sub(1).ok_or_else(|| StoreError::Io {
            action: "remove",
            path: PathBuf::from("blobs/sha256/x"),
            source: ErrorKind::ReadOnlyFilesystem.into(),
        })?;
        self.1.store(left, Ordering::Relaxed);
        Ok(())
    }
}

impl ContentStore for Breaking<'_, MemoryStore> {
    fn put(&self, reader: &mut dyn Read, limit: u64) -> Result<(Digest, u64), StoreError> {
        self.0.put(reader, limit)
    }

    fn open(&self, digest: &Digest) -> Result<File, StoreError> {
        self.0.open(digest)
    }

    fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.0.read(digest, limit)
    }

    fn path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        self.0.path(digest)
    }
}

impl PrunableStore for Breaking<'_, MemoryStore> {
    fn list(&self) -> Result<Listed, StoreError> {
        self.0.list()
    }

    fn remove(&self, digest: &Digest) -> Result<(), StoreError> {
        self.take()?;
        PrunableStore::remove(self.0, digest)
    }

    fn remove_drafts(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Disposable for Breaking<'_, MemoryThings> {
    fn what(&self) -> &'static str {
        self.0.what()
    }

    fn things(&self) -> Result<Vec<Thing>, StoreError> {
        self.0.things()
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.take()?;
        self.0.remove(name)
    }
}

#[test]
fn wherever_it_breaks_off_nothing_dangles_and_the_next_one_does_the_rest() {
    let mut broken_off = 0;
    for removals in 0.. {
        let world = used_world();
        pruned(&world, &keep(), &[]);
        let recorded = referred_to(&world);
        let results = MemoryThings::new("step results");
        for (name, days) in [("used", 1), ("late", 20), ("later", 30)] {
            let output = world.store.put_bytes(name.as_bytes()).unwrap();
            let bundle = world.store.put_bytes(json!([output]).to_string().as_bytes()).unwrap();
            results.add(name, 72, days_ago(days), Tie::LeadsTo(Some(bundle)));
        }
        let left = AtomicU32::new(removals);
        let (store, things) = (Breaking(&world.store, &left), Breaking(&results, &left));
        let disposable: [&dyn Disposable; 1] = [&things];
        let parts = parts(&store, &world.evidence, &world.ledger, &disposable);
        let plan = plan(&parts, &keep()).unwrap();
        let done = carry_out(&parts, &plan);
        // Whatever leads to a content leads to one that is there.
        let held: BTreeSet<Digest> = world.store.digests().into_iter().collect();
        for tie in results.ties() {
            let Tie::LeadsTo(Some(bundle)) = tie else { unreachable!("{tie:?}") };
            let outputs: Vec<Digest> = serde_json::from_slice(&world.store.read(&bundle, 999).unwrap()).unwrap();
            assert!(outputs.iter().all(|output| held.contains(output)), "{removals}: {tie:?}");
        }
        assert!(recorded.is_subset(&held), "{removals}");
        let Err(BrokeOff { deleted, error }) = done else {
            assert_eq!(u64::from(removals), plan.deleted().count);
            break;
        };
        broken_off += 1;
        assert_eq!((deleted.count, error.failure()), (u64::from(removals), Failure::Unavailable));
        pruned(&world, &keep(), &[&results]);
        assert_eq!(results.names(), ["used"]);
        assert_eq!(world.store.digests().len(), recorded.len() + 2);
    }
    assert_eq!(broken_off, 6);
}

/// A step may leave bytes that read as a provenance; they name nothing as a material.
#[test]
fn what_only_looks_like_a_provenance_decides_nothing() {
    let after = |is_on_record_as_one: bool| {
        let image = VirtualImage::of_layer("application/vnd.oci.image.layer.v1.tar", b"server", Digest::of(b"server"));
        let (world, signed) = World::of_image(image, |build| build);
        for bytes in signed.bundles.values().chain(&signed.reports).chain(world.image.blobs.values()) {
            world.store.put_bytes(bytes).unwrap();
        }
        for text in ["source", "built", "server", "log"] {
            world.store.put_bytes(text.as_bytes()).unwrap();
        }
        // The provenance of `build`, which names `source`, is what a step of another run left.
        let looks_like_one = signed.digest("build");
        let bundle = json!({"attestation": looks_like_one});
        let left = json!({"outputs": {"forged": looks_like_one}, "log": looks_like_one, "report": looks_like_one});
        on_record_as(RecordKind::Run, &world, json!({"steps": [left], "kept": Digest::of(b"source")}));
        on_record_as(RecordKind::Attestation, &world, json!({"report": looks_like_one}));
        if is_on_record_as_one {
            on_record_as(RecordKind::Run, &world, json!({"steps": [bundle]}));
        }
        pruned(&world, &Keep { materials: Materials::OfKeptResults, ..keep() }, &[]);
        world.store.digests().contains(&Digest::of(b"source"))
    };
    assert!(after(false));
    assert!(!after(true));
}

/// What steps read and left goes only when it is asked for, and never what an image consists of or what a person reads.
#[test]
fn materials_go_when_that_is_asked_for_and_documents_and_images_stay() {
    // Each content is the text that it is called by here. The image's one layer is the output `server` as it is.
    let after = |materials: Materials, result: Option<UnixTime>| {
        let image = VirtualImage::of_layer("application/vnd.oci.image.layer.v1.tar", b"server", Digest::of(b"server"));
        let (world, signed) = World::of_image(image, |build| build);
        for bytes in signed.bundles.values().chain(&signed.reports).chain(world.image.blobs.values()) {
            world.store.put_bytes(bytes).unwrap();
        }
        for text in ["source", "built", "server", "log", "the image that steps run in", "nobody's"] {
            world.store.put_bytes(text.as_bytes()).unwrap();
        }
        let bundles: Vec<Digest> = signed.bundles.values().map(|bundle| Digest::of(bundle)).collect();
        on_record_as(
            RecordKind::Run,
            &world,
            json!({"evidence": bundles, "steps": [{"outputs": {"server": Digest::of(b"built")}}]}),
        );
        on_record_as(RecordKind::Attestation, &world, json!({"attestation": signed.digest("test")}));
        let results = MemoryThings::new("step results");
        if let Some(used) = result {
            results.add("build", 72, used, Tie::LeadsTo(Some(signed.digest("build"))));
        }
        pruned(&world, &Keep { materials, ..keep() }, &[&results]);
        let report = fsck(&world.evidence, &world.ledger, &world.store, None).unwrap();
        assert_eq!(report.failure(), None, "{report:?}");
        let held = world.store.digests();
        let stays = signed.bundles.values().chain(&signed.reports).chain(world.image.blobs.values());
        assert!(stays.map(|bytes| Digest::of(bytes)).all(|document| held.contains(&document)));
        assert!(held.contains(&world.image.digest()) && held.contains(&Digest::of(b"server")));
        let texts = ["source", "built", "the image that steps run in", "nobody's"];
        texts.map(|text| held.contains(&Digest::of(text.as_bytes())))
    };
    assert_eq!(after(Materials::Named, None), [true, true, true, false]);
    assert_eq!(after(Materials::OfKeptResults, None), [false, false, false, false]);
    // A result that is kept keeps what it read and left.
    assert_eq!(after(Materials::OfKeptResults, Some(days_ago(1))), [true, true, true, false]);
    assert_eq!(after(Materials::OfKeptResults, Some(days_ago(20))), [false, false, false, false]);
}
