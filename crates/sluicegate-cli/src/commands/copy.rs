use std::{path::Path, process::ExitCode};

use sluicegate_flow::{
    copy::{CopyRequest, copy as flow},
    folders::EnvironmentPlaces,
};
use sluicegate_types::Selector;

use crate::{
    arguments::Copy,
    gateway_folder::GatewayFolder,
    home::Home,
    registry_environment,
    wire::{self, OnItsWay},
    words::{Problem, Words},
};

/// `copy`: reads and writes places and the scratch folder of the home; no key, no log, no record.
pub(crate) fn copy(words: &Words, arguments: &Copy) -> Result<ExitCode, Problem> {
    let home = Home::make()?;
    let gateway = GatewayFolder::open_if_there(arguments.gateway.gateway.as_deref(), Path::new("."))?;
    let environments = gateway.as_ref().map(|gateway| EnvironmentPlaces::of(&gateway.gateway, &gateway.folder));
    let evidence = gateway.as_ref().and_then(|gateway| gateway.gateway.evidence.clone());
    let places = wire::places_with(registry_environment::settings(Some(&home)));
    let on_its_way = OnItsWay::new(&home)?;
    let warn = |line: &str| words.warn(line);
    if environments.is_none() && arguments.destination.place.folder().is_none() {
        warn(&format!(
            "there is no gateway file here, so nobody says whether {} is an environment's place: name one with --gateway",
            arguments.destination.place
        ));
    }
    let copied = flow(&CopyRequest {
        from: &arguments.image,
        to: &arguments.destination,
        folder: Path::new("."),
        sources: &places.with_evidence(arguments.evidence.clone().or(evidence)),
        targets: &places,
        environments: &environments.unwrap_or_default(),
        store: &on_its_way.store,
        warn: &warn,
    })?;
    if words.json() {
        words.document(&copied.to_json());
    } else {
        let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
        words.line(format!("{}  {}", words.good("COPIED"), copied.image));
        let attached = count(copied.attached, "manifest", "manifests");
        let images = match copied.children {
            0 => String::new(),
            n => format!("{} that it names and ", count(n, "manifest", "manifests")),
        };
        words.line(format!("  with {images}{attached} attached, to {}", arguments.destination));
        if matches!(arguments.destination.selector, Selector::Only) && arguments.destination.place.folder().is_none() {
            words.line(format!("  it has no tag: it is reached as {}@{}", arguments.destination.place, copied.image));
        }
        words.line("  nothing was judged: sluicegate verify says what it is worth there");
    }
    Ok(ExitCode::SUCCESS)
}
