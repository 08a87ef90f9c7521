//! A real server that speaks S3, on a free port of the loopback, over a folder of its own: what is in the folder is what it serves.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    Project, own_folder, peer,
    registry::{PORTS, answers, end, free_address},
};

/// The bucket that is there.
pub const BUCKET: &str = "ci-cache";
const KEY_ID: &str = "integration";
const SECRET: &str = "a-secret-of-a-test";

/// A server that is gone, with all that it holds, when this is dropped.
pub struct ObjectServer {
    child: Child,
    folder: TempDir,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
}

impl ObjectServer {
    /// One that answers, with an empty bucket; `None` with a visible line where it is not installed, or a failure where peers are demanded.
    pub fn start(test: &str) -> Option<Self> {
        let program = peer("SLUICEGATE_VERSITYGW", test)?;
        let folder = own_folder();
        fs::create_dir_all(folder.path().join("data").join(BUCKET)).unwrap();
        for _ in 0..PORTS {
            let address = free_address();
            let said = fs::OpenOptions::new().create(true).append(true).open(folder.path().join("said")).unwrap();
            let mut command = Command::new(&program);
            command.args(["--port", &address.to_string(), "--access", KEY_ID, "--secret", SECRET, "posix"]);
            command.arg(folder.path().join("data")).current_dir(folder.path()).env_clear();
            command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
            let mut child = command.spawn().unwrap();
            if answers(&mut child, address) {
                return Some(Self { child, folder, url: format!("http://{address}") });
            }
            end(&mut child);
        }
        panic!("it does not answer:\n{}", fs::read_to_string(folder.path().join("said")).unwrap_or_default());
    }

    /// The folder of the bucket.
    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join("data").join(BUCKET)
    }

    /// Gives a project the credentials.
    pub fn introduce(&self, project: &mut Project) {
        project.set("AWS_ACCESS_KEY_ID", KEY_ID);
        project.set("AWS_SECRET_ACCESS_KEY", SECRET);
    }
}

impl Drop for ObjectServer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
