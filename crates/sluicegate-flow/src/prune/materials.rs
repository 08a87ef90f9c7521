//! Which of the contents that records refer to are only what steps read and left: named by statements, and needed by nobody who reads,
//! checks or makes again what was recorded.

use sluicegate_attestation::{
    bundle::{Bundle, MAX_BUNDLE},
    predicate::PredicateType,
    provenance::{Build, Provenance},
    statement::Statement,
};
use sluicegate_ports::store::ContentStore;
use sluicegate_types::Digest;

use super::references::{Contents, References, Unread};

/// What provenances of steps name as what was read and left, without logs, reports and what images consist of: those that records name by
/// themselves (`named`), and those that these name as attestations. What looks like one and is only something that a step left says nothing.
pub(super) fn of_steps(
    references: &mut References<'_>,
    store: &dyn ContentStore,
    named: &Contents,
) -> Result<Contents, Unread> {
    let (mut materials, mut documents, mut images) = (Contents::new(), Contents::new(), Contents::new());
    let (mut waiting, mut seen): (Vec<Digest>, Contents) = (named.iter().copied().collect(), Contents::new());
    while let Some(content) = waiting.pop() {
        let is_bundle = references.holds(&content) && references.size(&content) <= MAX_BUNDLE as u64;
        if !is_bundle || !seen.insert(content) {
            continue;
        }
        let bytes = store.read(&content, MAX_BUNDLE as u64).map_err(|error| Unread { content, error })?;
        let Some((statement, provenance)) = provenance(&bytes) else { continue };
        let attestations = provenance.dependencies.iter().filter(|dependency| dependency.is_attestation());
        waiting.extend(attestations.map(|dependency| dependency.digest));
        let subjects = statement.subjects.as_slice().iter().map(|subject| subject.digest);
        documents.extend(provenance.byproducts.iter().map(|byproduct| byproduct.digest));
        match provenance.build {
            Build::Step(_) => {
                materials.extend(subjects);
                let read = provenance.dependencies.iter().filter(|dependency| !dependency.is_attestation());
                materials.extend(read.map(|dependency| dependency.digest));
            }
            Build::Image(_) => images.extend(subjects),
        }
    }
    // An output may be a layer as it is, and a report may be an output.
    documents.extend(references.reach(images, &Contents::new())?);
    documents.extend(seen);
    Ok(materials.difference(&documents).copied().collect())
}

fn provenance(bytes: &[u8]) -> Option<(Statement, Provenance)> {
    if bytes.first() != Some(&b'{') {
        return None;
    }
    let bundle = Bundle::parse(bytes).ok()?;
    let statement = Statement::parse(&bundle.payload).ok()?;
    if statement.predicate_type != PredicateType::Provenance {
        return None;
    }
    let provenance = Provenance::parse(&statement.predicate).ok()?;
    Some((statement, provenance))
}
