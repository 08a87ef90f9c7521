//! `cache:` of the gateway file: a store that machines share. It decides where outputs and logs are sent, so that no project file names it.

use std::path::PathBuf;

use serde::Deserialize;
use sluicegate_types::LogUrl;

use crate::{Error, In, yaml};

/// Where Amazon's own servers and most others answer, if nothing is said.
const REGION: &str = "us-east-1";

/// A store that machines share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedStore {
    /// Where it is.
    pub place: SharedPlace,
    /// As it is written, for a person.
    pub shown: String,
    /// Whether results are put there.
    pub push: bool,
}

/// Where a shared store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedPlace {
    /// A folder, relative to the gateway file's.
    Folder(PathBuf),
    /// A bucket of a server that speaks S3.
    Bucket {
        /// Its name.
        bucket: String,
        /// What stands before the name of each object; may be empty.
        prefix: String,
        /// The server; Amazon's own if none is named.
        endpoint: Option<String>,
        /// The region.
        region: String,
    },
}

/// A store that machines share: results of steps are taken from it, after the same checks as this machine's own.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct WireCache {
    /// file:DIR, a folder that is there; or s3://BUCKET or s3://BUCKET/PREFIX, with the credentials of AWS_ACCESS_KEY_ID and
    /// AWS_SECRET_ACCESS_KEY.
    #[cfg_attr(test, schemars(extend("pattern" = "^(file:.|s3://.)")))]
    store: String,
    /// The server of a bucket: https://, or http:// on this machine; Amazon's own if left out.
    #[serde(default, deserialize_with = "yaml::given")]
    endpoint: Option<String>,
    /// The region of a bucket; us-east-1 if left out.
    #[serde(default, deserialize_with = "yaml::given")]
    region: Option<String>,
    /// Whether outputs, logs and statements of steps are put there; false if left out.
    #[serde(default)]
    push: bool,
}

/// Reads it.
pub(crate) fn shared_store(at: &In<'_>, wire: WireCache) -> Result<SharedStore, Error> {
    let (shown, push) = (wire.store.clone(), wire.push);
    let place = match (wire.store.strip_prefix("file:"), wire.store.strip_prefix("s3://")) {
        (Some(folder), _) => {
            if folder.is_empty() || folder.starts_with("//") {
                return Err(
                    at.meaning("cache.store", "write file: and a folder, such as file:/mnt/cache or file:../cache")
                );
            }
            for (key, value) in [("endpoint", &wire.endpoint), ("region", &wire.region)] {
                if value.is_some() {
                    return Err(at.meaning(format!("cache.{key}"), "a folder has none; take it away, or name a bucket"));
                }
            }
            SharedPlace::Folder(folder.into())
        }
        (None, Some(rest)) => bucket(at, rest, wire.endpoint, wire.region)?,
        (None, None) => {
            let wrong = format!("{:?} is no store; write file:DIR, s3://BUCKET or s3://BUCKET/PREFIX", wire.store);
            return Err(at.meaning("cache.store", wrong));
        }
    };
    Ok(SharedStore { place, shown, push })
}

fn bucket(at: &In<'_>, rest: &str, endpoint: Option<String>, region: Option<String>) -> Result<SharedPlace, Error> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let in_bucket = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_name = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(in_bucket)
        && edge(bucket.bytes().next())
        && edge(bucket.bytes().next_back());
    if !is_name {
        let wrong = format!("{bucket:?} is no name of a bucket: 3 to 63 lower-case letters, digits, dots and hyphens");
        return Err(at.meaning("cache.store", wrong));
    }
    let in_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(in_part);
    if prefix.len() > 512 || !(prefix.is_empty() || prefix.split('/').all(is_part)) {
        let wrong =
            format!("{prefix:?} is no prefix: words of letters, digits, dots, hyphens and _ with / between them");
        return Err(at.meaning("cache.store", wrong));
    }
    if let Some(endpoint) = &endpoint {
        endpoint.parse::<LogUrl>().map_err(|error| at.meaning("cache.endpoint", format!("{endpoint:?}: {error}")))?;
    }
    let region = region.unwrap_or_else(|| REGION.to_owned());
    let in_region = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if region.is_empty() || region.len() > 64 || !region.bytes().all(in_region) {
        return Err(at.meaning("cache.region", format!("{region:?} is no region; write one such as {REGION}")));
    }
    Ok(SharedPlace::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned(), endpoint, region })
}
