//! Real registries hold the images, and other programs look at what we left there: cosign, crane, oras, skopeo.

use std::{collections::BTreeSet, fs, path::PathBuf};

use integration::{
    Ended, Project, can_run_steps, peer, ready,
    registry::{Kind, RealRegistry, free_address},
};
use serde_json::Value;
use sluicegate_testkit::{Logged, TestRegistry};
use sluicegate_types::Digest;

const VULNS: &str = "https://in-toto.io/attestation/vulns/v0.2";
const SUMMARY: &str = "https://slsa.dev/verification_summary/v1";
const PREDICATE_TYPE: &str = "dev.sigstore.bundle.predicateType";

/// The programs that look.
struct Others {
    cosign: PathBuf,
    crane: PathBuf,
    oras: PathBuf,
    skopeo: PathBuf,
}

impl Others {
    fn find(test: &str) -> Option<Self> {
        let cosign = peer("SLUICEGATE_COSIGN", test)?;
        let crane = peer("SLUICEGATE_CRANE", test)?;
        let (oras, skopeo) = (peer("SLUICEGATE_ORAS", test)?, peer("SLUICEGATE_SKOPEO", test)?);
        Some(Self { cosign, crane, oras, skopeo })
    }
}

/// A project that builds in `build/tiny` of a registry and promotes to `prod/tiny`, by a gate, and to `staging/tiny`, without one.
fn project(host: &str) -> Project {
    let project = Project::prepared();
    let place = format!("repository: {host}/build/tiny\n    tags: [v1]");
    project.replace("sluicegate.yaml", "repository: oci:out/tiny", &place);
    project.replace("gateway.yaml", "oci:env/production", &format!("{host}/prod/tiny"));
    project.replace("gateway.yaml", "oci:env/staging", &format!("{host}/staging/tiny"));
    project.replace("trust/trust.yaml", "authority_self: false", "authority_self: true");
    project
}

/// Builds, and gives the image's digest.
fn run(project: &Project, more: &[&str]) -> String {
    let (code, document) = project.json(&[&["run"], more].concat());
    assert_eq!(code, 0, "{document:#}");
    document["images"][0]["digest"].as_str().unwrap().to_owned()
}

/// A registry with a project whose images it holds, and those who look at them.
struct World {
    registry: RealRegistry,
    project: Project,
    others: Others,
}

impl World {
    fn new(kind: Kind, test: &str) -> Option<Self> {
        let others = Others::find(test)?;
        let registry = RealRegistry::start(kind, test)?;
        let mut project = project(registry.host());
        registry.introduce(&mut project);
        Some(Self { registry, project, others })
    }

    /// Builds, and gives the image's digest.
    fn run(&self, more: &[&str]) -> String {
        run(&self.project, more)
    }

    /// The image in this repository by its digest.
    fn image(&self, repository: &str, digest: &str) -> String {
        format!("{}@{digest}", self.registry.repository(repository))
    }

    /// The tag in this repository.
    fn tag(&self, repository: &str, tag: &str) -> String {
        format!("{}:{tag}", self.registry.repository(repository))
    }

    /// `promote` of an image of the build repository.
    fn promote(&self, digest: &str, environment: &str, more: &[&str]) -> Ended {
        let image = self.image("build/tiny", digest);
        self.project.sluicegate(&[&["promote", &image, "--to", environment], more].concat())
    }

    fn crane(&self, arguments: &[&str]) -> Ended {
        self.registry.client(&self.others.crane, &self.project, arguments)
    }

    fn skopeo(&self, arguments: &[&str]) -> Ended {
        self.registry.client(&self.others.skopeo, &self.project, arguments)
    }

    fn cosign(&self, arguments: &[&str], image: &str) -> Ended {
        let arguments = [arguments, &["--trusted-root", "trust/trusted_root.json", image]].concat();
        self.registry.client(&self.others.cosign, &self.project, &arguments)
    }

    /// The digest that a tag names, by crane.
    fn held(&self, repository: &str, tag: &str) -> Option<String> {
        let ended = self.crane(&["digest", &self.tag(repository, tag)]);
        (ended.code == 0).then(|| ended.stdout.trim().to_owned())
    }

    /// The tags of a repository, by crane; none if there is no such repository.
    fn tags(&self, repository: &str) -> Vec<String> {
        let ended = self.crane(&["ls", &self.registry.repository(repository)]);
        ended.stdout.lines().map(str::to_owned).collect()
    }

    /// What is attached to an image, by oras.
    fn discovered(&self, image: &str) -> Vec<Value> {
        let how = if self.registry.authority().is_some() { "--plain-http=false" } else { "--plain-http" };
        let ended = self.registry.client(
            &self.others.oras,
            &self.project,
            &["discover", "--format", "json", "--depth", "1", how, image],
        );
        ended.assert(0, "");
        let document: Value = serde_json::from_str(&ended.stdout).unwrap();
        document["referrers"].as_array().unwrap_or_else(|| panic!("{document:#}")).clone()
    }
}

/// Manifest and image are the same bytes to crane and skopeo, wherever they are.
fn everybody_reads_the_same(world: &World, digest: &str) {
    for (repository, tag) in [("build/tiny", "v1"), ("prod/tiny", "current"), ("staging/tiny", "current")] {
        let tag = world.tag(repository, tag);
        let by_crane = world.crane(&["digest", &tag]);
        by_crane.assert(0, digest);
        let bytes = world.crane(&["manifest", &tag]);
        assert_eq!(Digest::of(bytes.stdout.as_bytes()).to_string(), digest, "{bytes:?}");
        let raw = world.skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{tag}")]);
        assert_eq!(Digest::of(raw.stdout.as_bytes()).to_string(), digest, "{raw:?}");
    }
    let from = format!("docker://{}", world.image("prod/tiny", digest));
    let kept = world.project.path("digest");
    let copy = [
        "copy",
        "--src-tls-verify=false",
        "--insecure-policy",
        "--preserve-digests",
        "--digestfile",
        kept.to_str().unwrap(),
        &from,
    ];
    world.skopeo(&[&copy[..], &["oci:copied:current"]].concat()).assert(0, "");
    assert_eq!(fs::read_to_string(&kept).unwrap().trim(), digest);
    let copied = integration::Layout::at(world.project.path("copied"));
    assert_eq!(copied.index()["manifests"][0]["digest"], digest);
}

/// oras lists what we say is attached: the same statements, and beside them one manifest for the rest of the evidence and, where a gate
/// decided, one for its scan.
fn oras_lists_what_we_say(world: &World, repository: &str, digest: &str, others: usize) {
    let image = world.image(repository, digest);
    let (code, document) = world.project.json(&["verify", &image]);
    assert_eq!((code, &document["complete"]), (0, &true.into()), "{document:#}");
    let about_image = |statement: &&Value| {
        let subjects = statement["subjects"].as_array();
        let image = digest.trim_start_matches("sha256:");
        let is_image = |subject: &Value| subject["digest"].to_string().contains(image);
        statement["status"] == "verified"
            && statement["beside"].is_null()
            && subjects.is_some_and(|subjects| subjects.iter().any(is_image))
    };
    let statements = document["statements"].as_array().unwrap();
    let mut said: Vec<&str> =
        statements.iter().filter(about_image).map(|s| s["predicateType"].as_str().unwrap()).collect();
    let listed = world.discovered(&image);
    assert_eq!(listed.len(), said.len() + others, "{listed:#?}\n{document:#}");
    // oras reads each manifest, and these stand in it.
    let mut found: Vec<&str> = listed.iter().filter_map(|one| one["annotations"][PREDICATE_TYPE].as_str()).collect();
    said.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, said);
}

/// Only what was promoted is signed for production, and what the builder said is there for whoever asks.
fn cosign_believes_what_is_so(world: &World, digest: &str) {
    let signature =
        |repository: &str| world.cosign(&["verify", "--key", "trust/production.pub"], &world.image(repository, digest));
    signature("prod/tiny").assert(0, "\"critical\"");
    for repository in ["build/tiny", "staging/tiny"] {
        let ended = signature(repository);
        assert!(ended.code != 0 && !ended.stdout.contains("\"critical\""), "{ended:?}");
    }
    let attestation = |key: &str, kind: &str, repository: &str| {
        let arguments = ["verify-attestation", "--key", key, "--type", kind];
        world.cosign(&arguments, &world.image(repository, digest))
    };
    for (kind, repository) in [
        ("slsaprovenance1", "prod/tiny"),
        ("cyclonedx", "prod/tiny"),
        (VULNS, "prod/tiny"),
        ("slsaprovenance1", "build/tiny"),
    ] {
        let ended = attestation("trust/builder.pub", kind, repository);
        ended.assert(0, "");
        let envelope: Value = serde_json::from_str(ended.stdout.lines().next().unwrap()).unwrap();
        let statement = integration::decode(envelope["payload"].as_str().unwrap());
        let subject = statement["subject"][0]["digest"]["sha256"].as_str().unwrap();
        assert_eq!(format!("sha256:{subject}"), digest, "{kind}");
    }
    assert_ne!(attestation("trust/builder.pub", SUMMARY, "prod/tiny").code, 0);
    assert_ne!(attestation("trust/recorder.pub", "slsaprovenance1", "prod/tiny").code, 0);
    attestation("trust/production.pub", SUMMARY, "prod/tiny").assert(0, "");
    assert_ne!(attestation("trust/production.pub", SUMMARY, "build/tiny").code, 0);
}

/// `run`, `promote` to each environment, `verify`: and everybody else agrees with what is there.
fn whole_path(kind: Kind, test: &str) {
    if !ready(test) {
        return;
    }
    let Some(world) = World::new(kind, test) else { return };
    let digest = world.run(&[]);
    let built = world.tag("build/tiny", "v1");
    for image in [&built, &world.image("build/tiny", &digest)] {
        world.project.sluicegate(&["verify", image]).assert(0, &format!("VERIFIED  {digest}"));
    }
    let other = world.image("build/tiny", &Digest::of(b"another").to_string());
    world.project.sluicegate(&["verify", &other]).assert(2, "the registry has none");
    // What was only built is admitted nowhere.
    world.project.sluicegate(&["verify", "--for", "production", &built]).assert(3, "NOT ADMITTED");
    world.promote(&digest, "production", &[]).assert(0, &format!("ALLOWED  {}", world.image("prod/tiny", &digest)));
    world.project.sluicegate(&["promote", &built, "--to", "staging"]).assert(0, "UNGATED");
    let production = world.tag("prod/tiny", "current");
    world.project.sluicegate(&["verify", "--for", "production", &production]).assert(0, "ADMITTED");
    world
        .project
        .sluicegate(&["verify", "--for", "staging", &world.tag("staging/tiny", "current")])
        .assert(0, "UNGATED");
    everybody_reads_the_same(&world, &digest);
    oras_lists_what_we_say(&world, "build/tiny", &digest, 1);
    oras_lists_what_we_say(&world, "prod/tiny", &digest, 2);
    cosign_believes_what_is_so(&world, &digest);
    if kind == Kind::Distribution {
        once_more(&world, &digest);
    }
    let ended = world.project.sluicegate(&["evidence", "fsck", "--against", &production]);
    ended.assert(0, "WHOLE");
    assert!(!ended.stderr.contains("only under the tag"), "{ended:?}");
}

/// The same promotion is a decision of its own, which is attached beside what is there already.
fn once_more(world: &World, digest: &str) {
    let listed = || {
        let listed = world.discovered(&world.image("prod/tiny", digest));
        listed.iter().map(|one| one["digest"].to_string()).collect::<BTreeSet<_>>()
    };
    let before = listed();
    world.promote(digest, "production", &[]).assert(0, "ALLOWED");
    let after = listed();
    assert!(after.is_superset(&before) && after.len() > before.len(), "something was lost: {before:?}, {after:?}");
    assert_eq!(world.held("prod/tiny", "current").as_deref(), Some(digest));
    world
        .project
        .sluicegate(&["verify", "--for", "production", &world.tag("prod/tiny", "current")])
        .assert(0, "ADMITTED");
}

#[test]
fn what_older_tools_look_for_is_written_beside_the_image_where_that_is_asked_for() {
    let test = "what_older_tools_look_for_is_written_beside_the_image_where_that_is_asked_for";
    let Some(world) = World::new(Kind::Docker, test) else { return };
    let digest = world.run(&[]);
    let image = world.image("prod/tiny", &digest);
    let old = |arguments: &[&str]| {
        let words = ["--new-bundle-format=false", "--insecure-ignore-tlog"];
        world.registry.client(&world.others.cosign, &world.project, &[arguments, &words, &[&image]].concat())
    };
    let verify = ["verify", "--key", "trust/production.pub"];
    world.promote(&digest, "staging", &["--compat", "cosign2"]).assert(2, "has no gate, so that nobody signs");
    world.promote(&digest, "production", &[]).assert(0, "ALLOWED");
    old(&verify).assert(10, "no signatures found");
    let doctor = world.project.sluicegate(&["doctor", &image]);
    doctor.assert(0, "containers-policy (podman, CRI-O, skopeo) would see nothing");
    world.promote(&digest, "production", &["--compat", "cosign2"]).assert(0, "ALLOWED");
    old(&verify).assert(0, &digest);
    for kind in ["slsaprovenance1", "cyclonedx"] {
        old(&["verify-attestation", "--key", "trust/builder.pub", "--type", kind]).assert(0, "payload");
    }
    // Another key's signature is not what the environment says.
    assert_ne!(old(&["verify", "--key", "trust/builder.pub"]).code, 0);
    let doctor = world.project.sluicegate(&["doctor", &image]);
    doctor.assert(0, "containers-policy (podman, CRI-O, skopeo) would see signature");
    // Once more adds the newer decision and takes nothing away; our own verifier reads none of it.
    let held = |suffix: &str| {
        let manifest =
            world.crane(&["manifest", &world.tag("prod/tiny", &format!("{}.{suffix}", digest.replace(':', "-")))]);
        serde_json::from_str::<Value>(&manifest.stdout).unwrap()["layers"].as_array().unwrap().clone()
    };
    let (signatures, attestations) = (held("sig"), held("att"));
    world.promote(&digest, "production", &["--compat", "cosign2"]).assert(0, "ALLOWED");
    assert_eq!(held("sig"), signatures, "one key signs one image once");
    assert!(held("att").starts_with(&attestations) && held("att").len() > attestations.len());
    world.project.sluicegate(&["verify", "--for", "production", &image]).assert(0, "ADMITTED");
}

#[test]
fn an_image_goes_the_whole_way_through_distribution() {
    whole_path(Kind::Distribution, "an_image_goes_the_whole_way_through_distribution");
}

#[test]
fn an_image_goes_the_whole_way_through_distribution_behind_tls() {
    whole_path(Kind::DistributionTls, "an_image_goes_the_whole_way_through_distribution_behind_tls");
}

#[test]
fn an_image_goes_the_whole_way_through_the_registry_of_debian() {
    whole_path(Kind::Docker, "an_image_goes_the_whole_way_through_the_registry_of_debian");
}

#[test]
fn an_image_goes_the_whole_way_through_a_registry_with_the_referrers_api() {
    whole_path(Kind::Refreg, "an_image_goes_the_whole_way_through_a_registry_with_the_referrers_api");
}

#[test]
fn a_build_tag_is_never_moved_and_an_environments_goes_back_only_with_rollback() {
    let test = "a_build_tag_is_never_moved_and_an_environments_goes_back_only_with_rollback";
    if !can_run_steps(test) {
        return;
    }
    let Some(world) = World::new(Kind::Distribution, test) else { return };
    let (project, held) = (&world.project, |tag: &str| world.held("build/tiny", tag));
    let first = world.run(&["--no-scan"]);
    world.promote(&first, "staging", &[]).assert(0, "UNGATED");
    fs::write(project.path("src/hello.txt"), "hello again\n").unwrap();
    let refused = project.sluicegate(&["run", "--no-scan"]);
    refused.assert(2, &format!("names {first} and is never moved; choose another tag for sha256:"));
    assert_eq!(held("v1").as_deref(), Some(first.as_str()));
    project.replace("sluicegate.yaml", "[v1]", "[v2]");
    let second = world.run(&["--no-scan"]);
    assert_ne!(first, second);
    refused.assert(2, &second);
    assert_eq!((held("v1"), held("v2")), (Some(first.clone()), Some(second.clone())));
    let staging = || world.held("staging/tiny", "current");
    let rollback = ["--rollback"];
    world.promote(&second, "staging", &rollback).assert(2, "was never promoted there from this home");
    world.promote(&second, "staging", &[]).assert(0, "UNGATED");
    world.promote(&first, "staging", &[]).assert(2, "moving a tag backwards needs --rollback");
    assert_eq!(staging(), Some(second.clone()));
    world.promote(&second, "staging", &rollback).assert(2, "is what it holds now");
    world.promote(&first, "staging", &rollback).assert(0, "UNGATED");
    assert_eq!(staging(), Some(first.clone()));
    // What the tag named in between is still there, by its digest.
    world.crane(&["digest", &world.image("staging/tiny", &second)]).assert(0, &second);
    project.must(&["verify", "--for", "staging", &world.tag("staging/tiny", "current")]);
}

#[test]
fn nothing_is_built_in_the_repository_of_an_environment() {
    let test = "nothing_is_built_in_the_repository_of_an_environment";
    if !can_run_steps(test) {
        return;
    }
    let project = Project::prepared();
    // Nobody answers there: it is refused before anybody is asked.
    let repository = format!("{}/prod/tiny", free_address());
    project.replace("gateway.yaml", "oci:env/production", &repository);
    project.replace("sluicegate.yaml", "repository: oci:out/tiny", &format!("repository: {repository}"));
    for arguments in [&["run", "--no-scan"][..], &["plan"]] {
        let ended = project.sluicegate(arguments);
        ended.assert(2, "is the place of an environment, where only promote writes; choose another one");
        assert!(!ended.stderr.contains("step build runs"), "{ended:?}");
    }
}

#[test]
fn a_registry_that_does_not_answer_is_named_and_nothing_is_half_done() {
    let test = "a_registry_that_does_not_answer_is_named_and_nothing_is_half_done";
    if !can_run_steps(test) {
        return;
    }
    let Some(mut world) = World::new(Kind::Distribution, test) else { return };
    let nobody = free_address().to_string();
    let digest = world.run(&["--no-scan"]);
    let catalogue = || world.crane(&["catalog", world.registry.host()]).stdout;
    let attached = || world.discovered(&world.image("build/tiny", &digest));
    let before = (catalogue(), attached());
    // Where the environment is, nobody answers: the image's own place is left as it was.
    let own = fs::read_to_string(world.project.path("gateway.yaml")).unwrap();
    world.project.replace("gateway.yaml", world.registry.host(), &nobody);
    for environment in ["production", "staging"] {
        let ended = world.promote(&digest, environment, &[]);
        ended.assert(5, &format!("cannot look where the tag current of {nobody}/"));
        ended.assert(5, "try again when the registry answers");
        let record = world.project.last_record("decision");
        assert_eq!((&record["outcome"], &record["environment"]), (&"undecided".into(), &environment.into()));
    }
    assert_eq!((catalogue(), attached()), before);
    fs::write(world.project.path("gateway.yaml"), own).unwrap();
    // Where the image is to be built, nobody answers: nothing was executed for it.
    let own = fs::read_to_string(world.project.path("sluicegate.yaml")).unwrap();
    world.project.replace("sluicegate.yaml", world.registry.host(), &nobody);
    let ended = world.project.sluicegate(&["run", "--no-scan"]);
    ended.assert(5, &nobody);
    assert!(!ended.stderr.contains("step build runs"), "{ended:?}");
    assert_eq!(world.project.last_record("run")["outcome"], "failed");
    fs::write(world.project.path("sluicegate.yaml"), own).unwrap();
    // It was there and is gone.
    world.registry.stop();
    let host = world.registry.host().to_owned();
    for image in [world.tag("build/tiny", "v1"), world.image("build/tiny", &digest)] {
        world.project.sluicegate(&["verify", &image]).assert(5, &host);
        let (code, document) = world.project.json(&["verify", &image]);
        assert_eq!((code, &document["reason"]), (5, &"registry_unreachable".into()), "{document:#}");
    }
    world.promote(&digest, "production", &[]).assert(5, &host);
}

#[test]
fn attestations_stand_in_the_evidence_repository_and_not_beside_the_image() {
    let test = "attestations_stand_in_the_evidence_repository_and_not_beside_the_image";
    if !can_run_steps(test) {
        return;
    }
    let Some(world) = World::new(Kind::Distribution, test) else { return };
    let evidence = world.registry.repository("evidence/tiny");
    world.project.replace("gateway.yaml", "evidence: same", &format!("evidence: {evidence}"));
    let digest = world.run(&["--no-scan"]);
    let (built, promoted) = (world.image("build/tiny", &digest), world.image("staging/tiny", &digest));
    world.promote(&digest, "staging", &[]).assert(0, "UNGATED");
    let fallback = digest.replace(':', "-");
    assert_eq!(world.tags("build/tiny"), ["v1"]);
    assert_eq!(world.tags("staging/tiny"), ["current"]);
    assert_eq!(world.tags("evidence/tiny"), [fallback]);
    // oras asks where the image is and finds nothing; where the evidence is, the image is not.
    assert_eq!((world.discovered(&built), world.discovered(&promoted)), (Vec::new(), Vec::new()));
    assert_ne!(world.crane(&["digest", &world.image("evidence/tiny", &digest)]).code, 0);
    let index = world.crane(&["manifest", &world.tag("evidence/tiny", &digest.replace(':', "-"))]);
    let index: Value = serde_json::from_str(&index.stdout).unwrap();
    let listed = index["manifests"].as_array().unwrap();
    for entry in listed {
        let manifest = entry["digest"].as_str().unwrap();
        let text = world.crane(&["manifest", &world.image("evidence/tiny", manifest)]);
        let text: Value = serde_json::from_str(&text.stdout).unwrap();
        assert_eq!(text["subject"]["digest"], digest.as_str());
        for repository in ["build/tiny", "staging/tiny"] {
            assert_ne!(world.crane(&["manifest", &world.image(repository, manifest)]).code, 0);
            let part = text["layers"][0]["digest"].as_str().unwrap();
            assert_ne!(world.crane(&["blob", &world.image(repository, part)]).code, 0, "{part} is in {repository}");
        }
    }
    // The gateway says where to look; so does a flag; and who is not told finds nothing.
    world.project.sluicegate(&["verify", "--for", "staging", &promoted]).assert(0, "UNGATED");
    let keys = ["--key", "trust/builder.pub", "--trust-root", "trust/trusted_root.json"];
    let by_key = |more: &[&str]| world.project.sluicegate(&[&["verify", &built], &keys[..], more].concat());
    by_key(&["--evidence", &evidence]).assert(0, "VERIFIED");
    let without = by_key(&[]);
    without.assert(3, "INCOMPLETE");
    without.assert(3, "nothing is attached to it");
    let elsewhere = world.registry.repository("evidence/other");
    by_key(&["--evidence", &elsewhere]).assert(3, "INCOMPLETE");
}

/// How often something was written under this tag with success, and how often in vain.
fn writes(log: &[Logged], repository: &str, tag: &str) -> (usize, usize) {
    let path = format!("/v2/{repository}/manifests/{tag}");
    let put = |asked: &&Logged| asked.method == "PUT" && asked.path_and_query == path;
    let (good, bad): (Vec<_>, Vec<_>) = log.iter().filter(put).partition(|asked| asked.status == 201);
    (good.len(), bad.len())
}

#[test]
fn tr_09_in_a_repository_of_immutable_tags_a_list_is_written_once_and_whole_or_refused_by_name() {
    let test = "tr_09_in_a_repository_of_immutable_tags_a_list_is_written_once_and_whole_or_refused_by_name";
    if !ready(test) {
        return;
    }
    let registry = TestRegistry::start("immutable,no-referrers".parse().unwrap());
    let project = project(&registry.host());
    let (built, production) = (format!("{}/build/tiny", registry.host()), format!("{}/prod/tiny", registry.host()));
    let digest_of = |repository: &str, reference: &str| {
        registry.manifest(repository, reference).map(|(_, bytes)| Digest::of(&bytes).to_string())
    };
    let listed = |repository: &str, digest: &str| -> usize {
        let (_, bytes) = registry.manifest(repository, &digest.replace(':', "-")).unwrap();
        let index: Value = serde_json::from_slice(&bytes).unwrap();
        index["manifests"].as_array().unwrap().len()
    };
    // What a run attaches is listed with one write.
    let digest = run(&project, &[]);
    let fallback = digest.replace(':', "-");
    assert_eq!(writes(&registry.log(), "build/tiny", &fallback), (1, 0));
    assert_eq!(writes(&registry.log(), "build/tiny", "v1"), (1, 0));
    assert_eq!(listed("build/tiny", &digest), 4, "provenance, SBOM, scan, and the rest of the evidence");
    project.must(&["verify", &format!("{built}:v1")]);
    // So is what a promotion attaches where there was nothing.
    let image = format!("{built}@{digest}");
    let promote = |environment: &str| project.sluicegate(&["promote", &image, "--to", environment]);
    promote("production").assert(0, "ALLOWED");
    assert_eq!(writes(&registry.log(), "prod/tiny", &fallback), (1, 0));
    project.sluicegate(&["verify", "--for", "production", &format!("{production}:current")]).assert(0, "ADMITTED");
    // A second decision finds no room in the list: nothing moves, and the decision stays on record.
    let before = (registry.tags("prod/tiny"), digest_of("prod/tiny", "current"), digest_of("prod/tiny", &fallback));
    let (code, failed) = project.json(&["promote", &image, "--to", "production"]);
    let because = failed["causes"].to_string();
    assert_eq!((code, &failed["reason"]), (5, &"tag_immutable".into()), "{failed:#}");
    assert!(because.contains(&format!("the tag {fallback} cannot be changed in {production}")), "{because}");
    assert!(because.contains("let evidence: of the gateway name a repository whose tags can be changed"), "{because}");
    let (done, refused) = writes(&registry.log(), "prod/tiny", &fallback);
    assert!(done == 1 && refused >= 1, "{done}, {refused}");
    assert_eq!(writes(&registry.log(), "prod/tiny", "current"), (1, 0), "the tag was written before its evidence");
    let after = (registry.tags("prod/tiny"), digest_of("prod/tiny", "current"), digest_of("prod/tiny", &fallback));
    assert_eq!(after, before);
    assert_eq!(project.last_record("decision")["outcome"], "allow");
    assert_eq!(project.last_record("promotion")["outcome"], "failed");
    project.sluicegate(&["verify", "--for", "production", &format!("{production}:current")]).assert(0, "ADMITTED");
    // A run of the same image attaches once more, and can't: what was there is there.
    let again = project.sluicegate(&["run", "--no-scan"]);
    again.assert(5, &format!("the tag {fallback} cannot be changed in {built}"));
    assert_eq!((listed("build/tiny", &digest), digest_of("build/tiny", "v1")), (4, Some(digest.clone())));
    project.must(&["verify", &format!("{built}:v1")]);
    // Another image has a list of its own; the environment's tag is what can't be moved, and its evidence came first.
    promote("staging").assert(0, "UNGATED");
    fs::write(project.path("src/hello.txt"), "hello again\n").unwrap();
    project.replace("sluicegate.yaml", "[v1]", "[v2]");
    let second = run(&project, &["--no-scan"]);
    let ended = project.sluicegate(&["promote", &format!("{built}@{second}"), "--to", "staging"]);
    ended.assert(5, &format!("the tag current cannot be changed in {}/staging/tiny", registry.host()));
    assert_eq!(digest_of("staging/tiny", "current"), Some(digest));
    assert!(listed("staging/tiny", &second) > 0);
    assert_eq!(project.last_record("promotion")["outcome"], "failed");
}
