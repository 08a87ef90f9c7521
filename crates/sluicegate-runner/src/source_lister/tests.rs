use std::{os::unix::fs::symlink, process::Command};

use tempfile::TempDir;

use super::*;
use crate::source_repository::MAX_IGNORE;

pub(super) fn names(tree: &SourceTree) -> Vec<String> {
    tree.entries.iter().map(|entry| entry.path.display().to_string()).collect()
}

pub(super) fn run(folder: &Path, args: &[&str]) {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"];
    let done = Command::new("git").args(identity).args(args).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

pub(super) fn repository() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    fs::write(folder.path().join("src/tracked"), "1").unwrap();
    fs::write(folder.path().join(".gitignore"), "ignored\n").unwrap();
    run(folder.path(), &["init", "--quiet"]);
    run(folder.path(), &["add", "--all"]);
    run(folder.path(), &["commit", "--quiet", "--message", "x"]);
    folder
}

#[test]
fn tracked_and_new_files_belong_to_a_source_and_ignored_ones_do_not() {
    let folder = repository();
    let list = || GitSourceLister.list(folder.path(), Path::new("src"), &[]).unwrap();
    let clean = list();
    assert_eq!((names(&clean), clean.dirty), (vec!["tracked".to_owned()], false));
    assert!(clean.commit.is_some() && clean.last_change.seconds().is_some());
    fs::write(folder.path().join("src/ignored"), "2").unwrap();
    assert!(!list().dirty);
    fs::write(folder.path().join("src/new"), "3").unwrap();
    let changed = list();
    assert_eq!((names(&changed), changed.dirty), (vec!["new".to_owned(), "tracked".to_owned()], true));
    fs::remove_file(folder.path().join("src/new")).unwrap();
    fs::write(folder.path().join("src/tracked"), "other").unwrap();
    assert!(list().dirty);
}

#[test]
fn no_program_that_a_repository_names_is_started() {
    let folder = repository();
    let mark = folder.path().join("started");
    let command = format!("touch {}; cat", mark.display());
    for key in
        ["filter.own.clean", "filter.own.smudge", "filter.own.process", "core.fsmonitor", "gpg.program", "core.pager"]
    {
        run(folder.path(), &["config", key, &command]);
    }
    run(folder.path(), &["config", "log.showSignature", "true"]);
    fs::write(folder.path().join(".gitattributes"), "* filter=own\n").unwrap();
    fs::write(folder.path().join("src/tracked"), "changed").unwrap();
    let tree = GitSourceLister.list(folder.path(), Path::new("src"), &[]).unwrap();
    assert!(tree.dirty);
    assert!(!mark.exists(), "a program of the repository was started");
    // git itself, with the repository's configuration, starts it.
    drop(Command::new("git").args(["status"]).current_dir(folder.path()).output().unwrap());
    assert!(mark.exists());
}

#[test]
fn a_repository_that_is_committed_as_files_is_not_obeyed() {
    let folder = repository();
    let inner = folder.path().join("src");
    for part in ["objects", "refs"] {
        fs::create_dir(inner.join(part)).unwrap();
        fs::write(inner.join(part).join("kept"), "").unwrap();
    }
    let mark = folder.path().join("started");
    fs::write(inner.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    let filter = format!("[core]\nworktree = .\n[filter \"x\"]\nclean = \"touch {}; cat\"\n", mark.display());
    fs::write(inner.join("config"), filter).unwrap();
    fs::write(inner.join(".gitattributes"), "* filter=x\n").unwrap();
    run(folder.path(), &["add", "--all"]);
    drop(GitSourceLister.list(folder.path(), Path::new("src"), &[]));
    assert!(!mark.exists());
}

#[test]
fn a_broken_repository_is_an_error_and_no_plain_folder() {
    let folder = repository();
    assert!(GitSourceLister.list(folder.path(), Path::new("src"), &[]).is_ok());
    fs::write(folder.path().join(".git/HEAD"), "garbage").unwrap();
    assert!(matches!(GitSourceLister.list(folder.path(), Path::new("src"), &[]), Err(TreeError::Git { .. })));
}

#[test]
fn a_folder_that_became_a_link_leads_nowhere() {
    let folder = repository();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("s.txt"), "secret").unwrap();
    fs::create_dir(folder.path().join("src/d")).unwrap();
    fs::write(folder.path().join("src/d/s.txt"), "own").unwrap();
    run(folder.path(), &["add", "--all"]);
    assert!(GitSourceLister.list(folder.path(), Path::new("src"), &[]).is_ok());
    fs::remove_dir_all(folder.path().join("src/d")).unwrap();
    symlink(outside.path(), folder.path().join("src/d")).unwrap();
    assert!(GitSourceLister.list(folder.path(), Path::new("src"), &[]).is_err());
}

#[test]
fn a_source_stays_in_the_project_and_holds_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "s").unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    fs::write(folder.path().join("src/a"), "1").unwrap();
    fs::write(folder.path().join("src/b"), "2").unwrap();
    fs::write(folder.path().join("src/.sluicegateignore"), "# not this\nb\n").unwrap();
    fs::write(folder.path().join("src/x.key"), "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n").unwrap();
    fs::write(folder.path().join("src/innocent"), "-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\n").unwrap();
    fs::create_dir(folder.path().join("src/home")).unwrap();
    fs::write(folder.path().join("src/home/evidence.db"), "e").unwrap();
    let excluded = [folder.path().join("src/home")];
    let tree = GitSourceLister.list(folder.path(), Path::new("src"), &excluded).unwrap();
    let mut found = names(&tree);
    found.sort();
    assert_eq!(found, [".sluicegateignore", "a"]);
    symlink(outside.path(), folder.path().join("link")).unwrap();
    assert!(GitSourceLister.list(folder.path(), Path::new("link"), &[]).is_err());
    fs::create_dir(folder.path().join("empty")).unwrap();
    assert!(GitSourceLister.list(folder.path(), Path::new("empty"), &[]).is_err());
}

#[test]
fn the_list_of_ignored_names_is_a_plain_file_of_bounded_size() {
    let folder = tempfile::tempdir().unwrap();
    let src = folder.path().join("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("a"), "1").unwrap();
    fs::write(src.join("b"), "2").unwrap();
    let list = src.join(IGNORE_FILE);
    let list_it = || GitSourceLister.list(folder.path(), Path::new("src"), &[]).map(|tree| names(&tree));
    let text = |len: u64| format!("b\n#{}", "x".repeat(usize::try_from(len).unwrap() - 3));
    fs::write(&list, text(MAX_IGNORE)).unwrap();
    assert_eq!(names(&listed(folder.path())).len(), 2, "all but b");
    let words = |error: TreeError| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    };
    fs::write(&list, text(MAX_IGNORE + 1)).unwrap();
    let error = words(list_it().unwrap_err());
    assert!(error.contains(IGNORE_FILE) && error.contains("limit of 1048576 bytes"), "{error}");
    fs::write(&list, b"\xff\n").unwrap();
    assert!(words(list_it().unwrap_err()).contains("not UTF-8"));
    fs::remove_file(&list).unwrap();
    fs::write(folder.path().join("elsewhere"), "b\n").unwrap();
    symlink(folder.path().join("elsewhere"), &list).unwrap();
    assert!(words(list_it().unwrap_err()).contains("a link"));
    fs::remove_file(&list).unwrap();
    // A pipe that nobody writes to: whoever opens it to read waits for ever.
    rustix::fs::mkfifoat(rustix::fs::CWD, &list, rustix::fs::Mode::RUSR).unwrap();
    assert!(words(list_it().unwrap_err()).contains("not a regular file"));
    fs::remove_file(&list).unwrap();
    assert_eq!(names(&listed(folder.path())).len(), 2);
}

#[test]
fn an_index_in_whose_place_a_pipe_stands_is_refused() {
    let folder = repository();
    assert!(!listed(folder.path()).dirty);
    let index = folder.path().join(".git/index");
    fs::remove_file(&index).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &index, rustix::fs::Mode::RUSR).unwrap();
    assert!(GitSourceLister.list(folder.path(), Path::new("src"), &[]).is_err());
}

pub(super) fn listed(folder: &Path) -> SourceTree {
    GitSourceLister.list(folder, Path::new("src"), &[]).unwrap()
}

/// Says in the index that the file, as it lies there now, is the one that was committed.
fn forge_stat_data(folder: &Path, name: &str) {
    use std::os::unix::fs::MetadataExt;
    let path = folder.join(".git/index");
    let mut index = fs::read(&path).unwrap();
    let at = index.windows(name.len()).position(|window| window == name.as_bytes()).unwrap() - 62;
    let there = fs::symlink_metadata(folder.join(name)).unwrap();
    let stat = [there.ctime(), there.ctime_nsec(), there.mtime(), there.mtime_nsec()].map(|n| n as u32);
    let stat = [&stat[..], &[there.dev() as u32, there.ino() as u32]].concat();
    for (nth, value) in stat.iter().enumerate() {
        index[at + 4 * nth..at + 4 * nth + 4].copy_from_slice(&value.to_be_bytes());
    }
    index[at + 36..at + 40].copy_from_slice(&(there.len() as u32).to_be_bytes());
    let end = index.len() - 20;
    let sum = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &index[..end]);
    index[end..].copy_from_slice(sum.as_ref());
    fs::write(&path, index).unwrap();
    // Later than the file: git then trusts what the index says of it.
    let later = there.modified().unwrap() + std::time::Duration::from_secs(5);
    fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
}

#[test]
fn tm11_an_index_that_hides_a_change_hides_it_from_git_and_not_from_us() {
    type Lie = fn(&Path);
    let lies: [(&str, Lie); 3] = [
        ("assume-unchanged", |folder| run(folder, &["update-index", "--assume-unchanged", "src/tracked"])),
        ("skip-worktree", |folder| run(folder, &["update-index", "--skip-worktree", "src/tracked"])),
        ("stat data", |_| {}),
    ];
    for (lie, tell) in lies {
        let folder = repository();
        tell(folder.path());
        assert!(!listed(folder.path()).dirty, "{lie}: nothing changed yet");
        fs::write(folder.path().join("src/tracked"), "in no commit").unwrap();
        if lie == "stat data" {
            forge_stat_data(folder.path(), "src/tracked");
        }
        let status = Command::new("git").args(["status", "--short"]).current_dir(folder.path()).output().unwrap();
        assert!(status.status.success() && status.stdout.is_empty(), "{lie}: git itself sees it");
        let tree = listed(folder.path());
        assert_eq!((names(&tree), tree.dirty), (vec!["tracked".to_owned()], true), "{lie}");
        fs::write(folder.path().join("src/tracked"), "1").unwrap();
        assert!(!listed(folder.path()).dirty, "{lie}: it is as it was committed");
    }
}

#[test]
fn tm11_a_sparse_checkout_hides_no_file_that_lies_there() {
    let folder = repository();
    fs::create_dir_all(folder.path().join("src/deep/er")).unwrap();
    fs::write(folder.path().join("src/deep/er/file"), "2").unwrap();
    run(folder.path(), &["add", "--all"]);
    run(folder.path(), &["commit", "--quiet", "--message", "deep"]);
    assert!(!listed(folder.path()).dirty);
    run(folder.path(), &["sparse-checkout", "set", "--cone", "--sparse-index", "other"]);
    assert!(!folder.path().join("src").exists(), "git took them away");
    fs::create_dir_all(folder.path().join("src/deep/er")).unwrap();
    fs::write(folder.path().join("src/deep/er/file"), "2").unwrap();
    let missing = listed(folder.path());
    assert_eq!((names(&missing), missing.dirty), (vec!["deep/er/file".to_owned()], true));
    fs::write(folder.path().join("src/tracked"), "1").unwrap();
    let whole = listed(folder.path());
    assert_eq!((names(&whole).len(), whole.dirty), (2, false));
    fs::write(folder.path().join("src/deep/er/file"), "3").unwrap();
    assert!(listed(folder.path()).dirty);
}

#[test]
fn tm11_what_is_staged_missing_or_of_another_kind_is_a_change() {
    let folder = repository();
    let (src, tracked) = (folder.path().join("src"), folder.path().join("src/tracked"));
    symlink("tracked", src.join("link")).unwrap();
    run(folder.path(), &["add", "--all"]);
    assert!(listed(folder.path()).dirty, "staged and in no commit");
    run(folder.path(), &["commit", "--quiet", "--message", "link"]);
    assert!(!listed(folder.path()).dirty);
    // Out of the index, ignored, and so out of the source: less than was committed.
    run(folder.path(), &["rm", "--quiet", "--cached", "src/tracked"]);
    assert!(!listed(folder.path()).dirty, "it still belongs to the source, as it was committed");
    fs::write(folder.path().join(".git/info/exclude"), "tracked\n").unwrap();
    let less = listed(folder.path());
    assert_eq!((names(&less), less.dirty), (vec!["link".to_owned()], true));
    fs::write(folder.path().join(".git/info/exclude"), "").unwrap();
    fs::set_permissions(&tracked, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(listed(folder.path()).dirty, "executable");
    fs::set_permissions(&tracked, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(!listed(folder.path()).dirty);
    fs::remove_file(src.join("link")).unwrap();
    assert!(listed(folder.path()).dirty, "missing");
    symlink("elsewhere", src.join("link")).unwrap();
    assert!(listed(folder.path()).dirty, "another target");
    fs::remove_file(src.join("link")).unwrap();
    fs::write(src.join("link"), "tracked").unwrap();
    assert!(listed(folder.path()).dirty, "a file with the link's bytes");
    fs::remove_file(src.join("link")).unwrap();
    symlink("tracked", src.join("link")).unwrap();
    assert!(!listed(folder.path()).dirty);
    // What looks like a key never goes into a source; the committed file is missing there then.
    fs::write(&tracked, "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n").unwrap();
    let key = listed(folder.path());
    assert_eq!((names(&key), key.dirty), (vec!["link".to_owned()], true));
}

#[test]
fn tm11_an_object_with_another_ones_name_is_not_believed() {
    let folder = repository();
    let ask = |args: &[&str]| {
        let out = Command::new("git").args(args).current_dir(folder.path()).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    let path = |id: &str| folder.path().join(".git/objects").join(&id[..2]).join(&id[2..]);
    let honest = ask(&["rev-parse", "HEAD:src"]);
    fs::write(folder.path().join("src/tracked"), "in no commit").unwrap();
    run(folder.path(), &["add", "--all"]);
    let root = ask(&["write-tree"]);
    let forged = ask(&["rev-parse", &format!("{root}:src")]);
    assert!(listed(folder.path()).dirty);
    fs::remove_file(path(&honest)).unwrap();
    fs::copy(path(&forged), path(&honest)).unwrap();
    let error = GitSourceLister.list(folder.path(), Path::new("src"), &[]).unwrap_err().to_string();
    assert!(error.contains(&honest), "{error}");
}

#[test]
fn a_commit_has_its_own_date_and_without_one_a_source_has_changes() {
    let folder = repository();
    let date = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(folder.path()).output().unwrap();
    let date: u64 = String::from_utf8(date.stdout).unwrap().trim().parse().unwrap();
    assert_eq!(listed(folder.path()).last_change, LastChange::At(date));
    fs::remove_dir_all(folder.path().join(".git")).unwrap();
    let none = listed(folder.path());
    assert_eq!((none.commit, none.dirty, none.last_change), (None, true, LastChange::Unknown));
    run(folder.path(), &["init", "--quiet"]);
    let unborn = listed(folder.path());
    assert_eq!((unborn.commit, unborn.dirty, unborn.last_change), (None, true, LastChange::Unknown));
}

#[test]
fn a_source_is_as_old_as_the_commit_that_changed_it_last() {
    let folder = repository();
    let commit = |path: &str, text: &str, seconds: u64| {
        fs::write(folder.path().join(path), text).unwrap();
        run(folder.path(), &["add", "--all"]);
        commit_at(folder.path(), seconds);
    };
    let last = || listed(folder.path()).last_change;
    commit("src/tracked", "first of its own", 100_000_000);
    commit("beside", "another", 200_000_000);
    assert_eq!(last(), LastChange::At(100_000_000), "a commit that changes something else");
    let including = |path: &str| {
        GitSourceLister
            .list_including(folder.path(), Path::new("src"), &[PathBuf::from(path)], &[], &Stop::default())
            .unwrap()
            .last_change
    };
    assert_eq!(including("../beside"), LastChange::At(200_000_000), "unless it is included");
    fs::write(folder.path().join("src/tracked"), "in no commit").unwrap();
    assert_eq!(last(), LastChange::At(100_000_000), "what is in no commit has no date");
    commit("src/tracked", "two", 300_000_000);
    assert_eq!(last(), LastChange::At(300_000_000));
    run(folder.path(), &["checkout", "--quiet", "-b", "side"]);
    commit("src/tracked", "of the side", 400_000_000);
    run(folder.path(), &["checkout", "--quiet", "-"]);
    commit("beside", "and one more", 500_000_000);
    run(folder.path(), &["merge", "--quiet", "--no-commit", "--no-ff", "side"]);
    commit_at(folder.path(), 600_000_000);
    assert_eq!(last(), LastChange::At(600_000_000), "what was merged changed when it was merged");
    // A clone without the past.
    commit("beside", "later", 700_000_000);
    let clone = tempfile::tempdir().unwrap();
    let from = format!("file://{}", folder.path().display());
    run(clone.path(), &["clone", "--quiet", "--depth", "1", &from, "."]);
    assert_eq!(listed(clone.path()).last_change, LastChange::CutOff);
    run(clone.path(), &["fetch", "--quiet", "--depth", "2"]);
    assert_eq!(
        listed(clone.path()).last_change,
        LastChange::CutOff,
        "the first of what is here may not have changed it"
    );
    run(clone.path(), &["fetch", "--quiet", "--unshallow"]);
    assert_eq!(listed(clone.path()).last_change, LastChange::At(600_000_000));
}

fn commit_at(folder: &Path, seconds: u64) {
    let date = format!("{seconds} +0000");
    let mut git = Command::new("git");
    git.args(["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", "x"]);
    let git = git.env("GIT_COMMITTER_DATE", &date).env("GIT_AUTHOR_DATE", &date).current_dir(folder);
    let done = git.output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn a_commit_is_dated_no_later_than_a_time_can_be_written() {
    let folder = repository();
    let own = folder.path().join("commit");
    let dated = |seconds: i64| {
        let tree = Command::new("git").args(["rev-parse", "HEAD^{tree}"]).current_dir(folder.path()).output().unwrap();
        let tree = String::from_utf8(tree.stdout).unwrap();
        let who = format!("t <t@example.org> {seconds} +0000");
        fs::write(&own, format!("tree {}\nauthor {who}\ncommitter {who}\n\nx\n", tree.trim())).unwrap();
        let made = ["hash-object", "-t", "commit", "-w", "--literally", "commit"];
        let made = Command::new("git").args(made).current_dir(folder.path()).output().unwrap();
        let made = String::from_utf8(made.stdout).unwrap();
        run(folder.path(), &["update-ref", "HEAD", made.trim()]);
        GitSourceLister.list(folder.path(), Path::new("src"), &[]).map(|tree| tree.last_change)
    };
    let last = sluicegate_types::UnixTime::LAST.seconds();
    assert_eq!(dated(last).unwrap(), LastChange::At(last.unsigned_abs()));
    let error = dated(last + 1).unwrap_err().to_string();
    assert!(error.contains("dated after 9999-12-29T23:59:59Z"), "{error}");
}

#[test]
fn a_source_of_ten_thousand_files_in_many_folders_is_compared_whole() {
    let folder = repository();
    for at in 0..100 {
        let inner = folder.path().join(format!("src/{at}"));
        fs::create_dir(&inner).unwrap();
        (0..100).for_each(|nth| fs::write(inner.join(nth.to_string()), format!("{at} {nth}")).unwrap());
    }
    run(folder.path(), &["add", "--all"]);
    run(folder.path(), &["commit", "--quiet", "--message", "many"]);
    let tree = listed(folder.path());
    assert_eq!((tree.entries.len(), tree.dirty), (10_001, false));
    fs::write(folder.path().join("src/77/77"), "77 78").unwrap();
    assert!(listed(folder.path()).dirty);
}
