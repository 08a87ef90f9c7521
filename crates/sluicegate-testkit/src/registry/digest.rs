use std::{fmt, io::Read};

use ring::digest::{Context, SHA256, SHA512};

/// A digest of one of the two algorithms that the registry keeps content under.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ContentDigest(String);

impl ContentDigest {
    /// A text that is a digest of SHA-256 or SHA-512, in the one way to write it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (algorithm, hex) = text.split_once(':')?;
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return None,
        };
        let digits = hex.len() == length && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        digits.then(|| Self(text.to_owned()))
    }

    /// The SHA-256 digest of `bytes`.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(format!("sha256:{}", hex(ring::digest::digest(&SHA256, bytes).as_ref())))
    }

    /// Whether this is the digest of what `content` gives.
    pub(super) fn is_of(&self, mut content: impl Read) -> std::io::Result<bool> {
        let mut context = Context::new(if self.0.starts_with("sha512") { &SHA512 } else { &SHA256 });
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = content.read(&mut buffer)?;
            if n == 0 {
                return Ok(self.0.ends_with(&format!(":{}", hex(context.finish().as_ref()))));
            }
            context.update(&buffer[..n]);
        }
    }

    /// As it is written.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// A name for a file.
    pub(super) fn file_name(&self) -> String {
        self.0.replace(':', "-")
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
