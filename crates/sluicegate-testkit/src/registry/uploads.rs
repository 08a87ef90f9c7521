//! Blobs on their way in: sessions with an address that changes with each request.

use std::{
    collections::BTreeMap,
    io::{self, Read, Seek, Write},
    sync::{Arc, Mutex},
};

use tempfile::NamedTempFile;

use super::{
    answer::{Exchange, Outcome},
    content::Put,
    digest::ContentDigest,
    http::{Reply, encode},
};

/// The sessions that are open.
#[derive(Default)]
pub(super) struct Uploads(Mutex<Sessions>);

#[derive(Default)]
struct Sessions {
    begun: u64,
    open: BTreeMap<String, Arc<Mutex<Session>>>,
}

struct Session {
    file: NamedTempFile,
    size: u64,
    /// The state that the next request must bring back.
    state: u64,
    /// A part came that can only have been the last one.
    ended: bool,
}

impl Uploads {
    /// How many sessions are open.
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap().open.len()
    }
}

impl Exchange<'_> {
    /// POST: a mount, a whole blob, or a new session.
    pub(super) fn begin_upload(&self, repository: &str, body: &mut dyn Read) -> Outcome {
        if let Some(digest) = self.request.parameter("mount") {
            if self.behaviour.mount401 {
                return Reply::error(401, "UNAUTHORIZED", "blobs are not mounted here").into();
            }
            let Some(digest) = ContentDigest::parse(&digest) else { return bad_digest(&digest).into() };
            // Without a name, any repository that has it will do.
            let holders = self.registry.contents.holders(&digest).into_iter();
            let from = self.request.parameter("from");
            let mut holders = holders.filter(|holder| from.as_ref().is_none_or(|from| from == holder));
            if holders.any(|holder| self.may_pull(&holder)) {
                let put = self.registry.contents.add_blob(repository, &digest);
                return self.created(repository, &digest, put);
            }
            return self.new_session(repository).into();
        }
        let Some(digest) = self.request.parameter("digest") else { return self.new_session(repository).into() };
        let Some(digest) = ContentDigest::parse(&digest) else { return bad_digest(&digest).into() };
        if let Some(refusal) = self.over_cap() {
            return refusal.into();
        }
        let limit = self.behaviour.cap.unwrap_or(u64::MAX);
        let received = self.registry.contents.new_file().and_then(|mut file| {
            let size = io::copy(&mut body.take(limit.saturating_add(1)), &mut file)?;
            Ok((file, size))
        });
        match received {
            Ok((_, size)) if size > limit => too_large(limit).into(),
            Ok((file, _)) => self.finish(repository, &digest, file),
            Err(error) => broken(&error).into(),
        }
    }

    /// GET, PATCH, PUT and DELETE of a session.
    pub(super) fn go_on_with_upload(&self, repository: &str, id: &str, body: &mut dyn Read) -> Outcome {
        let uploads = &self.registry.uploads;
        let session = uploads.0.lock().unwrap().open.get(&key(repository, id)).cloned();
        let Some(session) = session else {
            return Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload").into();
        };
        let mut session = session.lock().unwrap();
        let state = self.request.parameter("_state").and_then(|state| state.parse::<u64>().ok());
        // Who lost an answer knows only an earlier address, and asks there how far it got.
        let known =
            state.is_some_and(|state| state == session.state || self.request.method == "GET" && state < session.state);
        if !known {
            return Reply::error(400, "BLOB_UPLOAD_INVALID", "the state of the upload did not come back").into();
        }
        match self.request.method.as_str() {
            "GET" => self.where_it_is(repository, id, &mut session, 204).into(),
            "PATCH" => match self.append(repository, id, &mut session, body) {
                Ok(()) => self.where_it_is(repository, id, &mut session, 202).into(),
                Err(refusal) => refusal.into(),
            },
            "PUT" => {
                let digest = self.request.parameter("digest").unwrap_or_default();
                let Some(digest) = ContentDigest::parse(&digest) else { return bad_digest(&digest).into() };
                if let Err(refusal) = self.append(repository, id, &mut session, body) {
                    return refusal.into();
                }
                uploads.0.lock().unwrap().open.remove(&key(repository, id));
                let empty = self.registry.contents.new_file();
                match empty.map(|empty| std::mem::replace(&mut session.file, empty)) {
                    Ok(file) => self.finish(repository, &digest, file),
                    Err(error) => broken(&error).into(),
                }
            }
            "DELETE" => {
                uploads.0.lock().unwrap().open.remove(&key(repository, id));
                Reply::status(204).into()
            }
            _ => self.not_allowed(),
        }
    }

    fn new_session(&self, repository: &str) -> Reply {
        let file = match self.registry.contents.new_file() {
            Ok(file) => file,
            Err(error) => return broken(&error),
        };
        let mut sessions = self.registry.uploads.0.lock().unwrap();
        sessions.begun += 1;
        let id = format!("upload-{}", sessions.begun);
        let mut session = Session { file, size: 0, state: 0, ended: false };
        let mut reply = self.where_it_is(repository, &id, &mut session, 202);
        reply.set("OCI-Chunk-Min-Length", self.behaviour.chunk_min.map(|least| least.to_string()));
        sessions.open.insert(key(repository, &id), Arc::new(Mutex::new(session)));
        reply
    }

    /// Says how far an upload is and where it goes on.
    fn where_it_is(&self, repository: &str, id: &str, session: &mut Session, status: u16) -> Reply {
        session.state += 1;
        self.session_reply(Reply::status(status), repository, id, session)
    }

    fn session_reply(&self, reply: Reply, repository: &str, id: &str, session: &Session) -> Reply {
        let path = format!("/v2/{repository}/blobs/uploads/{id}?_state={}&for={}", session.state, encode(repository));
        let location = if self.behaviour.absolute { format!("{}{path}", self.origin) } else { path };
        let last = session.size.saturating_sub(1);
        reply.with("Location", location).with("Range", format!("0-{last}")).with("Docker-Upload-UUID", id)
    }

    /// Appends a body, if it is the part that comes next.
    fn append(&self, repository: &str, id: &str, session: &mut Session, body: &mut dyn Read) -> Result<(), Reply> {
        let misplaced = |session: &Session, why: &str| {
            let refusal = Reply::error(416, "BLOB_UPLOAD_INVALID", why);
            self.session_reply(refusal, repository, id, session)
        };
        if let Some(refusal) = self.over_cap() {
            return Err(self.session_reply(refusal, repository, id, session));
        }
        if let Some(range) = self.request.header("content-range") {
            let Some((first, last)) = parse_chunk(range) else {
                return Err(Reply::error(400, "BLOB_UPLOAD_INVALID", "Content-Range is FIRST-LAST"));
            };
            if first != session.size {
                return Err(misplaced(session, "this is not the part that comes next"));
            }
            if self.request.body_length().is_some_and(|length| length != last - first + 1) {
                return Err(Reply::error(400, "SIZE_INVALID", "Content-Range and Content-Length differ"));
            }
        }
        let limit = self.behaviour.cap.unwrap_or(u64::MAX);
        let before = session.size;
        // What came before a connection broke is kept, as registries do.
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = body.read(&mut buffer).map_err(|error| broken(&error))?;
            if n == 0 {
                let came = session.size - before;
                session.ended |= self.behaviour.chunk_min.is_some_and(|least| came > 0 && came < least);
                return Ok(());
            }
            if session.ended {
                return Err(Reply::error(400, "SIZE_INVALID", "a part before this one was too small"));
            }
            if session.size - before + n as u64 > limit {
                session.size = before;
                let file = session.file.as_file_mut();
                file.set_len(before).and_then(|()| file.seek(io::SeekFrom::End(0))).map_err(|error| broken(&error))?;
                return Err(self.session_reply(too_large(limit), repository, id, session));
            }
            session.file.write_all(&buffer[..n]).map_err(|error| broken(&error))?;
            session.size += n as u64;
        }
    }

    /// Why a body is refused before any of it was read.
    fn over_cap(&self) -> Option<Reply> {
        let cap = self.behaviour.cap?;
        self.request.body_length().is_some_and(|length| length > cap).then(|| too_large(cap))
    }

    fn finish(&self, repository: &str, digest: &ContentDigest, mut file: NamedTempFile) -> Outcome {
        let as_named = file.rewind().and_then(|()| digest.is_of(file.as_file_mut()));
        match as_named {
            Ok(true) => match self.registry.contents.put_blob(repository, digest, file) {
                Ok(put) => self.created(repository, digest, put),
                Err(error) => broken(&error).into(),
            },
            Ok(false) => Reply::error(400, "DIGEST_INVALID", "the content has another digest").into(),
            Err(error) => broken(&error).into(),
        }
    }

    fn created(&self, repository: &str, digest: &ContentDigest, put: Put) -> Outcome {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let location = if self.behaviour.absolute { format!("{}{path}", self.origin) } else { path };
        let reply = Reply::status(201).with("Location", location).with("Docker-Content-Digest", digest.as_str());
        Outcome { reply, put: Some(put) }
    }
}

pub(super) fn bad_digest(text: &str) -> Reply {
    Reply::error(400, "DIGEST_INVALID", &format!("{text:?} is no digest of SHA-256 or SHA-512"))
}

fn too_large(cap: u64) -> Reply {
    Reply::error(416, "SIZE_INVALID", &format!("a body may have {cap} bytes"))
}

fn broken(error: &io::Error) -> Reply {
    Reply::error(400, "BLOB_UPLOAD_INVALID", &error.to_string())
}

fn key(repository: &str, id: &str) -> String {
    format!("{repository} {id}")
}

/// `FIRST-LAST`, both included; what clients write in front of it is passed over.
fn parse_chunk(text: &str) -> Option<(u64, u64)> {
    let text = text.trim().trim_start_matches("bytes").trim_start_matches(['=', ' ']);
    let (first, last) = text.split('/').next()?.split_once('-')?;
    let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
    (first <= last && last < u64::MAX).then_some((first, last))
}
