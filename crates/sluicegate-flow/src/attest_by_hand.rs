//! `attest`: what a person says about an image, signed with a key of role `manual`, logged, recorded and attached (trust model 6).

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};
use sluicegate_attestation::{
    cyclonedx,
    predicate::{self, PredicateType},
    spdx_document,
    statement::{Statement, Subject},
};
use sluicegate_ports::{
    evidence::{NewRecord, RecordKind},
    images::{Descriptor, ImagePlaceError, ImageSource},
    sign::Signer,
};
use sluicegate_types::{
    Digest, ImageRef, NonEmpty, Place, Repository,
    checks::{Check, is_on},
};
use sluicegate_verify::{Role, Trust, VerifiedStatement, only_machines_say, roles_of_key};

use crate::{
    Error, Ports, assemble,
    attest::{attest, refuse_too_large},
    evidence,
    fetch::{self, MAX_MANIFEST},
    folders::EnvironmentPlaces,
    image_tree,
};

/// What somebody wants to say, and with which key.
pub struct ByHandRequest<'a> {
    /// The image.
    pub reference: &'a ImageRef,
    /// The folder that the reference is relative to.
    pub folder: &'a Path,
    /// The places of the gateway's environments, where only `promote` writes.
    pub environments: &'a EnvironmentPlaces,
    /// What is claimed; [`kind`] reads it.
    pub kind: &'a PredicateType,
    /// The predicate's JSON; of CycloneDX XML, too, which is taken over as JSON.
    pub predicate: &'a [u8],
    /// Whom the gateway believes.
    pub trust: &'a Trust,
    /// The name of the key.
    pub key: &'a str,
    /// Its public half, DER SubjectPublicKeyInfo; known without a passphrase.
    pub public_key: &'a [u8],
}

/// A statement that nothing stands against, ready to be signed. Only [`prepare`] makes one.
pub struct Prepared<'a> {
    request: &'a ByHandRequest<'a>,
    place: Place,
    image: Descriptor,
    statement: Statement,
}

/// A statement that was signed, logged, recorded and attached.
#[derive(Debug)]
pub struct ByHand {
    /// The image.
    pub image: Digest,
    /// What was said, as verification gave it back.
    pub statement: VerifiedStatement,
    /// The manifest that attaches it.
    pub referrer: Digest,
    /// The evidence record.
    pub record: u64,
}

/// Bytes of a predicate type's URI.
const MAX_URI: usize = 512;

/// The predicate type that a person names, by short name or URI. What only machines say is refused by name, before any key is
/// opened: provenance, vulns, runtime-trace, verification-summary, promotion and cosign's image signature, in every version and spelling.
pub fn kind(text: &str) -> Result<PredicateType, Error> {
    let kind = match PredicateType::from_short(text) {
        Some(kind) => kind,
        None if is_uri(text) => PredicateType::from_uri(text),
        None => {
            let known: Vec<&str> = PredicateType::short_names().filter(|name| refusal(name).is_none()).collect();
            return Err(Error::Usage(format!(
                "{text:?} is no predicate type: write a URI of at most {MAX_URI} bytes, or {}",
                known.join(" or ")
            )));
        }
    };
    match refusal(kind.uri()).or_else(|| refusal(text)) {
        Some(reason) if is_on(Check::ByHandForbidden) => {
            Err(Error::Usage(format!("{text} cannot be attested by hand: {reason}")))
        }
        _ => Ok(kind),
    }
}

fn refusal(text: &str) -> Option<&'static str> {
    PredicateType::from_short(text).map_or_else(|| only_machines_say(text), |kind| only_machines_say(kind.uri()))
}

/// `scheme:rest` (RFC 3986, "scheme"), without white space and control characters.
fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    scheme_fits && !rest.is_empty() && text.len() <= MAX_URI && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Resolves the image and asks everything that can be known before a key is opened: the type, the predicate's form, whose place it
/// is, and whether trust.yaml would believe this key. Signs nothing and logs nothing.
pub fn prepare<'a>(ports: &Ports<'_>, request: &'a ByHandRequest<'a>) -> Result<Prepared<'a>, Error> {
    kind(request.kind.uri())?;
    let predicate = predicate_of(request)?;
    if xml_is_meant(request) {
        (ports.tell)("the SBOM is XML: what is signed is the same in CycloneDX JSON 1.5");
    }
    let ImageRef { place, selector } = request.reference.relative_to(request.folder);
    let source = ports.places.source(&place)?;
    let image = source.resolve(&selector)?;
    (ports.tell)(&format!("{} is {}", request.reference, image.digest));
    if is_on(Check::ByHandPlace) {
        refuse_environments(ports, request, &place)?;
    }
    look_at_image(source.as_ref(), &image)?;
    if is_on(Check::ByHandKey) {
        refuse_other_roles(request)?;
    }
    let statement = statement(&image, request.kind, predicate)?;
    Ok(Prepared { request, place, image, statement })
}

/// Signs what was prepared, logs it, verifies the bundle with the configured trust, records it, and only then attaches it.
pub fn sign(ports: &Ports<'_>, prepared: Prepared<'_>, signer: &dyn Signer) -> Result<ByHand, Error> {
    let Prepared { request, place, image, statement } = prepared;
    if signer.public_key() != request.public_key {
        return Err(Error::Usage(format!("the key {} is not the one that trust.yaml was asked about", request.key)));
    }
    let now = ports.clock.now();
    let mut attested = attest(ports, signer, request.trust, &[statement], now)?;
    let attested = attested.pop().ok_or_else(|| Error::Bug("one statement was not attested".to_owned()))?;
    let bundle = attested.statement.bundle();
    let referrer = assemble::bundle_referrer(ports, &image, bundle, attested.size, request.kind, now)?;
    let body = json!({
        "image": image.digest,
        "reference": request.reference.to_string(),
        "predicateType": request.kind.uri(),
        "predicate": Digest::of(request.predicate),
        "bundle": bundle,
        "referrer": referrer.digest,
        "signer": attested.statement.signer(),
        "keyId": attested.statement.key_id(),
        "log": {"origin": attested.statement.log().origin, "index": attested.statement.log().index},
    });
    let record = record(ports, image.digest, "attested", body.clone())?;
    publish(ports, &place, &image, &referrer, bundle).inspect_err(|error| {
        // What was signed and could not be attached is on record as both.
        let mut body = body;
        body["reasons"] = json!(error.causes());
        if let Err(unrecorded) = self::record(ports, image.digest, "failed", body) {
            (ports.warn)(&format!("this could not be recorded: {unrecorded}"));
        }
    })?;
    Ok(ByHand { image: image.digest, statement: attested.statement, referrer: referrer.digest, record })
}

/// The predicate. What is signed as an SBOM is a document that its readers can read: a signature on anything else would outlive the slip.
fn predicate_of(request: &ByHandRequest<'_>) -> Result<Value, Error> {
    let read = if xml_is_meant(request) { predicate::from_cyclonedx_xml } else { predicate::parse };
    let predicate = read(request.predicate).map_err(|error| Error::Usage(error.to_string()))?;
    let other = |error: String, mend: &str| {
        let uri = request.kind.uri();
        Error::Usage(format!("the predicate is not what {uri} names: {error}; {mend}"))
    };
    if is_of(request.kind, &PredicateType::Sbom) {
        let mend = match predicate.get("spdxVersion") {
            Some(_) => "this is SPDX: attest it with --type spdx",
            None => "write an SBOM in CycloneDX JSON, or in XML of 1.3 to 1.5, or name another type",
        };
        cyclonedx::read(&predicate).map(drop).map_err(|error| other(error.to_string(), mend))?;
    }
    if is_of(request.kind, &PredicateType::Spdx) {
        let mend = match predicate.get("bomFormat") {
            Some(_) => "this is CycloneDX: attest it with --type sbom",
            None => "write an SBOM in SPDX 2.3 JSON, or name another type",
        };
        spdx_document::read(&predicate).map(drop).map_err(|error| other(error.to_string(), mend))?;
    }
    Ok(predicate)
}

/// Whether a type is this one, in whatever version.
fn is_of(kind: &PredicateType, known: &PredicateType) -> bool {
    let versioned = |rest: &str| rest.is_empty() || rest.starts_with('/');
    kind.uri().strip_prefix(known.uri()).is_some_and(versioned)
}

/// Whether the predicate is to be CycloneDX and is written in XML.
fn xml_is_meant(request: &ByHandRequest<'_>) -> bool {
    let bytes = request.predicate.strip_prefix(b"\xef\xbb\xbf").unwrap_or(request.predicate);
    is_of(request.kind, &PredicateType::Sbom) && bytes.trim_ascii_start().starts_with(b"<")
}

/// An environment's place changes only by `promote`.
fn refuse_environments(ports: &Ports<'_>, request: &ByHandRequest<'_>, place: &Place) -> Result<(), Error> {
    let occupant = ports.places.target(place)?.current(None)?;
    if let Some(environment) = occupant.and_then(|occupant| occupant.environment) {
        return Err(ImagePlaceError::OfEnvironment { place: place.clone(), environment }.into());
    }
    match request.environments.at(place) {
        Some(environment) => Err(Error::Usage(format!(
            "{place} is the place of {environment}, which changes only by promote; attest the image where it was built"
        ))),
        None => Ok(()),
    }
}

/// Nothing is said about an image whose manifest is not the digest's.
fn look_at_image(source: &dyn ImageSource, image: &Descriptor) -> Result<(), Error> {
    let bytes = fetch::read(source, image, MAX_MANIFEST)?;
    image_tree::check_form(image, &bytes)
}

/// The key must have the role `manual` for this type, and no other: a machine's role would make a machine's word of it.
fn refuse_other_roles(request: &ByHandRequest<'_>) -> Result<(), Error> {
    let roles = roles_of_key(request.public_key, request.kind, request.trust).map_err(|error| {
        Error::Usage(format!(
            "trust.yaml would not believe the key {}: {error}; list it under signers with roles: [manual]",
            request.key
        ))
    })?;
    if roles == BTreeSet::from([Role::Manual]) {
        return refuse_other_places(request);
    }
    let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
    Err(Error::Usage(format!(
        "the key {} would say this as {}: what is said by hand needs a key whose only role is manual",
        request.key,
        names.join(" and ")
    )))
}

/// What would be ignored where the image is must not be signed. A layout that is no environment's has no name, so only `*` covers it.
fn refuse_other_places(request: &ByHandRequest<'_>) -> Result<(), Error> {
    let mut signers = request.trust.signers();
    let repository = Repository::of_registry(&request.reference.place);
    match signers.find(|signer| signer.public_key == request.public_key) {
        Some(signer) if !request.trust.covers(&signer.name, repository.as_ref()) => Err(Error::Usage(format!(
            "trust.yaml would not believe {} about {}: {}",
            signer.name,
            request.reference,
            match repository {
                Some(name) => format!("repositories: of this signer does not cover {name}"),
                None =>
                    "a layout's folder has no repository name, which only repositories: [\"*\"] of this signer covers"
                        .to_owned(),
            }
        ))),
        _ => Ok(()),
    }
}

/// The statement, if its bundle will be read again.
fn statement(image: &Descriptor, kind: &PredicateType, predicate: Value) -> Result<Statement, Error> {
    let subject = Subject { name: None, digest: image.digest, media_type: Some(image.media_type.clone()) };
    let statement = Statement { subjects: NonEmpty::one(subject), predicate_type: kind.clone(), predicate };
    let payload = statement.to_payload()?;
    refuse_too_large(&payload).map_err(|reason| Error::Usage(format!("the predicate is too large: {reason}")))?;
    Statement::parse(&payload).map_err(|error| {
        Error::Usage(format!("the predicate would make a statement that is not read again: {error}"))
    })?;
    Ok(statement)
}

fn record(ports: &Ports<'_>, image: Digest, outcome: &str, body: Value) -> Result<u64, Error> {
    let record = NewRecord {
        kind: RecordKind::Attestation,
        at: ports.clock.now(),
        subject: Some(image),
        environment: None,
        outcome: outcome.to_owned(),
        body,
    };
    Ok(evidence::record(ports, &record)?.sequence)
}

fn publish(
    ports: &Ports<'_>,
    place: &Place,
    image: &Descriptor,
    referrer: &Descriptor,
    bundle: Digest,
) -> Result<(), Error> {
    let referrers = std::slice::from_ref(referrer);
    let blobs = [bundle, assemble::empty_config()];
    ports.places.target(place)?.attach(&image.digest, referrers, &blobs, ports.store)?;
    let held = ports.places.source(place)?.referrers(&image.digest)?;
    if held.iter().any(|held| held.digest == referrer.digest) {
        Ok(())
    } else {
        Err(Error::Again(format!("{place} does not hold what was just attached in it")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tm06_attest_by_hand_refuses_what_only_machines_say() {
        for text in [
            "provenance",
            "vulns",
            "verification-summary",
            "promotion",
            "signature",
            "https://slsa.dev/provenance/v1",
            "https://slsa.dev/provenance/v0.2",
            "https://slsa.dev/provenance",
            "http://SLSA.dev/Provenance/v1?x",
            "https://in-toto.io/Provenance/v0.1",
            "https://in-toto.io/attestation/vulns/v0.2",
            "https://in-toto.io/attestation/vulns/v0.1",
            "https://cosign.sigstore.dev/attestation/vuln/v1",
            "https://slsa.dev/verification_summary/v1",
            "https://slsa.dev/verification_summary/v0.2",
            "https://in-toto.io/attestation/promotion-record/v0.1",
            "https://sigstore.dev/cosign/sign/v1",
            "https://sigstore.dev/cosign/sign/v2",
            "runtime-trace",
            "https://in-toto.io/attestation/runtime-trace/v0.2",
        ] {
            let error = kind(text).unwrap_err();
            assert_eq!(error.failure(), crate::Failure::Usage);
            assert!(error.to_string().contains("cannot be attested by hand"), "{text}: {error}");
        }
        for text in [
            "sbom",
            "test-result",
            "https://example.com/review/v1",
            "https://slsa.dev/provenances/v1",
            "https://in-toto.io/attestation/release/v0.1",
            "urn:example:review",
        ] {
            assert!(kind(text).is_ok(), "{text}");
        }
        for text in ["", "review", "https:", "a b:c", "https://example.com/a b", "x:\n", "ä:b", "1a:b"] {
            let error = kind(text).unwrap_err().to_string();
            assert!(
                error.contains("write a URI of at most 512 bytes, or sbom or spdx or test-result"),
                "{text:?}: {error}"
            );
        }
        let uri = |length: usize| format!("x:{}", "y".repeat(length - 2));
        assert!(kind(&uri(512)).is_ok() && kind(&uri(513)).is_err());
    }
}
