//! What is attached to an image: the referrers API and the fallback tag, both asked and united (distribution-spec, "Listing referrers",
//! "Referrers tag schema"; trust model 12).

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_attestation::identifiers::IMAGE_INDEX;
use sluicegate_ports::images::{Descriptor, FaultKind};
use sluicegate_types::{Digest, TagName};
use ureq::http::Method;
use url::Url;

use super::{
    Repository,
    address::{is_same_server, led_to},
    exchange::{Content, Question, Target, status_fault},
    fault::{Result, fault},
    manifests::Held,
    transport::{Answer, Deadline, place_of},
};
use crate::layout_index::MAX_MANIFEST;

/// Descriptors that are listed for one image (DESIGN section 7), and answers that they come in.
const MAX_LISTED: usize = 10_000;
const MAX_PAGES: usize = 1_000;

/// Where a referrer was listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) by_api: bool,
    pub(crate) by_tag: bool,
}

/// What is attached to an image, each once, in the order of its digest.
#[derive(Debug, Default)]
pub(crate) struct Referrers {
    pub(crate) found: BTreeMap<Digest, (Descriptor, Listed)>,
    /// Whether the registry knows the API.
    pub(crate) has_api: bool,
}

impl Repository {
    /// Asks both places. That nothing is attached is said only after both have answered in form.
    pub(crate) fn referrers(&self, subject: &Digest) -> Result<Referrers> {
        let mut all = Referrers::default();
        if let Some(listed) = self.by_api(subject)? {
            all.has_api = true;
            listed.into_iter().for_each(|one| all.add(one, |listed| listed.by_api = true));
        }
        if let Some(index) = self.fallback(subject)? {
            index.manifests.into_iter().for_each(|one| all.add(one, |listed| listed.by_tag = true));
        }
        if all.found.len() > MAX_LISTED {
            let words = format!("more than {MAX_LISTED} manifests are listed for {subject} in {}", self.name);
            return Err(fault(FaultKind::TooLarge, words));
        }
        Ok(all)
    }

    /// All pages of the API; `None` where there is none.
    fn by_api(&self, subject: &Digest) -> Result<Option<Vec<Descriptor>>> {
        let path = self.path(&format!("referrers/{subject}"));
        let mut out = Vec::new();
        let mut answer = self.page(Target::Path(&path))?;
        // 404 is how a registry without the API answers; these others mean the same.
        if matches!(answer.status, 404 | 405 | 501) {
            super::manifests::not_there(answer)?;
            return Ok(None);
        }
        let mut seen = BTreeSet::new();
        for _ in 0..MAX_PAGES {
            if answer.status != 200 {
                return Err(status_fault(&Method::GET, answer));
            }
            let here = answer.url.clone();
            seen.insert(String::from(here.clone()));
            let next = next_page(&answer)?;
            let place = place_of(&here);
            out.extend(read_index(answer.read(MAX_MANIFEST)?, &format!("GET {place}"))?.manifests);
            if out.len() > MAX_LISTED {
                let words = format!("GET {place}: more than {MAX_LISTED} manifests are listed");
                return Err(fault(FaultKind::TooLarge, words));
            }
            let Some(next) = next else { return Ok(Some(out)) };
            if seen.contains(next.as_str()) {
                let words = format!("GET {place}: its pages go round, {next} was read before");
                return Err(fault(FaultKind::Redirects, words));
            }
            answer = self.page(Target::Url(&next))?;
        }
        Err(fault(FaultKind::TooLarge, format!("{}: more than {MAX_PAGES} pages of referrers", self.name)))
    }

    fn page(&self, to: Target<'_>) -> Result<Answer> {
        self.registry.ask(&Question {
            method: Method::GET,
            to,
            headers: vec![("accept", IMAGE_INDEX.to_owned())],
            content: Content::None,
            scope: &self.to_read(),
            follow: false,
            deadline: Deadline::for_bytes(MAX_MANIFEST),
        })
    }

    /// The index that the fallback tag names; `None` where there is none.
    pub(crate) fn fallback(&self, subject: &Digest) -> Result<Option<FallbackIndex>> {
        let tag = fallback_tag(subject)?;
        let Some(Held { media_type, bytes, .. }) = self.tagged(tag.as_str())? else { return Ok(None) };
        let what = format!("the tag {tag} of {}", self.name);
        if media_type != IMAGE_INDEX {
            return Err(fault(FaultKind::OutOfForm, format!("{what} is no image index but {media_type}")));
        }
        read_index(bytes, &what).map(Some)
    }

    /// Lets the fallback tag list these manifests beside all that it lists now, and looks whether it does.
    pub(crate) fn list_by_tag(&self, subject: &Digest, referrers: &[Descriptor]) -> Result<()> {
        let tag = fallback_tag(subject)?;
        let _lock = self.lock(&tag)?;
        for number in 1..=WRITES {
            let mut index = self.fallback(subject)?.unwrap_or_default();
            if !index.add(referrers) {
                return Ok(());
            }
            let bytes =
                index.to_bytes().map_err(|reason| fault(FaultKind::TooLarge, format!("the tag {tag}: {reason}")))?;
            self.put_tag(&tag, IMAGE_INDEX, &bytes)?;
            // Somebody else may have read before this and written after it: whoever does not find their own there writes again.
            let mut now = self.fallback(subject)?.unwrap_or_default();
            if !now.add(referrers) {
                return Ok(());
            }
            (self.settings.pause)(super::exchange::pause(number, None));
        }
        let words = format!("the tag {tag} of {} does not list what was written to it, {WRITES} times over", self.name);
        Err(fault(FaultKind::NotKept, words))
    }

    /// One writer of this home at a time; between homes, reading again has to do.
    fn lock(&self, tag: &TagName) -> Result<Option<std::fs::File>> {
        let Some(folder) = &self.settings.locks else { return Ok(None) };
        let name = Digest::of(format!("{}:{tag}", self.name).as_bytes()).hex();
        let wrong = |error: std::io::Error| {
            fault(FaultKind::Configuration, format!("cannot lock {} in {}: {error}", self.name, folder.display()))
        };
        std::fs::create_dir_all(folder).map_err(wrong)?;
        let file = crate::layout::open_lock(&folder.join(name)).map_err(wrong)?;
        file.lock().map_err(wrong)?;
        Ok(Some(file))
    }
}

/// How often the fallback tag is written until it lists what it should.
const WRITES: u32 = 40;

impl Referrers {
    fn add(&mut self, descriptor: Descriptor, place: impl FnOnce(&mut Listed)) {
        let entry = self.found.entry(descriptor.digest).or_insert_with(|| (descriptor, Listed::default()));
        place(&mut entry.1);
    }
}

/// `sha256-HEX`.
pub(crate) fn fallback_tag(subject: &Digest) -> Result<TagName> {
    format!("sha256-{}", subject.hex()).parse().map_err(|error| fault(FaultKind::Configuration, format!("{error}")))
}

/// The index of a fallback tag: what is read of it, and everything that stands in it, for whoever adds to it.
#[derive(Debug)]
pub(crate) struct FallbackIndex {
    pub(crate) manifests: Vec<Descriptor>,
    whole: serde_json::Value,
}

impl Default for FallbackIndex {
    fn default() -> Self {
        let whole = serde_json::json!({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": []});
        Self { manifests: Vec::new(), whole }
    }
}

impl FallbackIndex {
    /// Whether any of these was not in it.
    fn add(&mut self, referrers: &[Descriptor]) -> bool {
        let known: BTreeSet<Digest> = self.manifests.iter().map(|one| one.digest).collect();
        let new: Vec<&Descriptor> = referrers.iter().filter(|one| !known.contains(&one.digest)).collect();
        if let Some(entries) = self.whole.get_mut("manifests").and_then(serde_json::Value::as_array_mut) {
            entries.extend(new.iter().filter_map(|one| serde_json::to_value(one).ok()));
        }
        self.manifests.extend(new.iter().map(|one| (*one).clone()));
        !new.is_empty()
    }

    fn to_bytes(&self) -> std::result::Result<Vec<u8>, String> {
        let bytes = serde_json::to_vec(&self.whole).map_err(|error| error.to_string())?;
        if self.manifests.len() > MAX_LISTED || bytes.len() as u64 > MAX_MANIFEST {
            return Err(format!(
                "an index of more than {MAX_LISTED} manifests or {MAX_MANIFEST} bytes would not be read again"
            ));
        }
        Ok(bytes)
    }
}

/// Reads an index of referrers. Entries that this version can't read, such as of another digest algorithm, are passed over: anyone may
/// attach junk, and what is needed is missed by its digest. What is no index at all is an error.
fn read_index(bytes: Vec<u8>, what: &str) -> Result<FallbackIndex> {
    let wrong = |why: &str| fault(FaultKind::OutOfForm, format!("{what}: {why}"));
    let whole: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| wrong(&format!("it is no JSON: {error}")))?;
    if whole["schemaVersion"] != 2 {
        return Err(wrong("it is no image index of schema version 2"));
    }
    if whole.get("mediaType").is_some_and(|kind| kind != IMAGE_INDEX) {
        return Err(wrong("it is no image index by its own type"));
    }
    let entries = whole.get("manifests").and_then(serde_json::Value::as_array);
    let entries = entries.ok_or_else(|| wrong("it is no image index: it has no manifests"))?;
    let manifests = entries.iter().filter_map(|entry| serde_json::from_value(entry.clone()).ok()).collect();
    Ok(FallbackIndex { manifests, whole })
}

/// The next page, if there is one: on the same server, which alone gets to be asked (RFC 8288).
fn next_page(answer: &Answer) -> Result<Option<Url>> {
    let links = answer.headers.get_all("link");
    for link in links.iter().filter_map(|value| value.to_str().ok()) {
        for one in link.split(',') {
            let Some((target, parameters)) = one.trim().strip_prefix('<').and_then(|rest| rest.split_once('>')) else {
                continue;
            };
            let is_next = parameters.split(';').any(|parameter| {
                let (name, value) = parameter.trim().split_once('=').unwrap_or_default();
                name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
            });
            if !is_next {
                continue;
            }
            let next = led_to(&answer.url, target, "the next page")?;
            if !is_same_server(&answer.url, &next) {
                let words = format!(
                    "GET {}: its next page is on another server, {}, which is not asked",
                    place_of(&answer.url),
                    place_of(&next)
                );
                return Err(fault(FaultKind::AddressRefused, words));
            }
            return Ok(Some(next));
        }
    }
    Ok(None)
}
