//! A client of the OCI distribution specification 1.1, for every registry that a name may lead to.
//!
//! What it believes of an answer is only what a digest proves. Names and passwords go to the registry that they are for and to its own
//! token service, never to an address that an answer leads to.

mod address;
mod blobs;
mod challenge;
mod credentials;
mod exchange;
mod fault;
mod index;
mod manifests;
mod referrers;
mod token;
mod transport;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use sluicegate_ports::images::FaultKind;
use sluicegate_types::RegistryRepository;

use self::{
    exchange::Registry,
    fault::fault,
    transport::{Deadline, Transport},
};
pub(crate) use self::{
    fault::Result,
    manifests::{Held, MANIFEST_TYPES},
    referrers::Listed,
};
use crate::settings::RegistrySettings;

/// The client. Connections, tokens and what was found out about registries are shared by everything that one process does.
pub(crate) struct Client {
    settings: RegistrySettings,
    transport: Arc<Transport>,
    registries: Mutex<BTreeMap<String, Arc<Registry>>>,
    said: Arc<Mutex<BTreeSet<String>>>,
}

impl Client {
    pub(crate) fn new(settings: RegistrySettings) -> Self {
        let transport = Arc::new(Transport::new(settings.clone()));
        Self { settings, transport, registries: Mutex::default(), said: Arc::default() }
    }

    /// One repository.
    pub(crate) fn repository(&self, name: &RegistryRepository) -> Result<Repository> {
        let mut registries = self
            .registries
            .lock()
            .map_err(|_| fault(FaultKind::Configuration, "an earlier request of this process broke off"))?;
        let registry = registries
            .entry(name.host().to_owned())
            .or_insert_with(|| Arc::new(Registry::new(name.host(), self.transport.clone(), self.settings.clone())));
        let (registry, said) = (registry.clone(), self.said.clone());
        Ok(Repository { name: name.clone(), registry, settings: self.settings.clone(), said })
    }
}

/// One repository of a registry.
#[derive(Clone)]
pub(crate) struct Repository {
    name: RegistryRepository,
    registry: Arc<Registry>,
    settings: RegistrySettings,
    /// What a person was told already.
    said: Arc<Mutex<BTreeSet<String>>>,
}

impl Repository {
    pub(crate) fn name(&self) -> &RegistryRepository {
        &self.name
    }

    /// Tells a person what stops nothing, once however often it is met.
    pub(crate) fn warn_once(&self, words: String) {
        let mut said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !said.contains(&words) {
            (self.settings.warn)(&words);
            said.insert(words);
        }
    }

    /// What a token must be good for to read here.
    fn to_read(&self) -> String {
        format!("repository:{}:pull", self.name.path())
    }

    /// What a token must be good for to write here.
    fn to_write(&self) -> String {
        format!("repository:{}:pull,push", self.name.path())
    }

    fn deadline(&self, bytes: u64) -> Deadline {
        self.registry.deadline(bytes)
    }

    fn path(&self, below: &str) -> String {
        format!("/v2/{}/{below}", self.name.path())
    }
}
