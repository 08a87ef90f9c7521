//! Whether an earlier result may be taken in place of executing a step (trust model 9): only if its own statement, verified now, says
//! that this very work was done and left content that is still here, byte for byte. Everything that is taken comes out of that statement;
//! what led to it is believed in nothing.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io::Read,
    time::Duration,
};

use sluicegate_attestation::{
    bundle::MAX_BUNDLE,
    identifiers::{JUNIT_REPORT, LOCAL_BUILDER},
    predicate::PredicateType,
    provenance::{Build, Contacted, Provenance, StepParameters},
};
use sluicegate_pipeline::pipeline::{Artifact, InputSource, Network, Pipeline, Reuse, Step, TagTemplate};
use sluicegate_ports::{
    Clock, execute::Product, shared_cache::SharedCache, step_cache::StepCache, store::ContentStore,
};
use sluicegate_types::{Content, ContentKind, Digest, Hasher, OutputName, RunId, StepName, UnixTime};
use sluicegate_verify::{Role, Trust, VerifiedStatement};

use crate::{
    prepare::{LOG_LIMIT, OUTPUT_LIMIT, Prepared, REPORT},
    prove::{MAX_REPORT, step_subjects},
    shared,
    steps::TakenFrom,
};

/// How old an earlier result may be.
pub const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// An earlier result that counts.
pub(crate) struct Reused {
    /// The statement of the run that did the work.
    pub(crate) origin: VerifiedStatement,
    /// Bytes of its bundle.
    pub(crate) size: u64,
    /// What stood at each mount point when the work was done.
    pub(crate) inputs: BTreeMap<String, Content>,
    pub(crate) products: BTreeMap<OutputName, Product>,
    pub(crate) report: Option<Product>,
    pub(crate) log: Digest,
    pub(crate) exit_code: i32,
    /// Whom it contacted.
    pub(crate) contacts: Vec<Contacted>,
    /// Where another machine's result was found: how many bytes of what it left are there and not here, and were not counted for another
    /// result. All are here but for a plan.
    pub(crate) elsewhere: Option<u64>,
    /// The run that did the work, and when that was done.
    run: RunId,
    finished_on: UnixTime,
}

impl Reused {
    pub(crate) fn taken_from(&self) -> TakenFrom<'_> {
        TakenFrom { bundle: self.origin.bundle(), run: &self.run, finished_on: self.finished_on }
    }
}

/// Outputs, the raw report of tests, and the log.
type LeftBehind = (BTreeMap<OutputName, Product>, Option<Product>, Digest);

/// A store that machines share, and what becomes of content that only it has.
#[derive(Clone, Copy)]
pub(crate) struct Elsewhere<'a> {
    pub(crate) store: &'a dyn SharedCache,
    pub(crate) content: ContentThere<'a>,
}

/// What becomes of content that only a shared store has.
#[derive(Clone, Copy)]
pub(crate) enum ContentThere<'a> {
    /// It is brought here and hashed, and the result is this machine's own from then on.
    Kept,
    /// It is brought here and hashed, for this time.
    Brought,
    /// Its size is asked for, and known from then on: what only plans uses none of it.
    Asked(&'a RefCell<BTreeMap<Digest, u64>>),
}

/// What became of looking for one.
pub(crate) enum Looked {
    Hit(Box<Reused>),
    /// Nothing that counts, with the reason.
    Miss(String),
}

/// By what an earlier result is judged.
pub(crate) struct Judged<'a> {
    pub(crate) store: &'a dyn ContentStore,
    pub(crate) trust: &'a Trust,
    /// Another machine may have ended a step after this run began.
    pub(crate) clock: &'a dyn Clock,
    pub(crate) pipeline: &'a StepName,
    pub(crate) builder_version: &'a BTreeMap<String, String>,
    /// Whether what comes of it is promoted at once.
    pub(crate) release: bool,
    /// Steps whose sources have to be the very ones, whatever `reuse.key` says: a tag says which commit they are of.
    pub(crate) exact: BTreeSet<StepName>,
    /// Steps that have secrets or read what such steps left; nothing of theirs is shared.
    pub(crate) after_secrets: BTreeSet<StepName>,
    /// Where other machines put theirs.
    pub(crate) shared: Option<Elsewhere<'a>>,
}

fn check_age(provenance: &Provenance, now: UnixTime) -> Result<(), String> {
    let age = now.seconds() - provenance.finished_on.seconds();
    if age < 0 {
        return Err(format!("it is from {}, which is to come", provenance.finished_on));
    }
    if age.unsigned_abs() > MAX_AGE.as_secs() {
        return Err(format!("it is older than {} days", MAX_AGE.as_secs() / 86_400));
    }
    Ok(())
}

/// The steps whose sources an artifact's build tag names by their commit.
pub(crate) fn exact(pipeline: &Pipeline, artifacts: &[Artifact]) -> BTreeSet<StepName> {
    let named = artifacts.iter().filter(|artifact| artifact.tags.iter().any(TagTemplate::needs_commit));
    named.flat_map(|artifact| pipeline.closure(artifact)).map(|step| step.name.clone()).collect()
}

/// Why no result of this step is ever taken; `None` if one may be.
pub(crate) fn never(step: &Step, release: bool) -> Option<&'static str> {
    let unsaid = step.network != Network::None || !step.secrets.is_empty() || !step.caches.is_empty();
    match &step.reuse {
        Reuse::Never => Some("reuse: never"),
        Reuse::Auto if step.network != Network::None => Some("it has a network (reuse: { key: [FILE] } allows it)"),
        Reuse::Auto if !step.secrets.is_empty() => Some("it has secrets (reuse: { key: [FILE] } allows it)"),
        Reuse::Auto if !step.caches.is_empty() => Some("it has a shared cache (reuse: { key: [FILE] } allows it)"),
        Reuse::Key(_) if unsaid && release => {
            Some("a run that promotes does not take what came over a network, by secrets or with a shared cache")
        }
        Reuse::Auto | Reuse::Key(_) => None,
    }
}

/// Looks for an earlier result of this work.
pub(crate) fn look(judged: &Judged<'_>, cache: &dyn StepCache, step: &Step, prepared: &Prepared) -> Looked {
    if let Some(reason) = never(step, judged.release) {
        return Looked::Miss(reason.to_owned());
    }
    let missed = match cache.origin(&prepared.key) {
        None => "nothing with this key".to_owned(),
        Some(bundle) => match judged.take(step, prepared, bundle, None) {
            Ok(reused) => return Looked::Hit(Box::new(reused)),
            // It is not forgotten here: whoever only asks changes nothing, and what is executed takes its place.
            Err(reason) => format!("the earlier result is not taken: {reason}"),
        },
    };
    shared::look(judged, cache, (step, prepared), missed)
}

impl Judged<'_> {
    /// What this bundle proves, if it proves this work. What the content store lacks is brought from `shared`, the bundle first: nothing
    /// else comes before it is verified. Of content that is only asked about, the statement says what it is, and nobody what it will be.
    pub(crate) fn take(
        &self,
        step: &Step,
        prepared: &Prepared,
        bundle: Digest,
        shared: Option<Elsewhere<'_>>,
    ) -> Result<Reused, String> {
        let limit = MAX_BUNDLE as u64;
        let bytes = match (self.store.read(&bundle, limit), shared) {
            (Err(_), Some(shared)) => {
                shared.store.bring(&bundle, limit)?;
                self.store.read(&bundle, limit)
            }
            (read, _) => read,
        };
        let bytes = bytes.map_err(|error| error.to_string())?;
        let now = self.clock.now();
        let origin = sluicegate_verify::verify(&bytes, self.trust, now).map_err(|error| error.to_string())?;
        if !origin.is_in_role(Role::Steps) {
            return Err(format!("its signer {} has not the role steps", origin.signer()));
        }
        if origin.statement().predicate_type != PredicateType::Provenance {
            return Err("its statement is no provenance".to_owned());
        }
        let provenance = Provenance::parse(&origin.statement().predicate).map_err(|error| error.to_string())?;
        let Build::Step(parameters) = &provenance.build else {
            return Err("its statement is not about a step".to_owned());
        };
        if provenance.cache_origin().is_some() {
            return Err("it took its result from another run".to_owned());
        }
        if provenance.builder_id != LOCAL_BUILDER || provenance.builder_version != *self.builder_version {
            return Err("another builder made it".to_owned());
        }
        if provenance.internal.cache_key != Some(prepared.key) {
            return Err("it says another key".to_owned());
        }
        check_age(&provenance, now)?;
        let asked = prepared.parameters(self.pipeline, step, parameters.exit_code);
        if parameters.work() != asked.work() {
            return Err("it did other work".to_owned());
        }
        if !parameters.passed() {
            return Err(format!("it ended with code {}", parameters.exit_code));
        }
        let inputs = provenance.inputs().ok_or("it does not name all that it read")?;
        for (at, (source, content)) in &prepared.inputs {
            let is_keyed = matches!((&step.reuse, source), (Reuse::Key(_), InputSource::Source(_)));
            if (!is_keyed || self.exact.contains(&step.name)) && inputs.get(&at.display().to_string()) != Some(content)
            {
                return Err(format!("it read something else at {}", at.display()));
            }
        }
        if provenance.caches != prepared.caches {
            return Err("it shared other caches".to_owned());
        }
        if provenance.step_images().collect::<Vec<_>>() != [prepared.image] {
            return Err("it ran in another image".to_owned());
        }
        let exit_code = parameters.exit_code;
        let mut lacking = 0;
        let left = self.content(step, &origin, (&provenance, parameters), (shared, &mut lacking))?;
        let ((products, report, log), elsewhere) = (left, shared.map(|_| lacking));
        let (run, finished_on, contacts) = (provenance.run, provenance.finished_on, provenance.internal.contacts);
        let size = bytes.len() as u64;
        Ok(Reused { size, origin, inputs, products, report, log, exit_code, contacts, elsewhere, run, finished_on })
    }

    /// What it left, every byte of it that is here hashed again; `lacking` counts the others.
    fn content(
        &self,
        step: &Step,
        origin: &VerifiedStatement,
        (provenance, parameters): (&Provenance, &StepParameters),
        (shared, lacking): (Option<Elsewhere<'_>>, &mut u64),
    ) -> Result<LeftBehind, String> {
        let mut asked = BTreeMap::new();
        let mut rehash = |what: &str, digest: &Digest, limit: u64| {
            self.rehash(what, digest, shared.map(|shared| (shared, limit)), &mut asked)
        };
        let mut products = BTreeMap::new();
        let mut output_bytes = OUTPUT_LIMIT;
        for name in step.outputs.keys() {
            let called = format!("{}.{name}", step.name);
            let subject = origin.statement().subjects.iter().find(|subject| subject.name.as_deref() == Some(&called));
            let subject = subject.ok_or_else(|| format!("it left no {called}"))?;
            let kind = subject.media_type.as_deref().and_then(ContentKind::from_media_type);
            let kind = kind.ok_or_else(|| format!("{called} is neither a file nor a folder"))?;
            let content = Content { kind, digest: subject.digest };
            let executable = provenance.internal.executables.contains(name.as_str());
            let size = rehash(&called, &content.digest, output_bytes)?;
            output_bytes = output_bytes.saturating_sub(size);
            products.insert(name.clone(), Product { name: name.clone(), content, size, executable });
        }
        let log = provenance.byproducts.iter().find(|by| by.name == "log").map(|by| by.digest);
        let log = log.ok_or("it names no log")?;
        rehash("its log", &log, LOG_LIMIT)?;
        // A statement that says more or less about what was left than this step would is none of this work.
        let expected = step_subjects(&step.name, &products, log);
        if origin.statement().subjects.as_slice() != expected.as_slice() {
            return Err("its subjects are not this step's outputs".to_owned());
        }
        let mut report = None;
        if parameters.reports.contains_key(REPORT) {
            let found = provenance.byproducts.iter().find(|by| by.media_type == JUNIT_REPORT);
            let digest = found.ok_or("it names no report")?.digest;
            let size = rehash("its report", &digest, MAX_REPORT)?;
            let name = REPORT.parse().map_err(|_| "a report has no name")?;
            let content = Content { kind: ContentKind::File, digest };
            report = Some(Product { name, content, size, executable: false });
        }
        *lacking = asked.values().sum();
        // Counted once, and only for what is taken.
        if let Some(Elsewhere { content: ContentThere::Asked(known), .. }) = shared {
            known.borrow_mut().extend(asked);
        }
        Ok((products, report, log))
    }

    /// Hashes stored content and gives its size. What is not here, or damaged, is brought from another place if there is one, or its size is
    /// asked for there; `asked` gets what was not known before.
    fn rehash(
        &self,
        what: &str,
        digest: &Digest,
        shared: Option<(Elsewhere<'_>, u64)>,
        asked: &mut BTreeMap<Digest, u64>,
    ) -> Result<u64, String> {
        let (shared, limit) = match (self.rehash_here(what, digest), shared) {
            (Err(_), Some(shared)) => shared,
            (hashed, _) => return hashed,
        };
        let of_it = |reason: String| format!("{what}: {reason}");
        match shared.content {
            ContentThere::Kept | ContentThere::Brought => {
                shared.store.bring(digest, limit).map_err(of_it)?;
                self.rehash_here(what, digest)
            }
            ContentThere::Asked(known) => {
                // What is fetched once need not be fetched again.
                let before = known.borrow().get(digest).or_else(|| asked.get(digest)).copied();
                let size = before.map_or_else(|| shared.store.size(digest), Ok).map_err(of_it)?;
                if size > limit {
                    return Err(of_it(format!("it is larger there than the limit of {limit} bytes")));
                }
                if size == 0 && *digest != Digest::of(b"") {
                    return Err(of_it("it is empty there".to_owned()));
                }
                if before.is_none() {
                    asked.insert(*digest, size);
                }
                Ok(size)
            }
        }
    }

    fn rehash_here(&self, what: &str, digest: &Digest) -> Result<u64, String> {
        let mut file = self.store.open(digest).map_err(|error| format!("{what}: {error}"))?;
        let (mut hasher, mut size, mut buffer) = (Hasher::new(), 0_u64, vec![0; 256 * 1024]);
        loop {
            let n = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("{what}: {error}")),
            };
            size += n as u64;
            hasher.update(&buffer[..n]);
        }
        let found = hasher.finish();
        if found != *digest {
            return Err(format!("{what} ({digest}) is damaged: the stored bytes have the digest {found}"));
        }
        Ok(size)
    }
}

#[cfg(test)]
mod tests;
