use std::{path::Path, process::ExitCode};

use serde_json::{Value, json};
use sluicegate_flow::{
    Error,
    doctor::{Evidence, examine},
    image_tree::named_images,
};
use sluicegate_ports::images::ImagePlaces;
use sluicegate_types::{Digest, Selector};

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
    // Verifiers that run on a machine ask about its image, and those before it about the index.
    let mut images = Vec::new();
    if found.is_index {
        for (name, digest) in named_images(source.as_ref(), &image)?.into_iter().take(MAX_IMAGES) {
            let descriptor = source.resolve(&Selector::Digest(digest)).map_err(Error::from)?;
            images.push((name.unwrap_or_default(), digest, examine(source.as_ref(), &descriptor)?));
        }
    }
    if words.json() {
        let mut whole = document(&image.digest, &found);
        whole["schemaVersion"] = json!(1);
        if found.is_index {
            let of_image = |(name, digest, found): &(String, Digest, Evidence)| {
                let mut one = document(digest, found);
                one["platform"] = json!(name);
                one
            };
            whole["images"] = images.iter().map(of_image).collect();
        }
        words.document(&whole);
        return Ok(ExitCode::SUCCESS);
    }
    words.line(format!("{}  {}", words.good("EXAMINED"), image.digest));
    print_evidence(words, &found, &image.digest);
    for (name, digest, found) in &images {
        words.line(printable(&format!("of it, for {name}:  {digest}")));
        print_evidence(words, found, digest);
    }
    words.line("  nothing was verified: what bundles say of themselves is only a claim");
    Ok(ExitCode::SUCCESS)
}

/// Images of one index that are looked at.
const MAX_IMAGES: usize = 64;

fn document(image: &Digest, found: &Evidence) -> Value {
    json!({
        "image": image,
        "listedBy": {"referrersApi": found.has_api.unwrap_or(false).then_some(&found.by_api), "fallbackTag": found.by_tag,
                     "layout": found.in_layout},
        "oldTags": {"sig": found.old_signature, "att": found.old_attestations},
        "others": found.others, "verifiers": found.sights(),
    })
}

fn print_evidence(words: &Words, found: &Evidence, image: &Digest) {
    print_places(words, found, &image.hex());
    for sight in found.sights() {
        let seen = if sight.sees.is_empty() { words.open("nothing") } else { words.good(&sight.sees.join(", ")) };
        words.line(format!("  {} would see {seen}  ({})", sight.verifier, sight.known_from));
        for reason in &sight.because {
            words.line(format!("    {}", printable(reason)));
        }
    }
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
