//! What is attached to an image: the referrers API and the fallback tag, both asked and united (distribution-spec, "Listing referrers",
//! "Referrers tag schema"; trust model 12).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use sluicegate_attestation::identifiers::IMAGE_INDEX;
use sluicegate_ports::images::{Descriptor, FaultKind};
use sluicegate_types::{Digest, TagName};
use ureq::http::Method;
use url::Url;

use super::{
    Repository,
    address::{is_same_server, led_to},
    exchange::{Again, Content, Question, Target, chance, pause, status_fault},
    fault::{Result, fault},
    index::{MAX_LISTED, ReferrersIndex},
    manifests::{Held, LOOKS},
    transport::{Answer, place_of},
};
use crate::layout_index::MAX_MANIFEST;

/// Answers that referrers are listed in, and the bytes of all of them.
const MAX_PAGES: usize = 1_000;
const MAX_LIST_BYTES: usize = 16 * 1024 * 1024;

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
        let mut room = MAX_LIST_BYTES;
        loop {
            if answer.status != 200 {
                return Err(status_fault(&Method::GET, answer));
            }
            let here = answer.url.clone();
            seen.insert(String::from(here.clone()));
            let next = next_page(&answer)?;
            let place = place_of(&here);
            let bytes = answer.read(MAX_MANIFEST)?;
            room = room.checked_sub(bytes.len()).ok_or_else(|| {
                fault(
                    FaultKind::TooLarge,
                    format!("GET {place}: more than {MAX_LIST_BYTES} bytes of referrers are listed"),
                )
            })?;
            out.extend(ReferrersIndex::read(&bytes, &format!("GET {place}"))?.manifests);
            if out.len() > MAX_LISTED {
                let words = format!("GET {place}: more than {MAX_LISTED} manifests are listed");
                return Err(fault(FaultKind::TooLarge, words));
            }
            let Some(next) = next else { return Ok(Some(out)) };
            if seen.contains(next.as_str()) {
                let words = format!("GET {place}: its pages go round, {} was read before", place_of(&next));
                return Err(fault(FaultKind::Redirects, words));
            }
            if seen.len() == MAX_PAGES {
                let words = format!("GET {place}: more than {MAX_PAGES} pages of referrers");
                return Err(fault(FaultKind::TooLarge, words));
            }
            answer = self.page(Target::Url(&next))?;
        }
    }

    fn page(&self, to: Target<'_>) -> Result<Answer> {
        self.registry.ask(&Question {
            method: Method::GET,
            to,
            headers: vec![("accept", IMAGE_INDEX.to_owned())],
            content: Content::None,
            scope: &self.to_read(),
            follow: false,
            again: Again::Always,
            whole: Some(MAX_MANIFEST),
            deadline: self.deadline(MAX_MANIFEST),
        })
    }

    /// The index that the fallback tag names; `None` where there is none.
    pub(crate) fn fallback(&self, subject: &Digest) -> Result<Option<ReferrersIndex>> {
        let tag = fallback_tag(subject)?;
        let Some(Held { media_type, bytes, .. }) = self.tagged(tag.as_str())? else { return Ok(None) };
        let what = format!("the tag {tag} of {}", self.name);
        if media_type != IMAGE_INDEX {
            return Err(fault(FaultKind::OutOfForm, format!("{what} is no image index but {media_type}")));
        }
        ReferrersIndex::read(&bytes, &what).map(Some)
    }

    /// Which of these the registry's own list lacks, looked at a few times, as some need a moment.
    pub(crate) fn not_by_api(&self, subject: &Digest, referrers: Vec<Descriptor>) -> Result<Vec<Descriptor>> {
        let mut missing = referrers;
        for number in 1..=LOOKS {
            let listed = self.by_api(subject)?.unwrap_or_default();
            let listed: BTreeSet<Digest> = listed.iter().map(|one| one.digest).collect();
            missing.retain(|one| !listed.contains(&one.digest));
            if missing.is_empty() {
                break;
            }
            if number < LOOKS {
                (self.settings.pause)(pause(number, None));
            }
        }
        Ok(missing)
    }

    /// Lets the fallback tag list these manifests beside all that it lists now.
    ///
    /// The distribution specification knows no "write only if unchanged", so two who read the same index and write after each other lose
    /// the first one's entries. Those of one process take turns, those of one home hold a lock. Against all others, whoever has written
    /// lets more time go by than reading and writing take, looks once more, and writes again what is gone; pauses differ by chance, and
    /// each round at least the last one to write stays. What remains: somebody who stops for longer than that between reading and
    /// writing, and writes then, takes away what was listed meanwhile after its writer has gone home. The manifest is still there and
    /// whoever attaches it again lists it again; that it was missing shows wherever it is needed, as presence is what counts.
    pub(crate) fn list_by_tag(&self, subject: &Digest, referrers: &[Descriptor]) -> Result<()> {
        let tag = fallback_tag(subject)?;
        let deadline = self.deadline(0);
        let mut written = false;
        for _ in 1..=WRITES {
            let (wrote, took) = {
                let _turn = self.turn(&tag)?;
                let begun = Instant::now();
                (self.add_to_tag(subject, &tag, referrers)?, begun.elapsed())
            };
            if !wrote {
                return Ok(());
            }
            if written && deadline.left().is_none() {
                break;
            }
            written = true;
            (self.settings.pause)(settling(took));
        }
        let words = format!(
            "the tag {tag} of {} does not keep listing what is written to it, looked at again and again",
            self.name
        );
        Err(fault(FaultKind::NotKept, words))
    }

    /// Reads the fallback tag and writes it if these are not in it; whether it was written.
    fn add_to_tag(&self, subject: &Digest, tag: &TagName, referrers: &[Descriptor]) -> Result<bool> {
        let look = |_| {
            let mut index = self.fallback(subject)?.unwrap_or_default();
            if !index.add(referrers) {
                return Ok(None);
            }
            let too_large = |reason| fault(FaultKind::TooLarge, format!("the tag {tag}: {reason}"));
            index.to_bytes().map(Some).map_err(too_large)
        };
        self.write_tag(tag, IMAGE_INDEX, look, |fault| fault)
    }
}

/// How often the fallback tag is written until it lists what it should.
const WRITES: u32 = 64;
/// The time between writing the fallback tag and looking at it again: as often as long as reading and writing took, within these.
const SETTLING: u32 = 4;
const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);

fn settling(took: Duration) -> Duration {
    let least = took.saturating_mul(SETTLING).clamp(SHORTEST, LONGEST);
    least + least.mul_f64(chance())
}

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

/// The next page, if there is one: on the same server, which alone gets to be asked (RFC 8288). A header that can't be read may have
/// named one, so it is an error.
fn next_page(answer: &Answer) -> Result<Option<Url>> {
    let place = place_of(&answer.url);
    let wrong = || fault(FaultKind::OutOfForm, format!("GET {place}: its link to other pages can't be read"));
    for value in answer.headers.get_all("link") {
        let links = links(value.to_str().map_err(|_| wrong())?).ok_or_else(wrong)?;
        let Some((target, _)) = links.into_iter().find(|(_, is_next)| *is_next) else { continue };
        let next = led_to(&answer.url, target, "the next page")?;
        if !is_same_server(&answer.url, &next) {
            let words =
                format!("GET {place}: its next page is on another server, {}, which is not asked", place_of(&next));
            return Err(fault(FaultKind::AddressRefused, words));
        }
        return Ok(Some(next));
    }
    Ok(None)
}

/// The targets of `<TARGET>; name=value; name="value", <TARGET> …`, and whether each is the next page. A comma parts links only outside
/// of a target and of quotes. `None` for what is out of form.
fn links(header: &str) -> Option<Vec<(&str, bool)>> {
    let mut out = Vec::new();
    let mut rest = header.trim();
    while !rest.is_empty() {
        let (target, after) = rest.strip_prefix('<')?.split_once('>')?;
        let mut is_quoted = false;
        let end = after.find(|c| {
            is_quoted ^= c == '"';
            c == ',' && !is_quoted
        });
        let (parameters, after) = after.split_at(end.unwrap_or(after.len()));
        let is_next = parameters.split(';').filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
            let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
            name.trim().eq_ignore_ascii_case("rel") && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
        });
        out.push((target, is_next));
        rest = after.trim_start_matches([',', ' ', '\t']);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_whatever_stands_in_them() {
        for (header, expected) in [
            (r#"</v2/a?n=1>; rel="next""#, Some(vec![("/v2/a?n=1", true)])),
            ("</a>;rel=next", Some(vec![("/a", true)])),
            (r#"</a?last=x,y;z>; rel="next""#, Some(vec![("/a?last=x,y;z", true)])),
            (r#"</a>; title="one, two"; REL="last Next", </b>; rel=prev"#, Some(vec![("/a", true), ("/b", false)])),
            (r#"<a>; rel="nextish",, <b>"#, Some(vec![("a", false), ("b", false)])),
            ("", Some(vec![])),
            ("/a; rel=next", None),
            ("</a; rel=next", None),
        ] {
            assert_eq!(links(header), expected, "{header}");
        }
    }
}
