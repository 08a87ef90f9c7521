//! The demo's record: each command as it was run, so that it can be run again as it stands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::commands;
use crate::failure::{Failure, Outcome};
use crate::json::Json;
use crate::oci_layout;
use crate::workspace::Workspace;

/// One command of the demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The program, by its absolute path where it is one of ours, and its arguments.
    pub argv: Vec<String>,
    /// The folder it was run in.
    pub cwd: PathBuf,
    /// What was set in its environment.
    pub env: Vec<(String, String)>,
    /// The exit code that it had, and has to have again.
    pub exit: i32,
    /// Digests that held after it. Those whose name begins with `oci:` are of images, by their layout's path seen from `cwd`, and hold again;
    /// the others depend on the time of the run.
    pub digests: Vec<(String, String)>,
}

impl Recorded {
    /// Runs the command, with its output passed on if `show` says so; its exit code and what it printed.
    pub fn run(&self, show: bool) -> Outcome<(i32, String)> {
        let Some((program, arguments)) = self.argv.split_first() else {
            return Err(Failure::new("a command of the record has no program"));
        };
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.cwd);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        commands::watched(&mut command, show)
    }

    /// The command as a person types it, our own programs by their names.
    #[must_use]
    pub fn line(&self) -> String {
        let mut words: Vec<String> = self.argv.iter().map(|word| commands::quoted(word)).collect();
        if let Some(program) = words.first_mut() {
            match Path::new(&*program).file_name().and_then(|name| name.to_str()) {
                Some("xtask") => *program = "cargo xtask".to_owned(),
                Some("sluicegate") => *program = "sluicegate".to_owned(),
                _ => {}
            }
        }
        words.join(" ")
    }

    fn to_json(&self) -> Json {
        let pairs = |pairs: &[(String, String)]| {
            Json::Object(pairs.iter().map(|(name, value)| (name.clone(), Json::text(value))).collect())
        };
        Json::object([
            ("argv", Json::List(self.argv.iter().map(Json::text).collect())),
            ("cwd", Json::text(self.cwd.to_string_lossy())),
            ("env", pairs(&self.env)),
            ("exit", Json::Number(self.exit.to_string())),
            ("digests", pairs(&self.digests)),
        ])
    }

    fn from_json(value: &Json) -> Option<Self> {
        let text = |value: &Json| value.as_text().map(str::to_owned);
        let pairs = |value: &Json| {
            value.fields().iter().map(|(name, value)| Some((name.clone(), text(value)?))).collect::<Option<Vec<_>>>()
        };
        let Json::Number(exit) = value.get("exit") else { return None };
        let argv = value.get("argv").list().iter().map(text).collect::<Option<Vec<_>>>()?;
        if argv.is_empty() {
            return None;
        }
        Some(Self {
            argv,
            cwd: text(value.get("cwd"))?.into(),
            env: pairs(value.get("env"))?,
            exit: exit.parse().ok()?,
            digests: pairs(value.get("digests"))?,
        })
    }
}

/// Writes the record.
pub fn write(path: &Path, commands: &[Recorded]) -> Outcome {
    let list = Json::List(commands.iter().map(Recorded::to_json).collect());
    fs::write(path, list.pretty()).map_err(Failure::while_doing(format!("write {}", path.display())))
}

/// Reads a record of at least one command.
pub fn read(path: &Path) -> Outcome<Vec<Recorded>> {
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("cannot read {}: {error}; cargo xtask demo writes it", path.display()))
    })?;
    let list = Json::parse(&text).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let commands: Option<Vec<_>> = list.list().iter().map(Recorded::from_json).collect();
    commands
        .filter(|commands| !commands.is_empty())
        .ok_or_else(|| Failure::new(format!("{} is not a list of recorded commands", path.display())))
}

/// `cargo xtask demo-replay`: runs every recorded command again, in order, and compares exit codes and the digests of images.
pub fn replay(workspace: &Workspace) -> Outcome {
    let record = workspace.path("target/demo/demo.json");
    for command in read(&record)? {
        let started = Instant::now();
        commands::announce(&command.line());
        let (exit, text) = command.run(false)?;
        if exit != command.exit {
            return Err(Failure::new(format!(
                "{text}\nthe exit code was {} in the record and is {exit} now",
                command.exit
            )));
        }
        for (name, recorded) in &command.digests {
            let Some(layout) = name.strip_prefix("oci:") else { continue };
            let now = oci_layout::image_digest(&command.cwd.join(layout))?;
            if now != *recorded {
                return Err(Failure::new(format!("{name} was {recorded} in the record and is {now} now")));
            }
        }
        println!("  exit {exit} again, {:.1} s", started.elapsed().as_secs_f32());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(script: &str, exit: i32) -> Recorded {
        Recorded {
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            cwd: std::env::temp_dir(),
            env: vec![("WORD".into(), "a \"b\"".into())],
            exit,
            digests: Vec::new(),
        }
    }

    /// A clone of two folders and a file, with a record in it.
    fn clone_with(name: &str, commands: &[Recorded]) -> Workspace {
        let root = std::env::temp_dir().join(format!("xtask-replay-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("target/demo")).unwrap();
        write(&root.join("target/demo/demo.json"), commands).unwrap();
        Workspace::at(root)
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let mut first = recorded("exit 3", 3);
        first.digests.push(("oci:out/shop".into(), "sha256:ab".into()));
        let commands = [first, recorded("exit 0", 0)];
        let workspace = clone_with("read", &commands);
        assert_eq!(read(&workspace.path("target/demo/demo.json")).unwrap(), commands);
        fs::write(workspace.path("target/demo/demo.json"), "[]").unwrap();
        assert!(read(&workspace.path("target/demo/demo.json")).is_err());
        fs::remove_dir_all(workspace.root()).unwrap();
        assert!(read(&workspace.path("target/demo/demo.json")).is_err());
    }

    #[test]
    fn a_replay_holds_as_long_as_exit_codes_and_image_digests_are_the_same() {
        let script = r#"test "$WORD" = 'a "b"' && exit 3"#;
        let workspace = clone_with("same", &[recorded(script, 3), recorded("exit 0", 0)]);
        replay(&workspace).unwrap();

        let workspace = clone_with("exit", &[recorded("echo what happened; exit 1", 0)]);
        let words = replay(&workspace).unwrap_err().to_string();
        assert!(words.contains("what happened") && words.contains("was 0 in the record and is 1 now"), "{words}");

        let folder = workspace.path("layout");
        fs::create_dir_all(&folder).unwrap();
        let digest = format!("sha256:{}", "a".repeat(64));
        fs::write(folder.join("index.json"), format!(r#"{{"manifests":[{{"digest":"{digest}"}}]}}"#)).unwrap();
        let mut command = recorded("exit 0", 0);
        command.cwd = workspace.root().to_owned();
        command.digests = vec![("trivy-db".into(), "another each time".into()), ("oci:layout".into(), digest)];
        replay(&clone_with("digest", &[command.clone()])).unwrap();
        command.digests[1].1 = "sha256:another".into();
        assert!(replay(&clone_with("digest", &[command])).is_err());
        for name in ["same", "exit", "digest"] {
            fs::remove_dir_all(clone_with(name, &[]).root()).unwrap();
        }
    }

    #[test]
    fn our_programs_are_shown_by_their_names() {
        let mut command = recorded("exit 0", 0);
        assert_eq!(command.line(), "sh -c 'exit 0'");
        command.argv = vec!["/any/where/debug/sluicegate".into(), "run".into()];
        assert_eq!(command.line(), "sluicegate run");
        command.argv = vec!["/any/where/debug/xtask".into(), "advisory-db".into(), "../db".into()];
        assert_eq!(command.line(), "cargo xtask advisory-db ../db");
    }
}
