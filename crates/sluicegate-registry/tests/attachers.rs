//! Many who attach to one image at the same time, in a registry that lists referrers itself and in one where a tag does.

use std::sync::{Arc, Barrier, Condvar, Mutex};

use sluicegate_attestation::identifiers::BUNDLE;
use sluicegate_ports::{
    images::{ImagePlaceError, ImagePlaces},
    store::ContentStore,
};
use sluicegate_registry::Places;
use sluicegate_types::Digest;

use crate::support::{Content, Heard, World};

const MANY: usize = 32;

/// Everybody attaches one manifest of their own, with the client that `places` has for them.
fn attach(
    world: &World,
    image: &Content,
    places: impl Fn(usize) -> Places + Sync,
    done: impl Fn() + Sync,
) -> Vec<Digest> {
    let all: Vec<_> = (0..MANY)
        .map(|number| image.image.referrer(BUNDLE, &[(BUNDLE, format!("statement {number}").as_bytes())]))
        .collect();
    for bytes in all.iter().flat_map(|(_, parts)| parts.values()) {
        world.store.put_bytes(bytes).unwrap();
    }
    let together = Barrier::new(MANY);
    std::thread::scope(|scope| {
        for (number, (referrer, parts)) in all.iter().enumerate() {
            let (places, done, together) = (&places, &done, &together);
            scope.spawn(move || {
                let target = places(number).target(&world.place()).unwrap();
                let blobs: Vec<Digest> = parts.keys().copied().filter(|digest| *digest != referrer.digest).collect();
                together.wait();
                let attached = target.attach(&image.digest(), std::slice::from_ref(referrer), &blobs, &world.store);
                done();
                attached.unwrap();
            });
        }
    });
    let mut all: Vec<Digest> = all.into_iter().map(|(referrer, _)| referrer.digest).collect();
    all.sort();
    all
}

fn assert_all_are_listed(world: &World, image: &Content, all: &[Digest]) {
    let found = world.stranger().source(&world.place()).unwrap().referrers(&image.digest()).unwrap();
    assert_eq!(found.iter().map(|one| one.digest).collect::<Vec<_>>(), all);
}

fn holding(words: &str) -> (World, Content) {
    let (world, image) = (World::of(words), Content::new(&[b"a layer"], &[]));
    world.publish(&image).unwrap();
    (world, image)
}

#[test]
fn thirty_two_threads_of_one_client_lose_nothing() {
    for words in ["", "no-referrers", "no-referrers,auth,uses=4", "no-referrers,nodigest,head405"] {
        let (world, image) = holding(words);
        let all = attach(&world, &image, |_| world.places.clone(), || {});
        assert_all_are_listed(&world, &image, &all);
        // Nobody had to write twice.
        let writes = if words.contains("no-referrers") { MANY } else { 0 };
        let written = world.asked("PUT", "/manifests/sha256-").iter().filter(|one| one.status == 201).count();
        assert_eq!(written, writes, "{words}");
    }
}

#[test]
fn thirty_two_clients_of_one_home_lose_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (world, image) = holding("no-referrers");
    let client = |_| {
        let mut settings = world.heard.settings();
        settings.locks = Some(home.path().join("locks"));
        Places::new(settings)
    };
    let all = attach(&world, &image, client, || {});
    assert_all_are_listed(&world, &image, &all);
    assert_eq!(world.count("PUT", "/manifests/sha256-"), MANY);
}

/// Time that goes by only for those who wait: a pause is over once everybody waits or has gone home, so it is longer than whatever
/// anybody else was doing.
struct Time {
    state: Mutex<(usize, usize, u64)>,
    passed: Condvar,
}

impl Time {
    fn of(all: usize) -> Self {
        Self { state: Mutex::new((all, 0, 0)), passed: Condvar::new() }
    }

    fn wait(&self) {
        let mut state = self.state.lock().unwrap();
        let moment = state.2;
        state.1 += 1;
        self.pass(&mut state);
        while state.2 == moment {
            state = self.passed.wait(state).unwrap();
        }
    }

    fn leave(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 -= 1;
        self.pass(&mut state);
    }

    fn pass(&self, state: &mut (usize, usize, u64)) {
        if state.0 == state.1 {
            *state = (state.0, 0, state.2 + 1);
            self.passed.notify_all();
        }
    }
}

#[test]
fn neg_fallback_tag_race_of_thirty_two_clients_that_share_nothing() {
    let (world, image) = holding("no-referrers");
    let time = Arc::new(Time::of(MANY));
    let client = |_| {
        let (heard, time) = (Heard::default(), time.clone());
        let mut settings = heard.settings();
        settings.pause = Arc::new(move |_| time.wait());
        Places::new(settings)
    };
    let all = attach(&world, &image, client, || time.leave());
    assert_all_are_listed(&world, &image, &all);
}

#[test]
fn neg_fallback_tag_race_two_writers() {
    let (world, image) = holding("no-referrers");
    let [one, two] = ["one", "two"].map(|words| image.image.referrer(BUNDLE, &[(BUNDLE, words.as_bytes())]));
    for bytes in [&one, &two].into_iter().flat_map(|(_, parts)| parts.values()) {
        world.store.put_bytes(bytes).unwrap();
    }
    let attach = |places: &Places, (referrer, parts): &(_, std::collections::BTreeMap<Digest, Vec<u8>>)| {
        let referrer: &sluicegate_ports::images::Descriptor = referrer;
        let blobs: Vec<Digest> = parts.keys().copied().filter(|digest| *digest != referrer.digest).collect();
        places.target(&world.place()).unwrap().attach(
            &image.digest(),
            std::slice::from_ref(referrer),
            &blobs,
            &world.store,
        )
    };
    // Somebody who read before the first one wrote writes what they read while the first one waits, and lists the second alone.
    let tag = crate::support::fallback(&image.digest());
    attach(&world.stranger(), &two).unwrap();
    let alone = world.registry.manifest("team/shop", &tag).unwrap();
    let heard = Heard::default();
    let mut settings = heard.settings();
    let world_of_other = Arc::new(Mutex::new(Some(alone)));
    let (registry, written) = (&world.registry, world_of_other.clone());
    std::thread::scope(|scope| {
        let (ask, asked) = std::sync::mpsc::channel::<std::sync::mpsc::Sender<()>>();
        scope.spawn(move || {
            for answer in asked {
                if let Some((kind, bytes)) = world_of_other.lock().unwrap().take() {
                    registry.put_manifest("team/shop", &tag, &kind, &bytes);
                }
                answer.send(()).unwrap();
            }
        });
        let ask = Mutex::new(ask);
        settings.pause = Arc::new(move |_| {
            let (done, is_done) = std::sync::mpsc::channel();
            ask.lock().unwrap().send(done).unwrap();
            is_done.recv().unwrap();
        });
        attach(&Places::new(settings), &one).unwrap();
    });
    assert!(written.lock().unwrap().is_none(), "nobody waited for others");
    let mut all = vec![one.0.digest, two.0.digest];
    all.sort();
    assert_all_are_listed(&world, &image, &all);
}

#[test]
fn of_many_promotions_from_the_same_image_one_wins() {
    let home = tempfile::tempdir().unwrap();
    for has_home in [false, true] {
        let (world, old) = holding("");
        let client = || {
            let mut settings = world.heard.settings();
            settings.locks = Some(home.path().join("locks"));
            if has_home { Places::new(settings) } else { world.places.clone() }
        };
        let news: Vec<Content> = (0..12_u8).map(|number| Content::new(&[&[number]], &["decision"])).collect();
        news.iter().for_each(|new| new.store_in(&world.store));
        let together = Barrier::new(news.len());
        let won = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for new in &news {
                let (client, together, won, world, old) = (&client, &together, &won, &world, &old);
                scope.spawn(move || {
                    let mut publication = new.publication(&["v1"]);
                    publication.expected = Some(old.digest());
                    publication.environment = Some("production".parse().unwrap());
                    let target = client().target(&world.place()).unwrap();
                    together.wait();
                    match target.publish(&publication, &world.store) {
                        Ok(()) => won.lock().unwrap().push(new.digest()),
                        Err(ImagePlaceError::Moved { .. }) => {}
                        Err(other) => panic!("{}", crate::support::describe(&other)),
                    }
                });
            }
        });
        let held = world.target().current(Some(&crate::support::tag("v1"))).unwrap().unwrap();
        assert_eq!(*won.lock().unwrap(), [held.image]);
    }
}

#[test]
fn many_referrers_of_one_publication_are_one_write() {
    let names: Vec<String> = (0..40).map(|number| format!("statement {number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (world, image) = (World::of("no-referrers"), Content::new(&[b"a layer"], &names));
    world.publish(&image).unwrap();
    assert_eq!(world.count("PUT", "/manifests/sha256-"), 1);
    image.assert_is_in(&world.places, &world.place());
    // Once more writes nothing.
    world.publish(&image).unwrap();
    assert_eq!(world.count("PUT", "/manifests/sha256-"), 1);
}

#[test]
fn what_others_listed_and_nobody_here_can_read_stays_listed() {
    let (world, image) = holding("no-referrers,sparse");
    let tag = crate::support::fallback(&image.digest());
    let foreign = r#"{"mediaType":"x/y","digest":"sha512:00","size":1,"annotations":{"a":"b"},"data":"e30="}"#;
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","annotations":{{"k":"v"}},"manifests":[{foreign}]}}"#,
        sluicegate_attestation::identifiers::IMAGE_INDEX
    );
    world.registry.put_manifest("team/shop", &tag, sluicegate_attestation::identifiers::IMAGE_INDEX, index.as_bytes());
    let more = Content::new(&[b"a layer"], &["statement"]);
    world.publish(&more).unwrap();
    let bytes = String::from_utf8(world.registry.manifest("team/shop", &tag).unwrap().1).unwrap();
    assert!(bytes.contains(foreign) && bytes.contains(r#""annotations":{"k":"v"}"#), "{bytes}");
    more.assert_is_in(&world.places, &world.place());
}
