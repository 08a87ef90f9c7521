use std::sync::Arc;

use sluicegate_ports::images::{ImagePlaceError, ImagePlaces, ImageSource, ImageTarget};
use sluicegate_types::{Place, RegistryRepository};

use crate::{
    client::{Client, Repository},
    layout::LayoutSource,
    layout_writer::LayoutTarget,
    registry_source::{RegistrySource, doing},
    registry_target::RegistryTarget,
    settings::RegistrySettings,
};

/// OCI layout folders of this machine and repositories of registries.
///
/// With an evidence repository, what is attached to an image of any registry is written there and looked for there beside the image's own
/// repository; an image of a layout has its evidence in the layout.
#[derive(Clone)]
pub struct Places {
    client: Arc<Client>,
    evidence: Option<RegistryRepository>,
}

impl Places {
    /// Opens nothing and asks nobody yet.
    pub fn new(settings: RegistrySettings) -> Self {
        Self { client: Arc::new(Client::new(settings)), evidence: None }
    }

    /// The same with evidence in a repository of its own.
    #[must_use]
    pub fn with_evidence(&self, evidence: Option<RegistryRepository>) -> Self {
        Self { client: self.client.clone(), evidence }
    }

    fn repository(&self, name: &RegistryRepository) -> Result<Repository, ImagePlaceError> {
        self.client.repository(name).map_err(|fault| doing(format!("open {name}"), fault))
    }

    fn evidence_of(&self, name: &RegistryRepository) -> Result<Option<Repository>, ImagePlaceError> {
        let other = self.evidence.as_ref().filter(|evidence| *evidence != name);
        other.map(|evidence| self.repository(evidence)).transpose()
    }
}

impl ImagePlaces for Places {
    fn source(&self, place: &Place) -> Result<Box<dyn ImageSource>, ImagePlaceError> {
        Ok(match place {
            Place::Layout(folder) => Box::new(LayoutSource::open(folder)?),
            Place::Registry(name) => Box::new(RegistrySource::new(self.repository(name)?, self.evidence_of(name)?)),
        })
    }

    fn target(&self, place: &Place) -> Result<Box<dyn ImageTarget>, ImagePlaceError> {
        Ok(match place {
            Place::Layout(folder) => Box::new(LayoutTarget::new(folder)),
            Place::Registry(name) => Box::new(RegistryTarget::new(self.repository(name)?, self.evidence_of(name)?)),
        })
    }
}
