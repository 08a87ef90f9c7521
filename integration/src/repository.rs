//! Repositories that tests make: whoever runs them needs no name, and nothing of their own configuration counts.

use std::{path::Path, process::Command};

/// Runs git in `folder`, commits made at this second since 1970: what it prints, without the blanks around it.
pub fn git_at(seconds: u64, folder: &Path, arguments: &[&str]) -> String {
    let date = format!("{seconds} +0000");
    let output = Command::new("git")
        .current_dir(folder)
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"])
        .args(arguments)
        .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_SYSTEM", "/dev/null")])
        .envs([("GIT_AUTHOR_DATE", &date), ("GIT_COMMITTER_DATE", &date)])
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// [`git_at`] a second of the year 2026.
pub fn git(folder: &Path, arguments: &[&str]) -> String {
    git_at(1_767_312_000, folder, arguments)
}

/// Commits all that these paths have in a repository that is made if there is none; its name.
pub fn commit_at(seconds: u64, folder: &Path, paths: &[&str]) -> String {
    git_at(seconds, folder, &["init", "--quiet", "--initial-branch", "main"]);
    git_at(seconds, folder, &[&["add", "--all"], paths].concat());
    git_at(seconds, folder, &["commit", "--quiet", "--message", "x"]);
    git_at(seconds, folder, &["rev-parse", "HEAD"])
}

/// [`commit_at`] a second of the year 2026.
pub fn commit(folder: &Path, paths: &[&str]) -> String {
    commit_at(1_767_312_000, folder, paths)
}
