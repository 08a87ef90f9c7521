//! Which place is which: where a path leads, links and `..` resolved, and whose place that is.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use sluicegate_pipeline::gateway::Gateway;
use sluicegate_types::{EnvironmentName, Place};

/// The places of a gateway's environments, where only `promote` writes.
#[derive(Clone, Debug, Default)]
pub struct EnvironmentPlaces(BTreeMap<EnvironmentName, Place>);

impl EnvironmentPlaces {
    /// The places that a gateway in this folder names.
    pub fn of(gateway: &Gateway, folder: &Path) -> Self {
        let place = |(name, environment): (&EnvironmentName, &sluicegate_pipeline::gateway::Environment)| {
            (name.clone(), environment.repository.relative_to(folder))
        };
        gateway.environments.iter().map(place).collect()
    }

    /// The environment whose place this is, by whatever path.
    pub fn at(&self, place: &Place) -> Option<&EnvironmentName> {
        self.0.iter().find(|(_, held)| is_same(held, place)).map(|(name, _)| name)
    }
}

impl FromIterator<(EnvironmentName, Place)> for EnvironmentPlaces {
    fn from_iter<I: IntoIterator<Item = (EnvironmentName, Place)>>(places: I) -> Self {
        Self(places.into_iter().collect())
    }
}

/// Whether two names are of one place.
pub(crate) fn is_same(one: &Place, other: &Place) -> bool {
    match (one, other) {
        (Place::Layout(one), Place::Layout(other)) => where_it_leads(one) == where_it_leads(other),
        (Place::Registry(one), Place::Registry(other)) => one.is_same(other),
        _ => false,
    }
}

/// Links that are followed one after the other; the system's own limit.
const MAX_LINKS: usize = 40;

/// The folder that `path` leads to. What exists is resolved by the system, what does not by its name, and a link to what is not
/// there yet by its text.
pub(crate) fn where_it_leads(path: &Path) -> PathBuf {
    resolve(path, MAX_LINKS)
}

fn resolve(path: &Path, links: usize) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut at = PathBuf::from("/");
    for component in absolute.components() {
        match component {
            Component::Normal(name) => {
                let above = at.clone();
                at.push(name);
                at = match (std::fs::canonicalize(&at), std::fs::read_link(&at)) {
                    (Ok(real), _) => real,
                    (Err(_), Ok(text)) if links > 0 => resolve(&above.join(text), links - 1),
                    _ => at,
                };
            }
            Component::ParentDir => {
                at.pop();
            }
            _ => {}
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environments_repository_is_known_by_every_name_of_this_machine() {
        let place = |text: &str| text.parse::<Place>().unwrap();
        let production: EnvironmentName = "production".parse().unwrap();
        let places = EnvironmentPlaces::from_iter([(production.clone(), place("127.0.0.1:5000/prod/app"))]);
        for name in ["127.0.0.1:5000/prod/app", "localhost:5000/prod/app", "[::1]:5000/prod/app"] {
            assert_eq!(places.at(&place(name)), Some(&production), "{name}");
        }
        for name in ["127.0.0.1:5000/prod/app2", "127.0.0.1:5001/prod/app", "oci:prod/app"] {
            assert_eq!(places.at(&place(name)), None, "{name}");
        }
    }

    #[test]
    fn links_and_dots_lead_to_one_folder_whether_it_is_there_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        std::fs::create_dir(base.join("env")).unwrap();
        std::os::unix::fs::symlink("env", base.join("link")).unwrap();
        let there = where_it_leads(&base.join("env/production"));
        for other in ["env/../env/production", "link/production", "link/../env/production", "./env/production/"] {
            assert_eq!(where_it_leads(&base.join(other)), there, "{other}");
        }
        assert_ne!(where_it_leads(&base.join("env/staging")), there);
        std::os::unix::fs::symlink("later", base.join("hanging")).unwrap();
        assert_eq!(where_it_leads(&base.join("hanging/x")), where_it_leads(&base.join("later/x")));
        std::os::unix::fs::symlink("round", base.join("round")).unwrap();
        where_it_leads(&base.join("round/x"));
    }
}
