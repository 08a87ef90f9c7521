//! What a log is told about the statements that it gets: before they are sent, and after their bundles are stored.

use std::{
    collections::BTreeSet,
    sync::Mutex,
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::json;
use sluicegate_attestation::{
    bundle::{Bundle, LogEntry, hashedrekord_body},
    dsse,
    predicate::PredicateType,
    statement::{Statement, Subject},
};
use sluicegate_flow::{
    Error, Failure, Ports,
    attest::{Late, attest, keep_late},
};
use sluicegate_ports::sign::{Envelope, SignError, Signer, TransparencyLog};
use sluicegate_testkit::{
    FakePacker, FixedClock, MemoryEvidence, MemoryLedger, MemoryPlaces, MemoryStore, VirtualLog, VirtualSigner, today,
};
use sluicegate_types::{Digest, RepositoryPattern};
use sluicegate_verify::{Allowed, Role, SignerRule, Trust, TrustRoot};

const LOG: &str = "log.example";

fn trust(log: &VirtualLog, signer: &str) -> Trust {
    let rule = SignerRule {
        name: signer.to_owned(),
        public_key: VirtualSigner::new(signer).public_key().to_vec(),
        roles: BTreeSet::from([Role::Manual]),
        predicate_types: None,
        builder_ids: Allowed::nothing(),
        verifier_ids: Allowed::nothing(),
        environments: Allowed::nothing(),
        repositories: Some(vec![RepositoryPattern::Any]),
    };
    let root = TrustRoot::parse(&log.trusted_root_json()).unwrap();
    Trust::new(vec![rule], BTreeSet::from([LOG.to_owned()]), Vec::new(), root).unwrap()
}

fn statement(word: &str) -> Statement {
    let subject = Subject { name: None, digest: Digest::of(word.as_bytes()), media_type: None };
    Statement {
        subjects: vec![subject].try_into().unwrap(),
        predicate_type: PredicateType::from_name("https://example.com/review/v1").unwrap(),
        predicate: json!({"said": word}),
    }
}

/// A log that keeps a list of what it is told, with how much the store had then.
struct Told<'a> {
    log: &'a VirtualLog,
    store: &'a MemoryStore,
    breaks: AtomicBool,
    told: Mutex<Vec<(String, usize)>>,
    payloads: Mutex<Vec<Vec<u8>>>,
}

impl Told<'_> {
    fn note(&self, what: String) {
        self.told.lock().unwrap().push((what, self.store.digests().len()));
    }
}

impl TransparencyLog for Told<'_> {
    fn append(&self, bodies: &[Vec<u8>]) -> Result<Vec<LogEntry>, SignError> {
        self.note(format!("append {}", bodies.len()));
        if self.breaks.load(Ordering::SeqCst) {
            return Err(SignError::Unproved { url: "https://log.example".to_owned(), reason: "a lie".to_owned() });
        }
        self.log.append(bodies)
    }

    fn about_to_append(&self, envelopes: &[Envelope<'_>]) -> Result<(), SignError> {
        self.note(format!("about to append {}", envelopes.len()));
        self.payloads.lock().unwrap().extend(envelopes.iter().map(|envelope| envelope.payload.to_vec()));
        Ok(())
    }

    fn settled(&self, bodies: &[Vec<u8>]) -> Result<(), SignError> {
        self.note(format!("settled {}", bodies.len()));
        Ok(())
    }

    fn origin(&self) -> &str {
        LOG
    }

    fn size(&self) -> Result<u64, SignError> {
        self.log.size()
    }

    fn root(&self) -> Result<Digest, SignError> {
        self.log.root()
    }
}

#[test]
fn tm15_a_log_is_told_before_anything_is_sent_and_after_everything_is_stored() {
    let (inner, store) = (VirtualLog::new(LOG), MemoryStore::new());
    let log = Told {
        log: &inner,
        store: &store,
        breaks: AtomicBool::new(false),
        told: Mutex::default(),
        payloads: Mutex::default(),
    };
    let (clock, places, evidence) = (FixedClock::new(today()), MemoryPlaces::new(), MemoryEvidence::new());
    let (ledger, packer) = (MemoryLedger::new("ledger.example"), FakePacker::new(&store));
    let quiet = |_: &str| {};
    let ports = Ports {
        clock: &clock,
        store: &store,
        places: &places,
        packer: &packer,
        log: &log,
        evidence: &evidence,
        ledger: &ledger,
        tell: &quiet,
        warn: &quiet,
    };
    let signer = VirtualSigner::new("person");
    let trusted = trust(&inner, "person");
    let statements = [statement("one"), statement("two")];
    attest(&ports, &signer, &trusted, &statements, today()).unwrap();
    let told = |log: &Told<'_>| std::mem::take(&mut *log.told.lock().unwrap());
    let expected = [("about to append 2", 0), ("append 2", 0), ("settled 2", 2)];
    assert_eq!(told(&log), expected.map(|(what, stored)| (what.to_owned(), stored)));
    let payloads: Vec<_> = statements.iter().map(|statement| statement.to_payload().unwrap()).collect();
    assert_eq!(*log.payloads.lock().unwrap(), payloads);
    // A log that lies is wrong, and nothing is stored or settled.
    log.breaks.store(true, Ordering::SeqCst);
    let error = attest(&ports, &signer, &trusted, &[statement("three")], today()).unwrap_err();
    assert!(error.failure() == Failure::Wrong, "{error}");
    assert_eq!(told(&log), [("about to append 1".to_owned(), 2), ("append 1".to_owned(), 2)]);
    // A bundle that the machine itself does not believe is not settled either.
    log.breaks.store(false, Ordering::SeqCst);
    let error = attest(&ports, &signer, &trust(&inner, "somebody"), &[statement("four")], today()).unwrap_err();
    assert!(matches!(error, Error::OwnBundle { .. }), "{error}");
    assert_eq!(told(&log).last().unwrap().0, "append 1");
    assert_eq!(store.digests().len(), 2);
}

#[test]
fn tm15_a_statement_that_waited_is_stored_if_it_verifies_and_named_in_a_line() {
    let (log, store) = (VirtualLog::new(LOG), MemoryStore::new());
    let signer = VirtualSigner::new("person");
    let payload = statement("late").to_payload().unwrap();
    let pae = dsse::pae(dsse::IN_TOTO, &payload);
    let signature = signer.sign(&pae).unwrap();
    let body = hashedrekord_body(&Digest::of(&pae), &signature, signer.public_key());
    let entry = log.append(std::slice::from_ref(&body)).unwrap().remove(0);
    let late = |payload| Late { payload, body: &body, entry: &entry };
    // Its key is not trusted any more, or what was signed is not known: it is said, and nothing is kept.
    for (trusted, payload) in [("somebody", payload.as_slice()), ("person", b"")] {
        let line = keep_late(&store, &trust(&log, trusted), &late(payload), today()).unwrap();
        assert!(line.contains("entry 0; its bundle is not kept, as it does not verify: "), "{line}");
    }
    assert!(store.digests().is_empty());
    let line = keep_late(&store, &trust(&log, "person"), &late(&payload), today()).unwrap();
    let about = Digest::of(b"late");
    assert_eq!(
        line,
        format!(
            "the https://example.com/review/v1 of {about} by person, signed before and not logged then, is logged now: entry 0"
        )
    );
    let whole = Bundle::assemble(&payload, &signature, signer.public_key(), entry.clone()).unwrap();
    assert_eq!(store.digests(), [Digest::of(&whole)]);
}
