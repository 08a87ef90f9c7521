use std::{path::PathBuf, process::ExitCode};

use serde_json::json;
use sluicegate_flow::{Error, assemble};
use sluicegate_pipeline::pipeline::ImageConfig;
use sluicegate_ports::{
    images::{ImagePlaces, Publication},
    trees::{EntryKind, TreeEntry},
};
use sluicegate_runner::host_image::{HostEntryKind, HostImageError, HostImageRequest, collect};
use sluicegate_types::{Platform, Selector};

use crate::{
    arguments::{FromHost, Image, ImageCommand},
    home::Home,
    wire::Wired,
    words::{Problem, Words},
};

/// Every time in a base image from this host: two machines with the same packages make the same image.
const EPOCH: u64 = 315_532_800;

/// `image from-host`.
pub(crate) fn image(words: &Words, arguments: &Image) -> Result<ExitCode, Problem> {
    let ImageCommand::FromHost(arguments) = &arguments.command;
    from_host(words, arguments)
}

fn from_host(words: &Words, arguments: &FromHost) -> Result<ExitCode, Problem> {
    if arguments.output.place.folder().is_none() {
        return Err(Problem::usage(
            format!("--output {}: an image of this machine is written to a layout", arguments.output),
            "write oci:DIR or oci:DIR:TAG; sluicegate copy brings it to a registry",
        ));
    }
    let tags = match &arguments.output.selector {
        Selector::Only => Vec::new(),
        Selector::Tag(tag) => vec![tag.clone()],
        Selector::Digest(_) => {
            return Err(Problem::usage(
                "--output names a digest, which nobody can know yet",
                "write oci:DIR or oci:DIR:TAG",
            ));
        }
    };
    let host = collect(&HostImageRequest {
        root: PathBuf::from("/"),
        binaries: arguments.binary.clone(),
        packages: arguments.package.clone(),
        closure: arguments.closure,
        allow_unowned: arguments.allow_unowned,
    })
    .map_err(|error| refusal(&error))?;
    let entries = host.entries.into_iter().map(|entry| TreeEntry {
        path: entry.path,
        kind: match entry.kind {
            HostEntryKind::File { source, mode, .. } => EntryKind::HostFile { source, executable: mode & 0o111 != 0 },
            HostEntryKind::Made { bytes, mode } => EntryKind::Bytes(bytes, mode),
            HostEntryKind::Directory { mode } => EntryKind::Directory(mode),
            HostEntryKind::Symlink { target } => EntryKind::Symlink(target),
        },
    });
    let wired = Wired::new(Home::make()?)?;
    let nothing = |_: &str| {};
    let ports = wired.ports(&crate::wire::NoLog, &crate::wire::NoLedger, &nothing, &nothing);
    let config = ImageConfig {
        env: [("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned())].into(),
        ..ImageConfig::default()
    };
    let history = "sluicegate image from-host";
    let image = assemble::layered(&ports, None, entries.collect(), (&config, &Platform::of_steps()), EPOCH, history)?;
    let target = wired.places.target(&arguments.output.place).map_err(Error::from)?;
    let expected = target.current(None).map_err(Error::from)?.map(|occupant| occupant.image);
    let publication = Publication {
        image: image.image.clone(),
        tags,
        children: Vec::new(),
        referrers: Vec::new(),
        blobs: image.blobs,
        evidence: Vec::new(),
        beside: Vec::new(),
        source: None,
        expected,
        environment: None,
    };
    target.publish(&publication, wired.store.as_ref()).map_err(Error::from)?;
    if words.json() {
        let packages = host.packages.iter().map(|p| json!({"name": p.name, "version": p.version}));
        words.document(&json!({
            "schemaVersion": 1, "image": image.image.digest, "packages": packages.collect::<Vec<_>>(), "bytes": host.bytes,
            "unowned": host.unowned,
        }));
    } else {
        words.line(format!("{}  {}", arguments.output, words.good(&image.image.digest.to_string())));
        words.line(format!("  {} packages, {} MB", host.packages.len(), host.bytes / 1_000_000));
        if !host.unowned.is_empty() {
            words.line(format!("  {} files belong to no package: no scanner will know them", host.unowned.len()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn refusal(error: &HostImageError) -> Problem {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    Problem::usage(text, "see sluicegate image from-host --help")
}
