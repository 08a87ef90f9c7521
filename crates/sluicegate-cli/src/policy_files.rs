//! Policies, tests and data as they lie in folders: for their authors, who name them on the command line.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sluicegate_flow::gateway::GatewayFiles;
use sluicegate_policy::rego::{SourceFile, is_test};
use sluicegate_types::utf8;

use crate::{
    arguments::PolicyFiles,
    gateway_folder::{GatewayFolder, read},
    words::Problem,
};

/// Rego files of one folder, tests among them.
const MAX_FILES: usize = 512;

/// What an author works on.
pub(crate) struct AuthorsFiles {
    /// Policies, and tests if they were asked for.
    pub(crate) policies: Vec<SourceFile>,
    pub(crate) data: Vec<SourceFile>,
}

impl AuthorsFiles {
    /// The files that are named; without any, those of the gateway's gates, and with them their data.
    pub(crate) fn of(arguments: &PolicyFiles, with_tests: bool) -> Result<Self, Problem> {
        let mut files = Self { policies: Vec::new(), data: Vec::new() };
        if arguments.paths.is_empty() {
            let hint = "name folders of policies or Rego files, or a gateway with --gateway";
            let gateway = GatewayFolder::open_or(arguments.gateway.gateway.as_deref(), Path::new("."), hint)?;
            files.add_gates(&gateway, with_tests)?;
        }
        for path in &arguments.paths {
            files.add(path, with_tests)?;
        }
        for path in &arguments.data {
            files.data.push(source(path)?);
        }
        Ok(files)
    }

    /// The policies that are named.
    pub(crate) fn policies_of_all(arguments: &PolicyFiles) -> Result<Vec<SourceFile>, Problem> {
        let mut files = Self { policies: Vec::new(), data: Vec::new() };
        arguments.paths.iter().try_for_each(|path| files.add(path, false))?;
        Ok(files.policies)
    }

    /// The policies of one folder or file.
    pub(crate) fn policies_of(path: &Path) -> Result<Vec<SourceFile>, Problem> {
        let mut files = Self { policies: Vec::new(), data: Vec::new() };
        files.add(path, false)?;
        Ok(files.policies)
    }

    fn add_gates(&mut self, gateway: &GatewayFolder, with_tests: bool) -> Result<(), Problem> {
        for environment in gateway.gateway.environments.values() {
            let Some(gate) = &environment.gate else { continue };
            for path in &gate.policies {
                for file in gateway.policies(path)? {
                    self.put(file);
                }
                let full = gateway.folder.join(path);
                if with_tests && full.is_dir() {
                    self.add_where(&full, is_test)?;
                }
            }
            for path in &gate.data {
                let file = source(&gateway.folder.join(path))?;
                if !self.data.contains(&file) {
                    self.data.push(file);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, with_tests: bool) -> Result<(), Problem> {
        if path.is_dir() {
            return self.add_where(path, |name| with_tests || !is_test(name));
        }
        self.put(source(path)?);
        Ok(())
    }

    /// The Rego files of a folder, by name.
    fn add_where(&mut self, folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<(), Problem> {
        let problem = |error: &std::io::Error| Problem::named("read the policies", folder, error);
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(folder).map_err(|error| problem(&error))? {
            let path = entry.map_err(|error| problem(&error))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.ends_with(".rego") && wanted(name) {
                paths.push(path);
            }
            if paths.len() > MAX_FILES {
                let text = format!("{} has more than {MAX_FILES} Rego files", folder.display());
                return Err(Problem::usage(text, "name fewer of them"));
            }
        }
        if paths.is_empty() {
            let text = format!("{} has no Rego files", folder.display());
            return Err(Problem::usage(text, "policies are files named *.rego, tests beside them *_test.rego"));
        }
        paths.sort();
        for path in paths {
            self.put(source(&path)?);
        }
        Ok(())
    }

    /// Adds a file that is not there yet.
    fn put(&mut self, file: SourceFile) {
        if !self.policies.contains(&file) {
            self.policies.push(file);
        }
    }
}

/// A file as policies know it.
pub(crate) fn source(path: &Path) -> Result<SourceFile, Problem> {
    let bytes = read(path).map_err(|error| Problem::named("read", path, &error))?;
    let text = utf8(bytes).map_err(|error| Problem::usage(path.display().to_string(), error.to_string()))?;
    Ok(SourceFile { name: path.display().to_string(), text })
}
