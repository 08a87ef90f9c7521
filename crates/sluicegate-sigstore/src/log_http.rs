//! One request to a log elsewhere and its answer, and the same again while what went wrong may pass. No redirect is followed.

use std::{
    io::Read,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;
use sluicegate_outbound::Outbound;
use sluicegate_ports::sign::SignError;
use sluicegate_types::LogUrl;
use ureq::{
    Agent,
    http::{Method, Request, Response},
};
use url::Url;

/// Characters of what a server says about an error that are said again.
const SAID: usize = 200;

/// How long a log elsewhere is waited for, and how often it is asked.
#[derive(Clone, Copy, Debug)]
pub struct RemoteLimits {
    /// Until there is a connection.
    pub connect: Duration,
    /// Until an answer is whole: a log answers when the checkpoint that covers the entry is there.
    pub answer: Duration,
    /// For a request and its repetitions.
    pub total: Duration,
    /// Requests at most, the first included.
    pub tries: u32,
    /// The pause before the second request; each further one is twice as long, a part of it by chance.
    pub first_pause: Duration,
    /// The longest pause that is not asked for.
    pub longest_pause: Duration,
    /// Entries that are sent at a time.
    pub at_a_time: usize,
}

impl Default for RemoteLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(65),
            total: Duration::from_secs(180),
            tries: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(15),
            at_a_time: 4,
        }
    }
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The header that says where an entry stands already.
    pub(crate) log_index: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The status and what the server says, for a person.
    pub(crate) fn said(&self) -> String {
        #[derive(Deserialize)]
        struct Said {
            message: String,
        }
        match serde_json::from_slice::<Said>(&self.body) {
            Ok(said) => format!("{}: {}", self.status, said.message.chars().take(SAID).collect::<String>()),
            Err(_) => self.status.to_string(),
        }
    }
}

/// A request that did not lead to what was asked.
pub(crate) struct Failed {
    pub(crate) reason: String,
    /// Whether another try may do better, and how long the server asks to wait for that.
    again: Option<Option<Duration>>,
}

impl Failed {
    /// For good.
    pub(crate) fn for_good(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), again: None }
    }

    /// For now.
    pub(crate) fn for_now(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), again: Some(None) }
    }
}

/// Connections to one server of a log.
#[derive(Debug)]
pub(crate) struct LogHttp {
    agent: Agent,
    server: Url,
    outbound: Arc<Outbound>,
    pub(crate) limits: RemoteLimits,
}

impl LogHttp {
    /// Nothing is asked yet. [`SignError::Settings`] if this machine's settings lead to no server.
    pub(crate) fn new(url: &LogUrl, outbound: Arc<Outbound>, limits: RemoteLimits) -> Result<Self, SignError> {
        let wrong = |reason: String| SignError::Settings { url: url.to_string(), reason };
        let server: Url = url.to_string().parse().map_err(|error| wrong(format!("it is no URL: {error}")))?;
        let config = outbound.agent_config(&server).map_err(|error| wrong(error.to_string()))?;
        let config = config.max_idle_connections_per_host(limits.at_a_time);
        Ok(Self { agent: Agent::new_with_config(config.build()), server, outbound, limits })
    }

    /// Asks for a file, again while that may help, and returns the first answer that is not about the server's own trouble.
    pub(crate) fn get(&self, url: &str, limit: u64) -> Result<Answer, Failed> {
        self.again_and_again(|left| self.ask(Method::GET, url, &[], limit, left))
    }

    /// Sends a document until `read` makes something of an answer, or says that it is no use.
    pub(crate) fn post<T>(
        &self,
        url: &str,
        document: &[u8],
        limit: u64,
        read: impl Fn(Answer) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        self.again_and_again(|left| read(self.ask(Method::POST, url, document, limit, left)?))
    }

    /// Does something until it is done, fails for good, or was tried often or long enough.
    pub(crate) fn again_and_again<T>(&self, mut once: impl FnMut(Duration) -> Result<T, Failed>) -> Result<T, Failed> {
        let end = Instant::now() + self.limits.total;
        let left = || end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        let mut tries = 0;
        loop {
            let Some(time) = left() else {
                return Err(Failed::for_good("the time that there is for it went by"));
            };
            let failed = match once(time.min(self.limits.answer)) {
                Ok(done) => return Ok(done),
                Err(failed) => failed,
            };
            tries += 1;
            let Some(asked) = failed.again else { return Err(failed) };
            if tries >= self.limits.tries {
                return Err(Failed::for_good(format!("{} ({tries} tries)", failed.reason)));
            }
            let pause = self.pause(tries, asked);
            if left().is_none_or(|left| pause >= left) {
                let words = format!("{}, and there is no time to wait {} s for it", failed.reason, pause.as_secs());
                return Err(Failed::for_good(words));
            }
            thread::sleep(pause);
        }
    }

    fn ask(&self, method: Method, url: &str, body: &[u8], limit: u64, left: Duration) -> Result<Answer, Failed> {
        let what = format!("{method} {url}");
        let request = Request::builder().method(&method).uri(url);
        let connect = Some(self.limits.connect.min(left));
        let answer = if method == Method::POST {
            let request = request.header("content-type", "application/json").body(body);
            let request = request.map_err(|error| Failed::for_good(format!("{what}: {error}")))?;
            let request = self.agent.configure_request(request).timeout_global(Some(left)).timeout_connect(connect);
            self.agent.run(request.build())
        } else {
            let request = request.body(()).map_err(|error| Failed::for_good(format!("{what}: {error}")))?;
            let request = self.agent.configure_request(request).timeout_global(Some(left)).timeout_connect(connect);
            self.agent.run(request.build())
        };
        let answer = answer.map_err(|error| self.failed(&what, &error))?;
        let status = answer.status().as_u16();
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (log_index, asked) = (header("x-log-index"), header("retry-after"));
        let body = whole(answer, limit).map_err(|error| match error {
            Broken::Larger => Failed::for_good(format!("{what}: the answer is larger than the limit of {limit} bytes")),
            Broken::Off(error) => Failed::for_now(format!("{what}: the answer broke off: {error}")),
        })?;
        let answer = Answer { status, log_index, body };
        if matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504) {
            let asked = asked.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
            return Err(Failed { reason: format!("{what}: {}", answer.said()), again: Some(asked) });
        }
        Ok(answer)
    }

    /// What TLS has against a server, it has again: nothing is lost by waiting for a person instead.
    fn failed(&self, what: &str, error: &ureq::Error) -> Failed {
        match self.outbound.tls_fault(error, &self.server) {
            Some(tls) if tls.is_no_tls => {
                Failed::for_good(format!("{what}: what answers there speaks no TLS ({})", tls.words))
            }
            Some(tls) => Failed::for_good(format!("{what}: {}", tls.words)),
            None => Failed::for_now(format!("{what}: {}", words(error))),
        }
    }

    /// The pause after so many tries: what was asked for, else longer each time; a part of it by chance, so that many do not come at once.
    fn pause(&self, tries: u32, asked: Option<Duration>) -> Duration {
        let whole = self.limits.first_pause.saturating_mul(1 << tries.saturating_sub(1).min(10));
        let whole = whole.min(self.limits.longest_pause);
        let jitter = whole.mul_f64(chance() / 2.0);
        asked.map_or(whole - jitter, |asked| asked + jitter.min(Duration::from_secs(1)))
    }
}

enum Broken {
    Larger,
    Off(std::io::Error),
}

/// The whole body, if it has at most `limit` bytes.
fn whole(answer: Response<ureq::Body>, limit: u64) -> Result<Vec<u8>, Broken> {
    let mut bytes = Vec::new();
    let mut body = answer.into_body().into_reader().take(limit.saturating_add(1));
    body.read_to_end(&mut bytes).map_err(Broken::Off)?;
    if bytes.len() as u64 > limit { Err(Broken::Larger) } else { Ok(bytes) }
}

fn words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(which) => format!("it took too long ({which})"),
        ureq::Error::HostNotFound => "there is no such host".to_owned(),
        ureq::Error::ConnectionFailed => "no connection".to_owned(),
        other => other.to_string(),
    }
}

/// A number from 0 to 1 that nobody needs to be unable to guess.
fn chance() -> f64 {
    use std::hash::{BuildHasher, Hasher as _};
    let bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
