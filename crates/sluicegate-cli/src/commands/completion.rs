use std::{fs, path::Path, process::ExitCode};

use clap::CommandFactory;

use crate::{
    arguments::{Arguments, Completion},
    words::{Problem, Words},
};

/// What the program is called.
const NAME: &str = "sluicegate";

/// `completion`.
pub(crate) fn completion(words: &Words, arguments: &Completion) -> Result<ExitCode, Problem> {
    let mut command = Arguments::command();
    if let Some(folder) = &arguments.man {
        fs::create_dir_all(folder).map_err(|error| Problem::io("make the folder", folder, &error))?;
        command.build();
        let written = pages(&command, NAME, folder)?;
        words.line(format!("{written} manual pages in {}", folder.display()));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(shell) = arguments.shell {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, NAME, &mut script);
        words.line(String::from_utf8_lossy(&script).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of a command and of every one below it; how many these are.
fn pages(command: &clap::Command, name: &str, folder: &Path) -> Result<usize, Problem> {
    let path = folder.join(format!("{name}.1"));
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(command.clone()).title(name).render(&mut page);
    rendered.and_then(|()| fs::write(&path, page)).map_err(|error| Problem::io("write", &path, &error))?;
    let mut written = 1;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        written += pages(below, &format!("{name}-{}", below.get_name()), folder)?;
    }
    Ok(written)
}
