//! `verify --for`: which decision, and which record of an ungated promotion, lets an image be where it is.

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_attestation::{
    predicate::PredicateType,
    statement::Statement,
    summary::{Promotion, VerificationSummary},
};
use sluicegate_flow::admit::{Presented, admit};
use sluicegate_testkit::{SignedBuild, VirtualSigner, sign_statement, today};
use sluicegate_types::{Digest, PinnedImage, Repository, UnixTime};
use sluicegate_verify::{
    Trust, TrustRoot,
    closed_set::{Asked, Seen, follow},
};

use crate::{
    fixture::{GATE, LOG, OTHER_GATE, Said, Tried, about, environment, promotion, rules, summary, trust},
    gate_world::World,
    indexes::admitted_over,
};

struct Door {
    world: World,
    build: SignedBuild,
    trust: Trust,
    at: UnixTime,
    found_in: Option<Repository>,
}

impl Door {
    fn new() -> Self {
        let (world, build) = World::good();
        let trust = trust(&world.log);
        Self { world, build, trust, at: today(), found_in: None }
    }

    /// Where there is no gate.
    fn ungated() -> Self {
        let mut door = Self::new();
        door.world.judge.gate = None;
        door
    }

    fn image(&self) -> Digest {
        self.world.image.digest()
    }

    /// Whether the image may pass with this one statement and its evidence, without what is `gone`.
    fn asked(&self, signer: &str, statement: &Statement, gone: Option<&str>) -> Said {
        let bundle = sign_statement(&VirtualSigner::new(signer), &self.world.log, statement);
        let (mut attached, mut blobs) = (self.build.attached(), self.build.blobs());
        if let Some(part) = gone {
            blobs.remove(&self.build.digest(part)).unwrap();
        }
        attached.insert(Digest::of(&bundle), bundle);
        let asked = Asked { trust: &self.trust, repository: None, at: self.at };
        let followed = follow(self.image(), &attached, &blobs, asked);
        match admit(
            &Presented::image(self.image(), &followed),
            &self.world.judge,
            &self.trust,
            self.at,
            self.found_in.as_ref(),
        ) {
            Ok(admission) => {
                assert_eq!(admission.signer, signer);
                Ok(())
            }
            Err(reasons) => Err(reasons.map(|reason| reason.to_string()).into_vec().join("; ")),
        }
    }

    /// A decision over everything there is, changed by `edit`.
    fn decided(&self, signer: &str, gone: Option<&str>, edit: impl FnOnce(&mut VerificationSummary)) -> Said {
        let bundles = self.build.bundles.keys().map(|part| self.build.digest(part));
        let mut summary = VerificationSummary { inputs: bundles.collect(), ..summary(self.image()) };
        edit(&mut summary);
        self.asked(signer, &about(self.image(), PredicateType::VerificationSummary, summary.to_predicate()), gone)
    }

    /// The record of a promotion, changed by `edit`.
    fn recorded(&self, signer: &str, gone: Option<&str>, edit: impl FnOnce(&mut Promotion)) -> Said {
        let mut promotion = promotion(self.image(), None);
        edit(&mut promotion);
        self.asked(signer, &about(self.image(), PredicateType::Promotion, promotion.to_predicate()), gone)
    }
}

/// A good decision beside the same changed.
fn decision(what: &'static str, words: &'static str, edit: impl FnOnce(&mut VerificationSummary)) -> Tried {
    let door = Door::new();
    Tried::good(door.decided("decider", None, |_| {})).fault(what, words, door.decided("decider", None, edit))
}

fn record(what: &'static str, words: &'static str, edit: impl FnOnce(&mut Promotion)) -> Tried {
    let door = Door::ungated();
    Tried::good(door.recorded("recorder", None, |_| {})).fault(what, words, door.recorded("recorder", None, edit))
}

fn elsewhere(name: &str, digest: Digest) -> PinnedImage {
    PinnedImage { repository: Repository::of_environment(&environment(name)), digest }
}

pub(crate) fn tm05_a_denial_admits_nothing() -> Tried {
    let door = Door::new();
    Tried::good(door.decided("decider", None, |_| {})).fault(
        "a denial",
        "it is a denial",
        door.decided("recorder", None, |it| it.passed = false),
    )
}

pub(crate) fn tm05_a_decision_admits_to_its_environment_only() -> Tried {
    decision("another", "it is for the environment staging", |it| it.environment = environment("staging"))
}

pub(crate) fn tm05_a_decision_admits_its_image_in_its_repository_only() -> Tried {
    let repository = decision("another repository", "it is for oci:staging@", |it| {
        it.resource = elsewhere("staging", it.resource.digest);
    });
    let other = Digest::of(b"another image");
    let image = Door::new().decided("decider", None, |it| it.resource = elsewhere("production", other));
    repository.fault("another image", "it is for oci:production@", image)
}

pub(crate) fn tm05_a_decision_of_another_gate_admits_nothing() -> Tried {
    assert_ne!(GATE, OTHER_GATE);
    let record = Door::ungated().recorded("recorder", None, |it| it.verifier_id = OTHER_GATE.to_owned());
    let words = "it is by the gate";
    decision("another", words, |it| it.verifier_id = OTHER_GATE.to_owned()).fault("a record of another", words, record)
}

pub(crate) fn tm05_a_decision_under_another_gateway_admits_nothing() -> Tried {
    let words = "it was decided by the gateway";
    let record = Door::ungated().recorded("recorder", None, |it| it.gateway = Digest::of(b"another gateway"));
    decision("another", words, |it| it.policy = Digest::of(b"another gateway")).fault(
        "a record under it",
        words,
        record,
    )
}

pub(crate) fn tm05_a_decision_admits_until_it_expires() -> Tried {
    let ask = |seconds: u64| {
        let door = Door { at: today().plus(seconds), ..Door::new() };
        door.decided("decider", None, |_| {})
    };
    Tried::good(ask(60)).fault("a second late", "it expired at", ask(61))
}

pub(crate) fn tm05_a_decision_from_the_future_admits_nothing() -> Tried {
    let ask = |seconds: u64| {
        Door::new().decided("decider", None, |it| {
            it.time_verified = today().plus(seconds);
            it.expires = today().plus(1000);
        })
    };
    let record = |seconds: u64| Door::ungated().recorded("recorder", None, |it| it.timestamp = today().plus(seconds));
    Tried::good(ask(300).and(record(300))).fault("a second too far", "it was decided at", ask(301)).fault(
        "a record",
        "it was recorded at",
        record(301),
    )
}

pub(crate) fn tm07_a_judge_chosen_by_who_is_judged_admits_nothing_elsewhere() -> Tried {
    let elsewhere = |door: Door| {
        let root = TrustRoot::parse(&door.world.log.trusted_root_json()).unwrap();
        Door { trust: Trust::new(rules(), BTreeSet::from([LOG.to_owned()]), vec![], root).unwrap(), ..door }
    };
    let decided = |door: Door| door.decided("decider", None, |_| {});
    let recorded = |door: Door| door.recorded("recorder", None, |_| {});
    let words = "its authority is \"self\"";
    Tried::good(decided(Door::new()).and(recorded(Door::ungated())))
        .fault("not accepted here", words, decided(elsewhere(Door::new())))
        .fault("a record", words, recorded(elsewhere(Door::ungated())))
}

pub(crate) fn tm12_copies_of_a_bundle_are_one_statement() -> Tried {
    let door = Door::new();
    let vex = about(door.image(), PredicateType::Vex, serde_json::json!({}));
    let said = sign_statement(&VirtualSigner::new("person"), &door.world.log, &vex);
    let counted = |copies: usize| {
        let copies = (0..copies).map(|number| [&said[..], " ".repeat(number).as_bytes()].concat());
        let attached = copies.map(|bundle| (Digest::of(&bundle), bundle)).collect();
        let asked = Asked { trust: &door.trust, repository: None, at: door.at };
        let followed = follow(door.image(), &attached, &BTreeMap::new(), asked);
        match followed.seen.into_iter().find(|seen| matches!(seen, Seen::Ignored { .. })) {
            Some(Seen::Ignored { reason, .. }) => Err(reason),
            _ => Ok(()),
        }
    };
    Tried::good(counted(1)).fault("said twice", "it is a copy of sha256:", counted(2))
}

pub(crate) fn tm03_a_decision_admits_over_the_whole_set_that_it_names() -> Tried {
    let words = "no whole closed set is there that it was decided over";
    let tried = decision("over less", words, |it| it.inputs.truncate(1));
    assert_eq!(admitted_over(2), Ok(()));
    tried.fault("over more than there is", words, Door::new().decided("decider", Some("build"), |_| {})).fault(
        "over one image of an index",
        words,
        admitted_over(1),
    )
}

pub(crate) fn tm05_the_record_of_a_gated_promotion_admits_nothing_where_there_is_no_gate() -> Tried {
    let door = Door::ungated();
    let gated = door.recorded("decider", None, |it| it.decision = Some(Digest::of(b"decision")));
    Tried::good(door.recorded("recorder", None, |_| {})).fault("gated", "the record of a gated promotion", gated)
}

pub(crate) fn tm05_a_promotion_record_admits_to_its_destination_only() -> Tried {
    let place = record("another place", "it is for oci:staging@", |it| {
        it.destination = elsewhere("staging", it.image);
    });
    let other = Door::ungated().recorded("recorder", None, |it| it.environment = environment("staging"));
    place.fault("another environment", "in staging", other)
}

pub(crate) fn tm05_a_promotion_record_admits_its_image_only() -> Tried {
    record("another image", "it is for sha256:", |it| it.image = Digest::of(b"another image"))
}

pub(crate) fn tm03_a_promotion_record_admits_over_a_whole_set_only() -> Tried {
    let door = Door::ungated();
    Tried::good(door.recorded("recorder", None, |_| {})).fault(
        "a step is gone",
        "no whole closed set is there",
        door.recorded("recorder", Some("build"), |_| {}),
    )
}

pub(crate) fn tm05_a_decision_admits_where_it_was_decided_for() -> Tried {
    let found_in = |name: Option<&str>| {
        let mut door = Door::new();
        door.world.judge.environment.repository = "registry.example/prod/shop".parse().unwrap();
        door.found_in = name.map(|name| Repository::of_registry(&name.parse().unwrap()).unwrap());
        let resource = PinnedImage { repository: door.world.judge.repository(), digest: door.image() };
        door.decided("decider", None, |summary| summary.resource = resource)
    };
    // A layout has no name of its own: it is how an image is carried.
    assert_eq!(found_in(None), Ok(()));
    Tried::good(found_in(Some("registry.example/prod/shop"))).fault(
        "a mirror",
        "it stands in mirror.example/shop",
        found_in(Some("mirror.example/shop")),
    )
}
