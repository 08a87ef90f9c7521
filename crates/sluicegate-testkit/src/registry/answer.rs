//! What an honest registry answers (OCI distribution-spec 1.1), in the ways that its behaviour leaves open.

use std::io::{Read, Seek, SeekFrom};

use serde_json::{Value, json};

use super::{
    auth::Need,
    behaviour::{Behaviour, Links},
    content::{Put, StoredManifest},
    digest::ContentDigest,
    http::{Content, Reply, Request, encode},
    route::{Route, is_tag},
    state::State,
    uploads::bad_digest,
};

/// A manifest may not be longer than this (OCI distribution-spec, "pushing manifests").
const MANIFEST_LIMIT: u64 = 4 * 1024 * 1024;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A request with everything that its answer depends on.
pub(super) struct Exchange<'a> {
    pub(super) registry: &'a State,
    pub(super) behaviour: &'a Behaviour,
    /// Scheme and host that the client reached the registry at.
    pub(super) origin: &'a str,
    pub(super) request: &'a Request,
    pub(super) route: &'a Route,
}

/// An answer, and what was put for it.
pub(super) struct Outcome {
    pub(super) reply: Reply,
    pub(super) put: Option<Put>,
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self { reply, put: None }
    }
}

impl Exchange<'_> {
    /// What whoever asks must be allowed to do.
    pub(super) fn need(&self) -> Need {
        let actions: &[&str] = match self.request.method.as_str() {
            "GET" | "HEAD" if matches!(self.route, Route::Upload { .. }) => &["push"],
            "GET" | "HEAD" => &["pull"],
            "DELETE" if !matches!(self.route, Route::Upload { .. }) => &["delete", "push"],
            _ => &["push"],
        };
        Need { repository: self.route.repository().map(str::to_owned), actions }
    }

    /// The answer, and what was put for it.
    pub(super) fn answer(&self, body: &mut dyn Read) -> Outcome {
        let mut outcome = self.honest(body);
        if self.behaviour.nodigest {
            outcome.reply.set("Docker-Content-Digest", None);
        }
        outcome
    }

    fn honest(&self, body: &mut dyn Read) -> Outcome {
        let method = self.request.method.as_str();
        if method == "HEAD" && self.behaviour.head405 && !matches!(self.route, Route::Signed { .. }) {
            return self.not_allowed();
        }
        match (self.route, method) {
            (Route::Base, "GET" | "HEAD") => Reply::json(200, &json!({})).into(),
            (Route::Token, _) => self.registry.tokens.give(self.behaviour, self.request, body).into(),
            (Route::Signed { repository, digest }, _) => self.signed_blob(repository, digest).into(),
            (Route::Blob { repository, digest }, "GET" | "HEAD") => self.blob(repository, digest).into(),
            (Route::Blob { repository, digest }, "DELETE") => self.delete_blob(repository, digest).into(),
            (Route::NewUpload { repository }, "POST") => self.begin_upload(repository, body),
            (Route::Upload { repository, session }, _) => self.go_on_with_upload(repository, session, body),
            (Route::Manifest { repository, reference }, "GET" | "HEAD") => self.manifest(repository, reference).into(),
            (Route::Manifest { repository, reference }, "PUT") => self.put_manifest(repository, reference, body),
            (Route::Manifest { repository, reference }, "DELETE") => self.delete_manifest(repository, reference).into(),
            (Route::Tags { repository }, "GET" | "HEAD") => self.tags(repository).into(),
            (Route::Referrers { .. }, _) if !self.behaviour.referrers => {
                let reply = Reply::status(404).with("Content-Type", "text/plain; charset=utf-8");
                Reply { content: Content::bytes(b"404 page not found\n".to_vec()), ..reply }.into()
            }
            (Route::Referrers { repository, digest }, "GET" | "HEAD") => self.referrers(repository, digest).into(),
            (Route::BadName, _) => Reply::error(400, "NAME_INVALID", "this is no name of a repository").into(),
            (Route::Nowhere, _) => Reply::error(404, "NOT_FOUND", "there is nothing here").into(),
            _ => self.not_allowed(),
        }
    }

    /// Whether who asks may read another repository, too.
    pub(super) fn may_pull(&self, repository: &str) -> bool {
        let need = Need { repository: Some(repository.to_owned()), actions: &["pull"] };
        self.registry.tokens.covers(self.behaviour, self.request, &need)
    }

    pub(super) fn not_allowed(&self) -> Outcome {
        Reply::error(405, "UNSUPPORTED", "this method is not for this place").into()
    }

    fn blob(&self, repository: &str, digest: &str) -> Reply {
        let Some(digest) = ContentDigest::parse(digest) else { return bad_digest(digest) };
        if self.behaviour.signedget && self.registry.contents.has_blob(repository, &digest) {
            let location = format!("{}/signed/{repository}/{digest}?signature={}", self.origin, signature(&digest));
            return Reply::status(307).with("Location", location).with("Docker-Content-Digest", digest.as_str());
        }
        self.blob_content(repository, &digest)
    }

    /// A blob at the address to which the registry redirected.
    fn signed_blob(&self, repository: &str, digest: &str) -> Reply {
        let good = ContentDigest::parse(digest)
            .filter(|digest| self.request.parameter("signature") == Some(signature(digest)));
        let Some(digest) = good else { return Reply::status(403) };
        if self.request.method != "GET" {
            return Reply::status(403);
        }
        let mut reply = self.blob_content(repository, &digest);
        // What stands behind such addresses is no registry.
        reply.set("Docker-Content-Digest", None);
        reply
    }

    fn blob_content(&self, repository: &str, digest: &ContentDigest) -> Reply {
        let Some((mut file, size)) = self.registry.contents.open_blob(repository, digest) else {
            return Reply::error(404, "BLOB_UNKNOWN", "there is no such blob in this repository");
        };
        let reply = |status: u16| {
            Reply::status(status)
                .with("Content-Type", "application/octet-stream")
                .with("Docker-Content-Digest", digest.as_str())
                .with("Accept-Ranges", "bytes")
        };
        let asked = self.request.header("range").filter(|_| self.request.method == "GET");
        match asked.map_or(Range::Whole, |range| Range::of(range, size)) {
            Range::Whole => Reply { content: Content::sized(file, size), ..reply(200) },
            Range::Part { first, last } => match file.seek(SeekFrom::Start(first)) {
                Ok(_) => {
                    let reply = reply(206).with("Content-Range", format!("bytes {first}-{last}/{size}"));
                    Reply { content: Content::sized(file, last - first + 1), ..reply }
                }
                Err(error) => Reply::error(500, "UNKNOWN", &error.to_string()),
            },
            Range::Outside => Reply::error(416, "SIZE_INVALID", "the range is outside of the blob")
                .with("Content-Range", format!("bytes */{size}")),
        }
    }

    fn delete_blob(&self, repository: &str, digest: &str) -> Reply {
        let Some(digest) = ContentDigest::parse(digest) else { return bad_digest(digest) };
        if self.registry.contents.delete_blob(repository, &digest) {
            return Reply::status(202);
        }
        Reply::error(404, "BLOB_UNKNOWN", "there is no such blob in this repository")
    }

    fn manifest(&self, repository: &str, reference: &str) -> Reply {
        if let Err(refusal) = check_reference(reference) {
            return refusal;
        }
        let Some((digest, manifest)) = self.registry.contents.manifest(repository, reference) else {
            return Reply::error(404, "MANIFEST_UNKNOWN", "there is no such manifest in this repository");
        };
        let reply =
            Reply::status(200).with("Content-Type", manifest.media_type).with("Docker-Content-Digest", digest.as_str());
        Reply { content: Content::bytes(manifest.bytes), ..reply }
    }

    fn put_manifest(&self, repository: &str, reference: &str, body: &mut dyn Read) -> Outcome {
        if let Err(refusal) = check_reference(reference) {
            return refusal.into();
        }
        let mut bytes = Vec::new();
        if body.take(MANIFEST_LIMIT + 1).read_to_end(&mut bytes).is_err() {
            return Reply::error(400, "MANIFEST_INVALID", "the body ended too early").into();
        }
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Reply::error(413, "MANIFEST_INVALID", "a manifest may have 4 MiB").into();
        }
        // A reference that is a digest, or the parameter that says it for a tag.
        let named = ContentDigest::parse(reference).map(|digest| digest.as_str().to_owned());
        let (tags, named) = match named {
            Some(digest) => (self.request.parameters("tag"), Some(digest)),
            None => (vec![reference.to_owned()], self.request.parameter("digest")),
        };
        let digest = match named {
            None => ContentDigest::of(&bytes),
            Some(text) => match ContentDigest::parse(&text) {
                Some(digest) if digest.is_of(bytes.as_slice()).is_ok_and(|same| same) => digest,
                Some(_) => return Reply::error(400, "DIGEST_INVALID", "the manifest has another digest").into(),
                None => return bad_digest(&text).into(),
            },
        };
        if let Some(tag) = tags.iter().find(|tag| !is_tag(tag)) {
            return Reply::error(400, "TAG_INVALID", &format!("{tag:?} is no tag")).into();
        }
        let Ok(document) = serde_json::from_slice::<Value>(&bytes) else {
            return Reply::error(400, "MANIFEST_INVALID", "the manifest is no JSON").into();
        };
        let inside = document["mediaType"].as_str();
        let declared = self.request.header("content-type").map(|value| value.split(';').next().unwrap_or(value).trim());
        if inside.is_some_and(|inside| declared.is_some_and(|declared| declared != inside)) {
            return Reply::error(400, "MANIFEST_INVALID", "Content-Type and mediaType differ").into();
        }
        let missing = self.registry.contents.missing_part(repository, &document);
        if let Some(missing) = missing.filter(|_| !self.behaviour.sparse) {
            return Reply::error(404, "MANIFEST_BLOB_UNKNOWN", &format!("{missing} is not in this repository")).into();
        }
        let contents = &self.registry.contents;
        if self.behaviour.immutable && tags.iter().any(|tag| contents.manifest(repository, tag).is_some()) {
            return Reply::error(400, "TAG_INVALID", "the tag is there and cannot be changed").into();
        }
        let path = format!("/v2/{repository}/manifests/{digest}");
        let location = if self.behaviour.absolute { format!("{}{path}", self.origin) } else { path };
        let mut reply = Reply::status(201).with("Location", location).with("Docker-Content-Digest", digest.as_str());
        if self.request.parameter("tag").is_some() {
            for tag in &tags {
                reply = reply.with("OCI-Tag", tag);
            }
        }
        if let Some(subject) = document["subject"]["digest"].as_str().filter(|_| self.behaviour.referrers) {
            reply = reply.with("OCI-Subject", subject);
        }
        let media_type = declared.or(inside).unwrap_or("application/octet-stream").to_owned();
        let put = contents.put_manifest(repository, &digest, &tags, StoredManifest { media_type, bytes });
        Outcome { reply, put: Some(put) }
    }

    fn delete_manifest(&self, repository: &str, reference: &str) -> Reply {
        if let Err(refusal) = check_reference(reference) {
            return refusal;
        }
        if self.registry.contents.delete_manifest(repository, reference) {
            return Reply::status(202);
        }
        Reply::error(404, "MANIFEST_UNKNOWN", "there is no such manifest in this repository")
    }

    fn tags(&self, repository: &str) -> Reply {
        let Some(mut tags) = self.registry.contents.tags(repository) else {
            return Reply::error(404, "NAME_UNKNOWN", "nothing was ever put into this repository");
        };
        if let Some(last) = self.request.parameter("last") {
            tags.retain(|tag| *tag > last);
        }
        let mut link = None;
        if let Some(text) = self.request.parameter("n") {
            let Ok(count) = text.parse::<usize>() else {
                return Reply::error(400, "PAGINATION_NUMBER_INVALID", "n is a number");
            };
            if tags.len() > count {
                tags.truncate(count);
                link = tags.last().map(|last| self.link(&format!("n={count}&last={}", encode(last))));
            }
        }
        let mut reply = Reply::json(200, &json!({"name": repository, "tags": tags}));
        reply.set("Link", link);
        reply
    }

    fn referrers(&self, repository: &str, subject: &str) -> Reply {
        let Some(subject) = ContentDigest::parse(subject) else { return bad_digest(subject) };
        let wanted = self.request.parameter("artifactType");
        let manifests = self.registry.contents.manifests(repository);
        let mut referrers: Vec<_> = manifests
            .iter()
            .filter_map(|(digest, manifest)| referrer(digest, manifest, &subject))
            .filter(|referrer| wanted.is_none() || referrer["artifactType"].as_str() == wanted.as_deref())
            .collect();
        let mut link = None;
        if let Some(count) = self.behaviour.referrers_per_page {
            let start = self.request.parameter("start").and_then(|start| start.parse().ok()).unwrap_or(0_usize);
            referrers.drain(..start.min(referrers.len()));
            if referrers.len() > count {
                referrers.truncate(count);
                let filter = wanted.as_ref().map(|wanted| format!("artifactType={}&", encode(wanted)));
                link = Some(self.link(&format!("{}start={}", filter.unwrap_or_default(), start + count)));
            }
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": referrers});
        let mut reply = Reply::json(200, &index);
        reply.set("Content-Type", Some(INDEX.to_owned()));
        reply.set("OCI-Filters-Applied", wanted.map(|_| "artifactType".to_owned()));
        reply.set("Link", link);
        reply
    }

    fn link(&self, query: &str) -> String {
        let path = self.request.path();
        let target = match self.behaviour.links {
            Links::Path => format!("{path}?{query}"),
            Links::Query => format!("?{query}"),
            Links::Absolute => format!("{}{path}?{query}", self.origin),
        };
        format!("<{target}>; rel=\"next\"")
    }
}

/// The descriptor of a manifest in the list of referrers, if `subject` is what it refers to.
fn referrer(digest: &ContentDigest, manifest: &StoredManifest, subject: &ContentDigest) -> Option<Value> {
    let document: Value = serde_json::from_slice(&manifest.bytes).ok()?;
    if document["subject"]["digest"].as_str() != Some(subject.as_str()) {
        return None;
    }
    let mut descriptor =
        json!({"mediaType": manifest.media_type, "digest": digest.as_str(), "size": manifest.bytes.len()});
    let own = document["artifactType"].as_str().filter(|kind| !kind.is_empty());
    if let Some(kind) = own.or_else(|| document["config"]["mediaType"].as_str()) {
        descriptor["artifactType"] = json!(kind);
    }
    if let Some(annotations) = document["annotations"].as_object() {
        descriptor["annotations"] = json!(annotations);
    }
    Some(descriptor)
}

fn check_reference(reference: &str) -> Result<(), Reply> {
    if reference.contains(':') {
        return ContentDigest::parse(reference).map(|_| ()).ok_or_else(|| bad_digest(reference));
    }
    is_tag(reference).then_some(()).ok_or_else(|| Reply::error(400, "TAG_INVALID", "this is no tag"))
}

/// What makes an address below `/signed/` good.
fn signature(digest: &ContentDigest) -> String {
    ContentDigest::of(format!("signed {digest}").as_bytes()).as_str()[7..23].to_owned()
}

/// What of a blob is asked for.
enum Range {
    Whole,
    Part { first: u64, last: u64 },
    Outside,
}

impl Range {
    fn of(text: &str, size: u64) -> Self {
        let parts = text.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
        let Some((first, last)) = parts else { return Self::Whole };
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let (first, last) = match (number(first), number(last)) {
            (Some(first), Some(last)) => (first, last.min(size.saturating_sub(1))),
            (Some(first), None) if last.trim().is_empty() => (first, size.saturating_sub(1)),
            (None, Some(count)) if first.trim().is_empty() && count > 0 => {
                (size.saturating_sub(count), size.saturating_sub(1))
            }
            (None, Some(0)) => return Self::Outside,
            // Several ranges, or something else that is no range, is as if nothing was asked.
            _ => return Self::Whole,
        };
        if first > last || first >= size { Self::Outside } else { Self::Part { first, last } }
    }
}
