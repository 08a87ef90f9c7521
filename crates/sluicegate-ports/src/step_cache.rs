//! Where results of steps are found again. What is found here is only a hint: whoever uses it verifies the statement that it leads to.

use sluicegate_types::{Digest, StepName};

/// A disposable index: from the key of a step to the statement of the run that did the work. Losing it costs time and nothing else, and
/// what somebody wrote into it is believed by nobody.
pub trait StepCache: Send + Sync {
    /// The bundle of the provenance that was kept under this key. Whatever can't be read is not there.
    fn origin(&self, key: &Digest) -> Option<Digest>;

    /// Keeps which bundle proves the work of this key. What can't be kept is not, with the reason.
    fn keep(&self, key: &Digest, bundle: &Digest) -> Result<(), String>;

    /// Forgets a key: what it led to was not what it should be.
    fn forget(&self, key: &Digest);

    /// Notes that what this key led to was taken just now, for whoever has to decide what is kept. What can't be noted is not.
    fn used(&self, _key: &Digest) {}

    /// What the key of this step was made of when it last ran or was taken, as it was given to [`StepCache::remember`].
    fn remembered(&self, pipeline: &StepName, step: &StepName) -> Option<Vec<u8>>;

    /// Remembers that, for whoever asks what changed.
    fn remember(&self, pipeline: &StepName, step: &StepName, parts: &[u8]) -> Result<(), String>;
}
