//! Whether a repository of this machine stands all in one folder. git follows what a repository points to (a `.git` that is a file,
//! links, a common folder, objects of somebody else's), and whoever wrote the project wrote that, too.
//!
//! It is looked through before git reads it, not while: who may write there at that moment is trusted not to.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// How much is looked through: files and folders, and folders in each other.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    entries: usize,
    depth: usize,
}

const BOUNDS: Bounds = Bounds { entries: 1_000_000, depth: 64 };

/// What makes git go on in another folder, by its place in a repository's own.
const LEADS_ELSEWHERE: [(&str, &str); 3] = [
    ("commondir", "it says that the rest of the repository stands elsewhere"),
    ("objects/info/alternates", "it borrows objects from elsewhere"),
    ("objects/info/http-alternates", "it borrows objects from elsewhere"),
];

/// The folder with git's own files of the repository at `path`, itself without links in it, if nothing in it leads elsewhere. Where no
/// repository is, the path itself: git says so.
pub(crate) fn own_folder(path: &Path) -> Result<PathBuf, String> {
    own_folder_within(path, BOUNDS)
}

fn own_folder_within(path: &Path, bounds: Bounds) -> Result<PathBuf, String> {
    let within = path.join(".git");
    let folder = match kind_of(&within)? {
        None => path.to_owned(),
        Some(kind) if kind.is_dir() => within,
        Some(kind) if kind.is_symlink() => return Err(leads_elsewhere(&within, "it is a link")),
        Some(_) => return Err(leads_elsewhere(&within, "it is no folder, and names one elsewhere")),
    };
    for (name, why) in LEADS_ELSEWHERE {
        let place = folder.join(name);
        if kind_of(&place)?.is_some() {
            return Err(leads_elsewhere(&place, why));
        }
    }
    // Without it there is no repository for git either, and whatever stands there is not gone through.
    if kind_of(&folder.join("HEAD"))?.is_some() {
        look_for_links(&folder, bounds)?;
    }
    Ok(folder)
}

/// Refuses a link anywhere in a repository's own folder, but among its hooks, of which git starts none here.
fn look_for_links(folder: &Path, bounds: Bounds) -> Result<(), String> {
    let mut open = vec![(folder.to_owned(), 0)];
    let mut count = 0;
    while let Some((at, depth)) = open.pop() {
        if depth > bounds.depth {
            return Err(format!("{} has more than {} folders in each other", folder.display(), bounds.depth));
        }
        let fault = |error: io::Error| format!("{} can't be looked through: {error}", at.display());
        for entry in fs::read_dir(&at).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            count += 1;
            if count > bounds.entries {
                let most = bounds.entries;
                return Err(format!("{} has more than {most} files and folders; git gc packs them", folder.display()));
            }
            if depth == 0 && entry.file_name() == "hooks" {
                continue;
            }
            let kind = entry.file_type().map_err(fault)?;
            if kind.is_symlink() {
                return Err(leads_elsewhere(&entry.path(), "it is a link"));
            }
            if kind.is_dir() {
                open.push((entry.path(), depth + 1));
            }
        }
    }
    Ok(())
}

fn leads_elsewhere(place: &Path, why: &str) -> String {
    format!(
        "{}: {why}, and no pipeline file leads there; name a repository that is all in one folder, as git clone --bare --no-local makes it",
        place.display()
    )
}

/// What stands at a path, links not followed; nothing if nothing does.
fn kind_of(path: &Path) -> Result<Option<fs::FileType>, String> {
    match fs::symlink_metadata(path) {
        Ok(there) => Ok(Some(there.file_type())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(format!("{} can't be looked at: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder `path` with the files of a repository.
    fn repository(path: &Path) {
        fs::create_dir_all(path.join("objects/info")).unwrap();
        fs::create_dir_all(path.join("refs/heads/a")).unwrap();
        fs::create_dir(path.join("hooks")).unwrap();
        symlink("/anywhere", path.join("hooks/pre-push")).unwrap();
        fs::write(path.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    }

    #[test]
    fn a_repository_is_all_in_its_own_folder_and_what_leads_out_of_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        repository(&at("own/.git"));
        repository(&at("bare"));
        assert_eq!(own_folder(&at("own")), Ok(at("own/.git")));
        assert_eq!(own_folder(&at("own/.git")), Ok(at("own/.git")));
        assert_eq!(own_folder(&at("bare")), Ok(at("bare")));
        fs::create_dir(at("nothing")).unwrap();
        symlink("/anywhere", at("nothing/link")).unwrap();
        assert_eq!(own_folder(&at("nothing")), Ok(at("nothing")), "git says that it is none");
        let link = |to: &str, name: &str| symlink(at(to), at(name)).unwrap();
        type Spoiled<'a> = (&'a str, &'a dyn Fn(&str), &'a str);
        let layouts: [Spoiled<'_>; 8] = [
            ("file", &|x| fs::write(at(x).join(".git"), "gitdir: /other/.git\n").unwrap(), ".git"),
            ("link", &|x| link("own/.git", &format!("{x}/.git")), ".git"),
            ("common", &|x| fs::write(at(x).join("commondir"), "../own/.git\n").unwrap(), "commondir"),
            ("objects", &|x| link("own/.git/objects", &format!("{x}/objects")), "objects"),
            ("refs", &|x| link("own/.git/refs", &format!("{x}/refs")), "refs"),
            ("deep", &|x| link("own/.git/HEAD", &format!("{x}/refs/heads/a/main")), "refs/heads/a/main"),
            (
                "borrowed",
                &|x| fs::write(at(x).join("objects/info/alternates"), "/o\n").unwrap(),
                "objects/info/alternates",
            ),
            (
                "far",
                &|x| fs::write(at(x).join("objects/info/http-alternates"), "").unwrap(),
                "objects/info/http-alternates",
            ),
        ];
        for (name, spoil, place) in layouts {
            repository(&at(name));
            for replaced in ["objects", "refs"].iter().filter(|replaced| **replaced == place) {
                fs::remove_dir_all(at(name).join(replaced)).unwrap();
            }
            spoil(name);
            let reason = own_folder(&at(name)).unwrap_err();
            let begin = format!("{}: ", at(name).join(place).display());
            assert!(reason.starts_with(&begin) && reason.contains("git clone --bare"), "{name}: {reason}");
        }
    }

    #[test]
    fn a_repository_is_looked_through_at_its_limits_and_not_beyond() {
        let folder = tempfile::tempdir().unwrap();
        repository(folder.path());
        // HEAD, hooks, objects, objects/info, refs, refs/heads, refs/heads/a; the last stands in two others.
        let exact = Bounds { entries: 7, depth: 3 };
        assert!(own_folder_within(folder.path(), exact).is_ok());
        let few = own_folder_within(folder.path(), Bounds { entries: 6, ..exact }).unwrap_err();
        assert!(few.contains("more than 6 files and folders"), "{few}");
        let flat = own_folder_within(folder.path(), Bounds { depth: 2, ..exact }).unwrap_err();
        assert!(flat.contains("more than 2 folders in each other"), "{flat}");
    }
}
