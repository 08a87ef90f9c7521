//! One registry: what it holds, how it behaves, and what it was asked.

use std::{
    io::{self, Read},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    Logged,
    answer::{Exchange, Outcome},
    auth::{Tokens, challenge},
    behaviour::{Auth, Behaviour},
    content::Contents,
    fault::{Answer, Then},
    http::{Body, Duplex, Reply, Request, Wire},
    route::Route,
    uploads::Uploads,
};

/// What nobody reads of a body is passed over up to so many bytes; behind that the connection ends.
const DRAIN_LIMIT: u64 = 64 * 1024 * 1024;

/// What all connections of a registry share.
pub(super) struct State {
    pub(super) contents: Contents,
    pub(super) uploads: Uploads,
    pub(super) tokens: Tokens,
    behaviour: Mutex<Arc<Behaving>>,
    log: Mutex<Vec<Logged>>,
}

/// A behaviour, with how many requests there were for each of its faults.
struct Behaving {
    behaviour: Behaviour,
    counts: Vec<AtomicU32>,
}

/// What happens to a request in the end.
enum End {
    Answer(Reply),
    Hold,
    Close,
}

impl State {
    pub(super) fn new(behaviour: Behaviour) -> Self {
        Self {
            contents: Contents::new(),
            uploads: Uploads::default(),
            tokens: Tokens::default(),
            behaviour: Mutex::new(Arc::new(Behaving::new(behaviour))),
            log: Mutex::default(),
        }
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = Arc::new(Behaving::new(behaviour));
    }

    pub(super) fn log(&self) -> Vec<Logged> {
        self.log.lock().unwrap().clone()
    }

    pub(super) fn forget_log(&self) {
        self.log.lock().unwrap().clear();
    }

    /// Answers requests until the connection ends. `origin` is the scheme and the host that clients reach it at.
    pub(super) fn serve(&self, connection: &mut dyn Duplex, origin: &str) -> io::Result<()> {
        let mut wire = Wire::new(connection);
        loop {
            let request = match Request::read(&mut wire) {
                Ok(Some(request)) => request,
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Reply::status(400).send(*wire.get_mut(), false, false).map(|_| ());
                }
                Err(error) => return Err(error),
            };
            let mut body = Body::of(&request, &mut wire);
            let end = self.end(&request, origin, &mut body);
            let next = body.drain(DRAIN_LIMIT).unwrap_or(false);
            let authorization = request.header("authorization").map(str::to_owned);
            self.log.lock().unwrap().push(Logged {
                method: request.method.clone(),
                path_and_query: request.target.clone(),
                status: if let End::Answer(reply) = &end { reply.status } else { 0 },
                had_authorization: authorization.is_some(),
                authorization,
                body_bytes: body.taken(),
            });
            match end {
                End::Answer(reply) => {
                    let keeps_alive = next && request.keeps_alive();
                    if !reply.send(*wire.get_mut(), request.method == "HEAD", keeps_alive)? {
                        return Ok(());
                    }
                }
                End::Hold => return io::copy(&mut wire, &mut io::sink()).map(|_| ()),
                End::Close => return Ok(()),
            }
        }
    }

    fn end(&self, request: &Request, origin: &str, body: &mut dyn Read) -> End {
        let behaving = Arc::clone(&self.behaviour.lock().unwrap());
        let behaviour = &behaving.behaviour;
        let route = Route::of(request.path());
        let exchange = Exchange { registry: self, behaviour, origin, request, route: &route };
        behaving.suffer(&exchange, true, || {
            let open = matches!(route, Route::Token | Route::Signed { .. } | Route::Nowhere);
            let refusal = self.tokens.refusal(behaviour, origin, request, &exchange.need());
            if let Some(refusal) = refusal.filter(|_| !open) {
                return End::Answer(refusal);
            }
            behaving.suffer(&exchange, false, || exchange.answer(body))
        })
    }
}

impl Behaving {
    fn new(behaviour: Behaviour) -> Self {
        let counts = behaviour.faults.iter().map(|_| AtomicU32::new(0)).collect();
        Self { behaviour, counts }
    }

    /// Lets happen what a fault says, if there is one for the request at this point.
    fn suffer<O: Into<Ended>>(&self, exchange: &Exchange<'_>, before_auth: bool, honest: impl FnOnce() -> O) -> End {
        let mut found = None;
        for (fault, count) in self.behaviour.faults.iter().zip(&self.counts) {
            if fault.when.before_auth == before_auth && fault.when.fits(exchange.request) {
                let number = count.fetch_add(1, Ordering::SeqCst).saturating_add(1);
                if found.is_none() && (fault.when.from..=fault.when.to).contains(&number) {
                    found = Some((fault, number));
                }
            }
        }
        let Some((fault, number)) = found else { return honest().into().end };
        match &fault.then {
            Then::Instead(answer) => {
                let mut reply = Reply::status(200);
                change(&mut reply, answer, exchange, number);
                End::Answer(reply)
            }
            Then::Hold => End::Hold,
            Then::Close { done: false } => End::Close,
            Then::Close { done: true } => {
                honest();
                End::Close
            }
            Then::Changed(answer) => {
                let mut ended = honest().into();
                if let End::Answer(reply) = &mut ended.end {
                    change(reply, answer, exchange, number);
                }
                ended.end
            }
            Then::NotKept | Then::TagReturns => {
                let ended = honest().into();
                let contents = &exchange.registry.contents;
                match (ended.put, &fault.then) {
                    (Some(put), Then::NotKept) => contents.undo(put),
                    (Some(put), _) => contents.undo_tags(put),
                    (None, _) => {}
                }
                ended.end
            }
        }
    }
}

/// What happens to a request in the end, and what was put for it.
struct Ended {
    end: End,
    put: Option<super::content::Put>,
}

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        Self { end: End::Answer(outcome.reply), put: outcome.put }
    }
}

impl From<End> for Ended {
    fn from(end: End) -> Self {
        Self { end, put: None }
    }
}

fn change(reply: &mut Reply, answer: &Answer, exchange: &Exchange<'_>, number: u32) {
    let honest = reply.header("Location").unwrap_or_default().to_owned();
    let location = honest.strip_prefix(exchange.origin).unwrap_or(&honest).to_owned();
    let asking = Behaviour { auth: Auth::Bearer, ..Behaviour::default() };
    let asked = if exchange.behaviour.auth == Auth::Basic { exchange.behaviour } else { &asking };
    let values = [
        ("{origin}", exchange.origin.to_owned()),
        ("{target}", exchange.request.target.clone()),
        ("{path}", exchange.request.path().to_owned()),
        ("{number}", number.to_string()),
        ("{location}", location),
        ("{challenge}", challenge(asked, exchange.origin, &exchange.need())),
    ];
    answer.apply(reply, |text| values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value)));
}
