use std::{fs::File, os::unix::fs::OpenOptionsExt, path::Path, process::ExitCode};

use sluicegate_attestation::bundle::MAX_BUNDLE;
use sluicegate_flow::verify_file::{Asked, verify_file as flow};
use sluicegate_ports::Clock;
use sluicegate_types::{Digest, ImageRef};
use sluicegate_verify::Trust;

use super::verify::statement_line;
use crate::{
    gateway_folder::{only_regular, read_within},
    wire::SystemClock,
    words::{Problem, Words, printable},
};

/// `verify FILE --bundle B`: opens the file, the bundle, the trust files, and nothing else.
pub(crate) fn verify_file(words: &Words, subject: &str, bundle: &Path, trust: &Trust) -> Result<ExitCode, Problem> {
    let bytes = read_within(bundle, MAX_BUNDLE as u64).map_err(|error| {
        Problem::named("read the bundle", bundle, &error).or("name the file of one bundle with --bundle")
    })?;
    let mut file;
    let asked = match digest(subject)? {
        Some(digest) => Asked::Digest(digest),
        None => {
            file = open(subject)?;
            Asked::Bytes(&mut file)
        }
    };
    let report = flow(asked, bundle, &bytes, trust, SystemClock.now())?;
    let document = report.to_json();
    if words.json() {
        words.document(&document);
    } else {
        words.line(format!("{}  {}", words.good("VERIFIED"), report.file));
        words.line(printable(&statement_line(&document["statement"])));
        words.line(format!("  predicate type {}", printable(report.statement.statement().predicate_type.uri())));
        words.line("  authenticity only: no gate was asked");
    }
    Ok(ExitCode::SUCCESS)
}

/// The digest that is asked about, if the word is one. A file whose name looks like one is written `./NAME`.
fn digest(subject: &str) -> Result<Option<Digest>, Problem> {
    if subject.starts_with("sha256:") {
        return subject.parse().map(Some).map_err(|error| {
            Problem::usage(format!("{subject:?}: {error}"), "write sha256: and 64 digits, or the file's name as ./NAME")
        });
    }
    // A path whose beginning is there is one, whatever registry it might name.
    let first = subject.split('/').next().unwrap_or_default();
    let is_path = Path::new(first).symlink_metadata().is_ok();
    if subject.starts_with("oci:") || (subject.parse::<ImageRef>().is_ok() && !is_path) {
        return Err(Problem::usage(
            format!("{subject} is an image, and --bundle is about a file"),
            "leave --bundle out: an image's statements are found with it; write a file's name as ./NAME",
        ));
    }
    Ok(None)
}

fn open(subject: &str) -> Result<File, Problem> {
    let path = Path::new(subject);
    // A pipe in the file's place is not waited for.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = File::options().read(true).custom_flags(flags).open(path);
    let checked = opened.and_then(|file| only_regular(&file).map(|()| file));
    checked.map_err(|error| {
        Problem::named("read", path, &error).or("name a file that can be read, or its digest as sha256:HEX")
    })
}
