//! Results that machines share. What is brought from there is judged exactly as a result of this machine is; only where it comes from is
//! another place.

use std::collections::BTreeSet;

use sluicegate_pipeline::pipeline::{InputSource, Network, Reuse, Step};
use sluicegate_ports::{
    shared_cache::{Said, SharedResult},
    step_cache::StepCache,
};
use sluicegate_types::{Digest, StepName};

use crate::{
    prepare::Prepared,
    reuse::{ContentThere, Judged, Looked},
    steps::Left,
};

/// Why what this step leaves stays on this machine, and nothing of other machines is taken for it; `None` if it may be shared. Outputs and
/// logs can be read by whoever can read the store, and what came by a secret may hold one.
pub(crate) fn stays_here(step: &Step, after_secrets: &BTreeSet<StepName>) -> Option<&'static str> {
    if after_secrets.contains(&step.name) {
        return Some("it has secrets, or reads what a step left that has some");
    }
    if !step.caches.is_empty() {
        return Some("it has caches that only runs on this machine share");
    }
    let by_key = matches!(step.reuse, Reuse::Key(_));
    (step.network != Network::None && !by_key).then_some("it has a network")
}

/// The steps that have secrets, and those that read, over however many others, what these left.
pub(crate) fn after_secrets(steps: &[Step]) -> BTreeSet<StepName> {
    let mut after: BTreeSet<StepName> = BTreeSet::new();
    loop {
        let reads_of =
            |step: &Step| step.inputs.values().filter_map(InputSource::step).any(|from| after.contains(from));
        let more = steps.iter().filter(|step| !step.secrets.is_empty() || reads_of(step));
        let more: BTreeSet<StepName> = more.map(|step| step.name.clone()).collect();
        if more.len() == after.len() {
            return after;
        }
        after = more;
    }
}

/// Looks for a result of this work there; `missed` is why this machine has none.
pub(crate) fn look(
    judged: &Judged<'_>,
    cache: &dyn StepCache,
    (step, prepared): (&Step, &Prepared),
    missed: String,
) -> Looked {
    let Some(shared) = judged.shared.filter(|_| stays_here(step, &judged.after_secrets).is_none()) else {
        return Looked::Miss(missed);
    };
    let taken = match shared.store.origin(&prepared.key) {
        Said::Nothing => return Looked::Miss(format!("{missed}; the shared store has nothing with this key")),
        Said::Unknown(reason) => return Looked::Miss(format!("{missed}; {reason}")),
        Said::Nonsense(reason) => Err(reason),
        Said::Bundle(bundle) => judged.take(step, prepared, bundle, Some(shared)),
    };
    match taken {
        Ok(reused) => {
            // The next run finds it here. What is not kept is asked for there once more.
            if matches!(shared.content, ContentThere::Kept) {
                let _ = cache.keep(&prepared.key, &reused.origin.bundle());
            }
            Looked::Hit(Box::new(reused))
        }
        Err(reason) => {
            shared.store.refused(&step.name, &reason);
            Looked::Miss(format!("{missed}; what the shared store has is not taken: {reason}"))
        }
    }
}

/// What a step left that other machines may take.
pub(crate) fn result(
    (step, after_secrets): (&Step, &BTreeSet<StepName>),
    prepared: &Prepared,
    left: &Left,
    bundle: Digest,
) -> Option<SharedResult> {
    if stays_here(step, after_secrets).is_some() {
        return None;
    }
    let content = left.products.values().chain(&left.report).map(|product| product.content.digest);
    Some(SharedResult {
        step: step.name.clone(),
        key: prepared.key,
        bundle,
        content: content.chain([left.log]).collect(),
    })
}
