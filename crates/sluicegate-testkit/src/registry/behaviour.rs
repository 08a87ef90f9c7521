use std::str::FromStr;

use super::fault::Fault;

/// How a [`TestRegistry`](super::TestRegistry) behaves. By default it does what the specification says, with everything that is
/// optional there, and asks nobody who they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// How clients say who they are.
    pub auth: Auth,
    /// The name and the password that are asked for; without them anybody gets a token.
    pub credentials: Option<(String, String)>,
    /// Who gives no name and no password gets a token that is good for reading.
    pub anonymous_pull: bool,
    /// A refresh token that the token service takes as well (docker's identity token).
    pub identity_token: Option<String>,
    /// The token service answers with `access_token` alone, otherwise with `token` too. It never names a lifetime.
    pub access_only: bool,
    /// A token is good for so many requests.
    pub token_uses: Option<u32>,
    /// How a token is refused that is used up or was never given.
    pub token_refusal: TokenRefusal,
    /// Addresses of uploads are absolute; otherwise they are a path.
    pub absolute: bool,
    /// A body of an upload with more bytes is refused with 416.
    pub cap: Option<u64>,
    /// Every part of an upload but the last must have so many bytes; `OCI-Chunk-Min-Length` says so.
    pub chunk_min: Option<u64>,
    /// HEAD is answered with 405.
    pub head405: bool,
    /// No answer has a `Docker-Content-Digest`.
    pub nodigest: bool,
    /// Blobs are at an address below `/signed/` to which the registry redirects. It is good for GET; HEAD gets 403 there. An
    /// `Authorization` is not asked for and should not come: the log tells.
    pub signedget: bool,
    /// A tag that is there cannot be written again: 400 with `TAG_INVALID`.
    pub immutable: bool,
    /// A mount from another repository is answered with 401, whoever asks.
    pub mount401: bool,
    /// A manifest is taken whose blobs or manifests are not there. Otherwise it is refused with 404 and `MANIFEST_BLOB_UNKNOWN`; only its
    /// subject may be missing.
    pub sparse: bool,
    /// There is a referrers API. Otherwise its path is not found, and no answer has an `OCI-Subject`.
    pub referrers: bool,
    /// The referrers API gives so many on a page, and a link to the next one.
    pub referrers_per_page: Option<usize>,
    /// How links to a next page are written.
    pub links: Links,
    /// Answers that are not as they should be. Of those that are for a request, the first counts.
    pub faults: Vec<Fault>,
}

/// How clients say who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Nobody is asked.
    Open,
    /// Name and password come with every request.
    Basic,
    /// A token comes with every request; `/token` of the registry itself gives it.
    Bearer,
}

/// How a token that is not good is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRefusal {
    /// The status.
    pub status: u16,
    /// Whether `WWW-Authenticate` comes with it.
    pub challenge: bool,
}

/// How the link to a next page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// As a path with a query.
    Path,
    /// As a query alone.
    Query,
    /// With scheme and host.
    Absolute,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            auth: Auth::Open,
            credentials: None,
            anonymous_pull: false,
            identity_token: None,
            access_only: false,
            token_uses: None,
            token_refusal: TokenRefusal { status: 401, challenge: true },
            absolute: false,
            cap: None,
            chunk_min: None,
            head405: false,
            nodigest: false,
            signedget: false,
            immutable: false,
            mount401: false,
            sparse: false,
            referrers: true,
            referrers_per_page: None,
            links: Links::Path,
            faults: Vec::new(),
        }
    }
}

impl Behaviour {
    /// An honest registry that answers once or more in a way that it should not.
    pub fn with_faults(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self { faults: faults.into_iter().collect(), ..Self::default() }
    }

    /// A registry without a referrers API.
    pub fn without_referrers() -> Self {
        Self { referrers: false, ..Self::default() }
    }
}

/// Words with commas between them, as the field cases have them: `auth,uses=4,refuse=403`. `refuse=403` is a refusal without a
/// challenge, `refuse=401` one with it. The referrers API is there unless `no-referrers` says otherwise.
impl FromStr for Behaviour {
    type Err = String;

    fn from_str(words: &str) -> Result<Self, String> {
        let mut behaviour = Self::default();
        for word in words.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let number = || value.parse::<u64>().map_err(|_| format!("{word:?}: {name} wants a number"));
            match name {
                "auth" => behaviour.auth = Auth::Bearer,
                "basic" => behaviour.auth = Auth::Basic,
                "user" => {
                    let (user, password) = value.split_once(':').ok_or("user wants NAME:PASSWORD")?;
                    behaviour.credentials = Some((user.to_owned(), password.to_owned()));
                }
                "anonymous-pull" => behaviour.anonymous_pull = true,
                "identity" => behaviour.identity_token = Some(value.to_owned()),
                "access-only" => behaviour.access_only = true,
                "uses" => behaviour.token_uses = Some(u32::try_from(number()?).unwrap_or(u32::MAX)),
                "refuse" => {
                    let status = u16::try_from(number()?).map_err(|_| format!("{word:?} is no status"))?;
                    behaviour.token_refusal = TokenRefusal { status, challenge: status == 401 };
                }
                "absolute" => behaviour.absolute = true,
                "cap" => behaviour.cap = Some(number()?),
                "chunk-min" => behaviour.chunk_min = Some(number()?),
                "head405" => behaviour.head405 = true,
                "nodigest" => behaviour.nodigest = true,
                "signedget" => behaviour.signedget = true,
                "immutable" => behaviour.immutable = true,
                "mount401" => behaviour.mount401 = true,
                "sparse" => behaviour.sparse = true,
                "referrers" => behaviour.referrers = true,
                "no-referrers" => behaviour.referrers = false,
                "pages" => behaviour.referrers_per_page = usize::try_from(number()?).ok(),
                "link-query" => behaviour.links = Links::Query,
                "link-absolute" => behaviour.links = Links::Absolute,
                _ => return Err(format!("{name:?} is no behaviour of the registry")),
            }
        }
        Ok(behaviour)
    }
}
