//! A question to one registry until it is answered: signed in for, repeated where that may help, and followed where that is allowed.

mod content;
mod pause;
mod sign_in;

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use content::Part;
pub(crate) use content::{Content, Hashed};
use pause::{LONGEST_ASKED, retry_after};
pub(crate) use pause::{chance, pause};
use sign_in::{Proof, Wanted};

use sluicegate_outbound::host_of;
use sluicegate_ports::images::{FaultKind, RegistryFault};
use sluicegate_types::is_loopback;
use ureq::http::Method;
use url::Url;

use super::{
    address::{is_same_server, led_to},
    credentials::Found,
    fault::{Result, fault},
    token::Tokens,
    transport::{Answer, Ask, Broken, Deadline, Payload, Transport, place_of},
};
use crate::settings::RegistrySettings;

/// How often a request is repeated (DESIGN section 7).
pub(crate) const RETRIES: u32 = 5;
/// How often a server may say nothing at all.
const SILENCES: u32 = 2;
/// How often a registry may want something else than it wanted before.
const CHALLENGES: u32 = 4;
/// Redirects that are followed (DESIGN section 7).
const MAX_REDIRECTS: u32 = 5;
/// Requests to one registry at a time.
const AT_A_TIME: usize = 8;

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
}
