//! `promote` as a whole: to where, in which direction, in time, and not at all in a dry run.

use sluicegate_flow::{Error, promote::Promoted};
use sluicegate_policy::rego::Outcome;
use sluicegate_testkit::{VirtualBuild, VirtualImage, today};
use sluicegate_types::UnixTime;

use crate::{
    fixture::{Said, Tried},
    gate_world::{Rules, SOURCE, TARGET, World, pass},
};

pub(crate) fn ended(promoted: Result<Promoted, Error>) -> Said {
    match promoted {
        Ok(Promoted::Allowed { .. }) => Ok(()),
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn tm10_an_environment_is_not_promoted_to_itself() -> Tried {
    let ask = |place: &str| {
        let (mut world, _) = World::good();
        world.judge.environment.repository = place.into();
        ended(world.promote(&pass()))
    };
    Tried::good(ask("environments/production")).fault("the source", "is the place of production itself", ask(SOURCE))
}

pub(crate) fn tm10_a_tag_goes_back_only_with_rollback() -> Tried {
    let ask = |rollback: bool| {
        let (world, first) = World::good();
        ended(world.promote(&pass()))?;
        let newer = VirtualImage::new(b"next week's");
        world.places.put_image(SOURCE, &newer, None);
        world.places.attach_build(SOURCE, &newer, &VirtualBuild::new("run-2", newer.digest()).sign(&world.log));
        ended(world.promote(&pass()))?;
        world.places.put_image(SOURCE, &world.image, None);
        world.places.attach_build(SOURCE, &world.image, &first);
        world.rollback.set(rollback);
        let said = ended(world.promote(&pass()));
        let held = if said.is_ok() { world.image.digest() } else { newer.digest() };
        assert_eq!(world.places.occupant(TARGET).unwrap().image, held);
        said
    };
    Tried::good(ask(true)).fault("without it", "needs --rollback", ask(false))
}

pub(crate) fn tm10_a_rollback_goes_to_what_was_there_before() -> Tried {
    let ask = |rollback: bool, again: bool| {
        let (world, _) = World::good();
        if again {
            ended(world.promote(&pass()))?;
        }
        world.rollback.set(rollback);
        ended(world.promote(&pass()))
    };
    Tried::good(ask(false, false).and(ask(false, true)))
        .fault("never there", "was never promoted there", ask(true, false))
        .fault("there now", "is what it holds now", ask(true, true))
}

pub(crate) fn tm10_a_permit_is_used_in_time() -> Tried {
    // The clock goes on, or back, while the rules are asked: after the moment of the decision.
    let after = |seconds: i64| {
        let (world, _) = World::good();
        let slow = Rules(|_: &str| {
            world.clock.set(UnixTime::from_seconds(today().seconds() + seconds).unwrap());
            Outcome::Pass
        });
        ended(world.promote(&slow))
    };
    Tried::good(after(600)).fault("a second late", "is too old", after(601)).fault(
        "before it was given",
        "is too old",
        after(-1),
    )
}

pub(crate) fn tm07_an_effective_time_makes_no_permit() -> Tried {
    let ask = |moment: Option<UnixTime>| {
        let (world, _) = World::good();
        world.effective.set(moment);
        let said = ended(world.promote(&pass()));
        if said.is_err() {
            assert_eq!(world.places.occupant(TARGET), None);
        }
        said
    };
    Tried::good(ask(None)).fault("tomorrow", "WouldAllow", ask(Some(today().plus(86_400))))
}

pub(crate) fn tm10_a_dry_run_spends_nothing() -> Tried {
    let ask = |dry_run: bool| {
        let (world, _) = World::good();
        world.dry_run.set(dry_run);
        let said = ended(world.promote(&pass()));
        if said.is_err() {
            world.assert_nothing_happened();
        }
        said
    };
    Tried::good(ask(false)).fault("a dry run", "WouldAllow", ask(true))
}
