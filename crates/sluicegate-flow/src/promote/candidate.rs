//! What is promoted: one image, or every image that an index names. What is read of each, and what the gate says of each.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sluicegate_attestation::identifiers::{BUNDLE, TRIVY_REPORT};
use sluicegate_policy::{
    exceptions::{ExceptionUse, Waived},
    facts::{ByHand, GateScan},
    judge::{Denial, Permit, Reason, Verdict},
};
use sluicegate_ports::{
    execute::ExecuteError,
    images::{Descriptor, ImageSource},
    scan::ScanError,
};
use sluicegate_types::{Digest, NonEmpty, Platform, UnixTime};
use sluicegate_verify::{
    Role,
    closed_set::{Asked, ClosedSet, Followed, follow, follow_index},
};

use super::{PromoteRequest, occupant::Deployed};
use crate::{
    Error, Ports,
    attest::attest,
    fetch::{self, Fetched},
    gate::{self, Case},
    image_tree::is_index,
    known_scans::KnownScans,
    replay,
    scan::Scanning,
    verify_index::{Index, read_index},
};

/// Bytes of the evidence of all images of one index together. Each gets its share of what is left, so that none starves another; what is
/// beyond that was not looked at, as with one image.
const MAX_EVIDENCE: u64 = 1024 * 1024 * 1024;

/// What is promoted.
pub(super) struct Subject {
    /// Its images, each once; without an index, the image itself.
    pub(super) images: Vec<Candidate>,
    /// The index, if it is one.
    pub(super) index: Option<PromotedIndex>,
}

/// An index on its way through the gate.
pub(super) struct PromotedIndex {
    /// What it names.
    pub(super) named: Index,
    /// What is attached to the index itself.
    pub(super) fetched: Fetched,
}

/// What was found at one moment about each image, and about the index.
pub(super) struct FollowedSubject {
    pub(super) images: Vec<Followed>,
    pub(super) index: Option<Followed>,
}

impl FollowedSubject {
    pub(super) fn all(&self) -> impl Iterator<Item = &Followed> {
        self.images.iter().chain(&self.index)
    }

    /// Whether an image has no whole set.
    pub(super) fn lacks_a_set(&self) -> bool {
        self.images.iter().any(|followed| followed.sets.is_empty())
    }
}

/// One image on its way through the gate.
pub(super) struct Candidate {
    /// What the index says it is for; `None` for an image that is promoted itself.
    pub(super) platform: Option<String>,
    /// The same one by one; empty for an image that is promoted itself, or of which the index does not say it.
    pub(super) platforms: Vec<Platform>,
    pub(super) fetched: Fetched,
    pub(super) scanned: Scanned,
}

/// The gate's own scan.
#[derive(Default)]
pub(super) struct Scanned {
    pub(super) scan: Option<GateScan>,
    /// What carries it: its bundle and the raw report.
    pub(super) parts: Vec<Descriptor>,
    /// Why there is none, where a gate wanted one.
    pub(super) failure: Option<String>,
}

/// What the gate said of one image, set by set.
pub(super) struct Judged<'a> {
    /// The set that is allowed, if there is one.
    pub(super) permitted: Option<Permitted<'a>>,
    /// Each set that is not; denials behind what was left open.
    pub(super) refused: Vec<(Refusal, Kept)>,
    /// What became of what somebody accepts: for the set that is allowed, else for the one that is told.
    pub(super) exceptions: Vec<ExceptionUse>,
    /// What of it was denied and is waived.
    pub(super) waived: Vec<Waived>,
    /// What a person should know.
    pub(super) warnings: BTreeSet<String>,
}

/// A set that is allowed.
pub(super) struct Permitted<'a> {
    pub(super) set: &'a ClosedSet,
    pub(super) permit: Permit,
    pub(super) kept: Kept,
}

/// What is kept of a decision.
pub(super) struct Kept {
    /// The decision itself.
    pub(super) document: Value,
    /// What its record says.
    pub(super) body: Value,
}

/// A verdict that is no leave.
pub(super) enum Refusal {
    Denied {
        denials: NonEmpty<Denial>,
        /// Every attestation that was looked at for it.
        used: Vec<Digest>,
    },
    Open(NonEmpty<Reason>),
}

impl Refusal {
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "deny",
            Self::Open(_) => "undecided",
        }
    }
}

impl Subject {
    /// Reads what is promoted with its evidence, and no layer yet.
    pub(super) fn read(source: &dyn ImageSource, root: &Descriptor, asked: Asked<'_>) -> Result<Self, Error> {
        if !is_index(&root.media_type) {
            let fetched = fetch::fetch_evidence(source, root, asked)?;
            refuse_subject(&root.digest, fetched.manifest.subject.as_ref())?;
            let image = Candidate { platform: None, platforms: Vec::new(), fetched, scanned: Scanned::default() };
            return Ok(Self { images: vec![image], index: None });
        }
        let named = read_index(source, root)?;
        let fault = |reason: String| Error::Image { image: root.digest.to_string(), reason };
        if named.images.is_empty() {
            return Err(fault("an image index that names no image".to_owned()));
        }
        for (digest, subject) in named.tree.subjects() {
            refuse_subject(digest, Some(subject))?;
        }
        // What is attached to the index has a share like an image.
        let fetched =
            fetch::fetch_attached_within(source, root, asked, MAX_EVIDENCE / (named.images.len() + 1) as u64)?;
        let (mut images, mut left) = (Vec::new(), MAX_EVIDENCE.saturating_sub(fetched.evidence_size()));
        for (number, image) in named.images.iter().enumerate() {
            let share = left / (named.images.len() - number) as u64;
            let fetched = fetch::fetch_evidence_within(source, &image.descriptor, asked, share)?;
            left = left.saturating_sub(fetched.evidence_size());
            images.push(Candidate {
                platform: Some(image.name()),
                platforms: image.platforms.clone(),
                fetched,
                scanned: Scanned::default(),
            });
        }
        Ok(Self { images, index: Some(PromotedIndex { named, fetched }) })
    }

    /// Brings everything that is promoted into the store: manifests, configurations and layers, also of what holds nothing but documents.
    pub(super) fn keep_content(&self, source: &dyn ImageSource, ports: &Ports<'_>) -> Result<(), Error> {
        let Some(index) = &self.index else {
            let mut images = self.images.iter().map(|image| &image.fetched.descriptor);
            return images.try_for_each(|image| fetch::fetch_image(source, image, Some(ports.store)).map(drop));
        };
        let tree = &index.named.tree;
        fetch::layers_of_all(tree.images().map(|(_, manifest)| manifest))?;
        for (descriptor, _) in tree.images() {
            fetch::fetch_image(source, descriptor, Some(ports.store))?;
        }
        for bytes in tree.bytes.values() {
            ports.store.put_bytes(bytes)?;
        }
        Ok(())
    }

    /// Keeps what the decisions can be made again from.
    pub(super) fn keep_evidence(&self, ports: &Ports<'_>) -> Result<(), Error> {
        let of_index = self.index.iter().flat_map(|index| index.fetched.attached.values());
        let of_images = self
            .images
            .iter()
            .flat_map(|Candidate { fetched, .. }| fetched.attached.values().chain(fetched.blobs.values()));
        for bytes in of_index.chain(of_images) {
            ports.store.put_bytes(bytes)?;
        }
        Ok(())
    }

    pub(super) fn follow(&self, asked: Asked<'_>) -> FollowedSubject {
        let of_image = |Candidate { fetched, .. }: &Candidate| {
            follow(fetched.descriptor.digest, &fetched.attached, &fetched.blobs, asked)
        };
        FollowedSubject {
            images: self.images.iter().map(of_image).collect(),
            index: self
                .index
                .as_ref()
                .map(|index| follow_index(&index.fetched.descriptor.digest, &index.fetched.attached, asked)),
        }
    }

    /// Every image of it, with the machines that it is for.
    pub(super) fn deployed(&self) -> Deployed {
        let of_image = |image: &Candidate| Deployed::of(image.digest(), &image.platforms);
        self.images.iter().map(of_image).fold(Deployed::default(), Deployed::and)
    }
}

/// What is promoted is attached to nothing: a registry would list it as evidence of another image of the environment.
fn refuse_subject(image: &Digest, subject: Option<&Descriptor>) -> Result<(), Error> {
    match subject {
        None => Ok(()),
        Some(subject) => Err(Error::Image {
            image: image.to_string(),
            reason: format!(
                "it says that it is attached to {}: what is promoted is an image by itself",
                subject.digest
            ),
        }),
    }
}

impl Candidate {
    pub(super) fn digest(&self) -> Digest {
        self.fetched.descriptor.digest
    }

    /// The gate scans the image itself, with its own database; a scan that somebody attached is never taken for it (trust model 4).
    /// Why it could not is kept: that leaves the question open and must not look like an answer.
    pub(super) fn scan(&mut self, ports: &Ports<'_>, request: &PromoteRequest<'_>) -> Result<(), Error> {
        self.scanned = self.gate_scan(ports, request)?;
        Ok(())
    }

    fn gate_scan(&self, ports: &Ports<'_>, request: &PromoteRequest<'_>) -> Result<Scanned, Error> {
        let (image, manifest) = (&self.fetched.descriptor, &self.fetched.manifest);
        let not = |reason: String| Ok(Scanned { failure: Some(reason), ..Scanned::default() });
        let scanner = match &request.scanner {
            Ok(scanner) => *scanner,
            Err(reason) => return not(reason.clone()),
        };
        let known = request.scans.map(|index| KnownScans {
            index,
            store: ports.store,
            trust: request.trust,
            role: Role::Records,
            at: ports.clock.now(),
        });
        // A scanner that cannot say who it is says so when it is asked to scan.
        let identity = scanner.identity().ok().flatten();
        if let Some(scan) = known.zip(identity.as_ref()).and_then(|(known, by)| known.of_image(by, &image.digest)) {
            let bundle = Descriptor::new(BUNDLE, scan.vulns.bundle(), scan.size);
            let report = Descriptor::new(TRIVY_REPORT, Digest::of(&scan.report), scan.report.len() as u64);
            if let Ok(found) = GateScan::new(&image.digest, &scan.vulns, scan.report) {
                return Ok(Scanned { scan: Some(found), parts: vec![bundle, report], failure: None });
            }
        }
        let blobs: Vec<Digest> =
            manifest.layers.iter().map(|layer| layer.digest).chain([manifest.config.digest]).collect();
        let name = request.judge.name.to_string();
        let scanned = match Scanning::new(ports, scanner, request.scratch).image(image, &blobs, &name) {
            Ok(scanned) => scanned,
            Err(Error::Scan(error)) => {
                let remedy = match &error {
                    ScanError::Sandbox(ExecuteError::NotHere { remedy, .. }) => format!("; {remedy}"),
                    _ => String::new(),
                };
                return not(format!("the gate could not scan the image: {error}{remedy}"));
            }
            Err(error) => return Err(error),
        };
        let mut attested = attest(ports, request.records, request.trust, &[scanned.vulns], ports.clock.now())?;
        let Some(attested) = attested.pop() else { return not("the scan was not attested".to_owned()) };
        let report = ports.store.read(&scanned.report.digest, scanned.report.size)?;
        let bundle = Descriptor::new(BUNDLE, attested.statement.bundle(), attested.size);
        match GateScan::new(&image.digest, &attested.statement, report) {
            Ok(scan) => {
                if let Some((known, by)) = known.zip(identity.as_ref()) {
                    known.keep(by, &image.digest, &attested.statement);
                }
                Ok(Scanned { scan: Some(scan), parts: vec![bundle, scanned.report], failure: None })
            }
            Err(error) => not(error.to_string()),
        }
    }

    /// Sets are judged singly, never mixed; one that is allowed suffices, and each that is not is told all the same.
    pub(super) fn judge<'a>(
        &self,
        ports: &Ports<'_>,
        request: &PromoteRequest<'_>,
        followed: &'a Followed,
        index: Option<(&Fetched, &Followed)>,
        (current, now): (Option<Digest>, UnixTime),
    ) -> Result<Judged<'a>, Error> {
        let mut judged = Judged {
            permitted: None,
            refused: Vec::new(),
            exceptions: Vec::new(),
            waived: Vec::new(),
            warnings: BTreeSet::new(),
        };
        for set in &followed.sets {
            let case = Case {
                judge: request.judge,
                set,
                by_hand: ByHand {
                    image: followed.into(),
                    index: index.map(|(index, followed)| (index.descriptor.digest, followed.into())),
                },
                scan: self.scanned.scan.clone(),
                current,
                now,
            };
            let decision = gate::decide(&case, request.evaluator);
            let used = decision.used.clone();
            let mut body = decision.keep(ports)?;
            body["rollback"] = json!(request.rollback);
            if decision.replayable {
                let index = index.map(|(index, _)| index);
                body["replay"] =
                    json!(replay::keep_inputs(ports, request.files, &self.fetched, index, case.scan.as_ref())?);
            }
            judged.warnings.extend(decision.warnings);
            (judged.exceptions, judged.waived) = (decision.exceptions, decision.waived);
            let kept = Kept { document: decision.document, body };
            match decision.verdict {
                Verdict::Allow(permit) => {
                    judged.permitted = Some(Permitted { set, permit, kept });
                    break;
                }
                Verdict::Deny(denials) => judged.refused.push((Refusal::Denied { denials, used }, kept)),
                Verdict::Undecided(reasons) => judged.refused.push((Refusal::Open(reasons), kept)),
            }
        }
        judged.refused.sort_by_key(|(refusal, _)| matches!(refusal, Refusal::Denied { .. }));
        Ok(judged)
    }
}
