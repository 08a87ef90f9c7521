//! Each doubt about an earlier result beside the same result without it.

use serde_json::{Value, json};
use sluicegate_attestation::{
    identifiers::BUNDLE,
    provenance::{Dependency, Internals},
    statement::{Statement, Subject},
};
use sluicegate_pipeline::cache_key::KeyParts;
use sluicegate_ports::{
    execute::{Limits, StepRequest, Stop},
    sign::Signer,
};
use sluicegate_testkit::{FixedClock, MemoryStore, VirtualLog, VirtualSigner, sign_statement, today};
use sluicegate_types::{NonEmpty, RepositoryPattern};
use sluicegate_verify::{SignerRule, TrustRoot, TrustRules};

use super::*;

const LOG: &str = "log.example";
const PIPELINE: &str = "
version: 1
name: shop
sources: { src: { path: . } }
defaults: { image: oci:base }
steps:
  build:
    run: [make]
    inputs: { /src: src }
    outputs: { out: /out }
    reports: { junit: /junit.xml }
";

struct World {
    pipeline: Pipeline,
    store: MemoryStore,
    log: VirtualLog,
    trust: Trust,
    clock: FixedClock,
    builder_version: BTreeMap<String, String>,
    exact: BTreeSet<StepName>,
}

fn rule(name: &str, role: Role) -> SignerRule {
    SignerRule {
        name: name.to_owned(),
        public_key: VirtualSigner::new(name).public_key().to_vec(),
        roles: BTreeSet::from([role]),
        predicate_types: None,
        builder_ids: ["https://example.com/b", LOCAL_BUILDER].map(str::to_owned).into_iter().collect(),
        verifier_ids: [].into_iter().collect(),
        environments: [].into_iter().collect(),
        repositories: Some(vec![RepositoryPattern::Any]),
    }
}

fn content(bytes: &[u8]) -> Content {
    Content { kind: ContentKind::File, digest: Digest::of(bytes) }
}

impl World {
    fn new(pipeline: &str) -> Self {
        let log = VirtualLog::new(LOG);
        let rules = TrustRules {
            signers: vec![rule("builder", Role::Steps), rule("recorder", Role::Records)],
            untimed: BTreeSet::from([LOG.to_owned()]),
            ..TrustRules::default()
        };
        let trust = Trust::from_rules(rules, TrustRoot::parse(&log.trusted_root_json()).unwrap()).unwrap();
        let store = MemoryStore::new();
        for left in [&b"what it left"[..], b"what it printed", b"<testsuite/>"] {
            store.put_bytes(left).unwrap();
        }
        Self {
            pipeline: Pipeline::parse("sluicegate.yaml", pipeline).unwrap(),
            store,
            log,
            trust,
            clock: FixedClock::new(today()),
            builder_version: BTreeMap::from([("sluicegate".to_owned(), "1".to_owned())]),
            exact: BTreeSet::new(),
        }
    }

    fn step(&self) -> &Step {
        &self.pipeline.steps[0]
    }

    /// The step as it is asked for now, with this content as its source.
    fn prepared(&self, source: &[u8]) -> Prepared {
        let step = self.step();
        let limits =
            Limits { timeout: step.timeout, memory: None, pids: None, cpu_millis: None, log_bytes: 1, output_bytes: 1 };
        let mut parts = KeyParts::default();
        parts.add("step", &step.name);
        let inputs = step.inputs.iter().map(|(at, from)| (at.clone(), (from.clone(), content(source)))).collect();
        Prepared {
            request: StepRequest {
                step: step.name.clone(),
                layers: Vec::new(),
                argv: step.argv.clone(),
                env: Vec::new(),
                workdir: step.workdir.clone(),
                user: String::new(),
                inputs: Vec::new(),
                caches: Vec::new(),
                outputs: Vec::new(),
                limits,
                epoch: 0,
                network: sluicegate_ports::execute::Network::None,
                masked: Vec::new(),
                observe: false,
                stop: Stop::default(),
            },
            image: Digest::of(b"image"),
            env: BTreeMap::new(),
            inputs,
            caches: Default::default(),
            key: parts.key(),
            parts,
        }
    }

    /// The statement of a run that did this work.
    fn origin(&self) -> Statement {
        let prepared = self.prepared(b"source");
        let products = [("out".parse().unwrap(), content(b"what it left"))].map(|(name, content): (OutputName, _)| {
            (name.clone(), Product { name, content, size: 12, executable: false })
        });
        let log = Digest::of(b"what it printed");
        let provenance = Provenance {
            build: Build::Step(prepared.parameters(&self.pipeline.name, self.step(), 0)),
            dependencies: vec![
                Dependency::image("image", Digest::of(b"image")),
                Dependency::content("source:src".to_owned(), content(b"source"), None),
            ],
            caches: Default::default(),
            builder_id: LOCAL_BUILDER.to_owned(),
            builder_version: self.builder_version.clone(),
            run: "r1".parse().unwrap(),
            started_on: today(),
            finished_on: today(),
            byproducts: vec![
                Dependency::other("log", log, "text/plain"),
                Dependency::other("report:junit", Digest::of(b"<testsuite/>"), JUNIT_REPORT),
            ],
            internal: Internals { cache_key: Some(prepared.key), ..Internals::default() },
        };
        Statement {
            subjects: step_subjects(&self.step().name, &products.into_iter().collect(), log),
            predicate_type: PredicateType::Provenance,
            predicate: provenance.to_predicate().unwrap(),
        }
    }

    fn taken(&self, by: &str, statement: &Statement) -> Result<Reused, String> {
        let bundle = sign_statement(&VirtualSigner::new(by), &self.log, statement);
        self.take(self.store.put_bytes(&bundle).unwrap(), b"source")
    }

    fn take(&self, bundle: Digest, source: &[u8]) -> Result<Reused, String> {
        let judged = Judged {
            store: &self.store,
            trust: &self.trust,
            clock: &self.clock,
            pipeline: &self.pipeline.name,
            builder_version: &self.builder_version,
            release: false,
            exact: self.exact.clone(),
            after_secrets: BTreeSet::new(),
            shared: None,
        };
        judged.take(self.step(), &self.prepared(source), bundle, None)
    }

    /// Why what this changes is not taken.
    fn refused(&self, change: impl FnOnce(&mut Statement)) -> String {
        let mut statement = self.origin();
        assert!(self.taken("builder", &statement).is_ok(), "without the change");
        change(&mut statement);
        self.taken("builder", &statement).map(drop).unwrap_err()
    }
}

fn external(statement: &mut Statement) -> &mut Value {
    &mut statement.predicate["buildDefinition"]["externalParameters"]
}

fn dependency<'a>(statement: &'a mut Statement, name: &str) -> &'a mut Value {
    let all = statement.predicate["buildDefinition"]["resolvedDependencies"].as_array_mut().unwrap();
    all.iter_mut().find(|one| one["name"] == name).unwrap()
}

#[test]
fn what_is_as_it_should_be_is_taken_with_all_that_it_left() {
    let world = World::new(PIPELINE);
    let reused = world.taken("builder", &world.origin()).unwrap();
    assert_eq!(reused.products[&"out".parse::<OutputName>().unwrap()].content, content(b"what it left"));
    assert_eq!(reused.log, Digest::of(b"what it printed"));
    assert_eq!(reused.report.unwrap().content, content(b"<testsuite/>"));
    assert_eq!(reused.inputs["/src"], content(b"source"));
}

#[test]
fn each_doubt_about_the_statement_is_a_reason_not_to_take_it() {
    let world = World::new(PIPELINE);
    type Change = fn(&mut Statement);
    let doubts: [(&str, Change); 14] = [
        ("is no provenance", |said| said.predicate_type = PredicateType::Sbom),
        ("not about a step", |said| {
            said.predicate["buildDefinition"]["buildType"] =
                json!(sluicegate_attestation::identifiers::IMAGE_BUILD_TYPE);
            *external(said) = json!({"pipeline": "shop", "artifact": "shop", "base": "scratch", "files": {"/out": "build.out"}, "config": {}, "needs": []});
        }),
        ("took its result from another run", |said| {
            let all = said.predicate["buildDefinition"]["resolvedDependencies"].as_array_mut().unwrap();
            let bundle = Digest::of(b"yet another run").hex();
            all.push(json!({"name": "cache-origin", "digest": {"sha256": bundle}, "mediaType": BUNDLE}));
        }),
        ("another builder made it", |said| {
            said.predicate["runDetails"]["builder"]["id"] = json!("https://example.com/b")
        }),
        ("another builder made it", |said| {
            said.predicate["runDetails"]["builder"]["version"] = json!({"sluicegate": "2"});
        }),
        ("it says another key", |said| {
            said.predicate["buildDefinition"]["internalParameters"]["cacheKey"] = json!(Digest::of(b"other"));
        }),
        ("which is to come", |said| {
            said.predicate["runDetails"]["metadata"]["finishedOn"] = json!("2026-01-02T00:00:01Z")
        }),
        ("older than 30 days", |said| {
            for when in ["startedOn", "finishedOn"] {
                said.predicate["runDetails"]["metadata"][when] = json!("2025-12-02T23:59:59Z");
            }
        }),
        ("it did other work", |said| external(said)["run"] = json!(["make", "else"])),
        ("it ended with code 3", |said| external(said)["exitCode"] = json!(3)),
        ("it read something else at /src", |said| {
            dependency(said, "source:src")["digest"]["sha256"] = json!(Digest::of(b"another").hex());
        }),
        ("it ran in another image", |said| {
            dependency(said, "image")["digest"]["sha256"] = json!(Digest::of(b"another").hex());
        }),
        ("its subjects are not this step's outputs", |said| {
            let more = Subject::product("build.more".to_owned(), content(b"more"));
            let both = said.subjects.iter().cloned().chain([more]).collect::<Vec<_>>();
            said.subjects = NonEmpty::try_from(both).unwrap();
        }),
        ("it left no build.out", |said| {
            said.subjects = NonEmpty::one(Subject::product("build.other".to_owned(), content(b"what it left")));
        }),
    ];
    for (words, change) in doubts {
        let reason = world.refused(change);
        assert!(reason.contains(words), "{words}: {reason}");
    }
    // Thirty days to the second are still taken.
    let mut old = world.origin();
    for when in ["startedOn", "finishedOn"] {
        old.predicate["runDetails"]["metadata"][when] = json!("2025-12-03T00:00:00Z");
    }
    assert!(world.taken("builder", &old).is_ok());
}

#[test]
fn whoever_may_not_speak_of_steps_is_not_believed() {
    let world = World::new(PIPELINE);
    let reason = world.taken("recorder", &world.origin()).map(drop).unwrap_err();
    assert!(reason.contains("steps") || reason.contains("records"), "{reason}");
    assert!(world.taken("stranger", &world.origin()).is_err());
}

#[test]
fn what_is_damaged_or_gone_is_not_taken() {
    let world = World::new(PIPELINE);
    let bundle = sign_statement(&VirtualSigner::new("builder"), &world.log, &world.origin());
    let bundle = world.store.put_bytes(&bundle).unwrap();
    assert!(world.take(bundle, b"source").is_ok());
    for part in [&b"what it left"[..], b"what it printed", b"<testsuite/>"] {
        world.store.replace(Digest::of(part), b"something else");
        let reason = world.take(bundle, b"source").map(drop).unwrap_err();
        assert!(reason.contains("is damaged"), "{reason}");
        world.store.remove(&Digest::of(part));
        assert!(world.take(bundle, b"source").is_err());
        world.store.put_bytes(part).unwrap();
        assert!(world.take(bundle, b"source").is_ok());
    }
    world.store.replace(bundle, b"{}");
    assert!(world.take(bundle, b"source").is_err());
}

#[test]
fn with_files_as_its_key_other_sources_may_have_been_read_unless_a_tag_names_their_commit() {
    let keyed = PIPELINE.replace("    outputs:", "    reuse: { key: [go.sum] }\n    outputs:");
    let mut world = World::new(&keyed);
    let bundle = sign_statement(&VirtualSigner::new("builder"), &world.log, &world.origin());
    let bundle = world.store.put_bytes(&bundle).unwrap();
    let reused = world.take(bundle, b"another source").unwrap();
    assert_eq!(reused.inputs["/src"], content(b"source"), "it says what was read");
    world.exact = BTreeSet::from([world.step().name.clone()]);
    let reason = world.take(bundle, b"another source").map(drop).unwrap_err();
    assert!(reason.contains("it read something else at /src"), "{reason}");
    assert!(world.take(bundle, b"source").is_ok());
}

#[test]
fn the_steps_of_an_artifact_whose_tag_names_a_commit_are_exact() {
    let artifact = |tag: &str| {
        format!(
            "{PIPELINE}  other:\n    run: [make]\nartifacts:\n  shop:\n    base: scratch\n    files: {{ /out: build.out }}\n    \
             repository: oci:out\n    tags: [\"{tag}\"]\n"
        )
    };
    for (tag, expected) in [("latest", &[][..]), ("git-{commit}", &["build"])] {
        let pipeline = Pipeline::parse("sluicegate.yaml", &artifact(tag)).unwrap();
        let found = exact(&pipeline, &pipeline.artifacts);
        assert_eq!(found.iter().map(StepName::as_str).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_run_that_promotes_takes_nothing_that_came_over_a_network_or_by_secrets() {
    let with = |line: &str| {
        let text =
            PIPELINE.replace("    outputs:", &format!("    {line}\n    reuse: {{ key: [go.sum] }}\n    outputs:"));
        Pipeline::parse("sluicegate.yaml", &text).unwrap()
    };
    for line in ["network: { allow: [\"a.example:443\"] }", "secrets: { TOKEN: { env: T } }"] {
        let pipeline = with(line);
        assert_eq!(never(&pipeline.steps[0], false), None, "{line}");
        assert!(never(&pipeline.steps[0], true).is_some(), "{line}");
    }
    assert_eq!(never(&with("env: {}").steps[0], true), None);
}
