//! `waivers.yaml`: denials that somebody accepts for a while; and the same of gaps in scans, which stand in the gateway file (trust model
//! 4 and 17, DESIGN section 4).

use serde::Deserialize;
use sluicegate_types::{
    Acceptance, CoverageException, Digest, GAP_KINDS, RepositoryPattern, UnixTime, Waiver, WaiverScope,
};

use crate::{Error, In, Spot, trust::PersonEntry, yaml};

/// Entries of one file.
const MAX_ENTRIES: usize = 10_000;
/// Bytes of one text.
const MAX_TEXT: usize = 4096;

/// What stands in a file, and where.
#[derive(Clone, Debug)]
pub struct Accepted<T> {
    /// What is accepted.
    pub what: T,
    /// Where it stands.
    pub spot: Spot,
}

/// Reads a waiver file; `file` is how errors call it.
pub fn parse(file: &str, text: &str) -> Result<Vec<Accepted<Waiver>>, Error> {
    let wire: WireWaivers = yaml::read(file, text)?;
    let at = In { file, text };
    if wire.version.is_some_and(|version| version != 1) {
        return Err(at.later_value("version", "", "write version: 1"));
    }
    if wire.waivers.len() > MAX_ENTRIES {
        return Err(at.meaning("waivers", format!("more than {MAX_ENTRIES} entries")));
    }
    let waivers = wire.waivers.into_iter().enumerate();
    waivers.map(|(nth, wire)| waiver(&at, &format!("waivers[{nth}]"), wire)).collect()
}

/// Refuses what is accepted for longer than anybody may at `now`, and what somebody approved for himself under another address.
pub fn check<T>(
    entries: &[Accepted<T>],
    acceptance: impl Fn(&T) -> &Acceptance,
    people: &[PersonEntry],
    now: UnixTime,
) -> Result<(), Error> {
    let person = |address: &str| {
        people.iter().find(|person| {
            person.emails.iter().chain(&person.signers).chain([&person.name]).any(|of| is_same(of, address))
        })
    };
    for Accepted { what, spot } in entries {
        let acceptance = acceptance(what);
        let fault =
            |what: &str, reason: String| Err(Error::Meaning { spot: spot.clone(), what: what.to_owned(), reason });
        if acceptance.is_too_long(now) {
            let latest = now.plus(sluicegate_types::LONGEST_ACCEPTANCE.as_secs());
            return fault(
                "expires",
                format!("{} is more than 90 days from {now}; write {latest} or earlier", acceptance.expires),
            );
        }
        if let (Some(owner), Some(approver)) = (person(&acceptance.owner), person(&acceptance.approver))
            && owner.name == approver.name
        {
            let reason = format!(
                "trust.yaml says that owner and approver are both {}; somebody else has to approve",
                owner.name
            );
            return fault("approver", reason);
        }
    }
    Ok(())
}

fn waiver(at: &In<'_>, place: &str, wire: WireWaiver) -> Result<Accepted<Waiver>, Error> {
    let key = |key: &str| format!("{place}.{key}");
    let exact = |name: &str, text: String| -> Result<String, Error> {
        if text.contains('*') {
            return Err(at.meaning(key(name), "a waiver has no wildcards; write one entry for each"));
        }
        words(at, &key(name), text)
    };
    let code = exact("code", wire.code)?;
    if !code.contains('.') {
        return Err(
            at.meaning(key("code"), format!("{code:?} is no code; write package.short_name as a denial names it"))
        );
    }
    let term = wire.term.map(|text| exact("term", text)).transpose()?;
    let package = wire.package.map(|text| exact("package", text)).transpose()?;
    let package = match package {
        None => None,
        Some(text) => {
            let package: sluicegate_types::PackageUrl = text.parse().map_err(|e| at.meaning(key("package"), e))?;
            if package.version().is_none_or(str::is_empty) {
                return Err(at.meaning(key("package"), "a version is needed: pkg:TYPE/NAME@VERSION"));
            }
            Some(package)
        }
    };
    if term.is_none() && package.is_none() {
        return Err(at.name(
            place,
            "neither term (what is denied, such as an advisory) nor package: it would waive the whole rule",
        ));
    }
    let scope = match (wire.repository, wire.digest) {
        (Some(text), None) => {
            let name = exact("repository", text)?;
            match name.parse().map_err(|e| at.meaning(key("repository"), e))? {
                RepositoryPattern::Exactly(name) => WaiverScope::Repository(name),
                _ => return Err(at.meaning(key("repository"), "a waiver has no wildcards; write one entry for each")),
            }
        }
        (None, Some(digest)) => WaiverScope::Image(digest),
        (Some(_), Some(_)) => return Err(at.name(place, "repository and digest; write one of them")),
        (None, None) => return Err(at.name(place, "neither repository nor digest: it would be for every image")),
    };
    let environment = exact("environment", wire.environment)?;
    let environment = environment.parse().map_err(|e| at.meaning(key("environment"), e))?;
    let acceptance = acceptance(
        at,
        place,
        WireAcceptance {
            owner: wire.owner,
            approver: wire.approver,
            reason: wire.reason,
            ticket: wire.ticket,
            expires: wire.expires,
        },
    )?;
    Ok(Accepted { what: Waiver { code, term, package, scope, environment, acceptance }, spot: at.entry(place) })
}

/// The gaps of scans that a gateway file accepts.
pub(crate) fn coverage(at: &In<'_>, wire: Vec<WireCoverage>) -> Result<Vec<Accepted<CoverageException>>, Error> {
    if wire.len() > MAX_ENTRIES {
        return Err(at.meaning("coverage", format!("more than {MAX_ENTRIES} entries")));
    }
    let entries = wire.into_iter().enumerate().map(|(nth, wire)| {
        let place = format!("coverage[{nth}]");
        if let Some(gap) = wire.gap.as_deref().filter(|gap| !GAP_KINDS.contains(gap)) {
            return Err(at.unknown(format!("{place}.gap"), "kind of gap", gap, GAP_KINDS.iter().copied()));
        }
        let acceptance = acceptance(
            at,
            &place,
            WireAcceptance {
                owner: wire.owner,
                approver: wire.approver,
                reason: wire.reason,
                ticket: wire.ticket,
                expires: wire.expires,
            },
        )?;
        let what = CoverageException { digest: wire.digest, gap: wire.gap, acceptance };
        Ok(Accepted { what, spot: at.entry(&place) })
    });
    entries.collect()
}

fn acceptance(at: &In<'_>, place: &str, wire: WireAcceptance) -> Result<Acceptance, Error> {
    let key = |key: &str| format!("{place}.{key}");
    let owner = words(at, &key("owner"), wire.owner)?;
    let approver = words(at, &key("approver"), wire.approver)?;
    if is_same(&owner, &approver) {
        return Err(at.meaning(key("approver"), format!("{approver} is the owner; somebody else has to approve")));
    }
    Ok(Acceptance {
        owner,
        approver,
        reason: words(at, &key("reason"), wire.reason)?,
        ticket: wire.ticket.map(|ticket| words(at, &key("ticket"), ticket)).transpose()?,
        expires: moment(&wire.expires).map_err(|reason| at.meaning(key("expires"), reason))?,
    })
}

/// A text that says something: at least one letter or digit, nothing that steers a terminal.
fn words(at: &In<'_>, place: &str, text: String) -> Result<String, Error> {
    if !text.contains(char::is_alphanumeric) {
        return Err(at.meaning(place, "it is blank; write it out"));
    }
    if text.len() > MAX_TEXT {
        return Err(at.meaning(place, format!("more than {MAX_TEXT} bytes")));
    }
    if text.contains(|c: char| c.is_control() && c != '\n') {
        return Err(at.meaning(place, "a control character"));
    }
    Ok(text.trim().to_owned())
}

/// Whether two addresses are one person's: nobody tells people apart by capitals.
fn is_same(one: &str, other: &str) -> bool {
    one.trim().to_lowercase() == other.trim().to_lowercase()
}

/// RFC 3339 with a zone; a date alone is the first second of that day in UTC.
fn moment(text: &str) -> Result<UnixTime, String> {
    let is_date = text.len() == 10
        && text.bytes().enumerate().all(|(nth, byte)| match nth {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    let whole = if is_date { format!("{text}T00:00:00Z") } else { text.to_owned() };
    whole.parse().map_err(|_| {
        format!("{text:?} is no moment: write RFC 3339 with a zone, such as 2027-01-31T00:00:00Z, or a date, which is its first second in UTC")
    })
}

/// The waiver file: denials that somebody accepts for a while.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(title = "waivers.yaml, version 1"))]
#[serde(deny_unknown_fields)]
pub(crate) struct WireWaivers {
    /// The version of this format; 1 if left out.
    #[serde(default, deserialize_with = "yaml::given")]
    #[cfg_attr(test, schemars(extend("const" = 1)))]
    version: Option<u32>,
    /// One for each denial, package, image and environment.
    waivers: Vec<WireWaiver>,
}

/// One waiver.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct WireWaiver {
    /// The rule's code: package.short_name.
    code: String,
    /// What exactly is denied, as the denial names it, such as an advisory's id. This or package, or both.
    #[serde(default, deserialize_with = "yaml::given")]
    term: Option<String>,
    /// A package URL with a version.
    #[serde(default, deserialize_with = "yaml::given")]
    package: Option<String>,
    /// The whole name of the environment's repository. This or digest.
    #[serde(default, deserialize_with = "yaml::given")]
    repository: Option<String>,
    /// The image.
    #[serde(default, deserialize_with = "yaml::given")]
    #[cfg_attr(test, schemars(with = "String", extend("pattern" = "^sha256:[0-9a-f]{64}$")))]
    digest: Option<Digest>,
    /// The environment that the image goes to.
    environment: String,
    /// Who answers for it.
    owner: String,
    /// Who agreed; never the owner.
    approver: String,
    /// Why, in words.
    reason: String,
    /// Where it is written down.
    #[serde(default, deserialize_with = "yaml::given")]
    ticket: Option<String>,
    /// When it ends, at most 90 days from now: RFC 3339 with a zone; a date alone is its first second in UTC.
    expires: String,
}

/// A gap of a scan that is accepted.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct WireCoverage {
    /// The content that the gap is about, as the reason names it: a file of the image, or the image itself.
    #[cfg_attr(test, schemars(with = "String", extend("pattern" = "^sha256:[0-9a-f]{64}$")))]
    digest: Digest,
    /// The kind of gap; needed where the digest is the image's own.
    #[serde(default, deserialize_with = "yaml::given")]
    gap: Option<String>,
    /// Who answers for it.
    owner: String,
    /// Who agreed; never the owner.
    approver: String,
    /// Why, in words.
    reason: String,
    /// Where it is written down.
    #[serde(default, deserialize_with = "yaml::given")]
    ticket: Option<String>,
    /// When it ends, at most 90 days from now: RFC 3339 with a zone; a date alone is its first second in UTC.
    expires: String,
}

/// What both have.
struct WireAcceptance {
    owner: String,
    approver: String,
    reason: String,
    ticket: Option<String>,
    expires: String,
}
