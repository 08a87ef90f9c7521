//! Whose a shared cache is: runs of one step of one project on one branch under one trust domain share a folder, and nobody else reaches it.

use std::path::{Path, PathBuf};

use serde_json::json;
use sluicegate_attestation::provenance::UnverifiedCache;
use sluicegate_pipeline::pipeline::Step;
use sluicegate_ports::{
    execute::{CacheBegan, StepOutcome},
    trees::{Checkout, SourceLister},
};
use sluicegate_types::{Digest, OutputName, StepName};

use crate::{Error, folders::where_it_leads};

/// Where a pipeline file stands, as far as its caches depend on it.
#[derive(Debug)]
pub(crate) struct CachePlace {
    /// Its folder, links followed: a name is anybody's to write down, a place on this machine is not.
    project: PathBuf,
    checkout: Checkout,
}

impl CachePlace {
    /// Looks there; nobody is asked where no step has a cache.
    pub(crate) fn of(lister: &dyn SourceLister, folder: &Path, steps: &[&Step]) -> Result<Option<Self>, Error> {
        if steps.iter().all(|step| step.caches.is_empty()) {
            return Ok(None);
        }
        // An empty folder is the current one.
        let folder = if folder == Path::new("") { Path::new(".") } else { folder };
        Ok(Some(Self { project: where_it_leads(folder), checkout: lister.checkout(folder)? }))
    }

    /// A cache of a step: what its scope is a digest over can be of nobody else. A commit without a branch is a scope of its own, or what
    /// is checked out for one change would reach another one.
    pub(crate) fn cache(
        &self,
        domain: &Digest,
        pipeline: &StepName,
        step: &StepName,
        name: &OutputName,
    ) -> Result<UnverifiedCache, Error> {
        let checkout = match &self.checkout {
            Checkout::Nothing => "nothing".to_owned(),
            Checkout::Commit(commit) => format!("commit {commit}"),
            Checkout::Branch(branch) => format!("branch {branch}"),
        };
        let project = Digest::of(self.project.as_os_str().as_encoded_bytes());
        let scope = json!(["sluicegate shared cache 1", domain, project, pipeline, checkout, step, name]);
        let bytes = serde_json::to_vec(&scope).map_err(|error| Error::Bug(format!("a scope is no JSON: {error}")))?;
        Ok(UnverifiedCache { name: name.to_string(), scope: Digest::of(&bytes), checkout })
    }
}

/// What became of the caches of a step that somebody would wonder about.
pub(crate) fn remarks(step: &StepName, outcome: &StepOutcome) -> Vec<String> {
    let remark = |cache: &sluicegate_ports::execute::CacheUse| match (&cache.thrown_away, cache.began) {
        (Some(reason), _) => Some(format!("step {step}: its cache {} was thrown away: {reason}", cache.name)),
        (None, CacheBegan::Busy) => Some(format!(
            "step {step}: another run has its cache {}, so that it began with an empty one, of which nothing is kept",
            cache.name
        )),
        (None, CacheBegan::Empty | CacheBegan::Continued) => None,
    };
    outcome.caches.iter().filter_map(remark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_of_one_project_branch_step_name_and_trust_domain() {
        let place = |project: &str, checkout| CachePlace { project: project.into(), checkout };
        let branch = |name: &str| Checkout::Branch(format!("refs/heads/{name}"));
        let scope = |place: &CachePlace, domain: &str, pipeline: &str, step: &str, name: &str| {
            let cache = place.cache(
                &Digest::of(domain.as_bytes()),
                &pipeline.parse().unwrap(),
                &step.parse().unwrap(),
                &name.parse().unwrap(),
            );
            cache.unwrap().scope
        };
        let main = place("/p", branch("main"));
        let of_main = scope(&main, "d", "shop", "build", "deps");
        assert_eq!(scope(&place("/p", branch("main")), "d", "shop", "build", "deps"), of_main);
        let others = [
            scope(&place("/q", branch("main")), "d", "shop", "build", "deps"),
            scope(&place("/p", branch("other")), "d", "shop", "build", "deps"),
            scope(&place("/p", Checkout::Nothing), "d", "shop", "build", "deps"),
            scope(&place("/p", Checkout::Commit("refs/heads/main".to_owned())), "d", "shop", "build", "deps"),
            scope(&main, "e", "shop", "build", "deps"),
            scope(&main, "d", "shop2", "build", "deps"),
            scope(&main, "d", "shop", "test", "deps"),
            scope(&main, "d", "shop", "build", "target"),
        ];
        for (nth, other) in others.iter().enumerate() {
            assert!(*other != of_main && !others[..nth].contains(other), "{nth}");
        }
    }
}
