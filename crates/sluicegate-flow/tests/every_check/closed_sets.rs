//! The closed set: everything that an image's provenance names, there, believed and linked.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sluicegate_attestation::{
    identifiers::{JUNIT_REPORT, LAYER_TAR},
    predicate::PredicateType,
    provenance::{Build, Provenance},
    statement::{Statement, Subject},
};
use sluicegate_testkit::{SignedBuild, VirtualBuild, VirtualLog, VirtualSigner, sign_statement, today};
use sluicegate_types::{Digest, NonEmpty, RepositoryPattern};
use sluicegate_verify::{
    Role, SignerRule, Trust,
    closed_set::{Asked, Followed, Seen, follow},
};

use crate::fixture::{LOG, Said, Tried, about, image, of_image, rule, rules, summary, trust, trust_in};

fn build() -> VirtualBuild {
    VirtualBuild::new("run-1", image())
}

fn followed(signed: &SignedBuild, more: &BTreeMap<Digest, Vec<u8>>, trust: &Trust) -> Followed {
    let mut blobs = signed.blobs();
    blobs.extend(more.clone());
    follow(image(), &signed.attached(), &blobs, Asked { trust, repository: None, at: today() })
}

/// Whether a whole set was found.
fn whole(followed: &Followed) -> Said {
    let reasons: Vec<String> = followed.incomplete.iter().map(ToString::to_string).collect();
    if followed.sets.is_empty() { Err(reasons.join("; ")) } else { Ok(()) }
}

fn set_of(build: &VirtualBuild) -> Said {
    let log = VirtualLog::new(LOG);
    let signed = build.sign(&log);
    whole(&followed(&signed, &BTreeMap::new(), &trust(&log)))
}

/// A good set beside the same of a build with one statement changed.
fn edited(what: &'static str, words: &'static str, edit: impl Fn(&str, &mut Statement) + 'static) -> Tried {
    Tried::good(set_of(&build())).fault(what, words, set_of(&build().edited(edit)))
}

fn predicate(
    what: &'static str,
    words: &'static str,
    part: &'static str,
    edit: impl Fn(&mut Value) + 'static,
) -> Tried {
    Tried::good(set_of(&build())).fault(what, words, set_of(&build().with_predicate(part, edit)))
}

fn subjects(statement: &mut Statement, edit: impl Fn(&mut Subject)) {
    let mut subjects = statement.subjects.clone().into_vec();
    subjects.iter_mut().for_each(edit);
    statement.subjects = NonEmpty::try_from(subjects).unwrap();
}

/// The resolved dependencies.
fn dependencies(predicate: &mut Value) -> &mut Vec<Value> {
    predicate["buildDefinition"]["resolvedDependencies"].as_array_mut().unwrap()
}

fn dependency<'a>(predicate: &'a mut Value, name: &str) -> &'a mut Value {
    dependencies(predicate).iter_mut().find(|dependency| dependency["name"] == name).unwrap()
}

fn forget(predicate: &mut Value, name: &str) {
    dependencies(predicate).retain(|dependency| dependency["name"] != name);
}

/// The set of an image whose provenance leaves these out.
fn forgetting(names: &'static [&'static str]) -> Said {
    set_of(&build().with_predicate("image", |predicate| names.iter().for_each(|name| forget(predicate, name))))
}

pub(crate) fn tm06_a_signer_speaks_only_for_its_repositories() -> Tried {
    let helper = |repositories: Vec<RepositoryPattern>| SignerRule {
        repositories: Some(repositories),
        ..rule("helper", &[Role::Steps])
    };
    let ask = |part: &'static str, covers: bool| {
        let log = VirtualLog::new(LOG);
        let signed = build().with_signer(part, "helper").sign(&log);
        let pattern = if covers { RepositoryPattern::Any } else { "example.com/*".parse().unwrap() };
        let rules = rules().into_iter().chain([helper(vec![pattern])]).collect();
        whole(&followed(&signed, &BTreeMap::new(), &trust_in(rules, &log)))
    };
    // What is said beside the set, by whoever may say it: it is looked at, or ignored with the reason.
    let beside = |signer: &str, statement: &Statement, covers: bool| {
        let log = VirtualLog::new(LOG);
        let pattern = if covers { RepositoryPattern::Any } else { "example.com/*".parse().unwrap() };
        let narrow = |rule: SignerRule| match rule.name == signer {
            true => SignerRule { repositories: Some(vec![pattern.clone()]), ..rule },
            false => rule,
        };
        let bundle = sign_statement(&VirtualSigner::new(signer), &log, statement);
        let attached = BTreeMap::from([(Digest::of(&bundle), bundle)]);
        let trust = trust_in(rules().into_iter().map(narrow).collect(), &log);
        let asked = Asked { trust: &trust, repository: None, at: today() };
        match follow(image(), &attached, &BTreeMap::new(), asked).seen.remove(0) {
            Seen::Verified(_) => Ok(()),
            Seen::Ignored { reason, .. } => Err(reason),
        }
    };
    let vex = about(image(), PredicateType::Vex, json!({"statements": []}));
    let yes = about(image(), PredicateType::VerificationSummary, summary(image()).to_predicate());
    let believed = beside("person", &vex, true).and(beside("decider", &yes, true));
    Tried::good(ask("image", true).and(ask("build", true)).and(believed))
        .fault("by hand", "does not speak for", beside("person", &vex, false))
        .fault("a decision", "does not speak for", beside("decider", &yes, false))
        .fault("the image's provenance", "does not speak for", ask("image", false))
        .fault("a step's", "does not speak for", ask("build", false))
        .fault("an SBOM", "does not speak for", ask("sbom", false))
}

pub(crate) fn tm01_the_digest_decides_what_an_attached_bundle_is_about() -> Tried {
    // Its name says "shop" all the same.
    edited("another image", "it is about something else", |part, statement| {
        if part == "image" {
            statement.subjects = of_image(Digest::of(b"another image"));
        }
    })
}

pub(crate) fn tm01_a_file_is_no_directory_of_the_same_digest() -> Tried {
    let directory = |subject: &mut Subject| subject.media_type = Some(LAYER_TAR.to_owned());
    let product = build().edited(move |part, statement| {
        if ["package", "server-sbom", "server-vulns"].contains(&part) {
            subjects(statement, directory);
        }
    });
    let tested = build().edited(move |part, statement| {
        if part == "test-result" {
            subjects(statement, directory);
        }
    });
    Tried::good(set_of(&build())).fault("a product", "is not about it", set_of(&product)).fault(
        "what was tested",
        "did not read",
        set_of(&tested),
    )
}

pub(crate) fn tm03_what_the_provenance_names_is_there() -> Tried {
    let ask = |gone: Option<&str>| {
        let log = VirtualLog::new(LOG);
        let signed = build().sign(&log);
        let mut attached = signed.attached();
        gone.map(|part| attached.remove(&signed.digest(part)).unwrap());
        whole(&follow(
            image(),
            &attached,
            &signed.blobs(),
            Asked { trust: &trust(&log), repository: None, at: today() },
        ))
    };
    Tried::good(ask(None)).fault("the SBOM", "attestation:sbom is missing", ask(Some("sbom"))).fault(
        "the scan",
        "attestation:vulns is missing",
        ask(Some("vulns")),
    )
}

pub(crate) fn tm03_what_the_provenance_names_is_to_be_believed() -> Tried {
    let ask = |signer: &'static str| set_of(&build().with_signer("sbom", signer));
    Tried::good(ask("builder")).fault("by a stranger", "is not to be believed", ask("stranger"))
}

pub(crate) fn tm06_evidence_of_a_run_is_by_keys_of_the_role_steps() -> Tried {
    let ask = |part: &'static str, signer: &'static str| set_of(&build().with_signer(part, signer));
    // The person may sign an SBOM, by hand; the recorder a scan, as the gate's own.
    Tried::good(ask("sbom", "builder"))
        .fault("an SBOM by hand", "its signer has not the role steps", ask("sbom", "person"))
        .fault("a test result by hand", "its signer has not the role steps", ask("test-result", "person"))
        .fault("a gate's scan", "its signer has not the role steps", ask("vulns", "recorder"))
}

pub(crate) fn tm03_every_step_of_a_set_is_of_one_run() -> Tried {
    predicate("another run", "it is from run run-2, not run-1", "package", |predicate| {
        predicate["runDetails"]["metadata"]["invocationId"] = json!("run-2");
    })
}

pub(crate) fn tm03_a_step_that_failed_proves_nothing() -> Tried {
    predicate("a failed step", "the step ended with code 1", "package", |predicate| {
        predicate["buildDefinition"]["externalParameters"]["exitCode"] = json!(1);
    })
}

pub(crate) fn tm03_a_step_has_one_provenance_in_a_set() -> Tried {
    let log = VirtualLog::new(LOG);
    let other = build().with_predicate("package", |predicate| {
        predicate["buildDefinition"]["externalParameters"]["workdir"] = json!("/elsewhere");
    });
    let other = other.sign(&log);
    let second = other.digest("package");
    let naming = build().with_predicate("image", move |predicate| {
        let mut again = dependency(predicate, "attestation:package").clone();
        again["digest"]["sha256"] = json!(second.hex());
        dependencies(predicate).insert(0, again);
    });
    let said = whole(&followed(&naming.sign(&log), &other.blobs(), &trust(&log)));
    Tried::good(set_of(&build())).fault("two", "a second provenance of one step", said)
}

pub(crate) fn tm03_every_product_and_every_input_is_resolved() -> Tried {
    let input = build().with_predicate("package", |predicate| forget(predicate, "build.server"));
    Tried::good(set_of(&build()))
        .fault("a product", "does not name the product package.server", forgetting(&["package.server"]))
        .fault("an input", "does not name its input build.server", set_of(&input))
}

pub(crate) fn tm03_a_product_is_attested_by_its_step_in_the_set() -> Tried {
    let elsewhere = build().with_predicate("image", |predicate| {
        let other = Digest::of(b"a bundle that is not in the set");
        dependency(predicate, "package.server")["annotations"]["sluicegate.dev/attestation"] = json!(other);
    });
    let unattested = build().with_predicate("package", |predicate| {
        dependency(predicate, "build.server").as_object_mut().unwrap().remove("annotations");
    });
    Tried::good(set_of(&build())).fault("by another bundle", "which is not in the set", set_of(&elsewhere)).fault(
        "by none",
        "no attestation is named for it",
        set_of(&unattested),
    )
}

pub(crate) fn tm01_a_product_is_a_subject_of_what_attests_it() -> Tried {
    edited("another digest", "the attestation of the step package is not about it", |part, statement| {
        if ["package", "server-sbom", "server-vulns"].contains(&part) {
            subjects(statement, |subject| subject.digest = Digest::of(b"another server"));
        }
    })
}

pub(crate) fn tm03_what_is_needed_is_in_the_set() -> Tried {
    let step = build().with_predicate("package", |predicate| {
        predicate["buildDefinition"]["externalParameters"]["needs"] = json!(["lint"]);
    });
    Tried::good(set_of(&build()))
        .fault("the image's", "of the step test", forgetting(&["attestation:test", "attestation:test-result"]))
        .fault("a step's", "no attestation of the step lint", set_of(&step))
}

pub(crate) fn tm03_a_description_is_of_something_in_the_set() -> Tried {
    let of_another = |part: &'static str| {
        set_of(&build().edited(move |name, statement| {
            if name == part {
                statement.subjects = of_image(Digest::of(b"another image"));
            }
        }))
    };
    Tried::good(set_of(&build()))
        .fault("an SBOM", "it is about something else", of_another("sbom"))
        .fault("a scan", "it is about something else", of_another("vulns"))
        .fault("a scan of an output", "it is about something else", of_another("server-vulns"))
}

pub(crate) fn tm04_a_scan_comes_with_its_raw_report() -> Tried {
    Tried::good(forgetting(&[]))
        .fault("unnamed", "the raw report of the scan is missing", forgetting(&["report:trivy"]))
        .fault("that of an output", "the raw report of the scan is missing", forgetting(&["report:package.server"]))
}

pub(crate) fn tm03_a_test_result_is_of_the_run_of_its_step() -> Tried {
    let words = "not the run of the step test in this set";
    let run = predicate("another run", words, "test-result", |predicate| predicate["sluicegate_run"] = json!("run-2"));
    let other = build().with_predicate("test-result", |predicate| {
        predicate["configuration"][0]["digest"]["sha256"] = json!(Digest::of(b"another bundle").hex());
    });
    run.fault("another bundle", words, set_of(&other))
}

pub(crate) fn tm03_a_test_result_has_the_exit_code_of_its_step() -> Tried {
    predicate("another code", "the step's provenance says 0", "test-result", |predicate| {
        predicate["sluicegate_exit_code"] = json!(1);
        predicate["result"] = json!("FAILED");
    })
}

pub(crate) fn tm03_a_test_result_is_over_a_report_that_its_step_wrote() -> Tried {
    let elsewhere = build().with_predicate("test", |predicate| {
        let other = Digest::of(b"another report").hex();
        predicate["runDetails"]["byproducts"][0]["digest"]["sha256"] = json!(other);
    });
    let other_kind = build().with_predicate("test", |predicate| {
        assert_eq!(predicate["runDetails"]["byproducts"][0]["mediaType"], JUNIT_REPORT);
        predicate["runDetails"]["byproducts"][0]["mediaType"] = json!("text/plain");
    });
    Tried::good(set_of(&build())).fault("another report", "did not write the report", set_of(&elsewhere)).fault(
        "a log of the same bytes",
        "did not write the report",
        set_of(&other_kind),
    )
}

pub(crate) fn tm03_a_test_result_is_about_what_its_step_read() -> Tried {
    edited("something else", "did not read", |part, statement| {
        if part == "test-result" {
            subjects(statement, |subject| subject.digest = Digest::of(b"server"));
        }
    })
}

pub(crate) fn tm03_a_test_result_says_what_its_raw_report_says() -> Tried {
    let failing = br#"<testsuite name="shop" tests="1"><testcase name="opens"><failure/></testcase></testsuite>"#;
    let claiming = |edit: fn(&mut Value)| {
        let mut build = build().with_predicate("test-result", edit);
        build.junit = failing.to_vec();
        set_of(&build)
    };
    Tried::good(claiming(|_| {}))
        .fault("another result", "it claims Passed", claiming(|predicate| predicate["result"] = json!("PASSED")))
        .fault(
            "another count",
            "it claims Counts",
            claiming(|predicate| predicate["sluicegate_counts"]["passed"] = json!(7)),
        )
        .fault("another list", "its lists", claiming(|predicate| predicate["failedTests"] = json!([])))
}

pub(crate) fn tm02_a_test_counts_only_if_what_it_tested_is_material_of_the_image() -> Tried {
    let counts = |build: VirtualBuild| {
        let log = VirtualLog::new(LOG);
        let followed = followed(&build.sign(&log), &BTreeMap::new(), &trust(&log));
        whole(&followed)?;
        let counts = followed.sets[0].kinds().contains(&PredicateType::TestResult);
        if counts { Ok(()) } else { Err("the test is not the image's".to_owned()) }
    };
    // What was packaged was not made of what was tested.
    let aside = build().with_predicate("package", |predicate| {
        let mut provenance = Provenance::parse(predicate).unwrap();
        provenance.dependencies.retain(|dependency| dependency.name != "build.server");
        let Build::Step(step) = &mut provenance.build else { panic!("a step") };
        step.inputs.clear();
        *predicate = provenance.to_predicate().unwrap();
    });
    Tried::good(counts(build())).fault("of something else", "not the image's", counts(aside))
}

pub(crate) fn tm02_a_step_that_reported_its_tests_has_a_test_result() -> Tried {
    Tried::good(forgetting(&[])).fault(
        "none",
        "no test result of it is in the set",
        forgetting(&["attestation:test-result"]),
    )
}

pub(crate) fn tm02_the_image_of_a_step_is_described() -> Tried {
    Tried::good(forgetting(&[]))
        .fault("no SBOM", "is not described", forgetting(&["attestation:step-image-sbom"]))
        .fault("no scan", "is not described", forgetting(&["attestation:step-image-vulns"]))
}

pub(crate) fn tm02_every_output_is_described() -> Tried {
    Tried::good(forgetting(&[]))
        .fault("a product", "no SBOM of its output", forgetting(&["attestation:server-sbom"]))
        .fault("what lies between", "no SBOM of its output", forgetting(&["attestation:built-sbom"]))
}
