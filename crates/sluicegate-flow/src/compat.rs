//! What tools look for that read no Sigstore bundles: cosign's tags `sha256-HEX.sig` and `sha256-HEX.att` beside an image, as cosign 2 writes
//! them (interop.md section 4). They say nothing new: the signature is the environment's own over cosign's older form, and the
//! attestations are the same signatures over the same bytes.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::json;
use sluicegate_attestation::{
    bundle::{Bundle, MAX_BUNDLE, hashedrekord_body},
    dsse,
    identifiers::{BUNDLE, IMAGE_CONFIG, IMAGE_MANIFEST},
    predicate::PredicateType,
    statement::Statement,
};
use sluicegate_policy::judge::Grant;
use sluicegate_ports::{
    images::{Beside, Descriptor, Manifest, Publication},
    sign::Signer,
};
use sluicegate_types::Digest;

use crate::{Error, Ports, assemble::json_bytes, fetch::MAX_MANIFEST};

/// The media type of a signature's payload.
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The media type of a layer that is an attestation.
const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
/// The annotation that holds a signature; empty for an attestation, which brings its own.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const PREDICATE_TYPE: &str = "predicateType";

/// Adds both to a publication that a gate allowed. The signature is logged as every other is; cosign 2 finds no proof of that beside it.
pub fn cosign2(
    ports: &Ports<'_>,
    publication: &mut Publication,
    signer: &dyn Signer,
    grant: &Grant,
) -> Result<(), Error> {
    let layers = [
        ("sig", vec![signature(ports, signer, grant)?]),
        ("att", attestations(ports, publication, &grant.image.digest)?),
    ];
    for (suffix, layers) in layers {
        let config = config(&layers);
        let config = Descriptor::new(IMAGE_CONFIG, ports.store.put_bytes(&config)?, config.len() as u64);
        let blobs = layers.iter().map(|layer| layer.digest).chain([config.digest]).collect();
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(IMAGE_MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        };
        let bytes = json_bytes("a manifest", &manifest)?;
        let manifest = Descriptor::new(IMAGE_MANIFEST, ports.store.put_bytes(&bytes)?, bytes.len() as u64);
        let tag = format!("sha256-{}.{suffix}", grant.image.digest.hex());
        let tag = tag.parse().map_err(|error| Error::Bug(format!("{tag} is no tag: {error}")))?;
        publication.beside.push(Beside { tag, manifest, blobs });
    }
    Ok(())
}

fn signature(ports: &Ports<'_>, signer: &dyn Signer, grant: &Grant) -> Result<Descriptor, Error> {
    let payload = json_bytes(
        "a signature's payload",
        &json!({
            "critical": {
                "identity": {"docker-reference": grant.image.repository.as_str()},
                "image": {"docker-manifest-digest": grant.image.digest},
                "type": "cosign container image signature",
            },
            "optional": null,
        }),
    )?;
    let signature = signer.sign(&payload)?;
    ports.log.append(&[hashedrekord_body(&Digest::of(&payload), &signature, signer.public_key())])?;
    let layer = Descriptor::new(SIMPLE_SIGNING, ports.store.put_bytes(&payload)?, payload.len() as u64);
    Ok(Descriptor { annotations: [(SIGNATURE.to_owned(), BASE64.encode(signature))].into(), ..layer })
}

/// The envelope of each bundle that is attached to the image, but for cosign's own signature, which is none of the older attestations.
fn attestations(ports: &Ports<'_>, publication: &Publication, image: &Digest) -> Result<Vec<Descriptor>, Error> {
    let mut out = Vec::new();
    for referrer in &publication.referrers {
        let manifest: Manifest = match serde_json::from_slice(&ports.store.read(&referrer.digest, MAX_MANIFEST)?) {
            Ok(manifest) => manifest,
            Err(error) => return Err(Error::Bug(format!("{} is no manifest: {error}", referrer.digest))),
        };
        let [part] = manifest.layers.as_slice() else { continue };
        let is_of_image = manifest.subject.as_ref().is_some_and(|subject| subject.digest == *image);
        if !is_of_image || manifest.artifact_type.as_deref() != Some(BUNDLE) {
            continue;
        }
        let bundle = Bundle::parse(&ports.store.read(&part.digest, MAX_BUNDLE as u64)?)?;
        let predicate = Statement::parse(&bundle.payload)?.predicate_type;
        if predicate == PredicateType::ImageSignature {
            continue;
        }
        let envelope = json_bytes(
            "an envelope",
            &json!({
                "payloadType": dsse::IN_TOTO, "payload": BASE64.encode(&bundle.payload),
                "signatures": [{"keyid": "", "sig": BASE64.encode(&bundle.signature)}],
            }),
        )?;
        let layer = Descriptor::new(ENVELOPE, ports.store.put_bytes(&envelope)?, envelope.len() as u64);
        let annotations = [(SIGNATURE, String::new()), (PREDICATE_TYPE, predicate.uri().to_owned())];
        out.push(Descriptor { annotations: annotations.map(|(name, value)| (name.to_owned(), value)).into(), ..layer });
    }
    Ok(out)
}

fn config(layers: &[Descriptor]) -> Vec<u8> {
    let digests: Vec<&Digest> = layers.iter().map(|layer| &layer.digest).collect();
    json!({
        "architecture": "", "os": "", "config": {}, "created": "0001-01-01T00:00:00Z",
        "history": [{"created": "0001-01-01T00:00:00Z"}], "rootfs": {"type": "layers", "diff_ids": digests},
    })
    .to_string()
    .into_bytes()
}
