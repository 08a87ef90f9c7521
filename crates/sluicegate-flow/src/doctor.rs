//! `doctor`: which verifiers of the field would see what of an image's evidence, and why not. Nothing is verified here, so what a bundle
//! says of itself is only a claim.

use std::collections::BTreeSet;

use serde::Serialize;
use sluicegate_attestation::{
    bundle::Bundle,
    identifiers::{BUNDLE, DOCKER_INDEX, IMAGE_INDEX},
    predicate::PredicateType,
    statement::Statement,
};
use sluicegate_ports::images::{Descriptor, ImagePlaceError, ImageSource, ListedBy, Listing, Manifest};
use sluicegate_types::{Digest, Selector};

use crate::{
    Error,
    fetch::{self, MAX_MANIFEST},
};

/// Bundles that are looked at.
const MAX_LOOKED: usize = 256;

/// What there is beside an image, as other tools look for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Whether the image is an index.
    pub is_index: bool,
    /// Whether the registry answers the referrers API; `None` for a layout.
    pub has_api: Option<bool>,
    /// What bundles say they are about, by where they are listed.
    pub by_api: BTreeSet<String>,
    /// The same for the fallback tag.
    pub by_tag: BTreeSet<String>,
    /// The same for a layout.
    pub in_layout: BTreeSet<String>,
    /// Manifests that carry no bundle that this version reads.
    pub others: usize,
    /// Whether there is a tag `sha256-HEX.sig`, cosign's old place for signatures.
    pub old_signature: bool,
    /// Whether there is a tag `sha256-HEX.att`, cosign's old place for attestations.
    pub old_attestations: bool,
}

/// What one verifier would see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sight {
    /// The verifier.
    pub verifier: &'static str,
    /// Kinds of statements that it would find; `signature` is cosign's own.
    pub sees: Vec<String>,
    /// Why it would not find the rest, or what has to be said to it.
    pub because: Vec<String>,
    /// Where this is known from.
    pub known_from: &'static str,
}

/// Looks at the image and at what is attached to it.
pub fn examine(source: &dyn ImageSource, image: &Descriptor) -> Result<Evidence, Error> {
    let listings = source.listings(&image.digest)?;
    let has = |by| listings.iter().any(|listing| listing.by == by);
    let mut evidence = Evidence {
        is_index: matches!(image.media_type.as_str(), IMAGE_INDEX | DOCKER_INDEX),
        has_api: (!has(ListedBy::Layout)).then(|| has(ListedBy::Api)),
        ..Evidence::default()
    };
    let mut referrers = source.referrers(&image.digest)?;
    referrers.sort_by_key(|referrer| (referrer.size, referrer.digest));
    for referrer in referrers.iter().take(MAX_LOOKED) {
        match kind(source, referrer, &image.digest)? {
            Some(kind) => evidence.add(&listings, &referrer.digest, &kind),
            None => evidence.others += 1,
        }
    }
    evidence.others += referrers.len().saturating_sub(MAX_LOOKED);
    if evidence.has_api.is_some() {
        evidence.old_signature = is_tagged(source, &image.digest, "sig")?;
        evidence.old_attestations = is_tagged(source, &image.digest, "att")?;
    }
    Ok(evidence)
}

/// What the bundle of a manifest says that it is: the short name of its predicate type.
fn kind(source: &dyn ImageSource, referrer: &Descriptor, image: &Digest) -> Result<Option<String>, Error> {
    let readable = |result: Result<Vec<u8>, Error>| match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Error::Place(ImagePlaceError::MissingBlob { .. })) => Ok(None),
        Err(error) => Err(error),
    };
    let Some(bytes) = readable(fetch::read(source, referrer, MAX_MANIFEST))? else { return Ok(None) };
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { return Ok(None) };
    let is_of_image = manifest.subject.as_ref().is_some_and(|subject| subject.digest == *image);
    let [part] = manifest.layers.as_slice() else { return Ok(None) };
    if !is_of_image || manifest.artifact_type.as_deref() != Some(BUNDLE) || part.size > MAX_BUNDLE {
        return Ok(None);
    }
    let Some(bytes) = readable(fetch::read(source, part, MAX_BUNDLE))? else { return Ok(None) };
    let statement = Bundle::parse(&bytes).ok().and_then(|bundle| Statement::parse(&bundle.payload).ok());
    Ok(statement.map(|statement| statement.predicate_type.short().to_owned()))
}

const MAX_BUNDLE: u64 = sluicegate_attestation::bundle::MAX_BUNDLE as u64;

fn is_tagged(source: &dyn ImageSource, image: &Digest, suffix: &str) -> Result<bool, Error> {
    let tag = format!("sha256-{}.{suffix}", image.hex());
    let tag = tag.parse().map_err(|error| Error::Bug(format!("{tag} is no tag: {error}")))?;
    match source.resolve(&Selector::Tag(tag)) {
        Ok(_) => Ok(true),
        Err(ImagePlaceError::NoImage { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Evidence {
    fn add(&mut self, listings: &[Listing], manifest: &Digest, kind: &str) {
        for listing in listings.iter().filter(|listing| listing.manifests.contains(manifest)) {
            let kinds = match listing.by {
                ListedBy::Layout => &mut self.in_layout,
                ListedBy::Api => &mut self.by_api,
                ListedBy::FallbackTag => &mut self.by_tag,
            };
            kinds.insert(kind.to_owned());
        }
    }

    /// What all places together list.
    pub fn all(&self) -> BTreeSet<String> {
        self.by_api.iter().chain(&self.by_tag).chain(&self.in_layout).cloned().collect()
    }

    /// What is found by who asks the API and, only where there is none, the fallback tag: go-containerregistry's way, and so that of
    /// most.
    fn by_the_specification(&self) -> BTreeSet<String> {
        match self.has_api {
            Some(true) => self.by_api.clone(),
            Some(false) => self.by_tag.clone(),
            None => self.in_layout.clone(),
        }
    }

    /// Each verifier of the field, in one order.
    pub fn sights(&self) -> Vec<Sight> {
        vec![
            self.cosign3(),
            self.cosign2(),
            self.policy_controller(),
            self.kyverno(),
            self.ratify(),
            self.containers_policy(),
        ]
    }

    /// What is missed by who asks the API alone.
    fn hidden(&self) -> Option<String> {
        let seen = self.by_the_specification();
        let hidden: Vec<String> = self.all().difference(&seen).cloned().collect();
        let words = "the registry's API does not list them, and it does not ask the fallback tag then";
        (!hidden.is_empty()).then(|| format!("not {}: {words}", hidden.join(", ")))
    }

    fn old(&self) -> Vec<String> {
        let kinds = [(self.old_signature, "signature"), (self.old_attestations, "attestations")];
        kinds.iter().filter(|(there, _)| *there).map(|(_, kind)| (*kind).to_owned()).collect()
    }

    fn cosign3(&self) -> Sight {
        let mut because: Vec<String> = self.hidden().into_iter().collect();
        if self.has_api.is_none() {
            because.push("say --local-image; of a layout it reads the image that is marked for it".to_owned());
        }
        let bundles = self.by_the_specification();
        if !bundles.is_empty() {
            because.push(
                "say --trusted-root FILE and --key FILE; any bundle of a key passes verify for its signature"
                    .to_owned(),
            );
        }
        let sees = if bundles.is_empty() { self.old() } else { bundles.into_iter().collect() };
        sight("cosign 3", sees, because, "run here with 3.1.3")
    }

    fn cosign2(&self) -> Sight {
        let mut because = Vec::new();
        let bundles = self.by_the_specification();
        if !bundles.is_empty() {
            because.push(format!(
                "{} only with --new-bundle-format, which 2.4 and later know",
                bundles.iter().cloned().collect::<Vec<_>>().join(", ")
            ));
        }
        because.extend(self.only_old("it looks for the tags sha256-HEX.sig and .att"));
        sight("cosign 2", self.old(), because, "reported; bundles were run with 2.6.5")
    }

    fn policy_controller(&self) -> Sight {
        let mut because: Vec<String> = self.hidden().into_iter().collect();
        let bundles = self.by_the_specification();
        let signature = PredicateType::ImageSignature.short();
        let attestations: Vec<String> = bundles.iter().filter(|kind| *kind != signature).cloned().collect();
        if !attestations.is_empty() {
            because.push(format!("{} only with signatureFormat: bundle in the policy", attestations.join(", ")));
        }
        if bundles.contains(signature) {
            because.push("a signature in a bundle is not read (sigstore/policy-controller#1899)".to_owned());
        }
        because.extend(self.only_old("the default signatureFormat is the old one"));
        sight("policy-controller 0.15", self.old(), because, "its documentation and issues")
    }

    fn kyverno(&self) -> Sight {
        let mut because: Vec<String> = self.hidden().into_iter().collect();
        if !self.by_the_specification().is_empty() {
            because.push(
                "bundles only with an ImageValidatingPolicy of 1.19, and those of a plain key not reliably (kyverno/kyverno#14233, #16267)"
                    .to_owned(),
            );
        }
        because.extend(self.only_old("other policies look for the tags sha256-HEX.sig and .att"));
        sight("Kyverno 1.19", self.old(), because, "its documentation and issues")
    }

    fn ratify(&self) -> Sight {
        let mut because = Vec::new();
        if !self.all().is_empty() {
            because.push("it has no verifier for Sigstore bundles and none for in-toto predicates".to_owned());
        }
        because.extend(self.only_old("its cosign verifier reads the tag sha256-HEX.sig"));
        let sees = self.old().into_iter().filter(|kind| kind == "signature").collect();
        sight("Ratify 1.4", sees, because, "its documentation")
    }

    fn containers_policy(&self) -> Sight {
        let mut because = vec!["it judges signatures only, no attestation".to_owned()];
        because.extend(self.only_old("sigstoreSigned reads the tag sha256-HEX.sig"));
        if self.old_signature {
            because.push("say use-sigstore-attachments: true in registries.d".to_owned());
        }
        let sees = self.old().into_iter().filter(|kind| kind == "signature").collect();
        sight("containers-policy (podman, CRI-O, skopeo)", sees, because, "its documentation")
    }

    fn only_old(&self, how: &str) -> Option<String> {
        let nothing = !self.old_signature && !self.old_attestations;
        nothing.then(|| format!("{how}, and there is none: sluicegate promote --compat cosign2 writes them"))
    }
}

fn sight(verifier: &'static str, sees: Vec<String>, because: Vec<String>, known_from: &'static str) -> Sight {
    Sight { verifier, sees, because, known_from }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(kinds: &[&str]) -> BTreeSet<String> {
        kinds.iter().map(|kind| (*kind).to_owned()).collect()
    }

    fn sees(evidence: &Evidence, verifier: &str) -> (Vec<String>, String) {
        let sight = evidence.sights().into_iter().find(|sight| sight.verifier.starts_with(verifier)).unwrap();
        (sight.sees, sight.because.join("; "))
    }

    #[test]
    fn what_only_the_fallback_tag_lists_is_hidden_by_an_api_that_answers() {
        let both = Evidence {
            has_api: Some(true),
            by_api: set(&["provenance"]),
            by_tag: set(&["provenance", "sbom"]),
            ..Evidence::default()
        };
        let (seen, because) = sees(&both, "cosign 3");
        assert_eq!(seen, ["provenance"]);
        assert!(because.contains("not sbom"), "{because}");
        let (seen, because) = sees(&Evidence { has_api: Some(false), ..both }, "cosign 3");
        assert_eq!(seen, ["provenance", "sbom"]);
        assert!(!because.contains("not sbom"), "{because}");
    }

    #[test]
    fn who_reads_the_old_tags_alone_sees_nothing_of_bundles() {
        let new = Evidence { has_api: Some(false), by_tag: set(&["signature", "sbom"]), ..Evidence::default() };
        let old = Evidence { old_signature: true, old_attestations: true, ..new.clone() };
        for verifier in ["cosign 2", "policy-controller", "Kyverno", "Ratify", "containers-policy"] {
            let (seen, because) = sees(&new, verifier);
            assert!(seen.is_empty() && because.contains("there is none"), "{verifier}: {because}");
            let (seen, because) = sees(&old, verifier);
            assert!(
                seen.contains(&"signature".to_owned()) && !because.contains("there is none"),
                "{verifier}: {because}"
            );
        }
        assert_eq!(sees(&new, "cosign 3").0, ["sbom", "signature"]);
    }
}
