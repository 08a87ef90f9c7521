//! Who may ask what: Basic, or tokens that the registry gives itself at `/token`.

use std::{collections::BTreeMap, io::Read, sync::Mutex};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::json;

use super::{
    behaviour::{Auth, Behaviour},
    http::{Reply, Request, form},
};

/// A form that asks for a token may not be longer than this.
const FORM_LIMIT: u64 = 64 * 1024;

/// The tokens that were given.
#[derive(Default)]
pub(super) struct Tokens(Mutex<BTreeMap<String, Token>>);

struct Token {
    uses: u32,
    /// `repository:NAME:ACTION`, one action each.
    scopes: Vec<String>,
}

/// What a request needs: nothing at all, or an action on a repository.
#[derive(Clone)]
pub(super) struct Need {
    pub(super) repository: Option<String>,
    /// The actions, any of which suffices; the first is asked for.
    pub(super) actions: &'static [&'static str],
}

impl Tokens {
    /// Why a request is not let in; `None` if it is.
    pub(super) fn refusal(&self, behaviour: &Behaviour, origin: &str, request: &Request, need: &Need) -> Option<Reply> {
        let given = request.header("authorization");
        let unauthorized = Reply::error(401, "UNAUTHORIZED", "authentication required");
        match behaviour.auth {
            Auth::Open => None,
            Auth::Basic => {
                let known = given
                    .and_then(basic)
                    .is_some_and(|pair| behaviour.credentials.as_ref().is_none_or(|credentials| *credentials == pair));
                (!known).then(|| unauthorized.with("WWW-Authenticate", challenge(behaviour, origin, need)))
            }
            Auth::Bearer => {
                let challenge = challenge(behaviour, origin, need);
                let Some(token) = given.and_then(|given| given.strip_prefix("Bearer ")) else {
                    return Some(unauthorized.with("WWW-Authenticate", challenge));
                };
                match self.use_up(behaviour, token, need) {
                    Use::Good => None,
                    // Another token is asked for, whatever the refusal of one that is dead.
                    Use::OutOfScope => {
                        let insufficient = format!("{challenge},error=\"insufficient_scope\"");
                        Some(unauthorized.with("WWW-Authenticate", insufficient))
                    }
                    Use::Dead => {
                        let refusal = behaviour.token_refusal;
                        let code = if refusal.status == 403 { "DENIED" } else { "UNAUTHORIZED" };
                        let reply = Reply::error(refusal.status, code, "the token is not good");
                        Some(if refusal.challenge { reply.with("WWW-Authenticate", challenge) } else { reply })
                    }
                }
            }
        }
    }

    /// Whether the token of a request would be good for something else as well; it is not used up by that.
    pub(super) fn covers(&self, behaviour: &Behaviour, request: &Request, need: &Need) -> bool {
        let token = request.header("authorization").and_then(|given| given.strip_prefix("Bearer "));
        behaviour.auth != Auth::Bearer
            || token.is_some_and(|token| self.0.lock().unwrap().get(token).is_some_and(|token| token.covers(need)))
    }

    /// Gives a token: to GET with Basic or without, and to the POST of a form (OAuth 2).
    pub(super) fn give(&self, behaviour: &Behaviour, request: &Request, body: &mut dyn Read) -> Reply {
        let mut text = String::new();
        if body.take(FORM_LIMIT).read_to_string(&mut text).is_err() {
            return Reply::error(400, "INVALID_REQUEST", "the form cannot be read");
        }
        let fields = if request.method == "POST" { form(&text) } else { Vec::new() };
        let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let (known, anonymous) = match request.method.as_str() {
            "GET" => {
                let given = request.header("authorization").and_then(basic);
                let known = given.is_some() && behaviour.credentials.as_ref().is_none_or(|c| given.as_ref() == Some(c));
                (known, given.is_none())
            }
            "POST" if field("grant_type").as_deref() == Some("refresh_token") => {
                let token = field("refresh_token");
                (token.is_some() && token == behaviour.identity_token, false)
            }
            "POST" if field("grant_type").as_deref() == Some("password") => {
                let given = field("username").zip(field("password"));
                (given.is_some() && behaviour.credentials.as_ref().is_none_or(|c| given.as_ref() == Some(c)), false)
            }
            "POST" => return Reply::error(400, "INVALID_REQUEST", "no such grant_type"),
            _ => return Reply::error(405, "UNSUPPORTED", "GET or POST"),
        };
        let open = behaviour.credentials.is_none() && behaviour.identity_token.is_none();
        let reads_only = anonymous && !open && behaviour.anonymous_pull;
        if !(known || anonymous && (open || reads_only)) {
            return Reply::error(401, "UNAUTHORIZED", "the token service does not know them");
        }
        let asked = request.parameters("scope").into_iter().chain(field("scope"));
        let mut scopes: Vec<_> = asked.flat_map(|scopes| single_actions(&scopes)).collect();
        scopes.retain(|scope| !reads_only || scope.ends_with(":pull"));
        let mut tokens = self.0.lock().unwrap();
        let token = format!("token-{}", tokens.len() + 1);
        tokens.insert(token.clone(), Token { uses: 0, scopes });
        let mut answer = json!({"access_token": token});
        if !behaviour.access_only {
            answer["token"] = json!(token);
        }
        Reply::json(200, &answer)
    }

    fn use_up(&self, behaviour: &Behaviour, token: &str, need: &Need) -> Use {
        let mut tokens = self.0.lock().unwrap();
        let Some(token) = tokens.get_mut(token) else { return Use::Dead };
        if behaviour.token_uses.is_some_and(|uses| token.uses >= uses) {
            return Use::Dead;
        }
        token.uses += 1;
        if token.covers(need) { Use::Good } else { Use::OutOfScope }
    }
}

enum Use {
    Good,
    Dead,
    OutOfScope,
}

impl Token {
    fn covers(&self, need: &Need) -> bool {
        let Some(repository) = &need.repository else { return true };
        need.actions.iter().any(|action| {
            self.scopes.iter().any(|scope| {
                *scope == format!("repository:{repository}:{action}") || *scope == format!("repository:{repository}:*")
            })
        })
    }
}

/// What a client is told that must say who it is.
pub(super) fn challenge(behaviour: &Behaviour, origin: &str, need: &Need) -> String {
    if behaviour.auth == Auth::Basic {
        return r#"Basic realm="registry""#.to_owned();
    }
    let service = origin.split_once("://").map_or(origin, |(_, host)| host);
    let mut challenge = format!(r#"Bearer realm="{origin}/token",service="{service}""#);
    if let Some(repository) = &need.repository {
        let action = match need.actions.first() {
            Some(&"push") => "pull,push",
            Some(action) => action,
            None => "pull",
        };
        challenge.push_str(&format!(r#",scope="repository:{repository}:{action}""#));
    }
    challenge
}

fn basic(value: &str) -> Option<(String, String)> {
    let decoded = BASE64.decode(value.strip_prefix("Basic ")?.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// `repository:a:pull,push repository:b:pull` as one scope for each action.
fn single_actions(scopes: &str) -> Vec<String> {
    let split = |scope: &str| {
        let (resource, actions) = scope.rsplit_once(':')?;
        Some(actions.split(',').map(|action| format!("{resource}:{action}")).collect::<Vec<_>>())
    };
    scopes.split_whitespace().filter_map(split).flatten().collect()
}
