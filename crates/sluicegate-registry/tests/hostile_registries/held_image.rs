//! A registry that holds the usual image and has a fault.

use sluicegate_ports::images::{Descriptor, ImagePlaceError};
use sluicegate_testkit::{Behaviour, Fault};

use crate::support::{Content, World, selector};

/// A registry that holds the usual image, with the fault; reading it whole works once the fault is gone.
pub(crate) fn holding(faults: impl IntoIterator<Item = Fault>) -> (World, Content) {
    let (world, content) = (World::of(""), Content::usual());
    world.hold(&content);
    content.assert_is_in(&world.stranger(), &world.place());
    world.registry.forget_log();
    world.registry.behave(Behaviour::with_faults(faults));
    (world, content)
}

pub(crate) fn resolve(world: &World) -> Result<Descriptor, ImagePlaceError> {
    world.source().resolve(&selector())
}
