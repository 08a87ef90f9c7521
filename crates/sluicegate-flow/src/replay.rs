//! Makes a decision again from what its record kept: the same gateway, evidence, scan and moment must give the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluicegate_pipeline::gateway::Gateway;
use sluicegate_policy::{
    facts::{ByHand, GateScan},
    rego::{SourceFile, is_test},
};
use sluicegate_ports::{
    evidence::{EvidenceError, EvidenceLog, Record, RecordKind},
    images::ImageIndex,
    ledger::Ledger,
    store::ContentStore,
};
use sluicegate_types::{Digest, UnixTime};
use sluicegate_verify::closed_set::{Asked, follow, follow_index};

use crate::{
    Error, Ports,
    assemble::json_bytes,
    evidence::{Standing, show},
    fetch::Fetched,
    gate::{self, Case, LISTS, PlatformDecision, RuleEvaluator},
    gateway::{self, GatewayFiles, JudgeRecord, judge_of},
    image_tree::is_index,
};

/// Of the list of inputs.
const VERSION: u32 = 1;
/// Bytes of one file or bundle that a decision was made from.
pub(crate) const MAX_INPUT: u64 = 128 * 1024 * 1024;
/// Indexes in each other that an index that was promoted may have (DESIGN section 7).
const MAX_INDEXES: usize = 1_024;

/// Everything that a decision was made from, by digest in the store.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Inputs {
    version: u32,
    /// The gateway file.
    gateway: Digest,
    /// The files that it names, as it writes them.
    files: BTreeMap<PathBuf, Digest>,
    attached: Vec<Digest>,
    blobs: Vec<Digest>,
    /// The gate's scan: bundle and raw report.
    scan: Option<(Digest, Digest)>,
    /// The index with which the image was decided about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<IndexInputs>,
}

/// An index, and the bundles that are attached to it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexInputs {
    image: Digest,
    attached: Vec<Digest>,
}

/// A decision that was made again.
#[derive(Debug)]
pub struct Replayed {
    /// The record it was made from.
    pub record: u64,
    /// The digest of the recorded document.
    pub recorded: Digest,
    /// The bytes of the document as it was made again.
    pub document: Vec<u8>,
}

impl Replayed {
    /// Whether both are the same, byte for byte.
    pub fn is_same(&self) -> bool {
        Digest::of(&self.document) == self.recorded
    }
}

/// Keeps what a decision about an image is made from, with the index of which it is one, and gives the digest of the list.
pub(crate) fn keep_inputs(
    ports: &Ports<'_>,
    files: &dyn JudgeRecord,
    fetched: &Fetched,
    index: Option<&Fetched>,
    scan: Option<&GateScan>,
) -> Result<Digest, Error> {
    let (gateway, read) = files.all_read();
    let mut kept = BTreeMap::new();
    for (path, bytes) in read {
        kept.insert(path, ports.store.put_bytes(&bytes)?);
    }
    let inputs = Inputs {
        version: VERSION,
        gateway: ports.store.put_bytes(&gateway)?,
        files: kept,
        attached: fetched.attached.keys().copied().collect(),
        blobs: fetched.blobs.keys().copied().collect(),
        scan: scan.map(|scan| (scan.bundle(), scan.report())),
        index: index.map(|index| IndexInputs {
            image: index.descriptor.digest,
            attached: index.attached.keys().copied().collect(),
        }),
    };
    Ok(ports.store.put_bytes(&json_bytes("the inputs of a decision", &inputs)?)?)
}

/// Everything that a list of inputs names, each with what it is; an error says why it is no such list.
pub(crate) fn inputs_in(list: &[u8]) -> Result<Vec<(String, Digest)>, String> {
    let Inputs { version: _, gateway, files, attached, blobs, scan, index } = inputs(list)?;
    let mut all = vec![("its gateway".to_owned(), gateway)];
    all.extend(files.into_iter().map(|(path, digest)| (format!("its gateway's {}", path.display()), digest)));
    let of_index = index.into_iter().flat_map(|index| index.attached);
    all.extend(
        attached.into_iter().chain(of_index).map(|digest| ("a bundle that it was decided over".to_owned(), digest)),
    );
    all.extend(
        blobs.into_iter().map(|digest| ("what came with the evidence that it was decided over".to_owned(), digest)),
    );
    if let Some((bundle, report)) = scan {
        all.extend([("its scan".to_owned(), bundle), ("its scan's report".to_owned(), report)]);
    }
    Ok(all)
}

fn inputs(list: &[u8]) -> Result<Inputs, String> {
    let inputs: Inputs = serde_json::from_slice(list).map_err(|error| error.to_string())?;
    if inputs.version != VERSION {
        return Err(format!("version {}: this program knows {VERSION}", inputs.version));
    }
    Ok(inputs)
}

/// Makes the decision of an evidence record again. It reads the record and the store, and asks the rules; no permit comes of it.
pub fn replay(
    evidence: &dyn EvidenceLog,
    ledger: &dyn Ledger,
    store: &dyn ContentStore,
    evaluator: &dyn RuleEvaluator,
    sequence: u64,
) -> Result<Replayed, Error> {
    let (record, _) = show(evidence, ledger, sequence)?;
    if record.kind == RecordKind::Decision && !record.body["platforms"].is_null() {
        vouched_for(evidence, ledger, sequence)?;
        return replay_index(evidence, ledger, store, evaluator, &record);
    }
    again(evidence, ledger, store, sequence, |case, recorded| {
        let decision = gate::decide(case, evaluator);
        Replayed { record: sequence, recorded, document: gate::document_bytes(&decision.document) }
    })
}

/// The record, if its own writer logged it.
fn vouched_for(evidence: &dyn EvidenceLog, ledger: &dyn Ledger, sequence: u64) -> Result<Record, Error> {
    // A row that was rewritten together with its digest is not the one that the ledger has.
    let (record, standing) = show(evidence, ledger, sequence)?;
    let nobodys = |reason: String| Err(Error::NobodysRecord { sequence, reason });
    match standing {
        Standing::Pending => {
            nobodys("it is not in the ledger yet: its writer was interrupted, or it is forged".to_owned())
        }
        Standing::Adopted { by } => nobodys(format!(
            "the process that wrote it did not log it (see evidence record {by}): it was interrupted, or the record is forged"
        )),
        Standing::Logged | Standing::Differs => Ok(record),
    }
}

/// The case of an evidence record's decision as it was, for whoever wants to ask something else about it: `act` gets the case, and the digest of
/// the document that was decided then. An index has no case of its own, its images have.
pub fn again<T>(
    evidence: &dyn EvidenceLog,
    ledger: &dyn Ledger,
    store: &dyn ContentStore,
    sequence: u64,
    act: impl FnOnce(&Case<'_>, Digest) -> T,
) -> Result<T, Error> {
    let record = vouched_for(evidence, ledger, sequence)?;
    let not = |why: &str| Error::Usage(format!("evidence record {sequence} can't be replayed: {why}"));
    if let Some(platforms) = record.body["platforms"].as_array().filter(|_| record.kind == RecordKind::Decision) {
        let records: Vec<String> = platforms.iter().map(|one| one["record"].to_string()).collect();
        return Err(not(&format!("it is about an index; ask about its images: {}", records.join(", "))));
    }
    let body: WireBody = serde_json::from_value(record.body.clone()).map_err(|_| match record.kind {
        RecordKind::Decision => not("nothing was judged, so there is no decision to make again"),
        _ => not("it records no decision; the decision's own record can"),
    })?;
    check_document(store, &record, &body.document)?;
    let replay = body.replay.ok_or_else(|| {
        not("the rules could not be asked then, and how an evaluation breaks off is not a matter of the case alone")
    })?;
    let environment = record.environment.clone().ok_or_else(|| not("it names no environment"))?;
    let unreadable =
        |reason: String| Error::Content { what: "the list of a decision's inputs", digest: replay, reason };
    let inputs = inputs(&store.read(&replay, MAX_INPUT)?).map_err(unreadable)?;
    let files = StoredFiles { store, inputs: &inputs };
    let text =
        String::from_utf8(store.read(&inputs.gateway, MAX_INPUT)?).map_err(|_| not("its gateway is not UTF-8"))?;
    let gateway = Gateway::parse("gateway.yaml", &text)?;
    let (trust, _) = gateway::trust(&gateway, &files)?;
    let judge = judge_of(&gateway, &environment, &files, body.decided_at)?;
    if judge.gateway != body.gateway {
        return Err(not("this version reads the gateway in another way than the one that decided"));
    }
    let read_all = |digests: &[Digest]| {
        digests
            .iter()
            .map(|digest| Ok((*digest, store.read(digest, MAX_INPUT)?)))
            .collect::<Result<BTreeMap<_, _>, Error>>()
    };
    let (attached, blobs) = (read_all(&inputs.attached)?, read_all(&inputs.blobs)?);
    let repository = judge.repository();
    let asked = Asked { trust: &trust, repository: Some(&repository), at: body.decided_at };
    let followed = follow(body.image, &attached, &blobs, asked);
    let set = followed.sets.iter().find(|set| set.provenance().0.bundle() == body.provenance);
    let set = set.ok_or_else(|| not("its evidence is not whole any more"))?;
    let scan = match inputs.scan {
        None => None,
        Some((bundle, report)) => {
            let statement = sluicegate_verify::verify(&store.read(&bundle, MAX_INPUT)?, &trust, body.decided_at)
                .map_err(|error| not(&format!("its scan does not verify: {error}")))?;
            let report = store.read(&report, MAX_INPUT)?;
            Some(GateScan::new(&body.image, &statement, report).map_err(|error| not(&error.to_string()))?)
        }
    };
    let of_index = match &inputs.index {
        Some(index) => {
            let attached = read_all(&index.attached)?;
            Some((index.image, follow_index(&index.image, &attached, asked)))
        }
        None => None,
    };
    let case = Case {
        judge: &judge,
        set,
        by_hand: ByHand {
            image: (&followed).into(),
            index: of_index.as_ref().map(|(index, followed)| (*index, followed.into())),
        },
        scan,
        current: body.previous,
        now: body.decided_at,
    };
    Ok(act(&case, body.document))
}

/// The decision about an index is made of those about its images, so it is made again from theirs.
fn replay_index(
    evidence: &dyn EvidenceLog,
    ledger: &dyn Ledger,
    store: &dyn ContentStore,
    evaluator: &dyn RuleEvaluator,
    record: &Record,
) -> Result<Replayed, Error> {
    let sequence = record.sequence;
    let not = |why: String| Error::Usage(format!("evidence record {sequence} can't be replayed: {why}"));
    let body: WireIndexBody =
        serde_json::from_value(record.body.clone()).map_err(|error| not(format!("its record: {error}")))?;
    check_document(store, record, &body.document)?;
    let mut platforms = Vec::new();
    for WirePlatform { platform, image, record } in body.platforms {
        // A record that names itself or a later one was not written by a decision.
        if record >= sequence {
            let reason = format!("it names evidence record {record}, which is not before it");
            return Err(EvidenceError::Damaged { sequence, reason }.into());
        }
        let own = show(evidence, ledger, record)?.0.body;
        if own["platforms"] != Value::Null || own["index"] != json!(body.image) {
            let reason = format!("it names evidence record {record}, which is about no image of this index");
            return Err(EvidenceError::Damaged { sequence, reason }.into());
        }
        let replayed = replay(evidence, ledger, store, evaluator, record)?;
        let document: Value = serde_json::from_slice(&replayed.document)
            .map_err(|error| Error::Bug(format!("a decision that was just made is no JSON: {error}")))?;
        if document["image"] != json!(image) {
            let reason = format!("evidence record {record} is about another image");
            return Err(EvidenceError::Damaged { sequence, reason }.into());
        }
        platforms.push(PlatformDecision { platform, record, document });
    }
    let judged: BTreeSet<String> = platforms.iter().map(|one| one.document["image"].to_string()).collect();
    let exempt: BTreeSet<String> = body.unsigned.iter().map(|one| one["digest"].to_string()).collect();
    let named = images_of(store, &body.image)?;
    if judged.is_empty() || named.iter().any(|image| !judged.contains(image) && !exempt.contains(image)) {
        let reason = "it leaves out an image that the index names".to_owned();
        return Err(EvidenceError::Damaged { sequence, reason }.into());
    }
    let document = gate::index_document(&body.image, &body.unsigned, &platforms);
    Ok(Replayed { record: sequence, recorded: body.document, document: gate::document_bytes(&document) })
}

/// The manifests that an index in the store names and that are no indexes, as JSON has their digests.
fn images_of(store: &dyn ContentStore, index: &Digest) -> Result<BTreeSet<String>, Error> {
    let (mut images, mut waiting, mut seen) = (BTreeSet::new(), vec![*index], BTreeSet::new());
    while let Some(digest) = waiting.pop() {
        if !seen.insert(digest) || seen.len() > MAX_INDEXES {
            continue;
        }
        let unreadable =
            |error: serde_json::Error| Error::Content { what: "an index", digest, reason: error.to_string() };
        let index: ImageIndex = serde_json::from_slice(&store.read(&digest, MAX_INPUT)?).map_err(unreadable)?;
        for entry in index.manifests {
            if is_index(&entry.descriptor.media_type) {
                waiting.push(entry.descriptor.digest);
            } else {
                images.insert(json!(entry.descriptor.digest).to_string());
            }
        }
    }
    Ok(images)
}

/// The record's word for it is not enough: what is kept must still be those bytes, and they must say what the record says.
fn check_document(store: &dyn ContentStore, record: &Record, digest: &Digest) -> Result<(), Error> {
    let document = store.read(digest, MAX_INPUT)?;
    let document: Value = serde_json::from_slice(&document).map_err(|error| Error::Content {
        what: "a decision",
        digest: *digest,
        reason: error.to_string(),
    })?;
    says_what(record, &document).map_err(|reason| EvidenceError::Damaged { sequence: record.sequence, reason }.into())
}

/// Whether a record says of a decision what its document says: image, environment and outcome, and in its body every member that the
/// document has. The body may have more, and the beginning of a list that is too long for a record. An error says what differs.
fn says_what(record: &Record, document: &Value) -> Result<(), String> {
    let differs = |what: &str| Err(format!("its {what} is not that of the decision that it names"));
    if record.kind != RecordKind::Decision {
        return differs("kind");
    }
    if json!(record.subject) != document["image"] {
        return differs("subject");
    }
    if json!(record.environment) != document["environment"] {
        return differs("environment");
    }
    let verdict = document["verdict"].as_str().unwrap_or_default();
    let outcome = match verdict {
        "allow" | "ungated" if record.body["dryRun"] == true => "would-allow",
        other => other,
    };
    if outcome.is_empty() || record.outcome != outcome {
        return differs("outcome");
    }
    for (name, value) in document.as_object().into_iter().flatten() {
        let same = match (&record.body[name], value) {
            (Value::Array(some), Value::Array(all)) if LISTS.contains(&name.as_str()) => {
                // Why the gate's own scan could not be made stands in the record alone.
                let more = usize::from(name == "reasons");
                all.starts_with(some) || (some.len() <= all.len() + more && some.starts_with(all))
            }
            (found, value) => found == value,
        };
        if !same {
            return differs(&format!("body's {name}"));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireBody {
    image: Digest,
    gateway: Digest,
    provenance: Digest,
    decided_at: UnixTime,
    previous: Option<Digest>,
    document: Digest,
    replay: Option<Digest>,
}

/// The body of a record about an index.
#[derive(Deserialize)]
struct WireIndexBody {
    image: Digest,
    document: Digest,
    platforms: Vec<WirePlatform>,
    unsigned: Vec<Value>,
}

#[derive(Deserialize)]
struct WirePlatform {
    platform: String,
    image: Digest,
    record: u64,
}

/// The files of a gateway as they were when it decided.
struct StoredFiles<'a> {
    store: &'a dyn ContentStore,
    inputs: &'a Inputs,
}

impl GatewayFiles for StoredFiles<'_> {
    fn read(&self, path: &Path) -> Result<Vec<u8>, Error> {
        let digest = self.inputs.files.get(path).ok_or_else(|| Error::Trust {
            file: path.to_owned(),
            reason: "it was not kept with the decision".to_owned(),
        })?;
        Ok(self.store.read(digest, MAX_INPUT)?)
    }

    fn policies(&self, path: &Path) -> Result<Vec<SourceFile>, Error> {
        let is_policy = |file: &&PathBuf| {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            file.parent() == Some(path) && name.ends_with(".rego") && !is_test(name)
        };
        let mut names: Vec<&PathBuf> = self.inputs.files.keys().filter(is_policy).collect();
        if let Some((file, _)) = self.inputs.files.get_key_value(path) {
            names = vec![file];
        }
        let read = |name: &PathBuf| {
            let text = String::from_utf8(self.read(name)?)
                .map_err(|_| Error::Trust { file: name.clone(), reason: "not UTF-8".to_owned() })?;
            Ok(SourceFile { name: name.display().to_string(), text })
        };
        names.into_iter().map(read).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]
mod tests {
    use super::*;

    fn recorded(document: &Value, outcome: &str) -> Record {
        Record {
            sequence: 3,
            digest: Digest::of(b"record"),
            previous: None,
            kind: RecordKind::Decision,
            at: UnixTime::EPOCH,
            subject: Some(Digest::of(b"image")),
            environment: Some("production".parse().unwrap()),
            outcome: outcome.to_owned(),
            body: document.clone(),
        }
    }

    fn decision(verdict: &str) -> Value {
        json!({
            "version": 1, "image": Digest::of(b"image"), "environment": "production", "verdict": verdict,
            "rules": [{"code": "a", "outcome": "deny"}], "denials": [{"code": "a"}],
        })
    }

    #[test]
    fn tm16_a_record_says_what_its_decision_says() {
        let (deny, allow) = (decision("deny"), decision("allow"));
        assert_eq!(says_what(&recorded(&deny, "deny"), &deny), Ok(()));
        assert_eq!(says_what(&recorded(&allow, "allow"), &allow), Ok(()));
        let mut dry = recorded(&allow, "would-allow");
        assert!(says_what(&dry, &allow).is_err(), "nothing says that it was a dry run");
        dry.body["dryRun"] = json!(true);
        dry.body["document"] = json!(Digest::of(b"document"));
        assert_eq!(says_what(&dry, &allow), Ok(()));
        type Forge = fn(&mut Record);
        let forgeries: [(&str, Forge); 8] = [
            ("outcome", |record| record.outcome = "allow".to_owned()),
            ("subject", |record| record.subject = Some(Digest::of(b"another image"))),
            ("subject", |record| record.subject = None),
            ("environment", |record| record.environment = Some("staging".parse().unwrap())),
            ("kind", |record| record.kind = RecordKind::Promotion),
            ("body's verdict", |record| record.body["verdict"] = json!("allow")),
            ("body's image", |record| record.body["image"] = json!(Digest::of(b"another image"))),
            ("body's rules", |record| record.body["rules"][0]["outcome"] = json!("pass")),
        ];
        for (what, forge) in forgeries {
            let mut record = recorded(&deny, "deny");
            forge(&mut record);
            let said = says_what(&record, &deny).unwrap_err();
            assert!(said.starts_with(&format!("its {what} is not")), "{what}: {said}");
        }
    }

    #[test]
    fn a_record_may_have_the_beginning_of_a_long_list() {
        let mut document = decision("deny");
        document["denials"] = (0..1000).map(|number| json!({"code": number})).collect();
        let mut record = recorded(&document, "deny");
        gate::shorten_lists(&mut record.body);
        assert_eq!(record.body["denials"].as_array().map(Vec::len), Some(500));
        assert_eq!(says_what(&record, &document), Ok(()));
        record.body["denials"][499] = json!({"code": 500});
        assert!(says_what(&record, &document).is_err());
    }
}
