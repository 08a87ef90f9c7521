//! `bench policy`: the shipped rules about facts of four sizes, and about 3,000 components with 500 findings: as a whole process and in one
//! that is warm, beside real OPA on the same files and facts. What both say is compared before any clock runs.

use std::path::Path;

use super::process::{Program, Ran, in_turn};
use super::project::Project;
use super::samples::Samples;
use super::table::{Bar, Measured, Row, Table};
use super::{Bench, PolicyPeers};
use crate::commands;
use crate::failure::{Failure, Outcome};
use crate::json::Json;

/// Rounds, unless others are asked for.
pub(super) const ROUNDS: usize = 15;

/// A step that reads a source and reports its tests, and an image of what it left.
const PIPELINE: &str = "version: 1
name: tiny
sources: { src: { path: src } }
defaults: { image: oci:images/base, limits: { timeout: 1m } }
steps:
  test:
    run: >-
      mkdir -p /out/app && cp /src/hello.txt /out/app/ &&
      printf '<testsuite name=\"tiny\" tests=\"1\"><testcase classname=\"tiny\" name=\"says hello\"/></testsuite>' > /out/junit.xml
    inputs: { /src: src }
    outputs: { app: /out/app }
    reports: { junit: /out/junit.xml }
artifacts:
  tiny:
    base: oci:images/base
    files: { /opt/tiny: test.app }
    repository: oci:out/tiny
";
const IMAGE: [&str; 6] = ["--binary", "sh", "--package", "coreutils", "--binary", "grep"];

/// Facts of one size: how they are called, how many components and findings they have at least, and what a decision may take: whole, and
/// with facts that were read once.
struct Size {
    what: &'static str,
    components: usize,
    findings: usize,
    /// Whether the attestations are left out.
    bare: bool,
    whole: Option<f64>,
    asked: Option<f64>,
}

const SIZES: [Size; 5] = [
    Size { what: "2 KB", components: 4, findings: 1, bare: true, whole: None, asked: None },
    Size { what: "29 KB", components: 60, findings: 8, bare: true, whole: None, asked: None },
    Size { what: "250 KB", components: 500, findings: 60, bare: false, whole: Some(15.0), asked: Some(5.0) },
    Size { what: "5 MB", components: 12_000, findings: 1_500, bare: false, whole: None, asked: None },
    Size {
        what: "3,000 components, 500 findings",
        components: 3_000,
        findings: 500,
        bare: false,
        whole: None,
        asked: Some(15.0),
    },
];

/// Measures and appends to `table`.
pub(super) fn measure(bench: &Bench<'_>, peers: &PolicyPeers, table: &mut Table) -> Outcome {
    println!("\n# policy: the shipped rules, beside OPA");
    let project = Project::new(&bench.folder.join("policy"), &bench.sluicegate)?;
    project.write("src/hello.txt", "hello\n")?;
    project.write("sluicegate.yaml", PIPELINE)?;
    project.prepare(&IMAGE, &peers.trivy)?;
    project.must(&["run"])?;
    project.must(&["promote", "oci:out/tiny", "--to", "production"])?;
    let facts = project.json(&["policy", "eval", "--record", "2", "--facts"])?;
    let query = query(&project.json(&["policy", "check", "policies"])?)?;
    for size in &SIZES {
        let file = format!("facts-{}.json", size.components);
        let text = grown(&facts, size).to_string();
        project.write(&file, &text)?;
        let kilobytes = text.len() as f64 / 1e3;
        let of = format!("{} ({kilobytes:.0} kB)", size.what);
        let subject = Subject { bench, peers, project: &project, file: &file, query: &query };
        subject.cold(table, &of)?;
        subject.warm(table, &of, size)?;
    }
    table.notes.push(
        "policy: cold is a whole process with the policies, their data and the facts as files; ours starts a second, limited process for the \
         rules, and asks them once more with a name for each clause where something is denied. Warm is inside one process. \
         OPA's warm figures are those of opa bench, which reads the facts once."
            .to_owned(),
    );
    Ok(())
}

struct Subject<'a> {
    bench: &'a Bench<'a>,
    peers: &'a PolicyPeers,
    project: &'a Project,
    file: &'a str,
    query: &'a str,
}

impl Subject<'_> {
    fn cold(&self, table: &mut Table, of: &str) -> Outcome {
        let Self { bench, peers, project, file, query } = *self;
        let ours = ["policy", "eval", "policies", "--data", "policies/data.yaml", "--input", file, "-o", "json"];
        let ours = project.sluicegate(&ours);
        let opa = project.program(&peers.opa).args(["eval", "-d", "policies", "-i", file, "-f", "json", query]);
        commands::announce(&ours.line());
        commands::announce(&opa.line());
        let code = verdict_code(&ours, project.scratch())?;
        let ours = ours.exits(code);
        let said = said_by_us(&ours.run(project.scratch())?.stdout)?;
        let theirs = said_by_opa(&opa.run(project.scratch())?.stdout)?;
        if said != theirs {
            return Err(Failure::new(format!("{of}: we say {said:?} and OPA says {theirs:?}")));
        }
        let rounds = bench.rounds(ROUNDS);
        let times = in_turn(&[&ours, &opa], rounds, project.scratch(), &|_, _: &Ran| Ok(()))?;
        let [own, peer] = &times[..] else { return Err(Failure::new("two programs have two times")) };
        let measured = |times: &Samples, program: &Program| {
            Ok::<_, Failure>(Measured { times: times.clone(), peak_kib: Some(program.peak_kib(project.scratch())?) })
        };
        table.rows.push(Row {
            what: format!("rules about {of}, a whole process"),
            ours: measured(own, &ours)?,
            peer: Some(("opa eval".to_owned(), measured(peer, &opa)?)),
            bar: None,
            counts: Vec::new(),
        });
        Ok(())
    }

    fn warm(&self, table: &mut Table, of: &str, size: &Size) -> Outcome {
        let Self { bench, peers, project, file, query } = *self;
        let rounds = (bench.rounds(ROUNDS) * 4).to_string();
        let load = project.program(&peers.policy_load).args(["policies", "policies/data.yaml", file, &rounds]);
        let opa = ["bench", "-d", "policies", "-i", file, "-f", "json", "--count", "5", query];
        let opa = project.program(&peers.opa).args(opa);
        commands::announce(&load.line());
        commands::announce(&opa.line());
        let out = load.run(project.scratch())?.stdout;
        let out = read("what policy_load printed", &out)?;
        let times = |name: &str| {
            Samples::new(out.get(name).list().iter().filter_map(number).collect())
                .ok_or_else(|| Failure::new(format!("policy_load printed no {name}")))
        };
        let theirs = Samples::new(opa_bench(&opa.run(project.scratch())?.stdout)?)
            .ok_or_else(|| Failure::new("opa bench printed no time"))?;
        let bar = |milliseconds: Option<f64>| milliseconds.map(|most| Bar { milliseconds: Some(most), peak_kib: None });
        table.rows.push(Row {
            what: format!("rules about {of}, warm, facts read each time"),
            ours: Measured { times: times("whole")?, peak_kib: None },
            peer: None,
            bar: bar(size.whole),
            counts: Vec::new(),
        });
        table.rows.push(Row {
            what: format!("rules about {of}, warm, facts read once"),
            ours: Measured { times: times("asked")?, peak_kib: None },
            peer: Some(("opa bench".to_owned(), Measured { times: theirs, peak_kib: None })),
            bar: bar(size.asked),
            counts: Vec::new(),
        });
        Ok(())
    }
}

/// The exit code that our verdict about these facts has; whatever is no verdict is a failure.
fn verdict_code(program: &Program, scratch: &Path) -> Outcome<i32> {
    let mut last = None;
    for code in [0, 1, 3] {
        match program.clone().exits(code).run(scratch) {
            Ok(_) => return Ok(code),
            Err(failure) => last = Some(failure),
        }
    }
    Err(last.unwrap_or_else(|| Failure::new("no verdict")))
}

/// The codes that pass and those that deny.
type Word = (Vec<String>, Vec<String>);

fn said_by_us(text: &str) -> Outcome<Word> {
    let document = read("our verdict", text)?;
    let with = |outcome: &str| {
        let rules = document.get("rules").list().iter();
        let of = rules.filter(|rule| rule.get("outcome").as_text() == Some(outcome));
        let mut codes: Vec<String> = of.filter_map(|rule| rule.get("code").as_text().map(str::to_owned)).collect();
        codes.sort();
        codes
    };
    Ok((with("pass"), with("deny")))
}

fn said_by_opa(text: &str) -> Outcome<Word> {
    let document = read("what OPA says", text)?;
    let first = |list: &[Json]| list.first().cloned().unwrap_or(Json::Null);
    let value = first(first(document.get("result").list()).get("expressions").list()).get("value").clone();
    let (mut passes, mut denies) = (Vec::new(), Vec::new());
    for (_, sets) in value.fields() {
        passes.extend(sets.get("pass").list().iter().filter_map(|code| code.as_text().map(str::to_owned)));
        denies.extend(sets.get("deny").list().iter().filter_map(|one| one.get("code").as_text().map(str::to_owned)));
    }
    if value.fields().is_empty() {
        return Err(Failure::new("OPA gives no answer"));
    }
    passes.sort();
    denies.sort();
    denies.dedup();
    Ok((passes, denies))
}

/// Milliseconds for one evaluation of each of the runs that `opa bench` made: one document for each, one behind the other.
fn opa_bench(text: &str) -> Outcome<Vec<f64>> {
    let mut times = Vec::new();
    for document in text.split_inclusive("\n}\n").filter(|part| !part.trim().is_empty()) {
        let document = read("what opa bench printed", document)?;
        if let (Some(rounds), Some(nanoseconds)) = (number(document.get("N")), number(document.get("T"))) {
            times.push(nanoseconds / rounds / 1e6);
        }
    }
    Ok(times)
}

fn read(what: &str, text: &str) -> Outcome<Json> {
    Json::parse(text).map_err(|error| Failure::new(format!("{what}: {error}")))
}

fn number(value: &Json) -> Option<f64> {
    match value {
        Json::Number(digits) => digits.parse().ok(),
        _ => None,
    }
}

/// One expression with every answer of every package.
fn query(checked: &Json) -> Outcome<String> {
    let codes = checked.get("rules").list();
    let mut packages: Vec<&str> =
        codes.iter().filter_map(|code| code.as_text()?.rsplit_once('.').map(|(package, _)| package)).collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Err(Failure::new("policy check names no rule"));
    }
    let sets = packages.iter().map(|p| format!("\"{p}\": {{\"pass\": data.{p}.pass, \"deny\": data.{p}.deny}}"));
    Ok(format!("{{{}}}", sets.collect::<Vec<_>>().join(", ")))
}

/// The facts with more components and findings of the same kinds, each another one.
fn grown(facts: &Json, size: &Size) -> Json {
    let Json::Object(fields) = facts else { return facts.clone() };
    let digest = format!("sha256:{}", "a".repeat(64));
    let component = |number: usize| {
        Json::object([
            ("name", Json::text(format!("package-{number}"))),
            ("version", Json::text(format!("1.{number}.0-2"))),
            (
                "purl",
                Json::text(format!("pkg:deb/debian/package-{number}@1.{number}.0-2?arch=amd64&distro=debian-12.11")),
            ),
            ("type", Json::text("library")),
            ("supplier", Json::text("Debian Maintainers <maintainers@lists.example>")),
            ("licenses", Json::List(vec![Json::text("MIT")])),
            ("licenseOptions", Json::List(vec![Json::List(vec![Json::text("MIT")])])),
            ("path", Json::List(Vec::new())),
            ("attestation", Json::text(digest.clone())),
        ])
    };
    let finding = |number: usize| {
        Json::object([
            ("id", Json::text(format!("CVE-2026-{number:05}"))),
            ("aliases", Json::List(vec![Json::text(format!("DSA-{number}-1"))])),
            ("severity", Json::text(["LOW", "MEDIUM"][number % 2])),
            ("package", Json::text(format!("package-{number}"))),
            (
                "purl",
                Json::text(format!("pkg:deb/debian/package-{number}@1.{number}.0-2?arch=amd64&distro=debian-12.11")),
            ),
            ("place", Json::text("debian 12.11")),
            ("installed", Json::text(format!("1.{number}.0-2"))),
            ("published", Json::text("2026-11-20T00:00:00Z")),
            ("status", Json::text("affected")),
            ("attestation", Json::text(digest.clone())),
        ])
    };
    let grown = fields.iter().map(|(key, value)| {
        let value = match (key.as_str(), value) {
            ("sbom", Json::Object(sbom)) => Json::Object(
                sbom.iter()
                    .map(|(key, value)| match (key.as_str(), value) {
                        ("components", Json::List(own)) => {
                            let own = if size.bare { &[][..] } else { own };
                            let more = (own.len()..size.components).map(component);
                            (key.clone(), Json::List(own.iter().cloned().chain(more).collect()))
                        }
                        _ => (key.clone(), value.clone()),
                    })
                    .collect(),
            ),
            ("vulnerabilities", Json::List(own)) => {
                let more = (own.len()..size.findings).map(finding);
                Json::List(own.iter().cloned().chain(more).collect())
            }
            ("attestations", _) if size.bare => Json::List(Vec::new()),
            _ => value.clone(),
        };
        (key.clone(), value)
    });
    Json::Object(grown.collect())
}
