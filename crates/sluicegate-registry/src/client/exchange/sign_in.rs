//! What a registry wants before it answers, and what this machine shows it: nothing, a name and password, or a token for them.

use std::time::Instant;

use base64::{Engine, engine::general_purpose::STANDARD};
use sluicegate_ports::images::FaultKind;
use sluicegate_types::Secret;
use ureq::http::Method;
use url::Url;

use super::{RETRIES, Registry, SILENCES, pause::retry_after, status_fault};
use crate::client::{
    address::is_same_server,
    challenge::{self, Challenge},
    credentials::{self, Found, Identity},
    fault::{Result, fault},
    token,
    transport::{Answer, Ask, Payload, place_of},
};

/// What a registry wants before it answers.
#[derive(Clone)]
pub(super) enum Wanted {
    Basic,
    Bearer { service: Url, name: String },
}

/// What a request was sent with.
pub(super) enum Proof {
    Nothing,
    Password,
    /// A token that other requests were sent with before.
    Kept(Secret),
    /// A token that no request was sent with yet.
    Fresh(token::Token),
}

impl Proof {
    pub(super) fn header(&self, identity: &Identity) -> Option<String> {
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
    /// Who this machine is to the registry; looked for once.
    pub(super) fn found(&self) -> Result<&Found> {
        self.found.get_or_init(|| credentials::find(&self.settings, &self.host)).as_ref().map_err(Clone::clone)
    }

    /// What the next request is sent with.
    pub(super) fn proof(&self, scope: &str, base: &Url) -> Result<Proof> {
        let kept = self.tokens.get(scope, Instant::now());
        match kept.filter(|_| matches!(self.wanted(), Some(Wanted::Bearer { .. }))) {
            Some(token) => Ok(Proof::Kept(token)),
            None => self.new_proof(scope, base),
        }
    }

    /// The same without a token that others were sent with, so that whoever was refused is refused once.
    pub(super) fn new_proof(&self, scope: &str, base: &Url) -> Result<Proof> {
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
    pub(super) fn answer_challenge(&self, answer: Answer, proof: Proof, scope: &str, base: &Url) -> Result<Proof> {
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
}
