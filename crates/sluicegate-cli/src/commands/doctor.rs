use std::{path::Path, process::ExitCode};

use serde_json::json;
use sluicegate_flow::{
    Error,
    doctor::{Evidence, examine},
};
use sluicegate_ports::images::ImagePlaces;

use crate::{
    arguments::Doctor,
    gateway_folder::GatewayFolder,
    wire,
    words::{Problem, Words, printable},
};

/// `doctor REF`: what each verifier of the field would see of an image. Verifies nothing and records nothing.
pub(crate) fn doctor(words: &Words, arguments: &Doctor) -> Result<ExitCode, Problem> {
    let Some(asked) = &arguments.image else {
        return Err(Problem::usage(
            "doctor about this machine: not in this version",
            "name an image: sluicegate doctor REF",
        ));
    };
    let gateway = GatewayFolder::open_if_there(arguments.gateway.gateway.as_deref(), Path::new("."))?;
    let evidence = arguments.evidence.clone().or(gateway.and_then(|gateway| gateway.gateway.evidence));
    let places = wire::places().with_evidence(evidence);
    let source = places.source(&asked.place).map_err(Error::from)?;
    let image = source.resolve(&asked.selector).map_err(Error::from)?;
    let found = examine(source.as_ref(), &image)?;
    if words.json() {
        words.document(&json!({
            "schemaVersion": 1, "image": image.digest,
            "listedBy": {"referrersApi": found.has_api.unwrap_or(false).then_some(&found.by_api), "fallbackTag": found.by_tag,
                         "layout": found.in_layout},
            "oldTags": {"sig": found.old_signature, "att": found.old_attestations},
            "others": found.others, "verifiers": found.sights(),
        }));
        return Ok(ExitCode::SUCCESS);
    }
    words.line(format!("{}  {}", words.good("EXAMINED"), image.digest));
    if found.is_index {
        words.line("  it is an index: ask about each of its images, too, by its digest");
    }
    print_places(words, &found, &image.digest.hex());
    for sight in found.sights() {
        let seen = if sight.sees.is_empty() { words.open("nothing") } else { words.good(&sight.sees.join(", ")) };
        words.line(format!("  {} would see {seen}  ({})", sight.verifier, sight.known_from));
        for reason in &sight.because {
            words.line(format!("    {}", printable(reason)));
        }
    }
    words.line("  nothing was verified: what bundles say of themselves is only a claim");
    Ok(ExitCode::SUCCESS)
}

fn print_places(words: &Words, found: &Evidence, hex: &str) {
    let list = |kinds: &std::collections::BTreeSet<String>| {
        if kinds.is_empty() { "nothing".to_owned() } else { kinds.iter().cloned().collect::<Vec<_>>().join(", ") }
    };
    match found.has_api {
        None => words.line(printable(&format!("  the layout lists {}", list(&found.in_layout)))),
        Some(has_api) => {
            let api = if has_api { list(&found.by_api) } else { "there is none".to_owned() };
            words.line(printable(&format!("  the registry's referrers API: {api}")));
            words.line(printable(&format!("  the fallback tag sha256-{hex}: {}", list(&found.by_tag))));
        }
    }
    if found.others > 0 {
        words.line(format!("  {} more manifests carry no bundle", found.others));
    }
}
