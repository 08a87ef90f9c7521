//! `bench verify`: one image verified offline by a whole process, beside an unmodified cosign on the same layout.

use std::path::Path;

use super::process::{Program, Ran, in_turn};
use super::project::{self, Project, Verified};
use super::samples::Samples;
use super::table::{Bar, Measured, Row, Table};
use super::{Bench, StepPeers, megabytes};
use crate::commands;
use crate::failure::{Failure, Outcome};
use crate::oci_layout;

/// Three small steps in an image of a shell and the core utilities, and an image of their products on it.
const PIPELINE: &str = "version: 1
name: tiny
sources: { src: { path: src } }
defaults: { image: oci:images/base, limits: { timeout: 1m } }
steps:
  build:
    run: mkdir -p /out/app && cp /src/hello.txt /out/app/
    inputs: { /src: src }
    outputs: { app: /out/app }
  test:
    run: >-
      grep -q hello /app/hello.txt && mkdir -p /out &&
      printf '<testsuite name=\"tiny\" tests=\"1\"><testcase classname=\"tiny\" name=\"says hello\"/></testsuite>' > /out/junit.xml
    inputs: { /app: build.app }
    reports: { junit: /out/junit.xml }
  package:
    run: mkdir -p /out/pack && cp -r /app/. /out/pack/ && printf packed > /out/pack/packed
    inputs: { /app: build.app }
    outputs: { pack: /out/pack }
artifacts:
  tiny:
    base: oci:images/base
    files: { /opt/tiny: package.pack }
    needs: [test]
    repository: oci:out/tiny
";
const IMAGE: [&str; 6] = ["--binary", "sh", "--package", "coreutils", "--binary", "grep"];
/// Statements of a promoted image of that pipeline: one for each of three steps, a test result, an SBOM of each of two outputs, SBOM and
/// scan of the image that the steps run in, provenance, SBOM and scan of the image, and what the gate adds: its own scan, a summary, a
/// promotion and a signature.
const STATEMENTS: u64 = 17;
/// Statements of the shipped layout: two steps, a test result, the SBOM of an output, and the image's provenance.
const SHIPPED_STATEMENTS: u64 = 5;

/// Rounds, unless others are asked for.
pub(super) const ROUNDS: usize = 30;
const BAR: Bar = Bar { milliseconds: Some(5.0), peak_kib: Some(10 * 1024) };

/// Measures and appends to `table`.
pub(super) fn measure(bench: &Bench<'_>, peers: &StepPeers, table: &mut Table) -> Outcome {
    println!("\n# verify: an image that was promoted, and the one that is shipped with the source");
    shipped(bench, peers, table)?;
    promoted(bench, peers, table)?;
    start(bench, peers, table)?;
    table.notes.push(
        "verify: sluicegate hashes every byte of the image, its layers too, and verifies the whole closed set, each step included. cosign \
         reads no layer and checks bundles that are attached to the image; it counts here by the statements it prints."
            .to_owned(),
    );
    Ok(())
}

fn shipped(bench: &Bench<'_>, peers: &StepPeers, table: &mut Table) -> Outcome {
    let project = Project::new(&bench.folder.join("shipped"), &bench.sluicegate)?;
    let from = bench.workspace.path("fixtures/verified-layout");
    let copy = Program::new("cp", &from).args(["-r", "layout", "trust", "gateway.yaml"]).args([project.path(".")]);
    copy.run(project.scratch())?;
    let subject =
        Subject { project: &project, layout: "layout", what: "shipped layout", statements: SHIPPED_STATEMENTS };
    subject.beside(bench, table, &attestation(&project, &peers.programs.cosign, "layout"), "cosign verify-attestation")
}

fn promoted(bench: &Bench<'_>, peers: &StepPeers, table: &mut Table) -> Outcome {
    let project = Project::new(&bench.folder.join("tiny"), &bench.sluicegate)?;
    project.write("src/hello.txt", "hello\n")?;
    project.write("sluicegate.yaml", PIPELINE)?;
    project.prepare(&IMAGE, &peers.trivy)?;
    project.must(&["run"])?;
    project.must(&["promote", "oci:out/tiny", "--to", "production"])?;
    let layout = "env/production";
    let subject = Subject { project: &project, layout, what: "promoted image", statements: STATEMENTS };
    let cosign = &peers.programs.cosign;
    subject.beside(bench, table, &attestation(&project, cosign, layout), "cosign verify-attestation")?;
    let verify = project.program(cosign).args(["verify", "--key", "trust/production.pub", "--output", "json"]);
    subject.beside(bench, table, &offline(verify, layout), "cosign verify")
}

/// What each program costs before it verifies anything.
fn start(bench: &Bench<'_>, peers: &StepPeers, table: &mut Table) -> Outcome {
    let project = Project::new(&bench.folder.join("start"), &bench.sluicegate)?;
    let (ours, peer) =
        (project.sluicegate(&["--version"]), project.program(&peers.programs.cosign).args(["version", "--json"]));
    let (ours, peer) = beside(bench, &project, &ours, &peer, &|_, _| Ok(()))?;
    table.rows.push(Row {
        what: "the programs' start alone (--version)".to_owned(),
        ours,
        peer: Some(("cosign version".to_owned(), peer)),
        bar: None,
        counts: Vec::new(),
    });
    Ok(())
}

/// Both in turn, then once more for their memory.
fn beside(
    bench: &Bench<'_>,
    project: &Project,
    ours: &Program,
    peer: &Program,
    check: &dyn Fn(usize, &Ran) -> Outcome,
) -> Outcome<(Measured, Measured)> {
    let times = in_turn(&[ours, peer], bench.rounds(ROUNDS), project.scratch(), check)?;
    let [own_times, peer_times] = &times[..] else { return Err(Failure::new("two programs have two times")) };
    let measured = |times: &Samples, program: &Program| {
        Ok::<_, Failure>(Measured { times: times.clone(), peak_kib: Some(program.peak_kib(project.scratch())?) })
    };
    Ok((measured(own_times, ours)?, measured(peer_times, peer)?))
}

fn attestation(project: &Project, cosign: &Path, layout: &str) -> Program {
    let verify = project.program(cosign).args(["verify-attestation", "--key", "trust/builder.pub"]);
    offline(verify.args(["--type", "slsaprovenance1"]), layout)
}

fn offline(program: Program, layout: &str) -> Program {
    program.args(["--trusted-root", "trust/trusted_root.json", "--local-image", layout])
}

struct Subject<'a> {
    project: &'a Project,
    layout: &'a str,
    what: &'a str,
    statements: u64,
}

impl Subject<'_> {
    fn beside(&self, bench: &Bench<'_>, table: &mut Table, peer: &Program, name: &str) -> Outcome {
        let folder = self.project.path(self.layout);
        let reference = format!("oci:{}@{}", self.layout, oci_layout::image_digest(&folder)?);
        let arguments = ["verify", "--offline", &reference, "--gateway", "gateway.yaml"];
        // The gateway's folder and the layout are all that it may use: neither home nor passphrase.
        let ours = self.project.sluicegate(&arguments).without("SLUICEGATE_HOME").without("COSIGN_PASSWORD");
        commands::announce(&ours.line());
        commands::announce(&peer.line());

        self.counted(&arguments)?;
        let contents = project::contents(&folder)?;
        let printed = printed(&peer.run(self.project.scratch())?.stdout);
        if printed == 0 {
            return Err(Failure::new(format!("{name} printed no statement: it verified nothing")));
        }
        // Every run that is timed did all of it.
        let check = |program: usize, ran: &Ran| {
            let (found, all) = match program {
                0 => (listed(&ran.stdout), self.statements),
                _ => (self::printed(&ran.stdout), printed),
            };
            if found == all {
                Ok(())
            } else {
                Err(Failure::new(format!(
                    "a run of {} came to {found} statements and not {all}",
                    ["ours", name][program.min(1)]
                )))
            }
        };
        let (ours, measured) = beside(bench, self.project, &ours, peer, &check)?;
        let verified = self.counted(&arguments)?;
        table.rows.push(Row {
            what: format!("verify --offline, {} ({})", self.what, megabytes(contents.bytes)),
            ours,
            peer: Some((name.to_owned(), measured)),
            bar: Some(BAR),
            counts: vec![
                ("statements verified / printed".to_owned(), verified.statements, Some(printed)),
                ("log leaves that prove them".to_owned(), verified.log_places, None),
                ("bundles in the layout, of them attached".to_owned(), contents.bundles, Some(contents.attached)),
                ("bytes hashed".to_owned(), contents.bytes, None),
            ],
        });
        Ok(())
    }

    /// What is verified there, which is always as much.
    fn counted(&self, arguments: &[&str]) -> Outcome<Verified> {
        let verified = project::statements(&self.project.json(arguments)?)?;
        if verified.statements != self.statements {
            return Err(Failure::new(format!(
                "{} statements were verified and not {}",
                verified.statements, self.statements
            )));
        }
        Ok(verified)
    }
}

/// Statements that our program listed as verified.
fn listed(stdout: &str) -> u64 {
    stdout.lines().filter(|line| line.starts_with("  verified ")).count() as u64
}

/// Statements that cosign printed: a line of JSON for each attestation, or one list of signatures.
fn printed(stdout: &str) -> u64 {
    let documents = stdout.lines().filter_map(|line| crate::json::Json::parse(line).ok());
    documents
        .map(|document| match document {
            crate::json::Json::List(list) => list.len() as u64,
            crate::json::Json::Object(_) => 1,
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ours_lists_as_verified_is_counted() {
        let said =
            "VERIFIED  sha256:00\n  verified  sbom of app\n  ignored   sha256:01: junk\n  verified  vulns of app\n";
        assert_eq!(listed(said), 2);
        assert_eq!(listed("INCOMPLETE  sha256:00\n"), 0);
    }

    #[test]
    fn what_cosign_prints_is_counted_by_statement() {
        assert_eq!(printed("{\"payload\":\"a\"}\n{\"payload\":\"b\"}\n"), 2);
        assert_eq!(printed("\n[{\"critical\":{}},{\"critical\":{}}]\n"), 2);
        assert_eq!(printed("Verification for layout --\n[]\n"), 0);
    }
}
