use std::collections::BTreeMap;

use serde_json::{Value, json};
use sluicegate_attestation::{
    coverage::{Coverage, Executables, Read},
    identifiers::{BUNDLE, EVIDENCE_ARTIFACT, IMAGE_MANIFEST, JUNIT_REPORT, LOCAL_BUILDER, TRIVY_REPORT},
    junit::JUnit,
    output_sbom::output_sbom,
    predicate::PredicateType,
    provenance::{Build, Dependency, ImageParameters, Internals, Provenance, StepParameters},
    runtime_trace::{Files, RuntimeTrace},
    statement::{Statement, Subject},
    test_result::TestResult,
    trivy_report,
    trivy_report::Finding,
    vulns::{Database, Scanner, Vulns},
};
use sluicegate_ports::{
    images::Descriptor,
    sign::TransparencyLog,
    trees::{FileEntry, ITSELF},
};
use sluicegate_types::{Content, ContentKind, Digest, NonEmpty, RunId};

use crate::{FakeScanner, VirtualImage, VirtualSigner, sign_statement, today};

/// The bundles of a [`VirtualBuild`]: three steps, what one of them opened and what one reported, what the steps left and what they ran in, then what
/// is about the image, its provenance last.
pub const PARTS: [&str; 13] = [
    "build",
    "build-trace",
    "test",
    "test-result",
    "package",
    "built-sbom",
    "server-sbom",
    "server-vulns",
    "step-image-sbom",
    "step-image-vulns",
    "sbom",
    "vulns",
    "image",
];

/// Those that are attached to the image; the evidence manifest carries the others.
const ABOUT_THE_IMAGE: [&str; 3] = ["sbom", "vulns", "image"];

/// A report of one test that passed.
pub const JUNIT: &[u8] = br#"<testsuite name="shop" tests="1"><testcase classname="shop" name="opens"/></testsuite>"#;
/// The raw report of the scan of the image that steps run in.
const STEP_IMAGE_REPORT: &[u8] = br#"{"SchemaVersion":2,"ArtifactType":"container_image","Results":[]}"#;

/// The raw report of the scan of what the step `package` left: a finding that is no fact, as the gate scans the image.
const SERVER_REPORT: &[u8] = br#"{"SchemaVersion":2,"ArtifactType":"container_image","Results":[{"Target":"server","Class":"lang-pkgs","Type":"gobinary",
  "Vulnerabilities":[{"VulnerabilityID":"CVE-2026-OUTPUT","PkgName":"server","InstalledVersion":"1","Severity":"CRITICAL"}]}]}"#;

/// The image that steps run in.
pub fn step_image() -> Digest {
    Digest::of(b"the image that steps run in")
}

type Edit = Box<dyn Fn(&str, &mut Statement)>;
type Choice = Box<dyn Fn(&str) -> VirtualSigner>;

/// A run of a small pipeline: `build` makes a server from a source, `test` reads it, `package` makes what the image holds of it;
/// the image needs `test`, which reports its tests. All of it is scanned. Knobs change one statement before it is signed; those that name it follow.
pub struct VirtualBuild {
    /// The run.
    pub run: RunId,
    /// The image.
    pub image: Digest,
    /// The raw report of its scan.
    pub report: Vec<u8>,
    /// The raw report of its tests.
    pub junit: Vec<u8>,
    /// The database of its scan.
    pub database: Digest,
    /// The components of its SBOM.
    pub components: Value,
    edit: Edit,
    signer: Choice,
}

impl VirtualBuild {
    /// A run as it should be; everything in it is signed by `builder`.
    pub fn new(run: &str, image: Digest) -> Self {
        Self {
            run: run.parse().unwrap(),
            image,
            report: FakeScanner::raw(&[]),
            junit: JUNIT.to_vec(),
            database: Digest::of(b"database"),
            components: json!([{"type": "application", "name": "server", "version": "1"}]),
            edit: Box::new(|_, _| {}),
            signer: Box::new(|_| VirtualSigner::new("builder")),
        }
    }

    /// The same run, each statement changed by `edit`, which gets its name of [`PARTS`].
    pub fn edited(self, edit: impl Fn(&str, &mut Statement) + 'static) -> Self {
        Self { edit: Box::new(edit), ..self }
    }

    /// The same run with the predicate of one statement changed.
    pub fn with_predicate(self, part: &'static str, edit: impl Fn(&mut Value) + 'static) -> Self {
        self.edited(move |name, statement| {
            if name == part {
                edit(&mut statement.predicate);
            }
        })
    }

    /// The same run with one statement signed by somebody else.
    pub fn with_signer(self, part: &'static str, signer: &'static str) -> Self {
        Self { signer: Box::new(move |name| VirtualSigner::new(if name == part { signer } else { "builder" })), ..self }
    }

    /// Signs and logs all of it.
    pub fn sign(&self, log: &dyn TransparencyLog) -> SignedBuild {
        let reports = [self.report.clone(), self.junit.clone(), STEP_IMAGE_REPORT.to_vec(), SERVER_REPORT.to_vec()];
        let mut build =
            SignedBuild { image: self.image, bundles: BTreeMap::new(), report: self.report.clone(), reports };
        let content = |bytes: &[u8]| Content { kind: ContentKind::File, digest: Digest::of(bytes) };
        let (source, built, server) = (content(b"source"), content(b"built"), content(b"server"));
        let product = |name: &str, content: Content| Subject::product(name.to_owned(), content);
        let of_source = Dependency::content("source:shop".to_owned(), source, None);
        self.add(&mut build, log, "build", &[product("build.server", built)], |_| {
            self.step("build", "shop", vec![of_source.clone()])
        });
        self.add(&mut build, log, "build-trace", &[product("build.server", built)], |_| {
            (PredicateType::RuntimeTrace, self.trace("build").to_predicate().unwrap())
        });
        let of_built = |build: &SignedBuild| {
            vec![Dependency::content("build.server".to_owned(), built, Some(build.digest("build")))]
        };
        self.add(&mut build, log, "test", &[product("test:log", content(b"log"))], |build| {
            self.step("test", "build.server", of_built(build))
        });
        self.add(&mut build, log, "test-result", &[product("build.server", built)], |build| {
            (PredicateType::TestResult, self.tests(build).to_predicate())
        });
        self.add(&mut build, log, "package", &[product("package.server", server)], |build| {
            self.step("package", "build.server", of_built(build))
        });
        for (part, name, product) in [("built-sbom", "build.server", built), ("server-sbom", "package.server", server)]
        {
            self.add(&mut build, log, part, &[Subject::product(name.to_owned(), product)], |_| {
                let file = FileEntry { path: ITSELF.to_owned(), digest: product.digest, size: 1, executable: false };
                (PredicateType::Sbom, output_sbom(name, product, None, &[file]))
            });
        }
        self.add(&mut build, log, "server-vulns", &[product("package.server", server)], |_| {
            (PredicateType::Vulns, vulns(SERVER_REPORT, self.database).to_predicate(&findings(SERVER_REPORT)))
        });
        let about = |image: Digest| {
            [Subject { name: Some("shop".to_owned()), digest: image, media_type: Some(IMAGE_MANIFEST.to_owned()) }]
        };
        for (image, sbom, scan, report) in [
            (step_image(), "step-image-sbom", "step-image-vulns", STEP_IMAGE_REPORT),
            (self.image, "sbom", "vulns", &self.report),
        ] {
            self.add(&mut build, log, sbom, &about(image), |_| {
                let document =
                    json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": self.components.clone()});
                (PredicateType::Sbom, document)
            });
            self.add(&mut build, log, scan, &about(image), |_| {
                (PredicateType::Vulns, vulns(report, self.database).to_predicate(&findings(report)))
            });
        }
        self.add(&mut build, log, "image", &about(self.image), |build| self.assembled(build, server));
        build
    }

    fn trace(&self, step: &str) -> RuntimeTrace {
        let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        RuntimeTrace {
            step: step.parse().unwrap(),
            run: self.run.clone(),
            builder_id: LOCAL_BUILDER.to_owned(),
            started_on: today(),
            finished_on: today(),
            files: Files::Seen {
                opened: paths(&["/bin/make", "/src/main.c"]),
                executed: paths(&["/bin/make"]),
                blind: paths(&["/dev", "/proc", "/sys"]),
                lost: 0,
            },
            contacts: None,
        }
    }

    fn tests(&self, build: &SignedBuild) -> TestResult {
        TestResult {
            step: "test".parse().unwrap(),
            run: self.run.clone(),
            exit_code: 0,
            report: Digest::of(&self.junit),
            attestation: build.digest("test"),
            junit: JUnit::read(&self.junit).unwrap(),
        }
    }

    fn add(
        &self,
        build: &mut SignedBuild,
        log: &dyn TransparencyLog,
        part: &'static str,
        subjects: &[Subject],
        claim: impl FnOnce(&SignedBuild) -> (PredicateType, Value),
    ) {
        let (predicate_type, predicate) = claim(build);
        let subjects = NonEmpty::try_from(subjects.to_vec()).unwrap();
        let mut statement = Statement { subjects, predicate_type, predicate };
        (self.edit)(part, &mut statement);
        build.bundles.insert(part, sign_statement(&(self.signer)(part), log, &statement));
    }

    fn step(&self, name: &str, input: &str, mut dependencies: Vec<Dependency>) -> (PredicateType, Value) {
        dependencies.push(Dependency::image("image", step_image()));
        let is_test = name == "test";
        let parameters = StepParameters {
            pipeline: "shop".parse().unwrap(),
            step: name.parse().unwrap(),
            run: vec!["make".to_owned(), name.to_owned()],
            env: BTreeMap::new(),
            workdir: "/src".to_owned(),
            inputs: BTreeMap::from([("/src".to_owned(), input.to_owned())]),
            outputs: if is_test {
                BTreeMap::new()
            } else {
                BTreeMap::from([("server".to_owned(), "/out/server".to_owned())])
            },
            reports: if is_test {
                BTreeMap::from([("junit".to_owned(), "/out/junit.xml".to_owned())])
            } else {
                BTreeMap::new()
            },
            needs: Vec::new(),
            limits: BTreeMap::new(),
            network: "none".to_owned(),
            allow: Vec::new(),
            caches: BTreeMap::new(),
            secrets: Vec::new(),
            reuse_key: Vec::new(),
            accept_exit: Vec::new(),
            platform: "linux/amd64".to_owned(),
            exit_code: 0,
        };
        let byproducts = if is_test {
            vec![Dependency::other("report:junit", Digest::of(&self.junit), JUNIT_REPORT)]
        } else {
            Vec::new()
        };
        self.provenance(Build::Step(parameters), dependencies, byproducts)
    }

    fn assembled(&self, build: &SignedBuild, server: Content) -> (PredicateType, Value) {
        let parameters = ImageParameters {
            platform: None,
            pipeline: "shop".parse().unwrap(),
            artifact: "shop".to_owned(),
            base: "scratch".to_owned(),
            files: BTreeMap::from([("/server".to_owned(), "package.server".to_owned())]),
            needs: vec!["test".parse().unwrap()],
            config: json!({}),
        };
        let mut dependencies =
            vec![Dependency::content("package.server".to_owned(), server, Some(build.digest("package")))];
        for part in PARTS.into_iter().filter(|part| *part != "image") {
            dependencies.push(Dependency::attestation(format!("attestation:{part}"), build.digest(part)));
        }
        dependencies.push(Dependency::other("report:trivy", Digest::of(&self.report), TRIVY_REPORT));
        dependencies.push(Dependency::other("report:step-image", Digest::of(STEP_IMAGE_REPORT), TRIVY_REPORT));
        dependencies.push(Dependency::other("report:package.server", Digest::of(SERVER_REPORT), TRIVY_REPORT));
        dependencies.push(Dependency::other("report:test.junit", Digest::of(&self.junit), JUNIT_REPORT));
        self.provenance(Build::Image(parameters), dependencies, Vec::new())
    }

    fn provenance(
        &self,
        build: Build,
        dependencies: Vec<Dependency>,
        byproducts: Vec<Dependency>,
    ) -> (PredicateType, Value) {
        let provenance = Provenance {
            build,
            dependencies,
            caches: Vec::new(),
            builder_id: LOCAL_BUILDER.to_owned(),
            builder_version: BTreeMap::new(),
            run: self.run.clone(),
            started_on: today(),
            finished_on: today(),
            byproducts,
            internal: Internals::default(),
        };
        (PredicateType::Provenance, provenance.to_predicate().unwrap())
    }
}

/// The findings of a raw report; none if it is none.
pub fn findings(report: &[u8]) -> Vec<Finding> {
    trivy_report::findings(report).unwrap_or_default()
}

/// A whole scan with this report, made today with a database of today.
pub fn vulns(report: &[u8], database: Digest) -> Vulns {
    Vulns {
        scanner: Scanner {
            name: "trivy".to_owned(),
            version: "0.70.0".to_owned(),
            digest: Digest::of(b"trivy"),
            database: Database { digest: database, updated_at: today() },
            java_database: None,
        },
        started_on: today(),
        finished_on: today(),
        report: Digest::of(report),
        coverage: Coverage {
            read: vec![Read {
                kind: "debian".to_owned(),
                place: "var/lib/dpkg/status".to_owned(),
                packages: 1,
                lock_file: false,
            }],
            unread: Vec::new(),
            system: None,
            executables: Some(Executables::default()),
        },
    }
}

/// What a run leaves: bundles, and raw reports.
#[derive(Clone)]
pub struct SignedBuild {
    /// The image.
    pub image: Digest,
    /// The bundles, by their names of [`PARTS`].
    pub bundles: BTreeMap<&'static str, Vec<u8>>,
    /// The raw report of the image's scan.
    pub report: Vec<u8>,
    /// Every raw report.
    pub reports: [Vec<u8>; 4],
}

impl SignedBuild {
    /// The digest of a bundle.
    pub fn digest(&self, part: &str) -> Digest {
        Digest::of(&self.bundles[part])
    }

    /// The bundles that are attached to the image, by digest.
    pub fn attached(&self) -> BTreeMap<Digest, Vec<u8>> {
        self.by_digest(&ABOUT_THE_IMAGE)
    }

    /// What the evidence manifest carries, by digest: every other bundle and the raw reports.
    pub fn blobs(&self) -> BTreeMap<Digest, Vec<u8>> {
        let others: Vec<&str> = PARTS.into_iter().filter(|part| !ABOUT_THE_IMAGE.contains(part)).collect();
        let mut blobs = self.by_digest(&others);
        blobs.extend(self.reports.iter().map(|report| (Digest::of(report), report.clone())));
        blobs
    }

    /// What a run attaches to `image`: an evidence manifest and one referrer for each bundle about the image, each with what it needs.
    pub fn referrers(&self, image: &VirtualImage) -> Vec<(Descriptor, BTreeMap<Digest, Vec<u8>>)> {
        let blobs = self.blobs();
        let report = Digest::of(&self.report);
        let kind = |digest: &Digest| if *digest == report { TRIVY_REPORT } else { BUNDLE };
        let parts: Vec<_> = blobs.iter().map(|(digest, bytes)| (kind(digest), bytes.as_slice())).collect();
        let evidence = image.referrer(EVIDENCE_ARTIFACT, &parts);
        let bundle = |bundle: &Vec<u8>| image.referrer(BUNDLE, &[(BUNDLE, bundle)]);
        std::iter::once(evidence).chain(self.attached().values().map(bundle)).collect()
    }

    fn by_digest(&self, parts: &[&str]) -> BTreeMap<Digest, Vec<u8>> {
        parts.iter().map(|part| (self.digest(part), self.bundles[part].clone())).collect()
    }
}
