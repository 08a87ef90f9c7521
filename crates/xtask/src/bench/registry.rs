//! `bench registry`: images pushed, pulled and copied between the real distribution registry, a layout and each other, beside skopeo, crane
//! and oras. After each run what arrived is hashed again; a run after which anything is missing or wrong ends the benchmark.

use std::path::{Path, PathBuf};

use super::images::{Hasher, Layout, TAG};
use super::process::{Program, in_turn_after};
use super::project::Project;
use super::table::{Bar, Measured, Row, Table};
use super::{Bench, log_appends};
use crate::commands;
use crate::failure::{Failure, Outcome};
use crate::json::Json;
use crate::registry::Registry;
use crate::tools::{self, RegistryPeers};

/// Rounds, unless others are asked for.
pub(super) const ROUNDS: usize = 5;
/// A push of a thousand attachments to a registry without an API for them takes a minute.
const ATTACHMENT_ROUNDS: usize = 3;
const LAYERS: u64 = 8;
const MIB: u64 = 1 << 20;
/// The share of the machine's own speed that is to be reached (DESIGN section 9).
const SHARE: f64 = 0.8;
/// Runs of each client beyond the rounds.
const WARM_UP_AND_MEMORY: u64 = 2;

/// Where the big image, the one without layers, the one with attachments and what is pulled stand in the project.
const BIG: &str = "big";
const BARE: &str = "bare";
const NOTED: &str = "noted";
const PULLED: &str = "pulled";
const YARDSTICK: &str = "yardstick";

/// How much is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// All layers together, in MiB.
    pub mib: u64,
    /// Manifests attached to one image.
    pub attachments: u64,
    /// Entries appended to the log.
    pub entries: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { mib: 1024, attachments: 1000, entries: 30_000 }
    }
}

/// Measures and appends to `table`.
pub(super) fn measure(bench: &Bench<'_>, peers: &RegistryPeers, append_load: &Path, table: &mut Table) -> Outcome {
    let sizes = bench.choice.sizes;
    println!("\n# registry: {} MiB in {LAYERS} layers, {} attachments, on loopback", sizes.mib, sizes.attachments);
    let folders = ["registry", "registry-first", "registry-second"].map(|name| bench.folder.join(name));
    let measured = Arena::open(bench, peers, &folders).and_then(|arena| {
        let states = |failure| Failure::new(format!("{failure}\n{}\n{}", arena.first.state(), arena.second.state()));
        arena.measure(table).map_err(states)
    });
    // It is gigabytes, whatever came of it; the registries ended with the arena.
    folders.iter().try_for_each(|folder| tools::remove(folder))?;
    measured?;
    log_appends::measure(bench, append_load, table)
}

/// A project with images, two registries, and those who copy between them.
struct Arena<'a> {
    bench: &'a Bench<'a>,
    peers: &'a RegistryPeers,
    project: Project,
    hasher: Hasher,
    first: Registry,
    second: Registry,
}

/// One end of a copy.
#[derive(Clone, Copy)]
enum End<'a> {
    /// A folder of the project.
    Layout(&'a str),
    /// A repository of a registry.
    Repository(&'a Registry, &'a str),
}

/// What is done in turn: ours first, then the other clients, then what only tells how fast the machine is.
struct Contest<'a> {
    what: String,
    clients: Vec<(&'static str, Program)>,
    yardsticks: Vec<(&'static str, Program)>,
    /// Unless others are asked for.
    rounds: usize,
    before: &'a dyn Fn() -> Outcome,
    /// After each run of a client.
    check: &'a dyn Fn() -> Outcome,
    /// What `check` finds each time: its name, and how much it is.
    found: Vec<(String, u64)>,
}

impl<'a> Arena<'a> {
    fn open(bench: &'a Bench<'a>, peers: &'a RegistryPeers, folders: &[PathBuf; 3]) -> Outcome<Self> {
        let [project, first, second] = folders;
        Ok(Self {
            bench,
            peers,
            project: Project::new(project, &bench.sluicegate)?,
            hasher: Hasher::new(&peers.openssl),
            first: Registry::start(&peers.registry, first)?,
            second: Registry::start(&peers.registry, second)?,
        })
    }

    fn measure(&self, table: &mut Table) -> Outcome {
        let sizes = self.bench.choice.sizes;
        let of_layer = sizes.mib * MIB / LAYERS;
        let big = Layout::with_layers(&self.project.path(BIG), &self.hasher, LAYERS, of_layer)?;
        let bare = Layout::with_layers(&self.project.path(BARE), &self.hasher, 0, 0)?;
        let noted = Layout::with_attachments(&self.project.path(NOTED), &self.hasher, sizes.attachments)?;
        let amount = format!("{} MiB in {LAYERS} layers", sizes.mib);

        let to = End::Repository(&self.first, "a");
        self.push(table, format!("push of {amount}"), BIG, &big, self.yardsticks())?;
        self.push(table, "push of an image without layers".to_owned(), BARE, &bare, Vec::new())?;
        // What is pulled and copied from now on.
        self.empty(&self.first)?;
        self.client("crane", End::Layout(BIG), to).run(self.project.scratch())?;
        self.pull(table, format!("pull of {amount}"), to, &big)?;
        let same = End::Repository(&self.first, "b");
        self.copy(table, format!("copy of {amount} to another repository of the registry"), to, same, &big)?;
        let other = End::Repository(&self.second, "a");
        self.copy(table, format!("copy of {amount} to another registry"), to, other, &big)?;
        self.empty(&self.first)?;
        self.empty(&self.second)?;
        self.attachments(table, &noted)?;
        table.notes.extend(notes(self.bench));
        Ok(())
    }

    fn push(
        &self,
        table: &mut Table,
        what: String,
        folder: &str,
        layout: &Layout,
        yardsticks: Vec<(&'static str, Program)>,
    ) -> Outcome {
        let to = End::Repository(&self.first, "a");
        self.contest(
            table,
            &Contest {
                what,
                clients: self.clients(&["ours", "skopeo", "crane", "oras"], End::Layout(folder), to),
                yardsticks,
                rounds: ROUNDS,
                before: &|| self.empty(&self.first),
                check: &|| self.is_in_registry(layout, &self.first, "a"),
                found: found(layout),
            },
        )
    }

    fn pull(&self, table: &mut Table, what: String, from: End<'_>, layout: &Layout) -> Outcome {
        let to = End::Layout(PULLED);
        self.contest(
            table,
            &Contest {
                what,
                clients: self.clients(&["ours", "skopeo", "crane", "oras"], from, to),
                yardsticks: self.yardsticks(),
                rounds: ROUNDS,
                before: &|| tools::remove(&self.project.path(PULLED)),
                check: &|| layout.is_in_layout(&self.hasher, &self.project.path(PULLED)).map(drop),
                found: found(layout),
            },
        )
    }

    fn copy(&self, table: &mut Table, what: String, from: End<'_>, to: End<'_>, layout: &Layout) -> Outcome {
        let End::Repository(registry, repository) = to else { return Err(Failure::new("a copy ends in a registry")) };
        self.contest(
            table,
            &Contest {
                what,
                clients: self.clients(&["ours", "skopeo", "crane", "oras"], from, to),
                yardsticks: Vec::new(),
                rounds: ROUNDS,
                before: &|| tools::remove(&registry.data().join("repositories").join(repository)),
                check: &|| self.is_in_registry(layout, registry, repository),
                found: found(layout),
            },
        )
    }

    /// Of the other clients only oras takes along what is attached.
    fn attachments(&self, table: &mut Table, layout: &Layout) -> Outcome {
        let count = layout.attached.len() as u64;
        let to = End::Repository(&self.first, "notes");
        let mut found = found(layout);
        found.push(("attachments listed".to_owned(), count));
        self.contest(
            table,
            &Contest {
                what: format!("push of an image with {count} attachments of 1 KiB"),
                clients: self.clients(&["ours", "oras -r"], End::Layout(NOTED), to),
                yardsticks: Vec::new(),
                rounds: ATTACHMENT_ROUNDS,
                before: &|| self.empty(&self.first),
                check: &|| {
                    self.is_in_registry(layout, &self.first, "notes")?;
                    let listed = self.listed(layout, &self.first, "notes")?;
                    if listed == count {
                        Ok(())
                    } else {
                        Err(Failure::new(format!("{listed} attachments are listed and not {count}")))
                    }
                },
                found,
            },
        )?;
        self.empty(&self.first)?;
        self.client("ours", End::Layout(NOTED), to).run(self.project.scratch())?;
        self.contest(
            table,
            &Contest {
                what: format!("pull of an image with {count} attachments of 1 KiB"),
                clients: self.clients(&["ours", "oras -r"], to, End::Layout(PULLED)),
                yardsticks: Vec::new(),
                rounds: ATTACHMENT_ROUNDS,
                before: &|| tools::remove(&self.project.path(PULLED)),
                check: &|| layout.is_in_layout(&self.hasher, &self.project.path(PULLED)).map(drop),
                found: self::found(layout),
            },
        )
    }

    /// Everybody in turn, then each once more for its memory; a row for each of the others.
    fn contest(&self, table: &mut Table, contest: &Contest<'_>) -> Outcome {
        let sides: Vec<&(&str, Program)> = contest.clients.iter().chain(&contest.yardsticks).collect();
        for (_, program) in &sides {
            commands::announce(&program.line());
        }
        let scratch = self.project.scratch();
        let before = |_| {
            (contest.before)()?;
            tools::remove(&self.project.path(YARDSTICK))?;
            // What runs before has written is not to be waited for by what runs next.
            Program::new("sync", &self.bench.folder).args(["-f", "."]).run(scratch).map(drop)
        };
        let check = |side: usize| match contest.clients.get(side) {
            Some((name, _)) => {
                (contest.check)().map_err(|failure| Failure::new(format!("{}, {name}: {failure}", contest.what)))
            }
            None => Ok(()),
        };
        let programs: Vec<&Program> = sides.iter().map(|(_, program)| program).collect();
        let times =
            in_turn_after(&programs, self.bench.rounds(contest.rounds), scratch, before, |side, _| check(side))?;
        let mut measured = Vec::new();
        for (side, (times, (_, program))) in times.into_iter().zip(&sides).enumerate() {
            let mut peak_kib = None;
            if side < contest.clients.len() {
                before(side)?;
                peak_kib = Some(program.peak_kib(scratch)?);
                check(side)?;
            }
            measured.push(Measured { times, peak_kib });
        }
        tools::remove(&self.project.path(YARDSTICK))?;
        let Some((ours, others)) = measured.split_first() else { return Err(Failure::new("nobody was measured")) };
        for (at, ((name, _), peer)) in sides.iter().skip(1).zip(others).enumerate() {
            let is_client = at + 1 < contest.clients.len();
            table.rows.push(Row {
                what: contest.what.clone(),
                ours: ours.clone(),
                peer: Some(((*name).to_owned(), peer.clone())),
                bar: (!is_client).then(|| at_least(SHARE, peer)),
                counts: Vec::new(),
            });
        }
        // The same of each client, or the benchmark would have ended; so once, and not in each of these rows.
        let checked = self.bench.rounds(contest.rounds) as u64 + WARM_UP_AND_MEMORY;
        let counts = contest.found.iter().map(|(what, count)| (what.clone(), *count, Some(*count)));
        let counts =
            counts.chain([("runs after which that was so, of each client".to_owned(), checked, Some(checked))]);
        if let Some(row) = table.rows.iter_mut().rev().nth(sides.len().saturating_sub(2)) {
            row.counts = counts.collect();
        }
        Ok(())
    }

    /// How fast this machine hashes these bytes, which were just read or written and are in memory, and how fast its disk takes them.
    fn yardsticks(&self) -> Vec<(&'static str, Program)> {
        let shell = |script: String| self.project.program(Path::new("sh")).args(["-c", &script]);
        let openssl = commands::quoted(&self.peers.openssl.to_string_lossy());
        let hash = shell(format!("exec {openssl} dgst -sha256 {BIG}/blobs/sha256/*"));
        let disk = shell(format!("cp -r {BIG} {YARDSTICK} && sync {YARDSTICK}/blobs/sha256/*"));
        vec![("SHA-256 of the same bytes (openssl)", hash), ("the disk alone (cp, sync)", disk)]
    }

    fn clients(&self, names: &[&'static str], from: End<'_>, to: End<'_>) -> Vec<(&'static str, Program)> {
        names.iter().map(|name| (shown(name, from, to), self.client(name, from, to))).collect()
    }

    fn client(&self, name: &str, from: End<'_>, to: End<'_>) -> Program {
        let arguments = arguments(name, from, to);
        match name {
            "skopeo" => self.project.program(&self.peers.skopeo).args(arguments),
            "crane" => self.project.program(&self.peers.crane).args(arguments),
            "oras" | "oras -r" => self.project.program(&self.peers.oras).args(arguments),
            _ => self.project.sluicegate(&arguments.iter().map(String::as_str).collect::<Vec<_>>()),
        }
    }

    fn crane(&self, arguments: &[&str]) -> Outcome<String> {
        let ran = self.project.program(&self.peers.crane).args(arguments).run(self.project.scratch())?;
        Ok(ran.stdout)
    }

    /// Takes everything out of a registry; it holds nothing in memory.
    fn empty(&self, registry: &Registry) -> Outcome {
        tools::remove(&registry.data())
    }

    /// Fails unless the tag names the image, to crane too, the repository has every part of it, and each part is what it should be.
    fn is_in_registry(&self, layout: &Layout, registry: &Registry, repository: &str) -> Outcome {
        let reference = format!("{}/{repository}:{TAG}", registry.host());
        let by_crane = self.crane(&["digest", &reference])?;
        if by_crane.trim() != layout.image.digest() {
            return Err(Failure::new(format!("{reference} is {} to crane, not {}", by_crane.trim(), layout.image.hex)));
        }
        let here = registry.data().join("repositories").join(repository);
        let link = |kind: &str, hex: &str| here.join(kind).join("sha256").join(hex).join("link");
        let manifests = layout.manifests().map(|manifest| link("_manifests/revisions", &manifest.hex));
        let blobs = layout.blobs.iter().map(|blob| link("_layers", &blob.hex));
        if let Some(missing) = manifests.chain(blobs).find(|link| !link.is_file()) {
            return Err(Failure::new(format!("there is no {}", missing.display())));
        }
        let all = registry.data().join("blobs/sha256");
        layout
            .are_these(&self.hasher, |blob| {
                all.join(blob.hex.get(..2).unwrap_or_default()).join(&blob.hex).join("data")
            })
            .map(drop)
    }

    /// Manifests that the fallback tag lists for the image, by crane: this registry has no API for it.
    fn listed(&self, layout: &Layout, registry: &Registry, repository: &str) -> Outcome<u64> {
        let reference = format!("{}/{repository}:sha256-{}", registry.host(), layout.image.hex);
        let text = self.crane(&["manifest", &reference])?;
        let index = Json::parse(&text).map_err(|error| Failure::new(format!("{reference}: {error}")))?;
        let digests: Vec<_> =
            index.get("manifests").list().iter().filter_map(|entry| entry.get("digest").as_text()).collect();
        Ok(layout.attached.iter().filter(|attached| digests.contains(&&*attached.digest())).count() as u64)
    }
}

/// What a check of this layout finds.
fn found(layout: &Layout) -> Vec<(String, u64)> {
    vec![
        ("manifests and blobs there".to_owned(), layout.all().count() as u64),
        ("bytes of them, hashed again".to_owned(), layout.bytes()),
    ]
}

/// At least this share of the speed of `other`, as a time.
fn at_least(share: f64, other: &Measured) -> Bar {
    Bar { milliseconds: Some((other.times.median() / share).round()), peak_kib: None }
}

/// What a client is called in the table.
fn shown(name: &'static str, from: End<'_>, to: End<'_>) -> &'static str {
    match (name, from, to) {
        ("skopeo", ..) => "skopeo copy",
        ("oras", ..) => "oras cp",
        ("oras -r", ..) => "oras cp -r",
        ("crane", End::Layout(_), _) => "crane push",
        ("crane", _, End::Layout(_)) => "crane pull",
        ("crane", ..) => "crane copy",
        (other, ..) => other,
    }
}

/// What a client is told.
fn arguments(name: &str, from: End<'_>, to: End<'_>) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let plain = |end: End<'_>| match end {
        End::Layout(folder) => format!("{folder}:{TAG}"),
        End::Repository(registry, repository) => format!("{}/{repository}:{TAG}", registry.host()),
    };
    let ends = |scheme: &str| {
        [from, to].map(|end| match end {
            End::Layout(_) => format!("oci:{}", plain(end)),
            End::Repository(..) => format!("{scheme}{}", plain(end)),
        })
    };
    let is_layout = |end| matches!(end, End::Layout(_));
    match name {
        "skopeo" => {
            let mut all = words(&["--insecure-policy", "copy", "--quiet", "--preserve-digests"]);
            all.extend((!is_layout(from)).then(|| "--src-tls-verify=false".to_owned()));
            all.extend((!is_layout(to)).then(|| "--dest-tls-verify=false".to_owned()));
            all.extend(ends("docker://"));
            all
        }
        "crane" => match (from, to) {
            (End::Layout(folder), _) => vec!["push".to_owned(), folder.to_owned(), plain(to)],
            (_, End::Layout(folder)) => {
                [words(&["pull", "--format", "oci"]), vec![plain(from), folder.to_owned()]].concat()
            }
            _ => vec!["copy".to_owned(), plain(from), plain(to)],
        },
        "oras" | "oras -r" => {
            let mut all = words(&["cp", "--no-tty"]);
            all.extend((name == "oras -r").then(|| "-r".to_owned()));
            all.push(if is_layout(from) { "--from-oci-layout" } else { "--from-plain-http" }.to_owned());
            all.push(if is_layout(to) { "--to-oci-layout" } else { "--to-plain-http" }.to_owned());
            all.extend([plain(from), plain(to)]);
            all
        }
        _ => std::iter::once("copy".to_owned()).chain(ends("")).collect(),
    }
}

fn notes(bench: &Bench<'_>) -> [String; 5] {
    [
        format!(
            "registry: the registry is distribution, on loopback and on the same processors; what it takes to store and hash what it is sent \
             is in every time. It has no referrers API, so that attachments are listed by the fallback tag; they are measured in {} rounds. \
             Before each run the target is emptied and the disk is in step.",
            bench.rounds(ATTACHMENT_ROUNDS)
        ),
        format!(
            "registry: the layers are tar files of random bytes, uncompressed, and stay as they are (skopeo with --preserve-digests); each \
             client does as many things at a time as it does by itself. The bars are {:.0} % of the speed at which openssl hashes the same \
             bytes and at which the disk takes them.",
            SHARE * 100.0
        ),
        "registry: ours looks for what is attached to an image and takes it along, reads and hashes every byte that comes \
         through it before it sends the first one, and makes a layout durable before it is done; of the others only oras is told to take attachments \
         along (-r)."
            .to_owned(),
        "registry: skopeo remembers on the machine in which repositories it saw a blob; from the warm-up on it may know more than the others."
            .to_owned(),
        "registry: after each run crane says which digest the tag names, or the layout's index is read, every manifest and blob is looked for, \
         and all bytes are hashed again by openssl; a run after which anything is missing or wrong ends the benchmark."
            .to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::samples::Samples;

    #[test]
    fn each_client_is_told_the_same_in_its_own_words() {
        let told = |name| arguments(name, End::Layout("big"), End::Layout("pulled")).join(" ");
        assert_eq!(told("ours"), "copy oci:big:v oci:pulled:v");
        assert_eq!(told("skopeo"), "--insecure-policy copy --quiet --preserve-digests oci:big:v oci:pulled:v");
        assert_eq!(told("oras"), "cp --no-tty --from-oci-layout --to-oci-layout big:v pulled:v");
        assert_eq!(told("oras -r"), "cp --no-tty -r --from-oci-layout --to-oci-layout big:v pulled:v");
    }

    #[test]
    fn the_bar_is_a_share_of_the_speed() {
        let measured = Measured { times: Samples::new(vec![800.0]).unwrap(), peak_kib: None };
        assert_eq!(at_least(SHARE, &measured).milliseconds, Some(1000.0));
    }
}
