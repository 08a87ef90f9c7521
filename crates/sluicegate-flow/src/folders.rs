//! Where a path of a file leads, links and `..` resolved, although its end may not be there yet.

use std::path::{Component, Path, PathBuf};

/// The folder that `path` leads to. What exists is resolved by the system, what does not by its name.
pub(crate) fn where_it_leads(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut at = PathBuf::from("/");
    for component in absolute.components() {
        match component {
            Component::Normal(name) => {
                at.push(name);
                at = std::fs::canonicalize(&at).unwrap_or(at);
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
    }
}
