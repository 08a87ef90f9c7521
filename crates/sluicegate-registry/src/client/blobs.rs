//! Blobs: streamed both ways, gone on with where a connection broke (distribution-spec, "Pulling blobs", "Pushing blobs").

use std::{
    fs::File,
    io,
    io::Read,
    sync::{Mutex, PoisonError},
};

use sluicegate_ports::images::{FaultKind, RegistryFault};
use sluicegate_types::{Digest, RegistryRepository};
use ureq::http::Method;
use url::Url;

use super::{
    Repository,
    address::{is_same_server, led_to},
    exchange::{Again, Content, Hashed, Question, Target, status_fault},
    fault::{Result, fault, shown},
    manifests::not_there,
    transport::{Answer, Deadline, is_silence, place_of},
};

/// How often the rest of a blob is asked for again.
const RESUMES: u32 = 5;
/// Above this, a blob is sent in parts of this size, so that a broken connection costs no more than one.
const PART: u64 = 64 * 1024 * 1024;
/// Smaller parts, for a registry that does not take those.
const SMALLER: [u64; 3] = [4 * 1024 * 1024, 1024 * 1024, 256 * 1024];

impl Repository {
    /// The bytes of a blob as they come, not hashed; `None` if there is none.
    pub(crate) fn blob(&self, digest: &Digest, size: u64) -> Result<Option<BlobReader>> {
        let deadline = self.deadline(size);
        let Some(answer) = self.get_blob(digest, None, deadline)? else { return Ok(None) };
        let whole = answer.length();
        let body = Some(answer.into_reader());
        let (repository, left) = (self.clone(), RESUMES);
        Ok(Some(BlobReader { repository, digest: *digest, size, whole, at: 0, body, left, deadline }))
    }

    fn get_blob(&self, digest: &Digest, range: Option<String>, deadline: Deadline) -> Result<Option<Answer>> {
        let answer = self.registry.ask(&Question {
            method: Method::GET,
            to: Target::Path(&self.path(&format!("blobs/{digest}"))),
            headers: range.map(|range| ("range", range)).into_iter().collect(),
            content: Content::None,
            scope: &self.to_read(),
            follow: true,
            again: Again::Always,
            whole: None,
            deadline,
        })?;
        match answer.status {
            200 | 206 => Ok(Some(answer)),
            404 => not_there(answer).map(|()| None),
            _ => Err(status_fault(&Method::GET, answer)),
        }
    }

    /// Whether the registry says that it has a blob. Only a clear yes is one: whoever does not want to say it gets the blob.
    fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool> {
        self.says_it_has(digest, size, |length| length.is_none_or(|length| length == size))
    }

    /// The same where nobody here has the blob: an answer that does not say how large it is, is none.
    pub(crate) fn has_as_large(&self, digest: &Digest, size: u64) -> Result<bool> {
        self.says_it_has(digest, size, |length| length == Some(size))
    }

    fn says_it_has(&self, digest: &Digest, size: u64, fits: impl Fn(Option<u64>) -> bool) -> Result<bool> {
        // As whoever may write, as the upload needs that too: one token for both.
        let path = self.path(&format!("blobs/{digest}"));
        let answer = match self.ask_bare(Method::HEAD, Target::Path(&path), &self.to_write()) {
            Err(fault) if fault.kind == FaultKind::Unauthorized => return Ok(false),
            answer => answer?,
        };
        Ok(match answer.status {
            200 => fits(answer.length()) && !says_another(&answer, digest),
            // An address elsewhere says that there is one: a byte behind it says that there is a blob. Such addresses are good for GET only.
            301 | 302 | 303 | 307 | 308 => self.has_first_byte(digest, size)?,
            _ => false,
        })
    }

    fn has_first_byte(&self, digest: &Digest, size: u64) -> Result<bool> {
        match self.get_blob(digest, Some("bytes=0-0".to_owned()), self.deadline(0)) {
            Ok(Some(answer)) if answer.status == 200 => Ok(answer.length() == Some(size)),
            Ok(Some(answer)) => Ok(answer.header("content-range").and_then(whole_of) == Some(size)),
            Ok(None) => Ok(false),
            Err(fault) if matches!(fault.kind, FaultKind::Unauthorized | FaultKind::Status) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Brings a blob of `size` bytes there, unless it is there already: taken over from another repository of the same registry where
    /// that is possible, else sent.
    pub(crate) fn push_blob(
        &self,
        digest: &Digest,
        file: &File,
        size: u64,
        from: Option<&RegistryRepository>,
    ) -> Result<()> {
        if self.has_blob(digest, size)? {
            return Ok(());
        }
        let mut begun = None;
        if let Some(other) = self.neighbour(from) {
            match self.mount(digest, other)? {
                Mounted::Done => return Ok(()),
                Mounted::Upload(upload) => begun = Some(upload),
                Mounted::No => {}
            }
        }
        let mut sizes = SMALLER.iter().copied().filter(|smaller| *smaller < size);
        let mut part = if size > PART { Some(PART) } else { None };
        let mut left = RESUMES;
        loop {
            let upload = match begun.take() {
                Some(upload) => upload,
                None => self.begin_upload()?,
            };
            let sent = match part {
                None => self.send_whole(upload, digest, file, size)?,
                Some(part) => self.send_parts(upload, digest, file, size, part)?,
            };
            match sent {
                Sent::Taken => return Ok(()),
                // Smaller parts, until there are none.
                Sent::TooLarge(answer) => match sizes.next() {
                    Some(smaller) => part = Some(smaller),
                    None => return Err(answer),
                },
                // What an upload got of it nobody knows: either it is all there, or another upload begins.
                Sent::Lost(why) => {
                    if self.has_blob(digest, size)? {
                        return Ok(());
                    }
                    let Some(less) = left.checked_sub(1) else { return Err(why) };
                    left = less;
                    (self.settings.pause)(super::exchange::pause(RESUMES - left, None));
                }
            }
        }
    }

    /// Lets the registry come by a blob of `size` bytes that is not sent: it has it, or takes it over from another repository of its own.
    /// Whether it says that it has it now, and as large.
    pub(crate) fn take_over(&self, digest: &Digest, size: u64, from: Option<&RegistryRepository>) -> Result<bool> {
        if self.has_as_large(digest, size)? {
            return Ok(true);
        }
        let Some(other) = self.neighbour(from) else { return Ok(false) };
        match self.mount(digest, other)? {
            Mounted::Done => self.has_as_large(digest, size),
            Mounted::Upload(upload) => {
                self.give_up(&upload);
                Ok(false)
            }
            Mounted::No => Ok(false),
        }
    }

    /// The repository that a blob can be taken over from, if it is another one of the same registry.
    fn neighbour<'a>(&self, from: Option<&'a RegistryRepository>) -> Option<&'a RegistryRepository> {
        from.filter(|other| other.host() == self.name.host() && **other != self.name)
    }

    /// Says that nothing comes to an upload, so that the registry does not keep it open. One that does not want to hear it ends it by
    /// itself some day.
    fn give_up(&self, upload: &Url) {
        let answer = self.registry.ask(&Question {
            method: Method::DELETE,
            to: Target::Url(upload),
            headers: Vec::new(),
            content: Content::None,
            scope: &self.to_write(),
            follow: false,
            again: Again::Never,
            whole: None,
            deadline: self.deadline(0),
        });
        let _ = answer.map(Answer::glimpse);
    }

    /// Asks for a blob of another repository. Whoever says no, in whatever way, gets it sent.
    fn mount(&self, digest: &Digest, from: &RegistryRepository) -> Result<Mounted> {
        let scope = format!("{} repository:{}:pull", self.to_write(), from.path());
        let path = self.path(&format!("blobs/uploads/?mount={digest}&from={}", from.path()));
        match self.ask_bare(Method::POST, Target::Path(&path), &scope) {
            Ok(answer) => Ok(match answer.status {
                201 if says_another(&answer, digest) => Mounted::No,
                201 => Mounted::Done,
                202 => Mounted::Upload(self.upload_address(answer)?),
                _ => Mounted::No,
            }),
            Err(fault) if fault.kind == FaultKind::Unauthorized => Ok(Mounted::No),
            Err(fault) => Err(fault),
        }
    }

    fn begin_upload(&self) -> Result<Url> {
        let path = self.path("blobs/uploads/");
        let answer = self.ask_bare(Method::POST, Target::Path(&path), &self.to_write())?;
        match answer.status {
            202 => self.upload_address(answer),
            _ => Err(status_fault(&Method::POST, answer)),
        }
    }

    /// Where an upload goes on. What is sent goes to the registry itself and nowhere else.
    fn upload_address(&self, answer: Answer) -> Result<Url> {
        let from = answer.url.clone();
        let location = answer.header("location").map(str::to_owned);
        let _ = answer.glimpse();
        let location = location
            .ok_or_else(|| fault(FaultKind::OutOfForm, format!("{}: an upload without an address", place_of(&from))))?;
        let url = led_to(&from, &location, "an upload")?;
        if !is_same_server(&from, &url) {
            let words = format!("{} wants an upload sent to {}, which is another server", self.name, place_of(&url));
            return Err(fault(FaultKind::AddressRefused, words));
        }
        Ok(url)
    }

    fn send_whole(&self, upload: Url, digest: &Digest, file: &File, size: u64) -> Result<Sent> {
        let sent = Mutex::new(Hashed::new());
        let content = Content::File { file, from: 0, length: size, sent: &sent };
        let answer = self.registry.ask(&Question {
            method: Method::PUT,
            to: Target::Url(&with_digest(upload, digest)),
            headers: vec![("content-type", OCTETS.to_owned())],
            content,
            scope: &self.to_write(),
            follow: false,
            again: Again::IfUntouched,
            whole: None,
            deadline: self.deadline(size),
        });
        let answer = match answer {
            Ok(answer) => answer,
            // A registry that takes no more hangs up in the middle of what is sent.
            Err(fault) if fault.kind == FaultKind::Unreachable && size > SMALLER[0] => {
                return Ok(Sent::TooLarge(fault));
            }
            Err(fault) if fault.kind == FaultKind::Unreachable => return Ok(Sent::Lost(fault)),
            Err(fault) => return Err(fault),
        };
        is_what_was_meant(sent, digest, size)?;
        taken(answer, digest)
    }

    /// Sends parts one after the other, each from where the registry says that it has come to.
    fn send_parts(&self, upload: Url, digest: &Digest, file: &File, size: u64, part: u64) -> Result<Sent> {
        let mut upload = upload;
        let (mut at, mut left) = (0, RESUMES);
        let sent = Mutex::new(Hashed::new());
        while at < size {
            let length = part.min(size - at);
            let answer = self.registry.ask(&Question {
                method: Method::PATCH,
                to: Target::Url(&upload),
                headers: vec![
                    ("content-type", OCTETS.to_owned()),
                    ("content-range", format!("{at}-{}", at + length - 1)),
                ],
                content: Content::File { file, from: at, length, sent: &sent },
                scope: &self.to_write(),
                follow: false,
                again: Again::IfUntouched,
                whole: None,
                deadline: self.deadline(length),
            });
            let (status, why) = match answer {
                Ok(answer) if answer.status == 202 => {
                    let sent = at + length;
                    at = came_to(&answer).filter(|to| *to > at && *to < sent).unwrap_or(sent);
                    // Who takes less than was sent takes it a few times, not a byte at a time.
                    if at < sent {
                        let words =
                            format!("PATCH {}: it takes less than is sent, again and again", place_of(&answer.url));
                        left = left.checked_sub(1).ok_or_else(|| fault(FaultKind::OutOfForm, words))?;
                    }
                    upload = self.upload_address(answer)?;
                    continue;
                }
                Ok(answer) => (answer.status, status_fault(&Method::PATCH, answer)),
                Err(fault) => (0, fault),
            };
            if matches!(status, 413 | 416) && at == 0 {
                return Ok(Sent::TooLarge(why));
            }
            let is_lost = match status {
                0 => why.kind == FaultKind::Unreachable,
                status => matches!(status, 404 | 408 | 416 | 500 | 502 | 504),
            };
            if !is_lost {
                return Err(why);
            }
            if left > 0 {
                left -= 1;
                (self.settings.pause)(super::exchange::pause(RESUMES - left, None));
                if let Ok(Some((url, to))) = self.upload_state(&upload)
                    && to <= size
                {
                    (upload, at) = (url, to);
                    continue;
                }
            }
            return Ok(Sent::Lost(why));
        }
        // Before the registry hears that this is the blob.
        is_what_was_meant(sent, digest, size)?;
        let answer = self.registry.ask(&Question {
            method: Method::PUT,
            to: Target::Url(&with_digest(upload, digest)),
            headers: Vec::new(),
            content: Content::None,
            scope: &self.to_write(),
            follow: false,
            again: Again::IfUntouched,
            whole: None,
            deadline: self.deadline(size),
        });
        match answer {
            Ok(answer) => taken(answer, digest),
            Err(fault) if fault.kind == FaultKind::Unreachable => Ok(Sent::Lost(fault)),
            Err(fault) => Err(fault),
        }
    }

    /// Where an upload stands, if the registry knows.
    fn upload_state(&self, upload: &Url) -> Result<Option<(Url, u64)>> {
        let answer = self.ask_bare(Method::GET, Target::Url(upload), &self.to_write())?;
        if answer.status != 204 {
            return Ok(None);
        }
        let to = came_to(&answer).unwrap_or(0);
        let next = if answer.header("location").is_some() { self.upload_address(answer)? } else { upload.clone() };
        Ok(Some((next, to)))
    }

    /// A question that carries nothing and does the same twice as once. An address elsewhere is an answer to it, and is not followed.
    fn ask_bare(&self, method: Method, to: Target<'_>, scope: &str) -> Result<Answer> {
        self.registry.ask(&Question {
            method,
            to,
            headers: Vec::new(),
            content: Content::None,
            scope,
            follow: false,
            again: Again::Always,
            whole: None,
            deadline: self.deadline(0),
        })
    }
}

const OCTETS: &str = "application/octet-stream";

enum Mounted {
    Done,
    /// Not taken over, but an upload is open for it.
    Upload(Url),
    No,
}

enum Sent {
    Taken,
    /// More at once than the registry takes.
    TooLarge(RegistryFault),
    /// Nobody knows: no answer, or one that says that the upload is not as it was.
    Lost(RegistryFault),
}

/// Whether an answer is about another blob than the one that was asked for. A registry may say it by another algorithm.
fn says_another(answer: &Answer, digest: &Digest) -> bool {
    let told = answer.header("docker-content-digest");
    told.is_some_and(|told| told.starts_with("sha256:") && told != digest.to_string())
}

/// Whether the bytes that were sent are the blob's: a file may have been exchanged since it was hashed.
fn is_what_was_meant(sent: Mutex<Hashed>, digest: &Digest, size: u64) -> Result<()> {
    let found = sent.into_inner().unwrap_or_else(PoisonError::into_inner).finish(size);
    match found.filter(|found| found != digest) {
        Some(found) => {
            let words =
                format!("what the store has for {digest} are bytes of {found}: nothing is to be sent from there");
            Err(fault(FaultKind::DigestMismatch, words))
        }
        None => Ok(()),
    }
}

fn taken(answer: Answer, digest: &Digest) -> Result<Sent> {
    let (status, place) = (answer.status, place_of(&answer.url));
    match status {
        201 | 204 => {
            let told = answer.header("docker-content-digest").map(str::to_owned).unwrap_or_default();
            if says_another(&answer, digest) {
                let words = format!("PUT {place}: it took {digest} for {}", shown(&told));
                return Err(fault(FaultKind::DigestMismatch, words));
            }
            let _ = answer.glimpse();
            Ok(Sent::Taken)
        }
        413 | 416 => Ok(Sent::TooLarge(status_fault(&Method::PUT, answer))),
        404 | 408 | 500 | 502 | 504 => Ok(Sent::Lost(status_fault(&Method::PUT, answer))),
        _ => {
            let said = answer.said();
            let kind = match status {
                401 | 403 => FaultKind::Unauthorized,
                _ if said.codes.iter().any(|code| code == "DIGEST_INVALID") => FaultKind::DigestMismatch,
                _ => FaultKind::Status,
            };
            Err(fault(kind, format!("PUT {place}: {status}{}", said.after())))
        }
    }
}

/// The address with the digest behind whatever state it has.
fn with_digest(mut url: Url, digest: &Digest) -> Url {
    let pair = format!("digest={}", digest.to_string().replace(':', "%3A"));
    // The state comes back byte for byte: it is the registry's, and not read again here.
    let query = url.query().filter(|query| !query.is_empty()).map(|query| format!("{query}&{pair}"));
    url.set_query(Some(&query.unwrap_or(pair)));
    url
}

/// `Range: 0-N` of an answer about an upload, as the number of bytes that are there.
fn came_to(answer: &Answer) -> Option<u64> {
    let text = answer.header("range")?;
    let (_, last) = text.trim_start_matches("bytes=").split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    // Of nothing, registries say `0-0` all the same; a first byte alone is sent again.
    Some(if last == 0 { 0 } else { last.saturating_add(1) })
}

/// `bytes FIRST-LAST/WHOLE` of an answer, as the number of bytes of the whole.
fn whole_of(range: &str) -> Option<u64> {
    range.rsplit_once('/')?.1.trim().parse().ok()
}

/// A blob on its way. Where a connection breaks the rest is asked for; whoever reads hashes all of it.
pub(crate) struct BlobReader {
    repository: Repository,
    digest: Digest,
    /// Bytes that it should have. One more may come, so that whoever reads notices.
    size: u64,
    /// Bytes that the first answer said there were.
    whole: Option<u64>,
    at: u64,
    body: Option<Box<dyn Read + Send>>,
    left: u32,
    deadline: Deadline,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.size.saturating_add(1).saturating_sub(self.at);
        let most = buffer.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        loop {
            let Some(body) = &mut self.body else {
                self.go_on().map_err(io::Error::other)?;
                continue;
            };
            let broke = match body.read(&mut buffer[..most]) {
                Ok(0) if most == 0 => return Ok(0),
                Ok(0) if self.whole.is_some_and(|whole| self.at < whole) => {
                    io::Error::from(io::ErrorKind::UnexpectedEof)
                }
                Ok(n) => {
                    self.at += n as u64;
                    return Ok(n);
                }
                Err(error) => error,
            };
            self.body = None;
            // Who says nothing for long does so twice.
            let left = self.left.checked_sub(if is_silence(&broke) { RESUMES.div_ceil(2) } else { 1 });
            match (left, self.deadline.left()) {
                (Some(left), Some(_)) => {
                    self.left = left;
                    (self.repository.settings.pause)(super::exchange::pause(RESUMES - left, None));
                }
                _ => {
                    let words = format!(
                        "{} broke off after {} bytes of {}: {broke}",
                        self.repository.name, self.at, self.digest
                    );
                    return Err(io::Error::other(fault(FaultKind::Unreachable, words)));
                }
            }
        }
    }
}

impl BlobReader {
    fn go_on(&mut self) -> Result<()> {
        let gone =
            || fault(FaultKind::Status, format!("{} in {} was there and is gone", self.digest, self.repository.name));
        let range = (self.at > 0).then(|| format!("bytes={}-", self.at));
        let answer = self.repository.get_blob(&self.digest, range, self.deadline)?.ok_or_else(gone)?;
        let starts = if answer.status == 206 {
            let range = answer.header("content-range").map(str::to_owned).unwrap_or_default();
            let start =
                range.strip_prefix("bytes ").and_then(|range| range.split('-').next()?.trim().parse::<u64>().ok());
            start.ok_or_else(|| fault(FaultKind::OutOfForm, format!("a part of {} without its range", self.digest)))?
        } else {
            0
        };
        if starts > self.at {
            return Err(fault(FaultKind::OutOfForm, format!("a part of {} that leaves some out", self.digest)));
        }
        let mut body = answer.into_reader();
        // What is there already comes once more where the registry knows no parts.
        let skip = self.at - starts;
        let skipped = io::copy(&mut (&mut body).take(skip), &mut io::sink());
        if skipped.ok() == Some(skip) {
            self.body = Some(body);
            return Ok(());
        }
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            fault(FaultKind::Unreachable, format!("{} breaks off again and again", self.repository.name))
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_an_upload_comes_back_as_it_is() {
        let digest = Digest::of(b"x");
        let to = |url: &str| String::from(with_digest(url.parse().unwrap(), &digest));
        let pair = format!("digest=sha256%3A{}", digest.hex());
        assert_eq!(to("https://r.example/u/1"), format!("https://r.example/u/1?{pair}"));
        assert_eq!(
            to("https://r.example/u/1?_state=a%2Bb+c&x"),
            format!("https://r.example/u/1?_state=a%2Bb+c&x&{pair}")
        );
    }
}
