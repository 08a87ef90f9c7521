//! A pipeline file that wants more than its project: keys, other people's files, rights on the machine, a commit that it is not of.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use integration::{
    Project, can_run_steps,
    repository::{commit, git},
};
use serde_json::{Value, json};

const RUN: [&str; 2] = ["run", "--no-scan"];

fn pipeline(project: &Project, rest: &str) {
    let text = format!(
        "version: 1\nname: hostile\nsources: {{ src: {{ path: src }} }}\ndefaults: {{ image: oci:images/base }}\nsteps:\n{rest}"
    );
    fs::write(project.path("sluicegate.yaml"), text).unwrap();
}

#[test]
fn no_pipeline_file_gives_a_step_our_keys_their_passphrase_or_a_file_of_the_machine() {
    if !can_run_steps("no_pipeline_file_gives_a_step_our_keys_their_passphrase_or_a_file_of_the_machine") {
        return;
    }
    let project = Project::prepared();
    let secret = |what: &str| {
        pipeline(
            &project,
            &format!("  show:\n    run: 'test -n \"$K\"'\n    secrets: {{ K: {{ {what} }} }}\n    outputs: {{}}\n"),
        );
    };
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "of somebody else").unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), project.path("linked")).unwrap();
    fs::write(project.path("own"), "of the project").unwrap();
    fs::hard_link(project.path("home/keys/production.key"), project.path("other-name")).unwrap();
    commit(&project.path("."), &["src"]);
    std::os::unix::fs::symlink(".git/config", project.path("to-git")).unwrap();
    git(&project.path("."), &["clone", "--quiet", "--bare", ".", "mirror.git"]);
    let own_store = fs::read_to_string(project.path("gateway.yaml")).unwrap();
    let bucket = "cache: { store: \"s3://shared\", region: here, endpoint: \"http://127.0.0.1:1\" }\n";
    fs::write(project.path("gateway.yaml"), own_store.clone() + bucket).unwrap();
    let outside = format!("file: {}", outside.path().join("secret").display());
    for (what, words) in [
        ("env: COSIGN_PASSWORD", "opens our own keys"),
        ("env: SLUICEGATE_HOME", "opens our own keys"),
        ("file: home/keys/production.key", "is a file of the home"),
        ("file: home/evidence.db", "is a file of the home"),
        ("file: other-name", "is an encrypted signing key"),
        ("file: /etc/hostname", "lies outside of the pipeline file's folder"),
        ("file: linked", "lies outside of the pipeline file's folder"),
        ("file: .git/config", "belongs to git"),
        ("file: to-git", "belongs to git"),
        ("file: mirror.git/config", "belongs to git"),
        ("env: HTTPS_PROXY", "shows to the shared store or to a proxy"),
        ("env: all_proxy", "shows to the shared store or to a proxy"),
        ("env: AWS_SECRET_ACCESS_KEY", "shows to the shared store or to a proxy"),
        (outside.as_str(), "lies outside of the pipeline file's folder"),
    ] {
        secret(what);
        project.sluicegate(&RUN).assert(2, words);
        project.sluicegate(&["try", "show"]).assert(2, words);
    }
    fs::write(project.path("gateway.yaml"), own_store).unwrap();
    secret("file: own");
    project.must(&RUN);
    // Where no store is shown them, they are somebody else's.
    secret("env: AWS_SECRET_ACCESS_KEY");
    let ended = project.command(&RUN).env("AWS_SECRET_ACCESS_KEY", "of a step").output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn no_pipeline_file_reads_a_repository_of_the_machine() {
    if !can_run_steps("no_pipeline_file_reads_a_repository_of_the_machine") {
        return;
    }
    let project = Project::prepared();
    let outside = tempfile::tempdir().unwrap();
    for folder in [outside.path(), &project.path("own")] {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("file"), "committed").unwrap();
        commit(folder, &["file"]);
    }
    let link = |to: PathBuf, name: &str| std::os::unix::fs::symlink(to, project.path(name)).unwrap();
    link(outside.path().to_owned(), "link");
    let run = |path: &std::path::Path| {
        let text = format!(
            "version: 1\nname: hostile\nsources: {{ far: {{ git: \"file://{}\", ref: main }} }}\n\
             defaults: {{ image: oci:images/base }}\nsteps:\n  show:\n    run: cat /src/file\n    inputs: {{ /src: far }}\n    \
             outputs: {{}}\n",
            path.display()
        );
        fs::write(project.path("sluicegate.yaml"), text).unwrap();
        project.sluicegate(&RUN)
    };
    run(outside.path()).assert(2, "no pipeline file leads there");
    run(&project.path("link")).assert(2, "no pipeline file leads there");
    run(&project.path("own")).assert(0, "");
    // A repository in the project may consist of one elsewhere.
    let theirs = outside.path().join(".git");
    for folder in ["file", "linked", "common/.git", "parts/.git", "borrowing/.git/objects/info", "borrowing/.git/refs"]
    {
        fs::create_dir_all(project.path(folder)).unwrap();
    }
    fs::write(project.path("file/.git"), format!("gitdir: {}\n", theirs.display())).unwrap();
    link(theirs.clone(), "linked/.git");
    fs::write(project.path("common/.git/commondir"), format!("{}\n", theirs.display())).unwrap();
    for part in ["objects", "refs"] {
        link(theirs.join(part), &format!("parts/.git/{part}"));
    }
    let alternates = format!("{}\n", theirs.join("objects").display());
    fs::write(project.path("borrowing/.git/objects/info/alternates"), alternates).unwrap();
    fs::create_dir(project.path("borrowing/.git/refs/heads")).unwrap();
    fs::copy(theirs.join("refs/heads/main"), project.path("borrowing/.git/refs/heads/main")).unwrap();
    for folder in ["common", "parts", "borrowing"] {
        fs::write(project.path(folder).join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
    }
    for (folder, words) in [
        ("file", "file/.git: it is no folder"),
        ("linked", "linked/.git: it is a link"),
        ("common", "common/.git/commondir: it says that the rest"),
        ("parts", "parts/.git/"),
        ("borrowing", "borrowing/.git/objects/info/alternates: it borrows objects"),
    ] {
        run(&project.path(folder)).assert(2, words);
    }
}

#[test]
fn what_is_exported_raises_nobodys_rights() {
    if !can_run_steps("what_is_exported_raises_nobodys_rights") {
        return;
    }
    let project = Project::prepared();
    pipeline(
        &project,
        "  a:\n    run: mkdir -p /out/d && cp /bin/sh /out/d/sh && chmod 6755 /out/d/sh && mkdir /out/d/e && chmod 1777 /out/d/e\n    \
         outputs: { d: /out/d }\n",
    );
    project.must(&["run", "--no-scan", "--export", "ex"]);
    let mode = |path: &str| fs::metadata(project.path(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("ex/a/d/sh"), mode("ex/a/d/e")), (0o755, 0o777));
    // In a step it is as it was left.
    pipeline(
        &project,
        "  a:\n    run: mkdir -p /out/d && cp /bin/sh /out/d/sh && chmod 6755 /out/d/sh\n    outputs: { d: /out/d }\n  \
         b:\n    run: stat -c %a /d/sh\n    inputs: { /d: a.d }\n    outputs: {}\n",
    );
    project.must(&RUN);
    assert_eq!(project.log("b"), "6755\n");
}

#[test]
fn a_tag_never_names_a_commit_whose_sources_were_not_read() {
    if !can_run_steps("a_tag_never_names_a_commit_whose_sources_were_not_read") {
        return;
    }
    let project = Project::prepared();
    let change = |text: &str| {
        fs::write(project.path("src/other.txt"), text).unwrap();
        commit(&project.path("."), &["src"]);
    };
    let text = |tags: &str| {
        format!(
            "  a:\n    run: cp -r /src /out\n    workdir: /src\n    inputs: {{ /src: src }}\n    outputs: {{ all: /out }}\n    \
             reuse: {{ key: [hello.txt] }}\nartifacts:\n  it:\n    base: scratch\n    files: {{ /all: a.all }}\n    \
             repository: oci:out/it\n{tags}"
        )
    };
    let run = |project: &Project| -> Value {
        let ended =
            project.command(&["run", "--no-scan", "-o", "json"]).env("SOURCE_DATE_EPOCH", "1000000000").output();
        let ended = ended.unwrap();
        assert!(ended.status.success(), "{ended:?}");
        serde_json::from_slice(&ended.stdout).unwrap()
    };
    change("one");
    pipeline(&project, &text("    tags: [\"git-{commit}\"]\n"));
    let first = run(&project);
    change("two");
    let second = run(&project);
    assert_eq!(second["steps"][0]["status"], json!("passed"), "{second}");
    assert_ne!(first["images"][0]["digest"], second["images"][0]["digest"]);
    // Where no tag says so, the files of the key decide.
    change("three");
    pipeline(&project, &text(""));
    assert_eq!(run(&project)["steps"][0]["status"], json!("taken"));
}
