//! Manifests: read by tag or digest, written, deleted by nobody (distribution-spec, "Pulling manifests", "Pushing manifests").

use std::{fs::File, sync::MutexGuard};

use sluicegate_attestation::one_reading;
use sluicegate_ports::images::{FaultKind, RegistryFault};
use sluicegate_types::{Digest, TagName};
use ureq::http::Method;

use super::{
    Repository,
    exchange::{Again, Content, Question, RETRIES, Target, pause, status_fault},
    fault::{Result, fault, shown},
    transport::{Answer, place_of},
};
use crate::layout_index::MAX_MANIFEST;

/// The manifests that are asked for: images and indexes, OCI's and Docker's.
pub(crate) const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// A manifest as the registry holds it: its bytes are what its digest is about.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

/// What a registry said about a manifest that it took.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// Of what it says that it lists this as a referrer (`OCI-Subject`).
    pub(crate) subject: Option<String>,
}

/// As long as it is there, nobody else of this process or this home changes the tag.
pub(crate) struct Turn<'a> {
    _own: MutexGuard<'a, ()>,
    _home: Option<File>,
}

/// How often what was written is looked for.
pub(crate) const LOOKS: u32 = 4;

impl Repository {
    /// The manifest that a tag names now; `None` if there is no such tag. Its digest is computed, whatever the registry says it is.
    pub(crate) fn tagged(&self, tag: &str) -> Result<Option<Held>> {
        self.manifest(tag, &self.to_read())
    }

    /// The manifest of a digest; `None` if there is none. Other bytes are an error, whatever is asked again.
    pub(crate) fn manifest_of(&self, digest: &Digest) -> Result<Option<Held>> {
        let Some(held) = self.manifest(&digest.to_string(), &self.to_read())? else { return Ok(None) };
        if held.digest != *digest {
            let words = format!("{} answered the manifest {digest} with other bytes, of {}", self.name, held.digest);
            return Err(fault(FaultKind::DigestMismatch, words));
        }
        Ok(Some(held))
    }

    fn manifest(&self, reference: &str, scope: &str) -> Result<Option<Held>> {
        let answer = self.registry.ask(&Question {
            method: Method::GET,
            to: Target::Path(&self.path(&format!("manifests/{reference}"))),
            headers: MANIFEST_TYPES.iter().map(|accepted| ("accept", (*accepted).to_owned())).collect(),
            content: Content::None,
            scope,
            follow: true,
            again: Again::Always,
            whole: Some(MAX_MANIFEST),
            deadline: self.deadline(MAX_MANIFEST),
        })?;
        match answer.status {
            200 => read(answer).map(Some),
            404 => not_there(answer).map(|()| None),
            _ => Err(status_fault(&Method::GET, answer)),
        }
    }

    /// Writes a manifest under its digest, and reads it back.
    pub(crate) fn put_manifest(&self, digest: &Digest, media_type: &str, bytes: &[u8]) -> Result<Taken> {
        let taken = self.put(&digest.to_string(), media_type, bytes, Again::Always)?;
        self.until_kept(&format!("the manifest {digest}"), |_| Ok(self.manifest_of(digest)?.is_some()))?;
        Ok(taken)
    }

    /// Lets a tag name the manifest that `look` finds it should name, or leaves it if there is nothing to do; whether it was written. No
    /// registry compares before it writes: so `look` comes right before, and comes again where writing has to be tried again.
    pub(crate) fn write_tag<E>(
        &self,
        tag: &TagName,
        media_type: &str,
        mut look: impl FnMut(u32) -> std::result::Result<Option<Vec<u8>>, E>,
        failed: impl Fn(RegistryFault) -> E,
    ) -> std::result::Result<bool, E> {
        let mut tries = 0;
        loop {
            let Some(bytes) = look(tries)? else { return Ok(tries > 0) };
            match self.put(tag.as_str(), media_type, &bytes, Again::Never) {
                Ok(_) => return Ok(true),
                Err(fault) if tries < RETRIES && matches!(fault.kind, FaultKind::Unreachable | FaultKind::Status) => {}
                Err(fault) => return Err(failed(fault)),
            }
            tries += 1;
            (self.settings.pause)(pause(tries, None));
        }
    }

    /// The turn of one of those who change a tag: of one process, and of one home where it has a folder for locks. Between homes there is
    /// none.
    pub(crate) fn turn(&self, tag: &TagName) -> Result<Turn<'_>> {
        let own = self.registry.turn();
        let Some(folder) = &self.settings.locks else { return Ok(Turn { _own: own, _home: None }) };
        let name = Digest::of(format!("{}:{tag}", self.name).as_bytes()).hex();
        let wrong = |error: std::io::Error| {
            fault(FaultKind::Configuration, format!("cannot lock {} in {}: {error}", self.name, folder.display()))
        };
        std::fs::create_dir_all(folder).map_err(wrong)?;
        let file = crate::layout::open_lock(&folder.join(name)).map_err(wrong)?;
        file.lock().map_err(wrong)?;
        Ok(Turn { _own: own, _home: Some(file) })
    }

    /// Looks whether a tag names a manifest that it was just written with.
    pub(crate) fn is_tagged(&self, tag: &TagName, digest: &Digest) -> Result<()> {
        self.until_kept(&format!("the tag {tag} for {digest}"), |_| {
            Ok(self.tagged(tag.as_str())?.is_some_and(|held| held.digest == *digest))
        })
    }

    /// Looks a few times whether something is there that was taken: some registries need a moment, and some keep nothing.
    pub(crate) fn until_kept(&self, what: &str, is_there: impl Fn(u32) -> Result<bool>) -> Result<()> {
        for number in 1..=LOOKS {
            if is_there(number)? {
                return Ok(());
            }
            if number < LOOKS {
                (self.settings.pause)(pause(number, None));
            }
        }
        let words = format!("{} took {what} and does not have it, looked for {LOOKS} times", self.name);
        Err(fault(FaultKind::NotKept, words))
    }

    fn put(&self, reference: &str, media_type: &str, bytes: &[u8], again: Again) -> Result<Taken> {
        let answer = self.registry.ask(&Question {
            method: Method::PUT,
            to: Target::Path(&self.path(&format!("manifests/{reference}"))),
            headers: vec![("content-type", media_type.to_owned())],
            content: Content::Bytes(bytes),
            scope: &self.to_write(),
            follow: false,
            again,
            whole: None,
            deadline: self.deadline(bytes.len() as u64),
        })?;
        let (status, place) = (answer.status, place_of(&answer.url));
        if matches!(status, 200..=202) {
            let subject = answer.header("oci-subject").map(str::to_owned);
            let told = answer.header("docker-content-digest").map(str::to_owned);
            let digest = Digest::of(bytes);
            let _ = answer.glimpse();
            // A registry may say it by another algorithm.
            if let Some(told) = told.filter(|told| told.starts_with("sha256:") && *told != digest.to_string()) {
                let words = format!("PUT {place}: it took {digest} for {}", shown(&told));
                return Err(fault(FaultKind::DigestMismatch, words));
            }
            return Ok(Taken { subject });
        }
        let is_tag = !reference.contains(':');
        let said = answer.said();
        let has = |codes: &[&str]| said.codes.iter().any(|code| codes.contains(&code.to_ascii_uppercase().as_str()));
        let lower = said.words.to_ascii_lowercase();
        let kind =
            if is_tag && (has(&["TAG_INVALID", "TAG_IMMUTABLE", "TAG_ALREADY_EXISTS"]) || lower.contains("immutab")) {
                FaultKind::TagImmutable
            } else if status == 415 || (matches!(status, 400 | 404) && has(&["MANIFEST_INVALID", "UNSUPPORTED"])) {
                FaultKind::MediaTypeRefused
            } else if matches!(status, 401 | 403) {
                FaultKind::Unauthorized
            } else {
                FaultKind::Status
            };
        let words = match kind {
            FaultKind::TagImmutable => {
                format!("the tag {reference} cannot be changed in {}: {status}{}", self.name, said.after())
            }
            FaultKind::MediaTypeRefused => {
                format!("{} does not take {media_type}: PUT {place}: {status}{}", self.name, said.after())
            }
            _ => format!("PUT {place}: {status}{}", said.after()),
        };
        Err(fault(kind, words))
    }
}

/// Reads a manifest and computes its digest. A header that says another digest, or another type than its own bytes, is an error.
fn read(answer: Answer) -> Result<Held> {
    let place = place_of(&answer.url);
    let told = answer.header("docker-content-digest").map(str::to_owned);
    let typed = answer.header("content-type").map(|text| text.split(';').next().unwrap_or_default().trim().to_owned());
    let bytes = answer.read(MAX_MANIFEST)?;
    let digest = Digest::of(&bytes);
    if let Some(told) = told.filter(|told| told.starts_with("sha256:") && *told != digest.to_string()) {
        let words = format!("GET {place}: it says {} and sends {digest}", shown(&told));
        return Err(fault(FaultKind::DigestMismatch, words));
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let out_of_form = |why: String| fault(FaultKind::OutOfForm, format!("GET {place}: {digest} is no manifest: {why}"));
    one_reading::check(&bytes).map_err(&out_of_form)?;
    let typed_itself: Typed = serde_json::from_slice(&bytes).map_err(|error| out_of_form(error.to_string()))?;
    let own = typed_itself.media_type;
    let named = typed.filter(|typed| !typed.is_empty());
    // Registries that keep files only say `application/json` or `octet-stream`, which says nothing.
    let says = named.filter(|named| named.starts_with("application/vnd.") || named.starts_with("text/"));
    match (own, says) {
        (Some(own), Some(says)) if own != says => {
            let words = format!("GET {place}: it is sent as {} and says itself {}", shown(&says), shown(&own));
            Err(fault(FaultKind::OutOfForm, words))
        }
        (Some(media_type), _) | (None, Some(media_type)) => Ok(Held { digest, media_type, bytes }),
        (None, None) => {
            Err(fault(FaultKind::OutOfForm, format!("GET {place}: nobody says what kind of manifest it is")))
        }
    }
}

/// A 404 is an answer only where it comes from a registry: in its form, or without any.
pub(crate) fn not_there(answer: Answer) -> Result<()> {
    let place = place_of(&answer.url);
    let is_page = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
    let body = answer.glimpse();
    if is_page {
        let words = format!("GET {place}: 404 with a web page, which is no answer of a registry");
        return Err(fault(FaultKind::OutOfForm, words));
    }
    drop(body);
    Ok(())
}
