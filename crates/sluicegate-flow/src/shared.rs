//! Results that machines share. What is brought from there is judged exactly as a result of this machine is; only where it comes from is
//! another place.

use sluicegate_pipeline::pipeline::{Network, Reuse, Step};
use sluicegate_ports::{
    shared_cache::{SharedCache, SharedResult},
    step_cache::StepCache,
};
use sluicegate_types::Digest;

use crate::{
    prepare::Prepared,
    reuse::{Judged, Looked, Reused},
    steps::Left,
};

/// Why what this step leaves stays on this machine, and nothing of other machines is taken for it; `None` if it may be shared. Outputs and
/// logs can be read by whoever can read the store, and what came by a secret may hold one.
pub(crate) fn stays_here(step: &Step) -> Option<&'static str> {
    if !step.secrets.is_empty() {
        return Some("it has secrets");
    }
    if !step.caches.is_empty() {
        return Some("it has caches that only runs on this machine share");
    }
    let by_key = matches!(step.reuse, Reuse::Key(_));
    (step.network != Network::None && !by_key).then_some("it has a network")
}

/// Looks for a result of this work there; `missed` is why this machine has none.
pub(crate) fn look(
    judged: &Judged<'_>,
    cache: &dyn StepCache,
    (step, prepared): (&Step, &Prepared),
    missed: String,
) -> Looked {
    let Some(shared) = judged.shared.filter(|_| stays_here(step).is_none()) else { return Looked::Miss(missed) };
    match taken(judged, shared, step, prepared) {
        Ok(Some(reused)) => {
            // The next run finds it here. What is not kept is asked for there once more.
            let _ = cache.keep(&prepared.key, &reused.origin.bundle());
            Looked::Hit(Box::new(reused))
        }
        Ok(None) => Looked::Miss(format!("{missed}; the shared store has nothing with this key")),
        Err(reason) => {
            shared.refused(&step.name, &reason);
            Looked::Miss(format!("{missed}; what the shared store has is not taken: {reason}"))
        }
    }
}

fn taken(
    judged: &Judged<'_>,
    shared: &dyn SharedCache,
    step: &Step,
    prepared: &Prepared,
) -> Result<Option<Reused>, String> {
    match shared.origin(&prepared.key)? {
        Some(bundle) => judged.take(step, prepared, bundle, Some(shared)).map(Some),
        None => Ok(None),
    }
}

/// What a step left that other machines may take.
pub(crate) fn result(step: &Step, prepared: &Prepared, left: &Left, bundle: Digest) -> Option<SharedResult> {
    if stays_here(step).is_some() {
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
