//! Trees as others have them: submodules, second work trees, file systems without bits, files from elsewhere.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use super::{
    tests::{listed, names, repository, run},
    *,
};

/// What stands at a path, in words.
fn at(tree: &SourceTree, path: &str) -> String {
    let entry = tree.entries.iter().find(|entry| entry.path == Path::new(path));
    match entry.map(|entry| &entry.kind) {
        None => "nothing".to_owned(),
        Some(EntryKind::HostFile { source, executable }) => {
            let text = fs::read_to_string(source).unwrap();
            if *executable { format!("program {text}") } else { text }
        }
        Some(EntryKind::Symlink(target)) => format!("-> {}", target.display()),
        Some(other) => panic!("{other:?}"),
    }
}

fn commit(folder: &Path) {
    run(folder, &["add", "--all"]);
    run(folder, &["commit", "--quiet", "--allow-empty", "--message", "x"]);
}

/// A repository with a submodule of two files in `src/sub`.
fn with_submodule() -> (tempfile::TempDir, tempfile::TempDir) {
    let (folder, other) = (repository(), repository());
    fs::write(other.path().join("second"), "2").unwrap();
    commit(other.path());
    let from = other.path().display().to_string();
    run(folder.path(), &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", &from, "src/sub"]);
    commit(folder.path());
    (folder, other)
}

fn refusal(folder: &Path, include: &[&str], excluded: &[PathBuf]) -> String {
    let include: Vec<PathBuf> = include.iter().map(PathBuf::from).collect();
    let error =
        GitSourceLister.list_including(folder, Path::new("src"), &include, excluded, &Stop::default()).unwrap_err();
    format!("{error}: {}", std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default())
}

#[test]
fn ex_20_the_files_of_a_submodule_are_in_and_its_commit_is_told() {
    let (folder, other) = with_submodule();
    let head = std::process::Command::new("git").args(["rev-parse", "HEAD"]).current_dir(other.path()).output();
    let head = String::from_utf8(head.unwrap().stdout).unwrap().trim().to_owned();
    let tree = listed(folder.path());
    assert_eq!(
        names(&tree),
        ["sub/.gitignore", "sub/second", "sub/src/tracked", "tracked"].map(str::to_owned).to_vec()
    );
    assert_eq!(tree.submodules, BTreeMap::from([(PathBuf::from("sub"), head.clone())]));
    assert!(!tree.dirty, "all of it is what the commit and the submodule's commit hold");
    let sub = folder.path().join("src/sub");
    // What its own list of ignored names says counts in it.
    fs::write(sub.join("ignored"), "x").unwrap();
    assert!(!listed(folder.path()).dirty);
    fs::write(sub.join("second"), "3").unwrap();
    assert!(listed(folder.path()).dirty, "a change in it");
    run(&sub, &["commit", "--quiet", "--all", "--message", "3"]);
    let moved = listed(folder.path());
    assert!(moved.dirty && moved.submodules.values().all(|commit| *commit != head), "a commit that nobody named");
    run(&sub, &["checkout", "--quiet", &head]);
    assert!(!listed(folder.path()).dirty);
    // The index alone does not make it a part of the commit.
    run(
        folder.path(),
        &[
            "-c",
            "protocol.file.allow=always",
            "submodule",
            "--quiet",
            "add",
            &other.path().display().to_string(),
            "src/b",
        ],
    );
    assert!(listed(folder.path()).dirty);
}

#[test]
fn ex_20_a_submodule_is_never_silently_empty() {
    let (folder, _other) = with_submodule();
    let sub = folder.path().join("src/sub");
    assert!(names(&listed(folder.path())).contains(&"sub/second".to_owned()));
    run(folder.path(), &["submodule", "--quiet", "deinit", "--force", "src/sub"]);
    let error = refusal(folder.path(), &[], &[]);
    assert!(error.contains("src/sub: the submodule is not checked out") && error.contains("--init"), "{error}");
    fs::remove_dir(&sub).unwrap();
    let gone = listed(folder.path());
    assert_eq!((names(&gone), gone.dirty, gone.submodules.len()), (vec!["tracked".to_owned()], true, 0));
    // One that git does not track is no submodule.
    fs::create_dir(&sub).unwrap();
    run(folder.path(), &["rm", "--quiet", "--cached", "src/sub"]);
    run(&sub, &["init", "--quiet"]);
    fs::write(sub.join("file"), "1").unwrap();
    commit(&sub);
    let error = refusal(folder.path(), &[], &[]);
    assert!(error.contains("src/sub") && error.contains("make it a submodule"), "{error}");
    fs::write(folder.path().join(".git/info/exclude"), "sub\n").unwrap();
    assert_eq!(names(&listed(folder.path())), ["tracked"]);
    // A submodule whose .git leads elsewhere.
    let (folder, other) = with_submodule();
    let elsewhere = format!("gitdir: {}\n", other.path().join(".git").display());
    run(other.path(), &["config", "core.worktree", &other.path().display().to_string()]);
    fs::write(folder.path().join("src/sub/.git"), elsewhere).unwrap();
    let error = refusal(folder.path(), &[], &[]);
    assert!(error.contains("src/sub"), "{error}");
}

#[test]
fn ex_20_without_execute_bits_and_links_the_index_says_them() {
    let folder = repository();
    let src = folder.path().join("src");
    fs::write(src.join("run"), "1").unwrap();
    fs::set_permissions(src.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("run", src.join("link")).unwrap();
    commit(folder.path());
    fs::set_permissions(src.join("run"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(src.join("tracked"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(src.join("link")).unwrap();
    fs::write(src.join("link"), "run").unwrap();
    let tree = listed(folder.path());
    assert!(tree.dirty, "bits and links count");
    assert_eq!([at(&tree, "run"), at(&tree, "tracked"), at(&tree, "link")], ["1", "program 1", "run"]);
    run(folder.path(), &["config", "core.fileMode", "false"]);
    run(folder.path(), &["config", "core.symlinks", "no"]);
    fs::write(src.join("new"), "2").unwrap();
    fs::set_permissions(src.join("new"), fs::Permissions::from_mode(0o755)).unwrap();
    let tree = listed(folder.path());
    assert_eq!([at(&tree, "run"), at(&tree, "tracked"), at(&tree, "link")], ["program 1", "1", "-> run"]);
    assert_eq!((at(&tree, "new"), tree.dirty), ("2".to_owned(), true), "as git would add it");
    fs::remove_file(src.join("new")).unwrap();
    assert!(!listed(folder.path()).dirty);
    run(folder.path(), &["update-index", "--chmod=-x", "src/run"]);
    let tree = listed(folder.path());
    assert_eq!((at(&tree, "run"), tree.dirty), ("1".to_owned(), true), "the index is no commit");
    run(folder.path(), &["config", "core.fileMode", "perhaps"]);
    assert!(refusal(folder.path(), &[], &[]).contains("perhaps"));
}

#[test]
fn ex_20_a_second_work_tree_and_a_split_index_are_as_the_first() {
    let folder = repository();
    fs::write(folder.path().join("src/-rf"), "2").unwrap();
    commit(folder.path());
    let second = tempfile::tempdir().unwrap();
    let path = second.path().join("tree").display().to_string();
    run(folder.path(), &["worktree", "add", "--quiet", &path]);
    let (first, other) = (listed(folder.path()), listed(Path::new(&path)));
    assert_eq!((names(&first), first.dirty, &first.commit), (names(&other), other.dirty, &other.commit));
    fs::write(Path::new(&path).join("src/tracked"), "other").unwrap();
    assert!(listed(Path::new(&path)).dirty && !listed(folder.path()).dirty);
    run(folder.path(), &["update-index", "--split-index"]);
    fs::write(folder.path().join(".gitignore"), "ignored\ntracked\n").unwrap();
    fs::remove_file(folder.path().join("src/-rf")).unwrap();
    let split = listed(folder.path());
    assert_eq!((names(&split), split.dirty), (vec!["tracked".to_owned()], true), "deleted, and tracked though ignored");
}

#[test]
fn what_stands_behind_a_link_in_the_project_is_not_what_was_committed_there() {
    let folder = repository();
    assert!(!listed(folder.path()).dirty);
    fs::rename(folder.path().join("src"), folder.path().join("other")).unwrap();
    symlink("other", folder.path().join("src")).unwrap();
    commit(folder.path());
    assert!(listed(folder.path()).dirty);
    let other = GitSourceLister.list(folder.path(), Path::new("other"), &[]).unwrap();
    assert_eq!((names(&other), other.dirty), (vec!["tracked".to_owned()], false));
}

#[test]
fn included_files_stand_at_the_top_and_have_to_be_committed_too() {
    let folder = repository();
    fs::write(folder.path().join("go.sum"), "sums").unwrap();
    fs::create_dir_all(folder.path().join("a/b")).unwrap();
    fs::write(folder.path().join("a/b/tool"), "tool").unwrap();
    fs::set_permissions(folder.path().join("a/b/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    let list = || {
        let include = ["../go.sum", "../a/./b/tool"].map(PathBuf::from);
        GitSourceLister.list_including(folder.path(), Path::new("src"), &include, &[], &Stop::default()).unwrap()
    };
    let new = list();
    assert_eq!([at(&new, "go.sum"), at(&new, "tool"), at(&new, "tracked")], ["sums", "program tool", "1"]);
    assert!(new.dirty, "they are in no commit");
    commit(folder.path());
    assert!(!list().dirty);
    fs::write(folder.path().join("go.sum"), "other").unwrap();
    assert!(list().dirty && !listed(folder.path()).dirty);
    fs::write(folder.path().join("go.sum"), "sums").unwrap();
    fs::set_permissions(folder.path().join("a/b/tool"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(list().dirty);
    run(folder.path(), &["config", "core.fileMode", "false"]);
    let told = list();
    assert_eq!((at(&told, "tool"), told.dirty), ("program tool".to_owned(), false));
    run(folder.path(), &["config", "core.fileMode", "true"]);
    fs::set_permissions(folder.path().join("a/b/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    // A link to the same bytes may lead elsewhere tomorrow.
    fs::rename(folder.path().join("go.sum"), folder.path().join("sums")).unwrap();
    symlink("sums", folder.path().join("go.sum")).unwrap();
    commit(folder.path());
    let linked = list();
    assert_eq!((at(&linked, "go.sum"), linked.dirty), ("sums".to_owned(), true));
    // Outside git, too, and beside nothing else.
    fs::remove_dir_all(folder.path().join(".git")).unwrap();
    fs::remove_file(folder.path().join("src/tracked")).unwrap();
    assert_eq!(names(&list()), ["go.sum", "tool"]);
}

#[test]
fn what_may_be_no_source_is_not_included_either() {
    let project = repository();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "x").unwrap();
    let at = |name: &str| project.path().join(name);
    fs::write(at("plain"), "x").unwrap();
    fs::write(at("tracked"), "x").unwrap();
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("folder/plain"), "y").unwrap();
    fs::write(at("key"), "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n").unwrap();
    fs::create_dir(at("home")).unwrap();
    fs::write(at("home/evidence.db"), "e").unwrap();
    fs::write(at("token"), "t").unwrap();
    fs::hard_link(at("token"), at("innocent")).unwrap();
    symlink(outside.path().join("file"), at("out")).unwrap();
    symlink("home/evidence.db", at("in")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RUSR).unwrap();
    let excluded = [at("home"), at("token")];
    let plain = GitSourceLister.list_including(
        project.path(),
        Path::new("src"),
        &["../plain".into()],
        &excluded,
        &Stop::default(),
    );
    assert_eq!(names(&plain.unwrap()), ["tracked", "plain"]);
    let beyond = format!("../../{}/file", outside.path().file_name().unwrap().to_string_lossy());
    for (include, says) in [
        (&["../tracked"][..], "another tracked at the top"),
        (&["../plain", "../folder/plain"], "another plain at the top"),
        (&["../folder"], "not a plain file"),
        (&["../pipe"], "not a plain file"),
        (&["../key"], "a private key"),
        (&["../home/evidence.db"], "never a source"),
        (&["../token"], "never a source"),
        (&["../innocent"], "by another name"),
        (&["../in"], "never a source"),
        (&["../out"], "where the pipeline file stands"),
        (&[&beyond], "where the pipeline file stands"),
        (&[&at("plain").display().to_string()], "where the pipeline file stands"),
        (&["../.git/config"], "in .git"),
        (&["../nothing"], "find the included file"),
        (&[".."], "names no file"),
    ] {
        let error = refusal(project.path(), include, &excluded);
        assert!(error.contains(says), "{include:?}: {error}");
    }
}

#[test]
fn secrets_and_keys_are_in_no_source_by_any_name() {
    for in_git in [true, false] {
        let folder = repository();
        let at = |name: &str| folder.path().join("src").join(name);
        fs::create_dir(at("home")).unwrap();
        for (name, text) in
            [("home/evidence.db", "e"), ("token", "t"), ("x.key", "-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\n")]
        {
            fs::write(at(name), text).unwrap();
        }
        fs::hard_link(at("token"), at("hard")).unwrap();
        symlink("token", at("soft")).unwrap();
        symlink("home", at("folder")).unwrap();
        if !in_git {
            fs::remove_dir_all(folder.path().join(".git")).unwrap();
        }
        let list = |excluded: &[PathBuf]| {
            let tree = GitSourceLister.list(folder.path(), Path::new("src"), excluded).unwrap();
            let mut names = names(&tree);
            names.sort();
            names
        };
        let excluded = [at("home"), at("token"), at("not/there/yet")];
        assert_eq!(list(&excluded), ["tracked"], "in git: {in_git}");
        // A secret that is named through a link is as secret under its own name.
        let through = [at("folder"), at("soft")];
        assert_eq!(list(&through), ["tracked"], "in git: {in_git}");
        assert_eq!(
            list(&[]),
            ["folder", "hard", "home/evidence.db", "soft", "token", "tracked"],
            "keys need no naming; in git: {in_git}"
        );
    }
}
