//! A gate in memory: an image with its evidence at `oci:out/shop`, an environment `production`, keys of three roles.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use sluicegate_attestation::{
    bundle::{Bundle, LogEntry},
    identifiers::{BUNDLE, LOCAL_BUILDER},
    predicate::PredicateType,
    statement::Statement,
    summary::{LedgerHead, Promotion, VerificationSummary},
};
use sluicegate_flow::{
    Error, Ports,
    fetch::{Fetched, fetch_evidence},
    folders::EnvironmentPlaces,
    gate::RuleEvaluator,
    gateway::{GateRules, Judge, JudgeRecord},
    promote::{PromoteRequest, Promoted, promote},
};
use sluicegate_pipeline::gateway::{Environment, Gate};
use sluicegate_policy::{
    exceptions::Exceptions,
    judge::{AcceptedDatabase, AcceptedDatabases, Conditions},
    rego::{EvaluationRequest, Outcome, PolicyError, RuleAnswer, RuleDeclaration, RuleResults, Violation},
};
use sluicegate_ports::{
    evidence::Record,
    images::{ImagePlaces, Manifest},
    scan::{ScanIndex, Scanner},
    sign::{SignError, Signer, TransparencyLog},
    store::ContentStore,
};
use sluicegate_testkit::{
    FakePacker, FakeScanner, FixedClock, MemoryEvidence, MemoryLedger, MemoryPlaces, MemoryStore, SignedBuild,
    VirtualBuild, VirtualImage, VirtualIndex, VirtualLog, VirtualSigner, today,
};
use sluicegate_types::{
    Digest, EnvironmentName, NonEmpty, PinnedImage, Repository, RepositoryPattern, Selector, UnixTime,
};
use sluicegate_verify::{GroupRule, Role, SignerRule, Trust, TrustRoot, TrustRules, closed_set::Asked};

pub(crate) const SOURCE: &str = "/project/out/shop";
pub(crate) const TARGET: &str = "/gateway/environments/production";
pub(crate) const GATE: &str = "https://example.com/gate";
const LOG: &str = "log.example";
pub(crate) const LEDGER: &str = "ledger.example";

pub(crate) struct World {
    pub(crate) log: VirtualLog,
    pub(crate) clock: FixedClock,
    pub(crate) store: MemoryStore,
    pub(crate) places: MemoryPlaces,
    pub(crate) evidence: MemoryEvidence,
    pub(crate) ledger: MemoryLedger,
    pub(crate) trust: Trust,
    pub(crate) judge: Judge,
    pub(crate) environments: EnvironmentPlaces,
    pub(crate) image: VirtualImage,
    /// How often the decisions key was asked for.
    pub(crate) opened: Cell<u32>,
    /// How often the log still takes something.
    pub(crate) appends_left: AtomicU32,
    pub(crate) told: RefCell<Vec<String>>,
    pub(crate) dry_run: Cell<bool>,
    /// Earlier scans.
    pub(crate) scans: Option<MemoryScans>,
    /// The moment to judge at, if not now.
    pub(crate) effective: Cell<Option<UnixTime>>,
    pub(crate) rollback: Cell<bool>,
    scratch: tempfile::TempDir,
}

/// A log that breaks after some appends.
struct Breaking<'a> {
    log: &'a VirtualLog,
    left: &'a AtomicU32,
}

impl TransparencyLog for Breaking<'_> {
    fn append(&self, bodies: &[Vec<u8>]) -> Result<Vec<LogEntry>, SignError> {
        if self.left.load(Ordering::Relaxed) == 0 {
            return Err(SignError::Log { folder: "log".to_owned(), reason: "it broke".to_owned() });
        }
        self.left.fetch_sub(1, Ordering::Relaxed);
        self.log.append(bodies)
    }

    fn origin(&self) -> &str {
        self.log.origin()
    }

    fn size(&self) -> Result<u64, SignError> {
        self.log.size()
    }

    fn root(&self) -> Result<Digest, SignError> {
        self.log.root()
    }
}

impl World {
    /// A world whose image has the evidence that `build` leaves.
    pub(crate) fn new(build: impl FnOnce(VirtualBuild) -> VirtualBuild) -> (Self, SignedBuild) {
        Self::of_image(VirtualImage::new(b"the layer of the shop"), build)
    }

    /// The same of this image.
    pub(crate) fn of_image(
        image: VirtualImage,
        build: impl FnOnce(VirtualBuild) -> VirtualBuild,
    ) -> (Self, SignedBuild) {
        let log = VirtualLog::new(LOG);
        let signed = build(VirtualBuild::new("run-1", image.digest())).sign(&log);
        let places = MemoryPlaces::new();
        places.put_image(SOURCE, &image, None);
        places.attach_build(SOURCE, &image, &signed);
        let world = Self {
            trust: trust(&log),
            log,
            clock: FixedClock::new(today()),
            store: MemoryStore::new(),
            places,
            evidence: MemoryEvidence::new(),
            ledger: MemoryLedger::new(LEDGER),
            judge: judge(),
            environments: EnvironmentPlaces::from_iter([("production".parse().unwrap(), TARGET.into())]),
            image,
            opened: Cell::new(0),
            appends_left: AtomicU32::new(u32::MAX),
            told: RefCell::new(Vec::new()),
            dry_run: Cell::new(false),
            effective: Cell::new(None),
            scans: None,
            rollback: Cell::new(false),
            scratch: tempfile::tempdir().unwrap(),
        };
        (world, signed)
    }

    pub(crate) fn good() -> (Self, SignedBuild) {
        Self::new(|build| build)
    }

    /// A world with an index of two images, both with the evidence of a run; the world's own image is the first.
    pub(crate) fn of_two_platforms() -> (Self, VirtualIndex) {
        let (world, build) = Self::good();
        let other = VirtualImage::new(b"the layer of the shop for the other machine");
        let index = VirtualIndex::new(&[(&world.image, "amd64"), (&other, "arm64")]);
        world.put_index(&index);
        world.places.attach_build(SOURCE, &world.image, &build);
        world.prove(&other, "run-2");
        (world, index)
    }

    /// Puts an index in the place of everything at the source.
    pub(crate) fn put_index(&self, index: &VirtualIndex) {
        self.places.clear(SOURCE);
        self.places.put_index(SOURCE, index);
    }

    /// Attaches what a run leaves to an image at the source.
    pub(crate) fn prove(&self, image: &VirtualImage, run: &str) -> SignedBuild {
        let build = VirtualBuild::new(run, image.digest()).sign(&self.log);
        self.places.attach_build(SOURCE, image, &build);
        build
    }

    /// Lets the gate require this kind of evidence too.
    pub(crate) fn require(&mut self, kind: &PredicateType) {
        let required = &mut self.judge.gate.as_mut().unwrap().conditions.require;
        let kinds = required.iter().chain([kind]).cloned().collect::<Vec<_>>();
        *required = kinds.try_into().unwrap();
    }

    /// Promotes with a clean scan and these rules.
    pub(crate) fn promote(&self, rules: &dyn RuleEvaluator) -> Result<Promoted, Error> {
        self.promote_scanned(Some(&clean_scanner()), rules)
    }

    pub(crate) fn promote_scanned(
        &self,
        scanner: Option<&dyn Scanner>,
        rules: &dyn RuleEvaluator,
    ) -> Result<Promoted, Error> {
        let decisions = || {
            self.opened.set(self.opened.get() + 1);
            Ok(Box::new(VirtualSigner::new("decider")) as Box<dyn Signer>)
        };
        let request = PromoteRequest {
            reference: &"oci:out/shop".parse().unwrap(),
            folder: Path::new("/project"),
            gateway_folder: Path::new("/gateway"),
            environments: &self.environments,
            judge: &self.judge,
            trust: &self.trust,
            levels: &BTreeMap::from([("builder".to_owned(), "SLSA_BUILD_LEVEL_1".to_owned())]),
            scanner: scanner.ok_or_else(|| "the gateway names no scanner".to_owned()),
            scans: self.scans.as_ref().map(|scans| scans as &dyn ScanIndex),
            evaluator: rules,
            records: &VirtualSigner::new("recorder"),
            decisions: &decisions,
            scratch: self.scratch.path(),
            files: &NoFiles,
            dry_run: self.dry_run.get(),
            effective: self.effective.get(),
            rollback: self.rollback.get(),
            compat_cosign2: false,
        };
        self.with_ports(|ports| promote(ports, &request))
            .map(|answered| answered.promoted)
            .map_err(|failed| *failed.error)
    }

    /// Its trust where decisions of authority `self` are taken.
    pub(crate) fn trusting_itself(&self) -> Trust {
        let rules = TrustRules { authority_self: true, ..trust_rules("*", "*") };
        Trust::from_rules(rules, TrustRoot::parse(&self.log.trusted_root_json()).unwrap()).unwrap()
    }

    /// The shared ports over this world.
    pub(crate) fn with_ports<T>(&self, act: impl FnOnce(&Ports<'_>) -> T) -> T {
        let tell = |line: &str| self.told.borrow_mut().push(line.to_owned());
        act(&Ports {
            clock: &self.clock,
            store: &self.store,
            places: &self.places,
            packer: &FakePacker::new(&self.store),
            log: &Breaking { log: &self.log, left: &self.appends_left },
            evidence: &self.evidence,
            ledger: &self.ledger,
            tell: &tell,
            warn: &tell,
        })
    }

    /// Kind and outcome of every record, oldest first.
    pub(crate) fn outcomes(&self) -> Vec<String> {
        self.evidence.records().iter().map(|record| record.outcome.clone()).collect()
    }

    pub(crate) fn last_record(&self) -> Record {
        self.evidence.records().pop().unwrap()
    }

    /// Nothing of ours can be seen at the target, and the decisions key stayed closed.
    pub(crate) fn assert_nothing_happened(&self) {
        assert_eq!(self.places.occupant(TARGET), None);
        assert_eq!(self.places.blobs(TARGET), []);
        assert_eq!(self.opened.get(), 0, "the decisions key was opened");
        assert!(!self.outcomes().iter().any(|outcome| ["allow", "promoted"].contains(&outcome.as_str())));
    }

    /// The bundles that are attached at the target, by the predicate type that their manifests say.
    pub(crate) fn bundles_at_target(&self) -> Vec<(String, Digest)> {
        let bundle = |manifest: &Manifest| {
            let kind = manifest.annotations.get("dev.sigstore.bundle.predicateType").unwrap();
            (PredicateType::from_uri(kind).short().to_owned(), manifest.layers[0].digest)
        };
        let manifests = self.places.attached(TARGET);
        manifests.iter().filter(|manifest| manifest.artifact_type.as_deref() == Some(BUNDLE)).map(bundle).collect()
    }

    /// What is read of the image at the source.
    pub(crate) fn fetched_at_source(&self) -> Fetched {
        let (source, only) = (self.places.source(&SOURCE.into()).unwrap(), Selector::Only);
        let everybody = Asked { trust: &self.trust, repository: None, at: today() };
        fetch_evidence(source.as_ref(), &source.resolve(&only).unwrap(), everybody).unwrap()
    }

    /// The first statement of this type that is attached at the source.
    pub(crate) fn statement_at_source(&self, kind: PredicateType) -> Statement {
        let fetched = self.fetched_at_source();
        let statements = fetched.attached.values().map(|bytes| Bundle::parse(bytes).unwrap().payload);
        let mut statements = statements.map(|payload| Statement::parse(&payload).unwrap());
        statements.find(|statement| statement.predicate_type == kind).unwrap()
    }

    /// The statement in a bundle of the store.
    pub(crate) fn statement(&self, bundle: &Digest) -> Statement {
        let bytes = self.store.read(bundle, 1 << 20).unwrap();
        Statement::parse(&Bundle::parse(&bytes).unwrap().payload).unwrap()
    }
}

/// Each role's key, `person` by hand, and `alice` and `bob`, who say together as `vexers` what is not affected.
fn trust(log: &VirtualLog) -> Trust {
    trust_of(log, "*", "*")
}

/// The same, where `vexers` and `alice` speak about these repositories.
pub(crate) fn trust_of(log: &VirtualLog, vexers: &str, alice: &str) -> Trust {
    Trust::from_rules(trust_rules(vexers, alice), TrustRoot::parse(&log.trusted_root_json()).unwrap()).unwrap()
}

fn trust_rules(vexers: &str, alice: &str) -> TrustRules {
    let rule = |name: &str, roles: &[Role]| SignerRule {
        name: name.to_owned(),
        public_key: VirtualSigner::new(name).public_key().to_vec(),
        roles: roles.iter().copied().collect(),
        predicate_types: None,
        builder_ids: [LOCAL_BUILDER.to_owned()].into_iter().collect(),
        verifier_ids: [GATE.to_owned()].into_iter().collect(),
        environments: ["production".parse().unwrap()].into_iter().collect(),
        repositories: Some(vec![RepositoryPattern::Any]),
    };
    TrustRules {
        signers: vec![
            rule("builder", &[Role::Steps]),
            rule("recorder", &[Role::Records]),
            rule("decider", &[Role::Decisions]),
            rule("person", &[Role::Manual]),
            SignerRule { repositories: Some(vec![alice.parse().unwrap()]), ..rule("alice", &[]) },
            SignerRule { repositories: None, ..rule("bob", &[]) },
        ],
        groups: vec![GroupRule {
            name: "vexers".to_owned(),
            threshold: 2,
            of: ["alice", "bob"].map(str::to_owned).into(),
            roles: BTreeSet::from([Role::Manual]),
            predicate_types: Some(BTreeSet::from([PredicateType::Vex])),
            repositories: Some(vec![vexers.parse().unwrap()]),
        }],
        untimed: BTreeSet::from([LOG.to_owned()]),
        ..TrustRules::default()
    }
}

fn judge() -> Judge {
    let kinds = [PredicateType::Provenance, PredicateType::Sbom, PredicateType::Vulns, PredicateType::TestResult];
    let names: Vec<String> = kinds.iter().map(|kind| kind.short().to_owned()).collect();
    let valid_for = Duration::from_secs(30 * 24 * 60 * 60);
    let gate = Gate {
        name: "release".to_owned(),
        policies: Vec::new(),
        data: Vec::new(),
        require: names.try_into().unwrap(),
        strict_executables: false,
        valid_for,
    };
    let gateway = Digest::of(b"gateway");
    Judge {
        name: "production".parse().unwrap(),
        environment: Environment {
            repository: "environments/production".into(),
            tag: "current".parse().unwrap(),
            gate: Some(gate),
        },
        gateway,
        verifier_id: GATE.to_owned(),
        gate: Some(GateRules {
            conditions: Conditions {
                require: kinds.to_vec().try_into().unwrap(),
                strict_executables: false,
                databases: AcceptedDatabases {
                    vulnerabilities: Some(AcceptedDatabase {
                        digest: Digest::of(b"database"),
                        max_age: Duration::from_secs(48 * 60 * 60),
                    }),
                    java: Some(AcceptedDatabase {
                        digest: Digest::of(b"java database"),
                        max_age: Duration::from_secs(48 * 60 * 60),
                    }),
                },
                valid_for,
                gateway,
                exceptions: Exceptions::default(),
            },
            policies: Vec::new(),
            data: Vec::new(),
        }),
    }
}

/// A judge that was made of nothing.
struct NoFiles;

impl JudgeRecord for NoFiles {
    fn all_read(&self) -> (Vec<u8>, Vec<(PathBuf, Vec<u8>)>) {
        (b"gateway".to_vec(), Vec::new())
    }
}

/// Why a promotion was left open, which it must have been.
pub(crate) fn undecided(promoted: Result<Promoted, Error>) -> Vec<String> {
    match promoted {
        Ok(Promoted::Undecided { reasons, .. }) => reasons.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn assert_allowed(promoted: Result<Promoted, Error>) {
    assert!(matches!(promoted, Ok(Promoted::Allowed { .. })), "{promoted:?}");
}

pub(crate) fn clean_scanner() -> FakeScanner {
    scanner_that_finds(&[])
}

pub(crate) fn scanner_that_finds(advisories: &[&str]) -> FakeScanner {
    FakeScanner::gives(FakeScanner::report(&FakeScanner::raw(advisories), Digest::of(b"database"), today()))
}

/// Rules that answer as a function of the facts.
pub(crate) struct Rules<F>(pub(crate) F);

impl<F: Fn(&str) -> Outcome> RuleEvaluator for Rules<F> {
    fn evaluate(&self, request: &EvaluationRequest) -> Result<RuleResults, PolicyError> {
        let answer = RuleAnswer {
            rule: RuleDeclaration {
                code: "a.rule".to_owned(),
                title: "a rule".to_owned(),
                description: "for tests".to_owned(),
                solution: "do better".to_owned(),
                requires: Vec::new(),
                requires_fields: Vec::new(),
                effective_on: None,
                controls: BTreeMap::new(),
                file: "policies/a.rego".to_owned(),
                line: 7,
            },
            outcome: (self.0)(request.input.get()),
            lacking: Vec::new(),
            unlisted: 0,
        };
        Ok(RuleResults { answers: vec![answer], warnings: Vec::new() })
    }
}

pub(crate) fn pass() -> Rules<impl Fn(&str) -> Outcome> {
    Rules(|_: &str| Outcome::Pass)
}

pub(crate) fn deny() -> Rules<impl Fn(&str) -> Outcome> {
    Rules(|_: &str| denial())
}

/// Rules that deny while a finding has this id.
pub(crate) fn bans(id: &'static str) -> Rules<impl Fn(&str) -> Outcome> {
    Rules(move |facts: &str| {
        let facts: serde_json::Value = serde_json::from_str(facts).unwrap();
        let has = facts["vulnerabilities"].as_array().unwrap().iter().any(|finding| finding["id"] == id);
        if has { denial() } else { Outcome::Pass }
    })
}

pub(crate) fn denial() -> Outcome {
    let violation =
        Violation { msg: "too bad".to_owned(), term: None, subject: None, fields: BTreeMap::new(), clause: None };
    Outcome::Deny(NonEmpty::one(violation))
}

/// A policy that crashes.
pub(crate) struct Crash;

impl RuleEvaluator for Crash {
    fn evaluate(&self, _: &EvaluationRequest) -> Result<RuleResults, PolicyError> {
        Err(PolicyError::Engine { reason: "the child died".to_owned() })
    }
}

pub(crate) fn environment(name: &str) -> EnvironmentName {
    name.parse().unwrap()
}

/// A ledger as it was at some time.
fn head() -> LedgerHead {
    LedgerHead { origin: LEDGER.to_owned(), size: 1, root: Digest::of(b"root") }
}

/// What a gate says that allowed `image` into production now.
pub(crate) fn summary(image: Digest) -> VerificationSummary {
    let environment = environment("production");
    VerificationSummary {
        verifier_id: GATE.to_owned(),
        time_verified: today(),
        resource: PinnedImage { repository: Repository::of_environment(&environment), digest: image },
        policy: Digest::of(b"gateway"),
        inputs: vec![Digest::of(b"bundle")],
        passed: true,
        levels: vec!["SLSA_BUILD_LEVEL_1".to_owned()],
        environment,
        expires: today().plus(60),
        authority: "self".to_owned(),
        ledger: head(),
    }
}

/// What is kept about a copy of `image` to production.
pub(crate) fn promotion(image: Digest, decision: Option<Digest>) -> Promotion {
    let environment = environment("production");
    Promotion {
        image,
        source: "build".to_owned(),
        destination: PinnedImage { repository: Repository::of_environment(&environment), digest: image },
        timestamp: today(),
        builder_id: LOCAL_BUILDER.to_owned(),
        decision,
        verifier_id: GATE.to_owned(),
        gateway: Digest::of(b"gateway"),
        authority: "self".to_owned(),
        environment,
        ledger: head(),
    }
}

/// An index of scans in memory.
#[derive(Default)]
pub(crate) struct MemoryScans(std::sync::Mutex<BTreeMap<Digest, Digest>>, AtomicU32);

impl MemoryScans {
    /// How often a key was forgotten.
    pub(crate) fn forgotten(&self) -> u32 {
        self.1.load(Ordering::Relaxed)
    }

    /// Lets every key lead to this bundle.
    pub(crate) fn lead_to(&self, bundle: Digest) {
        self.0.lock().unwrap().values_mut().for_each(|kept| *kept = bundle);
    }
}

impl ScanIndex for MemoryScans {
    fn bundle(&self, key: &Digest) -> Option<Digest> {
        self.0.lock().unwrap().get(key).copied()
    }

    fn keep(&self, key: &Digest, bundle: &Digest) -> Result<(), String> {
        self.0.lock().unwrap().insert(*key, *bundle);
        Ok(())
    }

    fn forget(&self, key: &Digest) {
        self.0.lock().unwrap().remove(key);
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}
