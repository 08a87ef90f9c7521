use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use sluicegate_outbound::{OutboundSettings, Warn};

/// What this machine says about registries. Read by whoever starts the program; nothing here looks at the environment.
#[derive(Clone)]
pub struct RegistrySettings {
    /// Files in the form of Docker's `config.json`, looked at in this order; one that is not there is passed over.
    pub credentials: Vec<PathBuf>,
    /// The folders in which `docker-credential-NAME` is looked for.
    pub programs: Vec<PathBuf>,
    /// The way to registries and to what they lead to.
    pub outbound: OutboundSettings,
    /// Token services beside a registry's own: the registry's host and the service's.
    pub token_services: Vec<(String, String)>,
    /// How long a request may take with its repetitions, beside a second for each MiB that travels.
    pub patience: Duration,
    /// A folder for locks, so that several processes of one home change a fallback tag one after the other.
    pub locks: Option<PathBuf>,
    /// Told what a person should know and that stops nothing.
    pub warn: Warn,
    /// Waits before something is tried again.
    pub pause: Arc<dyn Fn(Duration) + Send + Sync>,
}

impl Default for RegistrySettings {
    /// Nothing is configured: nobody is known, the system's certificate authorities count, there is no proxy, a request has five minutes
    /// (DESIGN section 7).
    fn default() -> Self {
        Self {
            credentials: Vec::new(),
            programs: Vec::new(),
            outbound: OutboundSettings::default(),
            token_services: Vec::new(),
            patience: Duration::from_secs(300),
            locks: None,
            warn: Arc::new(|_| {}),
            pause: Arc::new(std::thread::sleep),
        }
    }
}

impl fmt::Debug for RegistrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A proxy's URL may hold a password.
        f.debug_struct("RegistrySettings").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}
