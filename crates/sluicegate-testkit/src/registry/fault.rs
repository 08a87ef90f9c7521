use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc};

use serde_json::{Value, json};
use sluicegate_types::Digest;

use super::http::{Content, Reply, Request};

/// An answer that is not as it should be: to which requests, and what becomes of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The requests.
    pub when: When,
    /// What becomes of them.
    pub then: Then,
}

/// Which requests a fault is for. Requests are counted that everything else here fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct When {
    /// Methods, any of them; none stands for every method.
    pub methods: Vec<String>,
    /// A part of path and query. `*` stands for any characters, and `$` at the end for the end.
    pub path: String,
    /// A header, its name in lower case, and a part of its value.
    pub header: Option<(String, String)>,
    /// The first of them that counts, from 1.
    pub from: u32,
    /// The last of them that counts.
    pub to: u32,
    /// Requests count that the registry does not let in, too: what becomes of them comes before any question who is asking.
    pub before_auth: bool,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Then {
    /// This is the answer, and the registry never sees the request.
    Instead(Answer),
    /// The registry does what it should, and its answer is changed.
    Changed(Answer),
    /// The connection stays open without an answer, until the client or the registry goes away.
    Hold,
    /// The connection ends without an answer. If so, what was asked is done before.
    Close {
        /// Whether it is done.
        done: bool,
    },
    /// The answer is that all is well; nothing of it is kept.
    NotKept,
    /// The answer is that all is well, and the manifest is kept; its tag names what it named before.
    TagReturns,
}

/// An answer, or what is changed in one. In headers and their values `{origin}` stands for scheme and host of the registry, `{target}`
/// for path and query of the request, `{path}` for its path, `{number}` for how many such requests there were with this one,
/// `{location}` for path and query of the honest answer's `Location`, and `{challenge}` for the challenge that the request deserves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The status; without one it is 200, or the honest one.
    pub status: Option<u16>,
    /// Headers, each in the place of honest ones of that name. An empty value takes them away.
    pub headers: Vec<(String, String)>,
    /// The body; without one it is empty, or the honest one.
    pub body: Option<Payload>,
    /// After so many bytes of the body the connection ends.
    pub cut: Option<u64>,
    /// The length that the head claims.
    pub claimed_length: Option<u64>,
}

/// The body of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// These bytes.
    Bytes(Arc<[u8]>),
    /// So many spaces in chunks, without a length in the head.
    Spaces(u64),
    /// The honest body, and behind it so many zeros.
    Longer(u64),
}

impl When {
    /// Every request with this part in its path and query.
    pub fn any(path: &str) -> Self {
        let (from, to) = (1, u32::MAX);
        Self { methods: Vec::new(), path: path.to_owned(), header: None, from, to, before_auth: false }
    }

    /// Requests of one method.
    pub fn method(method: &str, path: &str) -> Self {
        Self { methods: vec![method.to_owned()], ..Self::any(path) }
    }

    /// GET.
    pub fn get(path: &str) -> Self {
        Self::method("GET", path)
    }

    /// GET and HEAD.
    pub fn read(path: &str) -> Self {
        Self { methods: vec!["GET".to_owned(), "HEAD".to_owned()], ..Self::any(path) }
    }

    /// PUT.
    pub fn put(path: &str) -> Self {
        Self::method("PUT", path)
    }

    /// Only the first `count` of them.
    pub fn first(self, count: u32) -> Self {
        Self { from: 1, to: count, ..self }
    }

    /// Only the `number`th of them, from 1.
    pub fn nth(self, number: u32) -> Self {
        Self { from: number, to: number, ..self }
    }

    /// The `number`th of them, from 1, and all that follow.
    pub fn from(self, number: u32) -> Self {
        Self { from: number, to: u32::MAX, ..self }
    }

    /// Only those with this in a header.
    pub fn with_header(self, name: &str, part: &str) -> Self {
        Self { header: Some((name.to_ascii_lowercase(), part.to_owned())), ..self }
    }

    /// Also those that the registry does not let in.
    pub fn before_auth(self) -> Self {
        Self { before_auth: true, ..self }
    }

    /// This becomes of them.
    pub fn then(self, then: Then) -> Fault {
        Fault { when: self, then }
    }

    /// They get this answer, and the registry never sees them.
    pub fn answer(self, answer: Answer) -> Fault {
        self.then(Then::Instead(answer))
    }

    /// What the registry answers to them is changed.
    pub fn change(self, answer: Answer) -> Fault {
        self.then(Then::Changed(answer))
    }

    /// Whether a request is one of them, if it is the right one in their order.
    pub(super) fn fits(&self, request: &Request) -> bool {
        let method = self.methods.is_empty() || self.methods.contains(&request.method);
        let header = self.header.as_ref().is_none_or(|(name, part)| {
            request.headers().iter().any(|(known, value)| known == name && value.contains(part.as_str()))
        });
        method && header && contains(&request.target, &self.path)
    }
}

impl Answer {
    /// A status.
    pub fn status(status: u16) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    /// The same with a header; an empty value takes the honest one away.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with these bytes.
    pub fn bytes(self, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Vec<u8> = bytes.into();
        self.body(Payload::Bytes(bytes.into()))
    }

    /// The same with a body.
    pub fn body(self, body: Payload) -> Self {
        Self { body: Some(body), ..self }
    }

    /// The same with a media type and these bytes, and with their digest where a manifest or a blob has it.
    pub fn content(self, media_type: &str, bytes: &[u8]) -> Self {
        let digest = Digest::of(bytes).to_string();
        self.header("Content-Type", media_type).header("Docker-Content-Digest", &digest).bytes(bytes)
    }

    /// An error in the form of the distribution specification.
    pub fn error(status: u16, code: &str) -> Self {
        let document = json!({"errors": [{"code": code, "message": "as the test wants it"}]});
        Self::status(status).header("Content-Type", "application/json").bytes(document.to_string())
    }

    /// Changes `reply`.
    pub(super) fn apply(&self, reply: &mut Reply, fill_in: impl Fn(&str) -> String) {
        if let Some(status) = self.status {
            reply.status = status;
        }
        for (at, (name, value)) in self.headers.iter().enumerate() {
            let repeated = self.headers[..at].iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(name));
            let value = Some(fill_in(value)).filter(|value| !value.is_empty());
            match value {
                Some(value) if repeated => reply.headers.push((name.clone(), value)),
                value => reply.set(name, value),
            }
        }
        if let Some(body) = &self.body {
            let honest = std::mem::replace(&mut reply.content, Content::bytes(Vec::new()));
            reply.content = match body {
                Payload::Bytes(bytes) => Content::bytes(bytes.to_vec()),
                Payload::Spaces(count) => {
                    Content { reader: Box::new(io::Read::take(io::repeat(b' '), *count)), length: None }
                }
                Payload::Longer(by) => {
                    let length = honest.length.map(|length| length + by);
                    let more = io::Read::take(io::repeat(0), *by);
                    Content { reader: Box::new(io::Read::chain(honest.reader, more)), length }
                }
            };
        }
        reply.cut = self.cut.or(reply.cut);
        reply.claimed = self.claimed_length.or(reply.claimed);
    }
}

/// The cases that tests ask for, each by its name. Paths are parts of paths, as in [`When::path`].
impl Fault {
    /// Whoever must say who they are is sent to a token service at `realm`.
    pub fn realm_at(realm: &str) -> Self {
        let challenge = format!(r#"Bearer realm="{realm}",service="{{origin}}",scope="repository:any:pull,push""#);
        When::any("/v2/")
            .before_auth()
            .answer(Answer::error(401, "UNAUTHORIZED").header("WWW-Authenticate", &challenge))
    }

    /// Every token is refused, forever, with a challenge.
    pub fn always_unauthorized() -> Self {
        let refusal = Answer::error(401, "UNAUTHORIZED").header("WWW-Authenticate", "{challenge}");
        When::any("/v2/").before_auth().answer(refusal)
    }

    /// Uploads are to go on at another place: `origin` is its scheme and host.
    pub fn upload_at(origin: &str) -> Self {
        let location = format!("{origin}{{location}}");
        When::method("POST", "/blobs/uploads/").change(Answer::default().header("Location", &location))
    }

    /// Reads are redirected to `url`.
    pub fn redirect(path: &str, url: &str) -> Self {
        When::read(path).answer(Answer::status(307).header("Location", url))
    }

    /// Reads are redirected to themselves.
    pub fn redirect_to_itself(path: &str) -> Self {
        Self::redirect(path, "{target}")
    }

    /// Reads are redirected on and on, each time to another address.
    pub fn redirect_without_end(path: &str) -> Self {
        Self::redirect(path, "{path}?hop={number}")
    }

    /// A manifest is answered with other bytes than were asked for, under the honest digest.
    pub fn other_manifest(path: &str, bytes: &[u8]) -> Self {
        When::read(path).change(Answer::default().bytes(bytes))
    }

    /// The answer says another digest than it has.
    pub fn other_digest(path: &str, digest: &str) -> Self {
        When::read(path).change(Answer::default().header("Docker-Content-Digest", digest))
    }

    /// The answer says another media type than its body.
    pub fn other_media_type(path: &str, media_type: &str) -> Self {
        When::read(path).change(Answer::default().header("Content-Type", media_type))
    }

    /// A manifest of so many bytes, in chunks and without a length; with `u64::MAX` it never ends.
    pub fn large_manifest(path: &str, media_type: &str, size: u64) -> Self {
        When::get(path).answer(Answer::status(200).header("Content-Type", media_type).body(Payload::Spaces(size)))
    }

    /// A blob has so many bytes more than are its own.
    pub fn longer(path: &str, by: u64) -> Self {
        When::get(path).change(Answer::default().body(Payload::Longer(by)))
    }

    /// The connection ends after so many bytes of the body.
    pub fn cut(when: When, after: u64) -> Self {
        when.change(Answer { cut: Some(after), ..Answer::default() })
    }

    /// The head claims another length than the body has; then the connection ends.
    pub fn claimed_length(path: &str, length: u64) -> Self {
        When::get(path).change(Answer { claimed_length: Some(length), ..Answer::default() })
    }

    /// A tag is answered with these manifests in turn, and with the last of them from then on.
    pub fn tag_moves(path: &str, media_type: &str, manifests: &[&[u8]]) -> Vec<Self> {
        let last = u32::try_from(manifests.len()).unwrap();
        let number = |bytes: &[u8], at: u32| {
            let when = When::read(path);
            let when = if at == last { when.from(at) } else { when.nth(at) };
            when.answer(Answer::status(200).content(media_type, bytes))
        };
        manifests.iter().zip(1..).map(|(bytes, at)| number(bytes, at)).collect()
    }

    /// Every page of referrers has a link to this next one: `http://other.test/`, `?page={number}`, `{target}`.
    pub fn next_page(link: &str) -> Self {
        let link = format!("<{link}>; rel=\"next\"");
        When::get("/referrers/").change(Answer::default().header("Link", &link))
    }

    /// Referrers are answered with 200 and this, whatever there is.
    pub fn referrers_are(media_type: &str, body: &str) -> Self {
        When::get("/referrers/").answer(Answer::status(200).header("Content-Type", media_type).bytes(body))
    }

    /// Referrers are answered with 200 and a page for people.
    pub fn referrers_are_html() -> Self {
        Self::referrers_are("text/html", "<!DOCTYPE html><title>Registry</title><p>Welcome")
    }

    /// Referrers are answered with 200 and an index that has none.
    pub fn referrers_are_none() -> Self {
        let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        Self::referrers_are("application/vnd.oci.image.index.v1+json", index)
    }

    /// Exactly the answers that `routes.json` of a folder has, and 404 for everything else: `{"GET /v2/": {"status": 200, "headers": {},
    /// "text": ""}}`, where a name of a file of the folder can stand as `file` in the place of `text`. What is there for GET is there for
    /// HEAD as well.
    pub fn routes(folder: &Path) -> Vec<Self> {
        let routes = fs::read(folder.join("routes.json")).unwrap();
        let routes: BTreeMap<String, Value> = serde_json::from_slice(&routes).unwrap();
        let route = |(name, route): (&String, &Value)| {
            let (method, target) = name.split_once(' ').unwrap();
            let when = if method == "GET" { When::read(target) } else { When::method(method, target) };
            let mut answer = Answer::status(u16::try_from(route["status"].as_u64().unwrap()).unwrap());
            for (name, value) in route["headers"].as_object().unwrap() {
                answer = answer.header(name, value.as_str().unwrap());
            }
            let bytes = match route["file"].as_str() {
                Some(file) => fs::read(folder.join(file)).unwrap(),
                None => route["text"].as_str().unwrap().as_bytes().to_vec(),
            };
            When { path: format!("{target}$"), ..when }.answer(answer.bytes(bytes))
        };
        // What is there for HEAD alone comes before what is there for GET.
        let (heads, others): (Vec<_>, Vec<_>) = routes.iter().partition(|(name, _)| name.starts_with("HEAD "));
        let nothing = When::any("").answer(Answer::error(404, "NOT_FOUND"));
        heads.into_iter().chain(others).map(route).chain([nothing]).collect()
    }

    /// A status and an error of a code.
    pub fn refused(when: When, status: u16, code: &str) -> Self {
        when.answer(Answer::error(status, code))
    }

    /// 429, and when to come back: seconds, or a date as [`http_date`](super::http_date) writes it.
    pub fn too_many_requests(when: When, retry_after: &str) -> Self {
        when.answer(Answer::error(429, "TOOMANYREQUESTS").header("Retry-After", retry_after))
    }

    /// 503 for the first `count` requests.
    pub fn unavailable(path: &str, count: u32) -> Self {
        Self::refused(When::any(path).first(count).before_auth(), 503, "UNAVAILABLE")
    }

    /// No answer, ever.
    pub fn no_answer(path: &str) -> Self {
        When::any(path).before_auth().then(Then::Hold)
    }

    /// The `number`th change of a fallback tag, in whatever repository, is lost: another writer puts back what was there.
    pub fn lost_update(number: u32) -> Self {
        When::put("/manifests/sha256-").nth(number).then(Then::TagReturns)
    }

    /// A manifest is answered with 201 and is not kept.
    pub fn manifest_not_kept(path: &str) -> Self {
        When::put(path).then(Then::NotKept)
    }

    /// Manifests of a media type are refused, with 400 and `MANIFEST_INVALID` or with another status, such as 415.
    pub fn media_type_refused(media_type: &str, status: u16) -> Self {
        Self::refused(When::put("/manifests/").with_header("content-type", media_type), status, "MANIFEST_INVALID")
    }
}

/// Whether `pattern` is a part of `text`.
fn contains(text: &str, pattern: &str) -> bool {
    let (pattern, at_end) = pattern.strip_suffix('$').map_or((pattern, false), |pattern| (pattern, true));
    let mut pieces: Vec<_> = pattern.split('*').collect();
    let last = if at_end { pieces.pop() } else { None };
    let mut rest = text;
    for piece in pieces {
        let Some((_, after)) = rest.split_once(piece) else { return false };
        rest = after;
    }
    last.is_none_or(|last| rest.ends_with(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_paths() {
        let path = "/v2/a/manifests/sha256-0?tag=x";
        for part in ["", "/a/", "/manifests/sha256-", "/v2/*/sha256-*tag", "tag=x$", "/v2/*x$", "$", "*"] {
            assert!(contains(path, part), "{part}");
        }
        for part in ["/b/", "sha256-*a/", "/v2/$", "tag=x*tag=x", "tag=x*x$"] {
            assert!(!contains(path, part), "{part}");
        }
    }
}
