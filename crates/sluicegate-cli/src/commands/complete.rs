//! `init` in a project that has its files: only what is missing in them is added, as text, and everything else stays byte for byte.

use std::{collections::BTreeSet, fs, io::Write, path::Path};

use serde_json::Value;
use sluicegate_flow::Error;
use sluicegate_pipeline::gateway::Gateway;
use sluicegate_policy::{read_data, rego::SourceFile};
use sluicegate_types::{Digest, utf8};

use super::folder_of;
use crate::{gateway_folder, words::Problem};

/// What stands in gateway.yaml as long as no scanner is set.
pub(crate) const NO_SCANNER: &str = "# scanner:\n#   trivy:\n#     digests: [sha256:…]                       # sha256sum $(command -v trivy)\n#     db: { from: DIR, digest: sha256:…, max_age: 24h }   # (cd DIR && sha256sum metadata.json trivy.db) | sha256sum\n";

/// The gateway file with this `scanner:` part, which it must not have yet.
pub(crate) fn with_scanner(path: &Path, part: &str) -> Result<String, Problem> {
    let text = read(path)?;
    let file = path.display().to_string();
    let gateway = Gateway::parse(&file, &text).map_err(Error::from)?;
    if gateway.scanner.is_some() {
        return Err(Problem::usage(
            format!("{file} has a scanner: already, which is not overwritten"),
            format!("put this in its place by hand:\n{}", part.trim_end()),
        ));
    }
    let added = if text.contains(NO_SCANNER) {
        text.replacen(NO_SCANNER, part, 1)
    } else {
        let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
        format!("{text}{end}{part}")
    };
    // A file that ends in another way than `init` writes it may not take a line at its end.
    match Gateway::parse(&file, &added) {
        Ok(gateway) if gateway.scanner.is_some() => Ok(added),
        _ => Err(Problem::usage(
            format!("{file} is written in a way to which nothing can be added at its end"),
            format!("add this to it by hand:\n{}", part.trim_end()),
        )),
    }
}

/// The data file with these base images among the allowed ones, and the `places` that they come from among the registries, where it lists
/// such in the way of `init`; `None` if all of them are there already.
pub(crate) fn with_bases(
    path: &Path,
    bases: &[(String, Digest)],
    places: &BTreeSet<String>,
) -> Result<Option<String>, Problem> {
    let before = read(path)?;
    let with_places = with_registries(path, &before, places)?;
    let text = with_places.clone().unwrap_or(before);
    let allowed = allowed_bases(path, &text)?;
    let missing: Vec<_> = bases.iter().filter(|(_, digest)| !allowed.contains(digest)).collect();
    if missing.is_empty() {
        return Ok(with_places);
    }
    let lines = |indent: &str| -> String {
        missing.iter().map(|(name, digest)| format!("{indent}- {digest}   # {}\n", one_line(name))).collect()
    };
    // What was added must be read back: a line in the wrong place would look like a permission and give none.
    let is_listed =
        |text: &String| allowed_bases(path, text).is_ok_and(|now| bases.iter().all(|(_, digest)| now.contains(digest)));
    added(&text, BASES, &lines).filter(is_listed).map(Some).ok_or_else(|| {
        Problem::usage(
            format!("{} does not list its allowed base images in the way of init", path.display()),
            format!("add this to sluicegate.allowed_base_images there by hand:\n{}", lines("").trim_end()),
        )
    })
}

/// The keys of the two lists.
const BASES: &str = "allowed_base_images:";
const REGISTRIES: &str = "registries:";

/// The same with these places among the registries. A file that does not list them in the way of `init` is its author's: a denial says what
/// to add.
fn with_registries(path: &Path, text: &str, places: &BTreeSet<String>) -> Result<Option<String>, Problem> {
    let listed = |text: &str| -> Result<BTreeSet<String>, Problem> {
        let data = data_of(path, text)?;
        let listed = data["sluicegate"]["registries"].as_array().into_iter().flatten();
        Ok(listed.filter_map(|place| place.as_str().map(str::to_owned)).collect())
    };
    let known = listed(text)?;
    let missing: Vec<&String> = places.difference(&known).collect();
    if missing.is_empty() || known.is_empty() {
        return Ok(None);
    }
    let lines = |indent: &str| missing.iter().map(|place| format!("{indent}- \"{place}\"\n")).collect();
    let is_listed = |text: &String| listed(text).is_ok_and(|now| places.is_subset(&now));
    Ok(added(text, REGISTRIES, &lines).filter(is_listed))
}

/// The base images that a data file allows, as the gate reads it.
pub(crate) fn allowed_bases(path: &Path, text: &str) -> Result<BTreeSet<Digest>, Problem> {
    let data = data_of(path, text)?;
    let listed = data["sluicegate"]["allowed_base_images"].as_array().into_iter().flatten();
    Ok(listed.filter_map(|digest| digest.as_str()?.parse().ok()).collect())
}

fn data_of(path: &Path, text: &str) -> Result<Value, Problem> {
    let file = path.display().to_string();
    read_data(&SourceFile { name: file.clone(), text: text.to_owned() }).map_err(|error| {
        Problem::usage(format!("cannot read the policies' data: {error}"), format!("mend {file}, then ask again"))
    })
}

/// `text` with `lines` in the one list of this key (`allowed_base_images:`) that it has, if that is a block or empty.
fn added(text: &str, key: &str, lines: &dyn Fn(&str) -> String) -> Option<String> {
    let all: Vec<&str> = text.lines().collect();
    let mut places = all.iter().enumerate().filter(|(_, line)| line.trim_start().starts_with(key));
    let (Some((at, line)), None) = (places.next(), places.next()) else { return None };
    let indent = &line[..line.len() - line.trim_start().len()];
    let rest = line.trim_start()[key.len()..].trim_start();
    let (value, comment) = rest.split_once('#').unwrap_or((rest, ""));
    let next = all[at + 1..].iter().find(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    let item = next.filter(|line| line.trim_start().starts_with("- "));
    let deeper = match (value.trim(), item) {
        ("", Some(item)) => item[..item.len() - item.trim_start().len()].to_owned(),
        ("" | "[]", None) => format!("{indent}  "),
        _ => return None,
    };
    // The comment of an empty list said how to fill it.
    let comment = if value.trim().is_empty() && !comment.is_empty() { format!("   #{comment}") } else { String::new() };
    let mut out: String = all[..at].iter().map(|line| format!("{line}\n")).collect();
    out.push_str(&format!("{indent}{key}{comment}\n{}", lines(&deeper)));
    out.extend(all[at + 1..].iter().map(|line| format!("{line}\n")));
    Some(out)
}

pub(crate) fn one_line(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).collect()
}

/// Replaces a file at once, with the mode that it has; a link stays one.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), Problem> {
    let problem = |error: &std::io::Error| Problem::io("write", path, error);
    let path = fs::canonicalize(path).map_err(|error| problem(&error))?;
    let mut file = tempfile::NamedTempFile::new_in(folder_of(&path)).map_err(|error| problem(&error))?;
    let mode = fs::metadata(&path).map_err(|error| problem(&error))?.permissions();
    let written = file.write_all(text.as_bytes()).and_then(|()| file.as_file().set_permissions(mode));
    written.and_then(|()| file.as_file().sync_all()).map_err(|error| problem(&error))?;
    file.persist(&path).map_err(|error| problem(&error.error))?;
    Ok(())
}

fn read(path: &Path) -> Result<String, Problem> {
    let bytes = gateway_folder::read(path).map_err(|error| Problem::named("read", path, &error))?;
    utf8(bytes).map_err(|error| Problem::usage(path.display().to_string(), error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Option<String> {
        added(text, BASES, &|indent| format!("{indent}- new\n"))
    }

    #[test]
    fn a_base_image_is_added_to_an_empty_list_and_to_one_that_has_some() {
        for (before, after) in [
            ("a:\n  allowed_base_images: []   # none\n  b: 1\n", "a:\n  allowed_base_images:\n    - new\n  b: 1\n"),
            (
                "a:\n  allowed_base_images:   # ours\n\n  # old\n  - old\n  b: 1\n",
                "a:\n  allowed_base_images:   # ours\n  - new\n\n  # old\n  - old\n  b: 1\n",
            ),
            ("a:\n  allowed_base_images:\n      - old\n", "a:\n  allowed_base_images:\n      - new\n      - old\n"),
            ("a:\n  allowed_base_images:", "a:\n  allowed_base_images:\n    - new\n"),
        ] {
            assert_eq!(with(before).as_deref(), Some(after), "{before}");
        }
    }

    #[test]
    fn a_list_that_is_written_in_another_way_is_left_alone() {
        for text in [
            "",
            "a: { allowed_base_images: [] }\n",
            "a:\n  allowed_base_images: [old]\n",
            "a:\n  allowed_base_images: [\n    old]\n",
            "a:\n  allowed_base_images: []\nb:\n  allowed_base_images: []\n",
            "a:\n  allowed_base_images: &x\n    - old\n",
        ] {
            assert_eq!(with(text), None, "{text}");
        }
    }

    #[test]
    fn the_registry_of_a_base_image_is_listed_where_registries_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.yaml");
        let digest = Digest::of(b"base");
        let bases = format!("  allowed_base_images:\n    - {digest}\n");
        let ask = |registries: &str| {
            fs::write(&path, format!("sluicegate:\n{bases}{registries}")).unwrap();
            let place = BTreeSet::from(["registry.example/bases/*".to_owned()]);
            with_bases(&path, &[("registry.example/bases/a".to_owned(), digest)], &place).unwrap()
        };
        assert_eq!(
            ask("  registries:   # from where\n    - \"oci:\"\n").unwrap(),
            format!(
                "sluicegate:\n{bases}  registries:   # from where\n    - \"registry.example/bases/*\"\n    - \"oci:\"\n"
            )
        );
        for left_alone in [
            "",
            "  registries: []\n",
            "  registries: [\"oci:\"]\n",
            "  registries:\n    - \"oci:\"\n    - registry.example/bases/*\n",
        ] {
            assert_eq!(ask(left_alone), None, "{left_alone}");
        }
    }

    #[test]
    fn a_base_image_is_allowed_where_the_gate_reads_it_and_not_by_a_comment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.yaml");
        let (digest, other) = (Digest::of(b"base"), Digest::of(b"other"));
        let ask = |text: &str| {
            fs::write(&path, text).unwrap();
            with_bases(&path, &[("oci:images/base".to_owned(), digest)], &BTreeSet::from(["oci:".to_owned()]))
        };
        for listed in [
            format!("sluicegate:\n  allowed_base_images:\n    - {digest}\n"),
            format!("sluicegate: {{ allowed_base_images: [{other}, {digest}] }}\n"),
        ] {
            assert_eq!(ask(&listed).unwrap(), None, "{listed}");
        }
        for (before, after) in [
            (
                format!("# not {digest} any more\nsluicegate:\n  allowed_base_images: []\n"),
                format!(
                    "# not {digest} any more\nsluicegate:\n  allowed_base_images:\n    - {digest}   # oci:images/base\n"
                ),
            ),
            (
                format!("sluicegate:\n  allowed_base_images:\n    # - {digest}\n    - {other}\n"),
                format!(
                    "sluicegate:\n  allowed_base_images:\n    - {digest}   # oci:images/base\n    # - {digest}\n    - {other}\n"
                ),
            ),
        ] {
            assert_eq!(ask(&before).unwrap(), Some(after), "{before}");
        }
        // Where the list would not be the one that the rules read, and where nobody can read it.
        for (elsewhere, says) in [
            ("mine:\n  allowed_base_images: []\n".to_owned(), "in the way of init"),
            (format!("sluicegate:\n  note: |\n    {digest}\n    allowed_base_images:\n"), "in the way of init"),
            (format!("sluicegate: {{ allowed_base_images: [], note: \"{digest}\" }}\n"), "in the way of init"),
            ("sluicegate: [\n".to_owned(), "cannot read the policies' data"),
        ] {
            let refused = ask(&elsewhere).unwrap_err();
            assert!(refused.text().contains(says), "{elsewhere}: {refused:?}");
            let hint = refused.hint().unwrap();
            assert!(hint.contains(&digest.to_string()) || hint.contains("data.yaml"), "{hint}");
        }
    }

    #[test]
    fn a_scanner_is_added_where_there_is_none_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.yaml");
        let digest = Digest::of(b"");
        let part = format!(
            "scanner:\n  trivy:\n    digests: [{digest}]\n    db: {{ from: db, digest: {digest}, max_age: 24h }}\n"
        );
        let gateway = "version: 1\ngates: {}\nenvironments:\n  staging: { repository: oci:env/staging, tag: current, gate: none }\ntrust: t\n\
                       signing: { steps: key:a, records: key:b, decisions: {} }\nverifier_id: \"https://example.com/gate\"\ntrust_root: r\n\
                       log: embedded\n";
        for before in [gateway.to_owned(), gateway.trim_end().to_owned(), format!("{gateway}{NO_SCANNER}")] {
            fs::write(&path, &before).unwrap();
            let after = with_scanner(&path, &part).unwrap();
            assert_eq!(after, format!("{gateway}{part}"));
            fs::write(&path, &after).unwrap();
            let refused = with_scanner(&path, &part).unwrap_err();
            assert!(refused.text().contains("has a scanner: already"), "{refused:?}");
        }
        fs::write(&path, format!("{gateway}...\n")).unwrap();
        let refused = with_scanner(&path, &part).unwrap_err();
        assert!(refused.text().contains("nothing can be added"), "{refused:?}");
    }
}
