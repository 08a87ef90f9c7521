//! What a bucket holds, and what is removed there.

use std::{fmt, io, sync::Arc};

use object_store::{
    ObjectStoreExt,
    aws::AmazonS3,
    list::{PaginatedListOptions, PaginatedListStore},
};
use sluicegate_outbound::Outbound;
use sluicegate_ports::{
    prune::{Disposable, Thing, Tie},
    store::StoreError,
};
use sluicegate_types::{Digest, UnixTime};

use crate::{
    Bucket, SharedLimits, object,
    objects::{Fault, Objects},
    server,
};

/// Objects of one kind that are listed.
const MAX_LISTED: usize = 2_000_000;

/// Objects of a bucket that are named by digests below one name. Others are left alone, whatever the server says of them.
pub struct BucketObjects {
    server: Arc<AmazonS3>,
    objects: Objects,
    shown: String,
    below: [&'static str; 2],
    what: &'static str,
}

impl BucketObjects {
    /// Nothing is asked yet. `shown` is what a person calls the store, `what` the objects are, in the plural. An error is about the settings
    /// of this machine or of the gateway.
    pub fn open(
        (bucket, shown): (Bucket, String),
        (below, what): ([&'static str; 2], &'static str),
        outbound: Arc<Outbound>,
        limits: SharedLimits,
    ) -> Result<Self, String> {
        let prefix = bucket.prefix.clone();
        let server = Arc::new(server(bucket, outbound, limits)?);
        let objects = Objects::new(server.clone(), None, &prefix, limits)?;
        Ok(Self { server, objects, shown, below, what })
    }

    fn failed(&self, action: &'static str, name: &str, fault: Fault) -> StoreError {
        let reason = match fault {
            Fault::Absent => "there is no such object".to_owned(),
            Fault::Store(reason) | Fault::Wrong(reason) => reason,
        };
        let path = format!("{}, {}", self.shown, object(self.below, name)).into();
        StoreError::Io { action, path, source: io::Error::other(reason) }
    }
}

impl Disposable for BucketObjects {
    fn what(&self) -> &'static str {
        self.what
    }

    fn things(&self) -> Result<Vec<Thing>, StoreError> {
        let below = self.objects.whole(&object(self.below, ""));
        let (mut things, mut page_token) = (Vec::new(), None);
        for _ in 0..self.objects.limits().pages {
            let options =
                PaginatedListOptions { delimiter: Some("/".into()), page_token, ..PaginatedListOptions::default() };
            let page = self.objects.wait(self.server.list_paginated(Some(&below), options));
            let page = page.map_err(|fault| self.failed("list", "", fault))?;
            for found in page.result.objects {
                // Whatever the server lists: what is removed is called by this, below this.
                let name = found.location.filename().filter(|name| Digest::from_hex(name).is_ok());
                let Some(name) = name else { continue };
                let used = UnixTime::from_seconds(found.last_modified.timestamp()).unwrap_or(UnixTime::EPOCH);
                things.push(Thing { name: name.to_owned(), size: found.size, used, tie: Tie::Nothing });
            }
            if things.len() > MAX_LISTED {
                break;
            }
            page_token = page.page_token;
            if page_token.is_none() {
                return Ok(things);
            }
        }
        let many = format!("the server lists more than {MAX_LISTED} objects, or does not come to an end");
        Err(self.failed("list", "", Fault::Store(many)))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        if Digest::from_hex(name).is_err() {
            return Err(self.failed("remove", name, Fault::Wrong("that is no name of an object here".to_owned())));
        }
        let path = self.objects.path(&object(self.below, name));
        let removed = path.and_then(|path| self.objects.wait(self.server.delete(&path)));
        match removed {
            Ok(()) | Err(Fault::Absent) => Ok(()),
            Err(fault) => Err(self.failed("remove", name, fault)),
        }
    }
}

impl fmt::Debug for BucketObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketObjects").field("shown", &self.shown).field("below", &self.below).finish_non_exhaustive()
    }
}
