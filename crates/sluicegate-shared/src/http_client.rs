//! The one request at a time that `object_store` asks for, made by the client that everything else here uses: the same authorities, the
//! same proxy, no redirect, and nothing read beyond a limit.

use std::{
    future::Future,
    io::Read,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use http_body::Body;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpService,
    },
};
use sluicegate_outbound::Outbound;
use ureq::{
    Agent,
    http::{Method, Request, Response, StatusCode},
};
use url::Url;

use crate::{SharedLimits, objects::innermost};

/// Bytes of an answer that is no content.
const MAX_ANSWER: u64 = 64 * 1024;

/// Asks one server.
#[derive(Clone, Debug)]
pub(crate) struct ServerClient {
    agent: Agent,
    server: Url,
    outbound: Arc<Outbound>,
    limits: SharedLimits,
}

impl ServerClient {
    /// Nothing is asked yet; an error is about this machine's settings.
    pub(crate) fn new(server: Url, outbound: Arc<Outbound>, limits: SharedLimits) -> Result<Self, String> {
        let config = outbound.agent_config(&server).map_err(|error| error.to_string())?;
        let config = config.timeout_global(Some(limits.request)).timeout_connect(Some(limits.connect));
        Ok(Self { agent: Agent::new_with_config(config.build()), server, outbound, limits })
    }

    fn answer(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, bytes) = self.read(self.ask(request)?)?;
        Ok(Response::from_parts(parts, bytes.into()))
    }

    fn ask(&self, request: HttpRequest) -> Result<Response<ureq::Body>, HttpError> {
        let (parts, body) = request.into_parts();
        let answer = if matches!(parts.method, Method::PUT | Method::POST) {
            self.agent.run(Request::from_parts(parts, whole(body)?))
        } else {
            self.agent.run(Request::from_parts(parts, ()))
        };
        answer.map_err(|error| self.failed(&error))
    }

    /// Asks one thing that has no body: what was answered, whatever that is.
    pub(crate) fn get(&self, request: HttpRequest) -> Result<(StatusCode, Vec<u8>), String> {
        let words = |error: HttpError| innermost(&error);
        let answer = self.ask(request).map_err(words)?;
        let (parts, bytes) = self.read(answer).map_err(words)?;
        Ok((parts.status, bytes))
    }

    fn read(&self, answer: Response<ureq::Body>) -> Result<(ureq::http::response::Parts, Vec<u8>), HttpError> {
        let limit = if answer.status().is_success() { self.limits.piece as u64 + MAX_ANSWER } else { MAX_ANSWER };
        let (parts, body) = answer.into_parts();
        let mut bytes = Vec::new();
        // One byte more tells what is larger from what fits.
        let mut reader = body.into_with_config().limit(u64::MAX).reader().take(limit + 1);
        let broke_off = |error| HttpError::new(HttpErrorKind::Interrupted, error);
        reader.read_to_end(&mut bytes).map_err(broke_off)?;
        if bytes.len() as u64 > limit {
            return Err(fault(HttpErrorKind::Decode, format!("the answer is larger than the limit of {limit} bytes")));
        }
        Ok((parts, bytes))
    }

    fn failed(&self, error: &ureq::Error) -> HttpError {
        match (self.outbound.tls_fault(error, &self.server), error) {
            (Some(tls), _) if tls.is_no_tls => {
                fault(HttpErrorKind::Unknown, format!("what answers there speaks no TLS ({})", tls.words))
            }
            (Some(tls), _) => fault(HttpErrorKind::Unknown, tls.words),
            (None, ureq::Error::Timeout(which)) => fault(HttpErrorKind::Timeout, format!("it took too long ({which})")),
            (None, ureq::Error::HostNotFound) => fault(HttpErrorKind::Unknown, "there is no such host".to_owned()),
            (None, ureq::Error::ConnectionFailed) => fault(HttpErrorKind::Connect, "no connection".to_owned()),
            (None, other) => fault(HttpErrorKind::Request, other.to_string()),
        }
    }
}

impl HttpConnector for ServerClient {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for ServerClient {
    /// Done when this returns: each runtime here serves one thread, which has nothing else to do meanwhile.
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::ready(self.answer(request)))
    }
}

/// A request's body, which is in memory already.
fn whole(mut body: HttpRequestBody) -> Result<Vec<u8>, HttpError> {
    let mut bytes = Vec::with_capacity(body.content_length());
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match Pin::new(&mut body).poll_frame(&mut context) {
            Poll::Ready(None) => return Ok(bytes),
            Poll::Ready(Some(frame)) => {
                if let Ok(data) = frame?.into_data() {
                    bytes.extend_from_slice(&data);
                }
            }
            Poll::Pending => return Err(fault(HttpErrorKind::Unknown, "the body is not there yet".to_owned())),
        }
    }
}

fn fault(kind: HttpErrorKind, words: String) -> HttpError {
    HttpError::new_boxed(kind, words.into())
}
