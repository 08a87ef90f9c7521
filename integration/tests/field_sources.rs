//! Field cases about source trees that others reported (`shared/field/executor.md`, EX-20), with the files that reproduce them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use integration::{FROM_HOST, Project, can_run_steps, repository::git, shared};
use serde_json::{Value, json};
use sluicegate_types::Digest;

/// Copies the source to an output, whole.
const PIPELINE: &str = r#"
version: 1
name: awkward
sources: { tree: { path: a/b/src } }
defaults: { image: oci:images/base, limits: { timeout: 1m } }
steps:
  copy:
    run: mkdir -p /out && cp -a /src /out/tree
    inputs: { /src: tree }
    outputs: { tree: /out/tree }
artifacts:
  app:
    base: oci:images/base
    files: { /opt/tree: copy.tree }
    repository: oci:out/app
"#;
const TREE: &str = "a/b/src";
const CANARY: &str = "this canary sits outside of every source";

/// The table of `CASES.json`, by path: what each entry has to be.
type Table = BTreeMap<String, Value>;

/// A project whose source is the awkward tree, committed in a repository that begins at the project's root; and the table.
fn awkward(test: &str) -> Option<(Project, Table)> {
    if !can_run_steps(test) {
        return None;
    }
    let archive = shared("field/executor.tar.gz", test)?;
    let project = Project::empty();
    let unpacked = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(project.path(".")).status();
    assert!(unpacked.is_ok_and(|status| status.success()), "tar -xzf {}", archive.display());
    let cases: Value = serde_json::from_slice(&fs::read(project.path("executor/CASES.json")).unwrap()).unwrap();
    let table = cases["source"]["expect"].as_object().unwrap().clone().into_iter().collect();
    fs::create_dir_all(project.path("a/b")).unwrap();
    fs::rename(project.path("executor/source"), project.path(TREE)).unwrap();
    fs::remove_dir_all(project.path("executor")).unwrap();
    // Where `links/up-and-out` leads to.
    fs::write(project.path("outside"), CANARY).unwrap();
    fs::write(project.path("sluicegate.yaml"), PIPELINE).unwrap();
    fs::write(project.path(".gitignore"), "/home\n/images\n/out\n/outside\n/keys\n").unwrap();
    project.must(&FROM_HOST);
    project.must(&["init", "--allow-base", "oci:images/base"]);
    git(&project.path("."), &["init", "--quiet"]);
    commit(&project.path("."));
    Some((project, table))
}

fn commit(folder: &Path) {
    git(folder, &["add", "--all"]);
    git(folder, &["commit", "--quiet", "--message", "x"]);
}

/// Runs the pipeline; the line about the source (its digest, and whether it has changes), and every entry of the copy that the step made.
#[track_caller]
fn run(project: &Project) -> (String, Table) {
    let (code, document) = project.json(&["run", "--no-scan"]);
    assert_eq!(code, 0, "{document:#}");
    let ended = project.must(&["run", "--no-scan"]);
    let line = ended.stderr.lines().chain(ended.stdout.lines()).find(|line| line.contains("source tree is "));
    let line = line.unwrap_or_else(|| panic!("{ended:?}")).to_owned();
    let output = document["steps"][0]["outputs"]["tree"].as_str().unwrap_or_else(|| panic!("{document:#}"));
    let digest: Digest = output.parse().unwrap();
    let blob = project.path("home/store/blobs/sha256").join(digest.hex());
    let copy = tempfile::tempdir().unwrap();
    let done = Command::new("tar").arg("-xpf").arg(&blob).arg("-C").arg(copy.path()).status().unwrap();
    assert!(done.success());
    let mut table = Table::new();
    entries(copy.path(), &mut PathBuf::new(), &mut table);
    (line, table)
}

fn entries(root: &Path, at: &mut PathBuf, table: &mut Table) {
    for entry in fs::read_dir(root.join(&at)).unwrap() {
        at.push(entry.unwrap().file_name());
        let path = root.join(&at);
        let metadata = fs::symlink_metadata(&path).unwrap();
        let what = if metadata.is_dir() {
            entries(root, at, table);
            None
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            Some(json!({"type": "symlink", "link": escaped(target.as_os_str().as_bytes())}))
        } else {
            let digest = Digest::of(&fs::read(&path).unwrap()).hex();
            Some(json!({"type": "file", "sha256": digest, "exec": metadata.permissions().mode() & 0o111 != 0}))
        };
        if let Some(what) = what {
            table.insert(escaped(at.as_os_str().as_bytes()), what);
        }
        at.pop();
    }
}

/// As the table writes names.
fn escaped(bytes: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:".contains(&byte);
    bytes.iter().map(|byte| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn file(text: &str) -> Value {
    json!({"type": "file", "sha256": Digest::of(text.as_bytes()).hex(), "exec": false})
}

#[track_caller]
fn assert_same(found: &Table, expected: &Table) {
    for (name, what) in expected {
        assert_eq!(found.get(name), Some(what), "{name}");
    }
    let more: Vec<_> = found.keys().filter(|name| !expected.contains_key(*name)).collect();
    assert!(more.is_empty(), "{more:?}");
}

/// Whether any file below a folder holds the canary.
fn holds_canary(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            return holds_canary(&path);
        }
        metadata.is_file() && fs::read(&path).unwrap().windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
    })
}

#[test]
fn ex_20_an_awkward_tree_arrives_as_it_is_and_nothing_from_outside_of_it() {
    let Some((project, table)) = awkward("ex_20_an_awkward_tree_arrives_as_it_is") else { return };
    assert_eq!(fs::read_to_string(project.path(TREE).join("links/up-and-out")).unwrap(), CANARY);
    let (clean, found) = run(&project);
    assert_same(&found, &table);
    assert!(!clean.contains("uncommitted"), "{clean}");
    assert!(!holds_canary(&project.path("home")) && !holds_canary(&project.path("out")));
    assert!(holds_canary(&project.path(".")), "the search finds what is there");
    for setting in ["true", "false"] {
        git(&project.path("."), &["config", "core.quotePath", setting]);
        let (line, found) = run(&project);
        assert_eq!(line, clean, "core.quotePath {setting}");
        assert_same(&found, &table);
    }
    // The same without git.
    fs::rename(project.path(".git"), project.path("elsewhere")).unwrap();
    let (line, found) = run(&project);
    assert!(line.contains("in no commit"), "{line}");
    assert_same(&found, &table);
}

#[test]
fn ex_20_a_deleted_file_is_absent_and_execute_bits_come_from_where_they_are_kept() {
    let Some((project, table)) = awkward("ex_20_a_deleted_file_is_absent") else { return };
    let (clean, _) = run(&project);
    let script = project.path(TREE).join("run.sh");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(project.path(TREE).join("data"), fs::Permissions::from_mode(0o755)).unwrap();
    let (line, found) = run(&project);
    assert!(line.contains("uncommitted"), "{line}");
    assert_eq!((&found["run.sh"]["exec"], &found["data"]["exec"]), (&json!(false), &json!(true)));
    git(&project.path("."), &["config", "core.fileMode", "false"]);
    let (line, found) = run(&project);
    assert_eq!(line, clean);
    assert_same(&found, &table);
    fs::remove_file(project.path(TREE).join("data")).unwrap();
    let (line, found) = run(&project);
    assert!(line.contains("uncommitted"), "{line}");
    let mut less = table;
    less.remove("data");
    assert_same(&found, &less);
}

#[test]
fn ex_20_a_second_work_tree_gives_the_same_digest() {
    let Some((project, table)) = awkward("ex_20_a_second_work_tree_gives_the_same_digest") else { return };
    let (first, _) = run(&project);
    let second = Project::empty();
    let path = second.path("tree").display().to_string();
    git(&project.path("."), &["worktree", "add", "--quiet", "--detach", &path]);
    for entry in fs::read_dir(&path).unwrap() {
        let from = entry.unwrap().path();
        fs::rename(&from, second.path(from.file_name().unwrap().to_str().unwrap())).unwrap();
    }
    assert!(fs::symlink_metadata(second.path(".git")).unwrap().is_file(), "a work tree's .git is a file");
    git(&second.path("."), &["worktree", "repair"]);
    for part in ["home", "images"] {
        let done = Command::new("cp").arg("-a").arg(project.path(part)).arg(second.path(part)).status().unwrap();
        assert!(done.success());
    }
    let (line, found) = run(&second);
    assert_eq!(line, first);
    assert_same(&found, &table);
}

#[test]
fn ex_20_a_submodule_is_in_and_never_silently_empty() {
    let Some((project, table)) = awkward("ex_20_a_submodule_is_in_and_never_silently_empty") else { return };
    let other = tempfile::tempdir().unwrap();
    git(other.path(), &["init", "--quiet"]);
    fs::write(other.path().join("one"), "1").unwrap();
    fs::create_dir(other.path().join("d")).unwrap();
    fs::write(other.path().join("d/two"), "2").unwrap();
    commit(other.path());
    let from = other.path().display().to_string();
    git(&project.path("."), &["submodule", "--quiet", "add", &from, &format!("{TREE}/sub")]);
    commit(&project.path("."));
    let (line, found) = run(&project);
    let mut more = table;
    more.insert("sub/one".to_owned(), file("1"));
    more.insert("sub/d/two".to_owned(), file("2"));
    assert_same(&found, &more);
    assert!(!line.contains("uncommitted"), "{line}");
    fs::write(project.path(TREE).join("sub/one"), "3").unwrap();
    let (line, found) = run(&project);
    assert!(line.contains("uncommitted"), "{line}");
    assert_eq!(found["sub/one"], file("3"));
    git(&project.path("."), &["submodule", "--quiet", "deinit", "--force", "--all"]);
    let ended = project.sluicegate(&["run", "--no-scan"]);
    ended.assert(2, "src/sub: the submodule is not checked out");
    ended.assert(2, "git submodule update --init");
}

#[test]
fn ex_20_a_sparse_checkout_is_what_lies_there() {
    let Some((project, table)) = awkward("ex_20_a_sparse_checkout_is_what_lies_there") else { return };
    git(&project.path("."), &["sparse-checkout", "set", "--no-cone", "/*", "!/a/b/src/deep/"]);
    assert!(!project.path(TREE).join("deep").exists());
    let (line, found) = run(&project);
    assert!(line.contains("uncommitted"), "{line}: it is less than the commit holds");
    let less = table.into_iter().filter(|(name, _)| !name.starts_with("deep/")).collect();
    assert_same(&found, &less);
}
