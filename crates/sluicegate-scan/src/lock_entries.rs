//! What a lock file pins, read here once more for the formats in which that is easily told, so that it can be set beside what the scanner
//! says of it: Trivy passes over entries of several formats without a word (groups, categories, sources of other kinds).

use std::collections::BTreeSet;

use serde_json::Value;

/// Options that say where packages are looked for, and how (pip, "Requirements File Format").
const PLACES: [&str; 12] = [
    "--extra-index-url",
    "--find-links",
    "--index-url",
    "--no-binary",
    "--no-index",
    "--only-binary",
    "--pre",
    "--prefer-binary",
    "--require-hashes",
    "--trusted-host",
    "-f",
    "-i",
];

/// A package and its version.
pub(crate) type Entry = (String, String);

/// What a lock file pins, each name in one spelling ([`spelling`]); `None` for another format and for a file that is written in another
/// way than its tool writes it. Of Go it is `go.mod` that says what is selected.
pub(crate) fn entries(name: &str, content: &[u8]) -> Option<BTreeSet<Entry>> {
    let text = std::str::from_utf8(content).ok()?.replace("\r\n", "\n");
    // What a line is depends on the reader where other characters than a line feed may end one.
    let is_odd =
        |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    if text.contains(is_odd) {
        return None;
    }
    let found: BTreeSet<Entry> = match name {
        "package-lock.json" => npm(&serde_json::from_str(&text).ok()?)?,
        "composer.lock" => composer(&serde_json::from_str(&text).ok()?)?,
        "Pipfile.lock" => pipfile(&serde_json::from_str(&text).ok()?)?,
        "Cargo.lock" | "poetry.lock" | "uv.lock" => tables(&text)?,
        "requirements.txt" => requirements(&text)?,
        "go.mod" => modules(&text)?,
        _ => return None,
    };
    Some(found.into_iter().map(|(package, version)| (spelling(name, &package), plain(&version))).collect())
}

/// The name of a package of a lock file in the spelling in which two names of one package are alike: Python's registries tell no case and
/// none of `-`, `_` and `.` apart (PEP 503), Composer's tells no case.
pub(crate) fn spelling(lock_file: &str, name: &str) -> String {
    match lock_file {
        "Pipfile.lock" | "poetry.lock" | "uv.lock" | "requirements.txt" => {
            let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
            parts.collect::<Vec<_>>().join("-").to_lowercase()
        }
        "composer.lock" => name.to_lowercase(),
        _ => name.to_owned(),
    }
}

/// A version without the letter that Go and Composer write before it.
pub(crate) fn plain(version: &str) -> String {
    version.strip_prefix('v').unwrap_or(version).to_owned()
}

/// `packages` of version 2 and 3, `dependencies` in each other of version 1 (npm, "package-lock.json").
fn npm(lock: &Value) -> Option<BTreeSet<Entry>> {
    let mut found = BTreeSet::new();
    let packages = lock.get("packages").filter(|packages| packages.as_object().is_none_or(|all| !all.is_empty()));
    if let Some(packages) = packages {
        let packages = packages.as_object()?;
        let links = packages.values().filter(|package| package["link"] == true);
        let own: BTreeSet<&str> = links.filter_map(|link| link["resolved"].as_str()).collect();
        for (place, package) in packages {
            // The program itself: its own folder, and those of it that it links to.
            if place.is_empty() || package["link"] == true || own.contains(place.as_str()) {
                continue;
            }
            let name = package["name"].as_str().or_else(|| Some(place.rsplit_once("node_modules/")?.1))?;
            found.insert((name.to_owned(), package["version"].as_str()?.to_owned()));
        }
        return Some(found);
    }
    let mut open: Vec<&Value> = lock.get("dependencies").into_iter().collect();
    while let Some(dependencies) = open.pop() {
        for (name, package) in dependencies.as_object()? {
            let version = package["version"].as_str()?;
            // An address or another package's name stands in the place of a version, and nobody looks that up.
            if !version.starts_with(|c: char| c.is_ascii_digit()) || version.contains([':', '/']) {
                return None;
            }
            found.insert((name.clone(), version.to_owned()));
            open.extend(package.get("dependencies"));
        }
    }
    Some(found)
}

fn composer(lock: &Value) -> Option<BTreeSet<Entry>> {
    let mut found = BTreeSet::new();
    let lists = ["packages", "packages-dev"].into_iter().filter_map(|list| lock.get(list));
    for list in lists.filter(|list| !list.is_null()) {
        for package in list.as_array()? {
            found.insert((package["name"].as_str()?.to_owned(), package["version"].as_str()?.to_owned()));
        }
    }
    Some(found)
}

/// Every category (pipenv, "Pipfile.lock Security Features"): `default`, `develop` and others.
fn pipfile(lock: &Value) -> Option<BTreeSet<Entry>> {
    let mut found = BTreeSet::new();
    for (_, category) in lock.as_object()?.iter().filter(|(name, _)| *name != "_meta") {
        for (name, package) in category.as_object()? {
            found.insert((name.clone(), package["version"].as_str()?.strip_prefix("==")?.to_owned()));
        }
    }
    Some(found)
}

/// `[[package]]` tables with name and version, one key a line, as Cargo, Poetry and uv write them. A package of a folder beside the lock
/// file (`editable`, `virtual`) is the program itself.
fn tables(text: &str) -> Option<BTreeSet<Entry>> {
    const PACKAGE: &str = "[[package]]";
    // In a text of several lines anything could look like a table.
    if text.contains("\"\"\"") || text.contains("'''") {
        return None;
    }
    // Headers are written in one way, at the beginning of a line.
    let is_usual = |line: &str| {
        let inner = line.trim_start_matches('[');
        line.len() - inner.len() <= 2 && inner.starts_with(|c: char| c.is_ascii_alphabetic()) && line.starts_with('[')
    };
    let mut headers = text.lines().filter(|line| line.trim_start().starts_with('['));
    if !headers
        .all(|line| is_usual(line) && (line == PACKAGE || !line.starts_with("[[package]") && line != "[package]"))
    {
        return None;
    }
    let at = text.find(PACKAGE).unwrap_or(text.len());
    let (head, tables) = text.split_at(at);
    let begins_a_line = head.is_empty() || head.ends_with('\n');
    let names_packages = |line: &str| {
        let rest = line.trim_start().trim_start_matches(['"', '\'']).strip_prefix("package");
        rest.is_some_and(|rest| rest.starts_with(['"', '\'', ' ', '\t', '=', '.']))
    };
    // A key in quotes can be spelled in many ways.
    let is_quoted = |line: &str| line.trim_start().starts_with(['"', '\'']);
    if head.lines().any(|line| names_packages(line) || is_quoted(line)) || !(tables.is_empty() || begins_a_line) {
        return None;
    }
    let mut found = BTreeSet::new();
    for table in tables.split(PACKAGE).filter(|table| !table.trim().is_empty()) {
        let own = table.split("\n[").next().unwrap_or_default();
        let value = |key: &str| {
            let mut values = own.lines().filter_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='));
            let value = values.next()?.trim().strip_prefix('"')?.strip_suffix('"')?;
            (values.next().is_none() && !value.contains(['"', '\\'])).then(|| value.to_owned())
        };
        let is_own = own
            .lines()
            .any(|line| line.starts_with("source = { editable = ") || line.starts_with("source = { virtual = "));
        if !is_own {
            found.insert((value("name")?, value("version")?));
        }
    }
    Some(found)
}

/// Requirements that name one version each, `NAME[EXTRAS] == VERSION`, with a marker and hashes (pip, "Requirements File Format").
fn requirements(text: &str) -> Option<BTreeSet<Entry>> {
    let mut found = BTreeSet::new();
    let comments = || text.lines().filter(|line| line.trim_start().starts_with('#'));
    // A comment goes on in no line, whatever it ends in; one may name another encoding.
    if comments().any(|line| line.ends_with('\\')) || comments().any(|line| line.contains("coding")) {
        return None;
    }
    for line in text.replace("\\\n", " ").lines() {
        let line = if line.trim_start().starts_with('#') { "" } else { line.split(" #").next().unwrap_or_default() };
        let line = line.trim();
        // Where packages are looked for is no package.
        let mut words = line.split_whitespace();
        let option = words.next().unwrap_or_default().split('=').next().unwrap_or_default();
        if line.is_empty() {
            continue;
        }
        if PLACES.contains(&option) {
            // A second option in the line may be one that brings packages.
            if words.next().is_some_and(|value| value.starts_with('-')) || words.next().is_some() {
                return None;
            }
            continue;
        }
        let mut words = line.split(" --hash=");
        let requirement = words.next().unwrap_or_default();
        if words.any(|hash| hash.trim().contains(char::is_whitespace)) {
            return None;
        }
        let pin = requirement.split_once(';').map_or(requirement, |(pin, _)| pin);
        let (name, version) = pin.split_once("==")?;
        let name = name.split_once('[').map_or(name, |(name, _)| name).trim();
        let version = version.trim();
        let is_word = |text: &str, more: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if !is_word(name, "-_.") || !is_word(version, "-_.+!") {
            return None;
        }
        found.insert((name.to_owned(), version.to_owned()));
    }
    Some(found)
}

/// Modules that are required and not replaced (Go Modules Reference, "go.mod files").
fn modules(text: &str) -> Option<BTreeSet<Entry>> {
    let (mut found, mut replaced) = (BTreeSet::new(), BTreeSet::new());
    let mut block = None;
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        if line == ")" {
            block = None;
            continue;
        }
        let (verb, rest) = match block {
            Some(verb) => (verb, line),
            None => line.split_once([' ', '\t', '(']).map(|(verb, _)| (verb, line[verb.len()..].trim_start()))?,
        };
        if rest == "(" {
            block = Some(verb);
            continue;
        }
        let mut words = rest.split_whitespace();
        match verb {
            "require" => {
                let (module, version) = (words.next()?, words.next()?);
                if module.contains(['"', '`']) || words.next().is_some() {
                    return None;
                }
                found.insert((module.to_owned(), version.to_owned()));
            }
            "replace" => drop(replaced.insert(words.next()?.to_owned())),
            _ => {}
        }
    }
    found.retain(|(module, _)| !replaced.contains(module));
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, content: &str) -> Option<Vec<String>> {
        let entries = entries(name, content.as_bytes())?;
        Some(entries.into_iter().map(|(name, version)| format!("{name} {version}")).collect())
    }

    #[test]
    fn what_each_format_pins_is_found_whatever_group_it_is_in() {
        for (name, content, expected) in [
            (
                "package-lock.json",
                r#"{"lockfileVersion": 3, "packages": {"": {"name": "own"}, "node_modules/a": {"version": "1", "dev": true},
                  "node_modules/a/node_modules/@s/b": {"version": "2"}, "c": {"name": "c"}, "vendor/d": {"name": "d", "version": "4"},
                  "node_modules/c": {"link": true, "resolved": "c"}}}"#,
                vec!["@s/b 2", "a 1", "d 4"],
            ),
            (
                "package-lock.json",
                r#"{"dependencies": {"a": {"version": "1", "dependencies": {"b": {"version": "2"}}}}}"#,
                vec!["a 1", "b 2"],
            ),
            (
                "composer.lock",
                r#"{"packages": [{"name": "x/y", "version": "v1"}], "packages-dev": [{"name": "x/z", "version": "2"}]}"#,
                vec!["x/y 1", "x/z 2"],
            ),
            (
                "Pipfile.lock",
                r#"{"_meta": {}, "default": {"H_11": {"version": "==1"}}, "prod": {"b": {"version": "==2"}}}"#,
                vec!["b 2", "h-11 1"],
            ),
            (
                "uv.lock",
                "version = 1\n\n[[package]]\nname = \"own\"\nversion = \"0\"\nsource = { editable = \".\" }\n\n[[package]]\nname = \"a\"\nversion = \"1\"\nsource = { registry = \"x\" }\n\n[package.metadata]\nname = \"b\"\n",
                vec!["a 1"],
            ),
            (
                "requirements.txt",
                "# all\r\na==1 # why\r\nb[x, y] == 2 ; python_version > '3'\r\nc==3 \\\r\n    --hash=sha256:0 --hash=sha256:1\r\n",
                vec!["a 1", "b 2", "c 3"],
            ),
            (
                "go.mod",
                "module y // z\n\ngo 1.21\n\nrequire x.org/M v1.0.0\n\nrequire (\n\tx.org/n v2.0.0 // indirect\n\tx.org/o v3.0.0\n)\n\nreplace x.org/o => ../o\n",
                vec!["x.org/M 1.0.0", "x.org/n 2.0.0"],
            ),
            ("go.mod", "module y\n", vec![]),
            ("package-lock.json", r#"{"lockfileVersion": 3, "packages": {"": {"name": "own"}}}"#, vec![]),
        ] {
            let expected = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(found(name, content), Some(expected), "{name}: {content}");
        }
    }

    #[test]
    fn tm04_what_is_written_in_another_way_is_not_read_here() {
        for (name, content) in [
            ("yarn.lock", ""),
            ("package-lock.json", r#"{"packages": {"node_modules/a": {}}}"#),
            ("package-lock.json", "{"),
            ("Pipfile.lock", r#"{"default": {"a": {"git": "x"}}}"#),
            ("Cargo.lock", "package = [{ name = \"a\", version = \"1\" }]\n"),
            ("Cargo.lock", "[[\"package\"]]\nname = \"a\"\nversion = \"1\"\n"),
            ("Cargo.lock", "[[package]]\nname = \"a\"\n"),
            ("Cargo.lock", "[[package]]\nname = \"a\"\nversion = \"1\"\nx = \"\"\"\n[[package]]\n\"\"\"\n"),
            ("Cargo.lock", "[[package]]\nname = \"\\u0061\"\nversion = \"1\"\n"),
            ("package-lock.json", r#"{"dependencies": {"a": {"version": "npm:b@1.0.0"}}}"#),
            ("package-lock.json", r#"{"dependencies": {"a": {"version": "https://x/a-1.0.0.tgz"}}}"#),
            ("Cargo.lock", "[[ package ]]\nname = \"a\"\nversion = \"1\"\n"),
            (
                "Cargo.lock",
                "[[package]]\nname = \"a\"\nversion = \"1\"\n [package.metadata]\nsource = { editable = \".\" }\n",
            ),
            ("go.mod", "module y\nrequire \"x.org/m\" v1.0.0\n"),
            ("go.sum", "x.org/m v1.0.0 h1:a=\n"),
        ] {
            assert_eq!(found(name, content), None, "{name}: {content}");
        }
        assert!(entries("requirements.txt", b"a==1\xff").is_none());
        for open in [
            "a",
            "a==1\nb>=2",
            "-r more.txt",
            "-e .",
            "git+https://a/b",
            "a==1.*",
            "a===1",
            "a!==1",
            "a>=1; python_version==\"3.11\"",
            "a @ https://x/a-1==1.whl",
            "a>=1\t# ==",
            "a (==1)",
            "./a==1.whl",
            "a==1\rb",
            "a==1\u{c}b",
            "a==1\u{2028}b",
            "\u{feff}a==1",
            "a==${V}",
            "a==1 b==2",
            "--index-url https://x -r more.txt",
            "--pre -r more.txt",
            "-f x -e .",
            "a==1\n# see \\\nb>=2",
            "# coding: utf-7\na==1",
            "a==1 --hash=x b>=2",
            "--hash=x a>=1",
        ] {
            assert_eq!(found("requirements.txt", open), None, "{open:?}");
        }
    }
}
