//! A question to one registry until it is answered: signed in for, repeated where that may help, and followed where that is allowed.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use sluicegate_outbound::host_of;
use sluicegate_ports::images::{FaultKind, RegistryFault};
use sluicegate_types::{Digest, Hasher, Secret, UnixTime, is_loopback};
use ureq::http::Method;
use url::Url;

use super::{
    address::{is_same_server, led_to},
    challenge::{self, Challenge},
    credentials::{self, Found, Identity},
    fault::{Result, fault},
    token::{self, Tokens},
    transport::{Answer, Ask, Broken, Deadline, Payload, Transport, place_of},
};
use crate::settings::RegistrySettings;

/// How often a request is repeated (DESIGN section 7).
pub(crate) const RETRIES: u32 = 5;
/// How often a server may say nothing at all.
const SILENCES: u32 = 2;
/// How often a registry may want something else than it wanted before.
const CHALLENGES: u32 = 4;
/// The first pause between two tries, and the longest that is not asked for.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause that a registry may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(120);
/// Redirects that are followed (DESIGN section 7).
const MAX_REDIRECTS: u32 = 5;
/// Requests to one registry at a time.
const AT_A_TIME: usize = 8;

/// What may be sent again: bytes, or a part of a file.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
    None,
    Bytes(&'a [u8]),
    /// `length` bytes of a file from `from` on, which are hashed in `sent` on their way.
    File {
        file: &'a File,
        from: u64,
        length: u64,
        sent: &'a Mutex<Hashed>,
    },
}

/// What was read of a file to be sent, from its beginning on: in one piece or several, some of them perhaps more than once.
pub(crate) struct Hashed {
    hasher: Hasher,
    to: u64,
}

impl Hashed {
    pub(crate) fn new() -> Self {
        Self { hasher: Hasher::new(), to: 0 }
    }

    /// The digest of the file's bytes, if all `size` of them were read.
    pub(crate) fn finish(self, size: u64) -> Option<Digest> {
        (self.to == size).then(|| self.hasher.finish())
    }

    /// Bytes that lie at `at` in the file: each is hashed when it comes for the first time.
    fn update(&mut self, at: u64, bytes: &[u8]) {
        let new = self.to.checked_sub(at).and_then(|known| bytes.get(usize::try_from(known).ok()?..));
        if let Some(new) = new {
            self.hasher.update(new);
            self.to += new.len() as u64;
        }
    }
}

/// A question.
pub(crate) struct Question<'a> {
    pub(crate) method: Method,
    /// The path below the registry's address, or a whole address on the same server.
    pub(crate) to: Target<'a>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) content: Content<'a>,
    /// What a token must be good for.
    pub(crate) scope: &'a str,
    /// Whether a redirect is followed; else it is the answer.
    pub(crate) follow: bool,
    /// When it may be asked again.
    pub(crate) again: Again,
    /// So many bytes of a good answer are waited for, and asked for again where they break off; without it they are left to come.
    pub(crate) whole: Option<u64>,
    pub(crate) deadline: Deadline,
}

/// When a question may be asked again as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Whatever became of it: it does the same twice as once.
    Always,
    /// Where the registry says that nothing became of it yet. What goes to an upload may have come in part.
    IfUntouched,
    /// Never: what it stands on may be old by then.
    Never,
}

/// Where a question goes.
pub(crate) enum Target<'a> {
    Path(&'a str),
    Url(&'a Url),
}

/// One registry, with what is known of it.
pub(crate) struct Registry {
    host: String,
    transport: Arc<Transport>,
    settings: RegistrySettings,
    base: OnceLock<Url>,
    found: OnceLock<Result<Found>>,
    wanted: Mutex<Option<Wanted>>,
    tokens: Tokens,
    slots: Slots,
    writing: Mutex<()>,
}

/// What a registry wants before it answers.
#[derive(Clone)]
enum Wanted {
    Basic,
    Bearer { service: Url, name: String },
}

/// What a request was sent with.
enum Proof {
    Nothing,
    Password,
    /// A token that other requests were sent with before.
    Kept(Secret),
    /// A token that no request was sent with yet.
    Fresh(token::Token),
}

impl Proof {
    fn header(&self, identity: &Identity) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Password => basic(identity),
            Self::Kept(token) => Some(format!("Bearer {}", String::from_utf8_lossy(token.expose()))),
            Self::Fresh(token) => Some(format!("Bearer {}", String::from_utf8_lossy(token.secret.expose()))),
        }
    }
}

fn basic(identity: &Identity) -> Option<String> {
    let Identity::Password { user, password } = identity else { return None };
    let pair = [user.as_bytes(), b":", password.expose()].concat();
    Some(format!("Basic {}", STANDARD.encode(pair)))
}

impl Registry {
    pub(crate) fn new(host: &str, transport: Arc<Transport>, settings: RegistrySettings) -> Self {
        Self {
            host: host.to_owned(),
            transport,
            settings,
            base: OnceLock::new(),
            found: OnceLock::new(),
            wanted: Mutex::default(),
            tokens: Tokens::default(),
            slots: Slots::default(),
            writing: Mutex::default(),
        }
    }

    /// The turn of one of those in this process that change what they have read.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address that the registry answers at.
    pub(crate) fn base(&self) -> Result<&Url> {
        if let Some(base) = self.base.get() {
            return Ok(base);
        }
        let base = self.find_base()?;
        Ok(self.base.get_or_init(|| base))
    }

    /// Asks until there is an answer that says yes or no. A status is the caller's to read; only those that mean "later" are asked again.
    pub(crate) fn ask(&self, question: &Question<'_>) -> Result<Answer> {
        let base = self.base()?;
        let url = match question.to {
            Target::Path(path) => {
                base.join(path).map_err(|error| fault(FaultKind::Configuration, format!("{path}: {error}")))?
            }
            Target::Url(url) if is_same_server(base, url) => url.clone(),
            Target::Url(url) => {
                return Err(fault(
                    FaultKind::AddressRefused,
                    format!("{} is another server than {}", place_of(url), self.host),
                ));
            }
        };
        let _slot = self.slots.take();
        let (mut tries, mut silences, mut challenges) = (0, 0, 0);
        let mut proof = self.proof(question.scope, base)?;
        loop {
            let answer =
                self.attempt(question, base, &url, &proof).and_then(|(answer, at_home)| match question.whole {
                    Some(limit) if answer.status == 200 => Ok((answer.arrived(limit)?, at_home)),
                    _ => Ok((answer, at_home)),
                });
            let (passing, asked) = match answer {
                Err(broken) => {
                    silences += u32::from(broken.is_silence);
                    if !broken.passes || question.again != Again::Always || tries >= RETRIES || silences >= SILENCES {
                        return Err(broken.fault);
                    }
                    (broken.fault, None)
                }
                Ok((answer, at_home)) => match answer.status {
                    401 if at_home && challenges < CHALLENGES => {
                        challenges += 1;
                        proof = self.answer_challenge(answer, proof, question.scope, base)?;
                        continue;
                    }
                    // Some say so where a token has had its time.
                    403 if at_home && matches!(proof, Proof::Kept(_)) => {
                        if let Proof::Kept(token) = &proof {
                            self.tokens.forget(question.scope, token);
                        }
                        let _ = answer.glimpse();
                        proof = self.new_proof(question.scope, base)?;
                        continue;
                    }
                    403 if at_home && matches!(proof, Proof::Fresh(_)) => {
                        let (place, said) = (place_of(&answer.url), answer.said());
                        let words = format!(
                            "{} {place}: 403, a token that its own service has just given is not good for it{}",
                            question.method,
                            said.after()
                        );
                        return Err(fault(FaultKind::Unauthorized, words));
                    }
                    // Nothing became of these; of what else went wrong, whoever sends to an upload finds out.
                    408 | 500 | 502 | 504 if question.again != Again::Always => return Ok(answer),
                    // It is waited for what is asked for, and whoever looked before looks again.
                    429 | 503 if question.again == Again::Never => {
                        let asked = retry_after(&answer);
                        let why = status_fault(&question.method, answer);
                        self.wait(1, asked, question.deadline, why.clone())?;
                        return Err(why);
                    }
                    408 | 429 | 500 | 502 | 503 | 504 if tries < RETRIES => {
                        let asked = retry_after(&answer);
                        (status_fault(&question.method, answer), asked)
                    }
                    _ => {
                        if let Proof::Fresh(token) = proof
                            && answer.status != 401
                        {
                            self.tokens.put(question.scope, token);
                        }
                        return Ok(answer);
                    }
                },
            };
            if let Proof::Fresh(token) = proof {
                proof = Proof::Kept(token.secret.clone());
                self.tokens.put(question.scope, token);
            }
            tries += 1;
            self.wait(tries, asked, question.deadline, passing)?;
        }
    }

    fn wait(&self, tries: u32, asked: Option<Duration>, deadline: Deadline, because: RegistryFault) -> Result<()> {
        let pause = pause(tries, asked);
        let is_over = deadline.left().is_none_or(|left| left <= pause);
        if asked.is_some() && (is_over || pause > LONGEST_ASKED) {
            let words =
                format!("{}; it asks for a pause of {} s, which is not waited for", because.reason, pause.as_secs());
            return Err(fault(FaultKind::Deadline, words));
        }
        if is_over {
            return Err(fault(FaultKind::Deadline, format!("{}; the time for it is over", because.reason)));
        }
        (self.settings.pause)(pause);
        Ok(())
    }

    pub(crate) fn deadline(&self, bytes: u64) -> Deadline {
        Deadline::new(self.settings.patience, bytes)
    }

    /// One try, with its redirects; and whether the answer is the registry's own.
    fn attempt(
        &self,
        question: &Question<'_>,
        base: &Url,
        url: &Url,
        proof: &Proof,
    ) -> std::result::Result<(Answer, bool), Broken> {
        let mut url = url.clone();
        let mut seen = vec![url.clone()];
        let mut at_home = true;
        loop {
            // Whoever was led away and back comes as a stranger: another server chose that address.
            at_home = at_home && is_same_server(base, &url);
            let mut headers = question.headers.clone();
            // Whoever is not the registry itself gets to know nobody's name and no token.
            if at_home && let Some(value) = proof.header(&self.found()?.identity) {
                headers.push(("authorization", value));
            }
            let mut part;
            let payload = match question.content {
                Content::None => Payload::None,
                Content::Bytes(bytes) => Payload::Bytes(bytes),
                Content::File { file, from, length, sent } => {
                    // Whoever begins anew sends all of it anew.
                    if from == 0 {
                        *sent.lock().unwrap_or_else(PoisonError::into_inner) = Hashed::new();
                    }
                    part = Part { file, at: from, left: length, sent };
                    Payload::Reader(&mut part, length)
                }
            };
            // What an answer leads to may be as near as the registry itself, and no nearer.
            let reach = if at_home { None } else { Some(self.transport.nearness(base)?) };
            let ask = Ask {
                method: question.method.clone(),
                url: &url,
                headers,
                payload,
                deadline: question.deadline,
                reach,
            };
            let answer = self.transport.send(ask)?;
            let is_redirect = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
            if !question.follow || !is_redirect {
                return Ok((answer, at_home));
            }
            let Some(location) = answer.header("location") else {
                let words = format!("{}: {} without an address", place_of(&url), answer.status);
                return Err(fault(FaultKind::OutOfForm, words).into());
            };
            let next = led_to(&url, location, "a redirect")?;
            if seen.len() as u32 > MAX_REDIRECTS || seen.contains(&next) {
                let words = format!(
                    "{} leads on and on, or in a circle; {MAX_REDIRECTS} redirects are followed",
                    place_of(&seen[0])
                );
                return Err(fault(FaultKind::Redirects, words).into());
            }
            let _ = answer.glimpse();
            seen.push(next.clone());
            url = next;
        }
    }

    /// Who this machine is to the registry; looked for once.
    fn found(&self) -> Result<&Found> {
        self.found.get_or_init(|| credentials::find(&self.settings, &self.host)).as_ref().map_err(Clone::clone)
    }

    /// What the next request is sent with.
    fn proof(&self, scope: &str, base: &Url) -> Result<Proof> {
        let kept = self.tokens.get(scope, Instant::now());
        match kept.filter(|_| matches!(self.wanted(), Some(Wanted::Bearer { .. }))) {
            Some(token) => Ok(Proof::Kept(token)),
            None => self.new_proof(scope, base),
        }
    }

    /// The same without a token that others were sent with, so that whoever was refused is refused once.
    fn new_proof(&self, scope: &str, base: &Url) -> Result<Proof> {
        let found = self.found()?;
        match self.wanted() {
            None => Ok(Proof::Nothing),
            Some(Wanted::Basic) => Ok(Proof::Password),
            Some(Wanted::Bearer { service, name }) => {
                Ok(Proof::Fresh(self.new_token(found, base, &service, &name, scope)?))
            }
        }
    }

    fn wanted(&self) -> Option<Wanted> {
        self.wanted.lock().ok().and_then(|wanted| wanted.clone())
    }

    /// What to send after a 401; an error if there is nothing better than what was sent.
    fn answer_challenge(&self, answer: Answer, proof: Proof, scope: &str, base: &Url) -> Result<Proof> {
        let found = self.found()?;
        let values = answer.headers.get_all("www-authenticate");
        let challenge = challenge::parse(values.iter().filter_map(|value| value.to_str().ok()));
        let (place, said) = (place_of(&answer.url), answer.said());
        let refused = |why: &str| {
            let unheard = found.unheard.as_ref().map(|words| format!(" ({words})")).unwrap_or_default();
            let words = format!("{place}: 401, {why}{}{unheard}", said.after());
            Err(fault(FaultKind::Unauthorized, words))
        };
        match (challenge, proof) {
            (None | Some(Challenge::Bearer { .. }), Proof::Fresh(_)) => {
                refused("a token that its own service has just given is not taken")
            }
            // Some want names for one thing and tokens for another.
            (None | Some(Challenge::Basic), Proof::Password) => {
                refused(&format!("the name and password that are known for {} are not taken", self.host))
            }
            (Some(Challenge::Basic), _) if !matches!(found.identity, Identity::Password { .. }) => {
                refused(&format!("it wants a name and password, and none is known for {}", self.host))
            }
            (Some(Challenge::Basic), _) => {
                self.want(Wanted::Basic);
                Ok(Proof::Password)
            }
            (Some(Challenge::Bearer { realm, service: name }), proof) => {
                if let Proof::Kept(token) = &proof {
                    self.tokens.forget(scope, token);
                }
                let service = token::service(base, &realm, &self.settings.token_services)?;
                self.want(Wanted::Bearer { service: service.clone(), name: name.clone() });
                Ok(Proof::Fresh(self.new_token(found, base, &service, &name, scope)?))
            }
            // A token that was good before and has no challenge beside its refusal.
            (None, Proof::Kept(token)) => {
                self.tokens.forget(scope, &token);
                self.new_proof(scope, base)
            }
            (None, Proof::Nothing) => refused("it does not say what it wants"),
        }
    }

    fn want(&self, wanted: Wanted) {
        if let Ok(mut known) = self.wanted.lock() {
            *known = Some(wanted);
        }
    }

    /// Asks the token service, as whoever this machine is to the registry. No redirect is followed.
    fn new_token(&self, found: &Found, base: &Url, service: &Url, name: &str, scope: &str) -> Result<token::Token> {
        let mut url = service.clone();
        let (mut headers, mut form) = (Vec::new(), None);
        match &found.identity {
            Identity::Token(secret) => {
                let mut pairs = url::form_urlencoded::Serializer::new(String::new());
                pairs.append_pair("grant_type", "refresh_token").append_pair("service", name);
                pairs.append_pair("client_id", "sluicegate").append_pair("scope", scope);
                pairs.append_pair("refresh_token", &String::from_utf8_lossy(secret.expose()));
                headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
                form = Some(pairs.finish());
            }
            identity => {
                let mut pairs = url.query_pairs_mut();
                if !name.is_empty() {
                    pairs.append_pair("service", name);
                }
                pairs.append_pair("scope", scope);
                headers.extend(basic(identity).map(|value| ("authorization", value)));
            }
        }
        let what = format!("the token service {}", place_of(service));
        let deadline = self.deadline(0);
        let (mut tries, mut silences) = (0, 0);
        let reach = if is_same_server(base, service) { None } else { Some(self.transport.nearness(base)?) };
        let answer = loop {
            let ask = Ask {
                method: if form.is_some() { Method::POST } else { Method::GET },
                url: &url,
                headers: headers.clone(),
                payload: form.as_ref().map_or(Payload::None, |form| Payload::Bytes(form.as_bytes())),
                deadline,
                reach,
            };
            let answer = self.transport.send(ask).and_then(|mut answer| {
                if let Identity::Token(secret) = &found.identity {
                    answer.hide(String::from_utf8_lossy(secret.expose()).into_owned());
                }
                if answer.status == 200 { answer.arrived(token::MAX_ANSWER) } else { Ok(answer) }
            });
            if let Err(broken) = &answer {
                silences += u32::from(broken.is_silence);
            }
            let (passing, asked) = match answer {
                Ok(answer) if matches!(answer.status, 429 | 500 | 502 | 503 | 504) && tries < RETRIES => {
                    let asked = retry_after(&answer);
                    (status_fault(&Method::GET, answer), asked)
                }
                Ok(answer) => break answer,
                Err(broken) if broken.passes && tries < RETRIES && silences < SILENCES => (broken.fault, None),
                Err(broken) => return Err(broken.fault),
            };
            tries += 1;
            self.wait(tries, asked, deadline, passing)?;
        };
        if answer.status != 200 {
            let (status, said) = (answer.status, answer.said());
            let who = match &found.identity {
                Identity::Anonymous => format!("nobody in particular, as no name is known for {}", self.host),
                _ => format!("the name that is known for {}", self.host),
            };
            let unheard = found.unheard.as_ref().map(|words| format!(" ({words})")).unwrap_or_default();
            let words = format!("{what} answered {status} to {who}{}{unheard}", said.after());
            let kind = if matches!(status, 400..=404) { FaultKind::Unauthorized } else { FaultKind::Status };
            return Err(fault(kind, words));
        }
        let body = answer.read(token::MAX_ANSWER)?;
        token::parse(&body, Instant::now())
            .map_err(|why| fault(FaultKind::OutOfForm, format!("the answer of {what}: {why}")))
    }

    /// HTTPS, and on this machine plain HTTP where that is what answers. Nothing but `/v2/` is asked for to find out.
    fn find_base(&self) -> Result<Url> {
        let host = if self.host == "docker.io" { "registry-1.docker.io" } else { &self.host };
        let wrong = |error: url::ParseError| fault(FaultKind::Configuration, format!("{host}: {error}"));
        let secure: Url = format!("https://{host}/v2/").parse().map_err(wrong)?;
        if !is_loopback(host) || self.transport.has_own_certificates(&host_of(&secure)) {
            return Ok(secure);
        }
        let plain: Url = format!("http://{host}/v2/").parse().map_err(wrong)?;
        let probe = |url: &Url| {
            let (headers, deadline) = (Vec::new(), self.deadline(0));
            self.transport.send(Ask {
                method: Method::GET,
                url,
                headers,
                payload: Payload::None,
                deadline,
                reach: None,
            })
        };
        match probe(&plain) {
            // A TLS server says so in plain words, or with an alert that is no HTTP.
            Ok(answer) if answer.status != 400 => Ok(plain),
            Err(broken) if broken.fault.kind == FaultKind::Unreachable && is_refused(&broken) => Err(broken.fault),
            _ => match probe(&secure) {
                // It speaks no TLS: why it did not answer well is for the first question to find out, as often as it is asked.
                Err(broken) if broken.is_no_tls => Ok(plain),
                _ => Ok(secure),
            },
        }
    }
}

/// Whether nobody listens at all.
fn is_refused(broken: &Broken) -> bool {
    broken.fault.reason.contains("refused")
}

/// What an answer's status says, for a person.
pub(crate) fn status_fault(method: &Method, answer: Answer) -> RegistryFault {
    let (status, place) = (answer.status, place_of(&answer.url));
    let said = answer.said();
    let kind = if matches!(status, 401 | 403) { FaultKind::Unauthorized } else { FaultKind::Status };
    fault(kind, format!("{method} {place}: {status}{}", said.after()))
}

/// How long a registry asks to be left alone: seconds, or a date.
fn retry_after(answer: &Answer) -> Option<Duration> {
    let text = answer.header("retry-after")?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = http_date(text)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
    Some(Duration::from_secs(until.saturating_sub(now)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since 1970 (RFC 9110, section 5.6.7).
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.split_once(", ")?;
    let parts: Vec<&str> = rest.split(' ').collect();
    let [day, month, year, time, "GMT"] = parts.as_slice() else { return None };
    let month = MONTHS.iter().position(|name| name == month)? + 1;
    format!("{year}-{month:02}-{day}T{time}Z")
        .parse::<UnixTime>()
        .ok()
        .and_then(|time| u64::try_from(time.seconds()).ok())
}

/// The pause before try `number`: what was asked for, else twice the last one, a part of it by chance so that many do not come at once.
pub(crate) fn pause(number: u32, asked: Option<Duration>) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << number.min(10)).min(LONGEST_PAUSE);
    let jitter = whole.mul_f64(chance() / 2.0);
    asked.map_or(whole - jitter, |asked| asked.saturating_add(jitter.min(Duration::from_secs(1))))
}

/// A number from 0 to 1 that nobody needs to be unable to guess.
pub(crate) fn chance() -> f64 {
    use std::hash::{BuildHasher, Hasher as _};
    let bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// A part of a file, read without moving a place that others share.
struct Part<'a> {
    file: &'a File,
    at: u64,
    left: u64,
    sent: &'a Mutex<Hashed>,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = if most == 0 { 0 } else { self.file.read_at(&mut buffer[..most], self.at)? };
        if n == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was"));
        }
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).update(self.at, &buffer[..n]);
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// How many requests are on their way to one registry.
#[derive(Default)]
struct Slots {
    used: Mutex<usize>,
    freed: Condvar,
}

struct Slot<'a>(&'a Slots);

impl Slots {
    fn take(&self) -> Slot<'_> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.freed.wait_while(used, |used| *used >= AT_A_TIME);
        *free.unwrap_or_else(PoisonError::into_inner) += 1;
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_another_server_is_not_asked() {
        let settings = RegistrySettings::default();
        let registry = Registry::new("registry.example", Arc::new(Transport::new(settings.clone())), settings);
        for other in ["https://other.example/v2/x", "http://registry.example/v2/x", "https://registry.example:444/v2/x"]
        {
            let asked = registry.ask(&Question {
                method: Method::GET,
                to: Target::Url(&other.parse().unwrap()),
                headers: Vec::new(),
                content: Content::None,
                scope: "",
                follow: false,
                again: Again::Never,
                whole: None,
                // Who is asked all the same hears of nothing but this.
                deadline: Deadline::new(Duration::ZERO, 0),
            });
            assert_eq!(asked.map(|_| ()).unwrap_err().kind, FaultKind::AddressRefused, "{other}");
        }
    }

    #[test]
    fn a_file_that_becomes_shorter_is_no_part() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        std::fs::write(&path, b"abc").unwrap();
        let file = File::open(path).unwrap();
        let read = |from: u64, length: u64| {
            let sent = Mutex::new(Hashed::new());
            let mut part = Part { file: &file, at: from, left: length, sent: &sent };
            let mut bytes = Vec::new();
            part.read_to_end(&mut bytes).map(|_| bytes)
        };
        assert_eq!(read(1, 2).unwrap(), b"bc".to_vec());
        assert_eq!(read(1, 3).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn pauses_grow_have_an_end_and_differ() {
        let all: Vec<Duration> = (1..12).map(|number| pause(number, None)).collect();
        assert!(all.iter().all(|pause| *pause <= LONGEST_PAUSE) && all[10] > all[0]);
        assert!((0..20).map(|_| pause(5, None)).collect::<std::collections::BTreeSet<_>>().len() > 1);
        let asked = pause(1, Some(Duration::from_secs(7)));
        assert!(asked >= Duration::from_secs(7) && asked < Duration::from_secs(9));
        for number in 1..=RETRIES {
            assert!(pause(number, Some(Duration::from_secs(u64::MAX))) > LONGEST_ASKED);
        }
    }

    #[test]
    fn each_byte_of_a_file_is_hashed_once_however_it_is_read() {
        let digest = Some(Digest::of(b"abcdef"));
        let hashed = |pieces: &[(u64, &str)]| {
            let mut hashed = Hashed::new();
            pieces.iter().for_each(|(at, bytes)| hashed.update(*at, bytes.as_bytes()));
            hashed.finish(6)
        };
        assert_eq!(hashed(&[(0, "abcdef")]), digest);
        assert_eq!(hashed(&[(0, "abc"), (1, "bc"), (0, "a"), (1, "bcde"), (5, "f"), (6, "")]), digest);
        assert_eq!(hashed(&[(0, "abc"), (4, "ef")]), None);
        assert_eq!(hashed(&[(0, "abc")]), None);
        assert_ne!(hashed(&[(0, "abc"), (3, "xef")]), digest);
    }

    #[test]
    fn a_date_of_http_is_a_moment() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        for bad in ["", "06 Nov 1994 08:49:37 GMT", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 CET"] {
            assert_eq!(http_date(bad), None, "{bad}");
        }
    }
}
