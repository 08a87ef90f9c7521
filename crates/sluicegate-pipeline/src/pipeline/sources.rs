//! Sources: folders beside the pipeline file, and commits that are fetched.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    path::{Component, Path, PathBuf},
};

use sluicegate_types::{NameError, OutputName, is_loopback};

use super::{Source, SourcePlace, wire::WireSource};
use crate::{Error, In, spot::Aim, yaml::Ordered};

/// Files that one source includes.
const MAX_INCLUDED: usize = 256;
/// Characters of a repository's URL.
const MAX_URL: usize = 2048;
/// Characters of a branch, tag or commit.
const MAX_REFERENCE: usize = 255;

pub(super) fn sources(at: &In<'_>, wire: Ordered<WireSource>) -> Result<BTreeMap<OutputName, Source>, Error> {
    let mut sources = BTreeMap::new();
    for (name, source) in wire.0 {
        let place = format!("sources.{name}");
        let name: OutputName = name.parse().map_err(|e: NameError| at.name(&place, e.of("source name")))?;
        sources.insert(name, source_of(at, &place, source)?);
    }
    Ok(sources)
}

fn source_of(at: &In<'_>, place: &str, wire: WireSource) -> Result<Source, Error> {
    match (wire.path, wire.git, wire.reference) {
        (Some(path), None, None) => {
            let folder = PathBuf::from(&path);
            let stays = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
            if path.is_empty() || path.contains('\0') || !folder.components().all(stays) {
                return Err(
                    at.escapes(format!("{place}.path"), "a source is a folder beside or below the pipeline file")
                );
            }
            let include = included(at, place, &folder, wire.include.unwrap_or_default())?;
            Ok(Source { place: SourcePlace::Folder(folder), include })
        }
        (None, Some(url), Some(reference)) => {
            if wire.include.is_some() {
                let reason = "only a folder takes files from beside it; a commit is what it is";
                return Err(at.name(format!("{place}.include"), reason));
            }
            // What stands before an @ may be a password.
            let shown = if url.contains('@') { In::meaning_unshown } else { In::meaning };
            check_url(&url).map_err(|reason| shown(at, format!("{place}.git"), reason))?;
            check_reference(&reference).map_err(|reason| at.meaning(format!("{place}.ref"), reason))?;
            Ok(Source { place: SourcePlace::Git { url, reference }, include: Vec::new() })
        }
        (Some(_), ..) => Err(at.name(place, "path beside git or ref: a source is a folder or a commit; take one away")),
        (None, Some(_), None) => Err(at.name(place, "git without ref: name a branch, a tag or a commit")),
        (None, None, Some(_)) => Err(at.name(place, "ref without git: name the repository")),
        (None, None, None) => Err(at.name(place, "write { path: FOLDER } or { git: URL, ref: REF }")),
    }
}

/// Files that lie outside of the folder and inside the pipeline file's, relative to the former.
fn included(at: &In<'_>, place: &str, folder: &Path, include: Vec<String>) -> Result<Vec<PathBuf>, Error> {
    let place = format!("{place}.include");
    if include.len() > MAX_INCLUDED {
        return Err(at.meaning(&place, format!("more than {MAX_INCLUDED} files")));
    }
    let folder = inside(Path::new(""), folder).unwrap_or_default();
    let mut names: BTreeSet<std::ffi::OsString> = BTreeSet::new();
    let mut files = Vec::new();
    for (nth, text) in include.into_iter().enumerate() {
        let place = format!("{place}[{nth}]");
        let file = PathBuf::from(&text);
        let Some(leads) = inside(&folder, &file).filter(|_| !text.contains('\0')) else {
            let reason =
                format!("{text:?} leads out of the pipeline file's folder; what belongs to a source lies in it");
            return Err(at.escapes(&place, reason));
        };
        let Some(name) = file.file_name().and_then(OsStr::to_str).filter(|_| !text.ends_with('/')) else {
            return Err(at.meaning(&place, format!("{text:?} is no file's path: it ends with a file name")));
        };
        if leads.starts_with(&folder) {
            return Err(at.overlap(&place, Aim::Value, format!("{text:?} lies in the source already")));
        }
        if !names.insert(name.into()) {
            let reason = format!("two files are called {name}, and both would stand at the source's top");
            return Err(at.overlap(&place, Aim::Value, reason));
        }
        files.push(file);
    }
    Ok(files)
}

/// Where `path` leads from `folder`, by its words alone; `None` is out of what `folder` is relative to.
fn inside(folder: &Path, path: &Path) -> Option<PathBuf> {
    let mut leads = folder.to_owned();
    for component in path.components() {
        match component {
            Component::Normal(name) => leads.push(name),
            Component::CurDir => {}
            Component::ParentDir if leads.pop() => {}
            _ => return None,
        }
    }
    Some(leads)
}

/// A repository that is fetched without anybody's name: over TLS, on this machine, or from a folder.
fn check_url(url: &str) -> Result<(), String> {
    let form = "write https://HOST/PATH, or file:///PATH for a mirror on this machine";
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic() && !br#""'<>\?#`"#.contains(&byte));
    if !plain || url.len() > MAX_URL {
        return Err(format!("a URL is at most {MAX_URL} characters without spaces, quotes, ? and #; {form}"));
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(format!("no URL; {form}"));
    };
    if scheme == "file" {
        let path = Path::new(rest);
        let stays = |c: Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
        let is_plain = path.is_absolute() && path.components().all(stays) && path != Path::new("/");
        return if is_plain {
            Ok(())
        } else {
            Err("a mirror's path is absolute and without . and .. parts".to_owned())
        };
    }
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('@') {
        // Not repeated: it may be a password.
        return Err("a user or password in the URL, which would be written down; take it out".to_owned());
    }
    if host.is_empty() || host.starts_with([':', '-']) || rest.len() == host.len() {
        return Err(format!("no host or no path; {form}"));
    }
    match scheme {
        "https" => Ok(()),
        "http" if is_loopback(host) => Ok(()),
        "http" => Err(format!("{host} is another machine, and plain http is spoken with this one alone; {form}")),
        _ => Err(format!("{}:// is not fetched from; {form}", sluicegate_types::nearest::shortened(scheme))),
    }
}

/// A name by git's own rules (git-check-ref-format), or a commit.
fn check_reference(reference: &str) -> Result<(), String> {
    let wrong = || format!("{:?} is no branch, tag or commit of git", sluicegate_types::nearest::shortened(reference));
    let odd = |c: char| c.is_control() || c.is_whitespace() || " ~^:?*[\\".contains(c);
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let fits = reference.len() <= MAX_REFERENCE
        && !reference.contains(odd)
        && !reference.contains("..")
        && !reference.contains("@{")
        && !reference.starts_with('-')
        && !reference.ends_with('.')
        && reference != "@"
        && reference.split('/').all(part);
    if fits { Ok(()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_fetched_over_tls_on_this_machine_or_from_a_folder() {
        for good in [
            "https://git.example/shop.git",
            "https://git.example:8443/team/shop",
            "http://127.0.0.1:3000/shop",
            "http://[::1]:3000/shop",
            "http://localhost/shop",
            "file:///srv/mirrors/shop.git",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for (bad, says) in [
            ("https://user:secret@git.example/shop", "a user or password"),
            ("https://token@git.example/shop", "a user or password"),
            ("http://git.example/shop", "is another machine"),
            ("http://127.0.0.1.example/shop", "is another machine"),
            ("ssh://git.example/shop", "ssh:// is not fetched from"),
            ("git@git.example:shop.git", "no URL"),
            ("ext::sh -c id", "without spaces"),
            ("ext::sh", "no URL"),
            ("../shop", "no URL"),
            ("-u://x/y", "is not fetched from"),
            ("https://--upload-pack=x/y", "no host"),
            ("https://git.example", "no path"),
            ("https:///shop", "no host"),
            ("https://git.example/shop?token=x", "without spaces"),
            ("file://shop", "a mirror's path"),
            ("file:///srv/../etc", "a mirror's path"),
            ("file:///", "a mirror's path"),
        ] {
            let found = check_url(bad).unwrap_err();
            assert!(found.contains(says) && !found.contains("secret"), "{bad}: {found}");
        }
    }

    #[test]
    fn a_reference_is_what_git_takes_for_one() {
        for good in ["main", "release/1.2", "v1.20", "refs/tags/v1", &"a".repeat(40), "feature_x-y"] {
            assert_eq!(check_reference(good), Ok(()), "{good}");
        }
        for bad in [
            "", "-x", "a..b", "a b", "a~1", "HEAD^", "a:b", "/a", "a/", "a//b", "a.lock", "x/.a", "a.", "@", "a@{1}",
            "a\n",
        ] {
            assert!(check_reference(bad).is_err(), "{bad:?}");
        }
    }
}
