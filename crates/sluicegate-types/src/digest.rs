use std::{fmt, io::Read, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A content address: SHA-256, written `sha256:` and 64 lower-case hexadecimal digits (OCI image-spec, "descriptor").
///
/// Only SHA-256 is content in this version; another algorithm is refused by name, never ignored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// The kind of a product beside its digest: the same bytes as a file and as a directory's tar are two different things.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentKind {
    /// One regular file; the digest is over its bytes.
    File,
    /// A directory; the digest is over its deterministic uncompressed tar.
    Directory,
}

/// A piece of content: what kind it is and its address. Equal digests of different kinds are different content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Content {
    /// A file or a directory.
    pub kind: ContentKind,
    /// Over the file's bytes, or over the directory's deterministic uncompressed tar.
    pub digest: Digest,
}

impl ContentKind {
    /// The media type that stands for this kind in resource descriptors (trust model 1).
    pub fn media_type(self) -> &'static str {
        match self {
            Self::File => "application/octet-stream",
            Self::Directory => "application/vnd.oci.image.layer.v1.tar",
        }
    }

    /// The kind that `media_type` stands for; `None` for any other media type.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        [Self::File, Self::Directory].into_iter().find(|kind| kind.media_type() == media_type)
    }
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Reads `reader` to its end and returns the digest and the number of bytes.
    pub fn of_reader(reader: &mut impl Read) -> std::io::Result<(Self, u64)> {
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 128 * 1024];
        let mut total = 0;
        loop {
            let n = reader.read(&mut buffer)?;
            if n == 0 {
                return Ok((hasher.finish(), total));
            }
            hasher.update(&buffer[..n]);
            total += n as u64;
        }
    }

    /// The digest made of these 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits without the algorithm.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Parses 64 lower-case hexadecimal digits, as in an in-toto digest set.
    pub fn from_hex(hex: &str) -> Result<Self, DigestError> {
        let bytes = hex.as_bytes();
        if bytes.len() != 64 {
            return Err(DigestError::Length { found: bytes.len() });
        }
        let mut out = [0; 32];
        for (slot, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            let digit = |byte: u8| match byte {
                b'0'..=b'9' => Ok(byte - b'0'),
                b'a'..=b'f' => Ok(byte - b'a' + 10),
                _ => Err(DigestError::NotHex),
            };
            *slot = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(out))
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text.split_once(':') {
            Some(("sha256", hex)) => Self::from_hex(hex),
            Some((algorithm, _)) => Err(DigestError::Algorithm { algorithm: algorithm.chars().take(32).collect() }),
            None => Err(DigestError::NoAlgorithm),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a [`Digest`] while bytes go by.
#[derive(Clone)]
pub struct Hasher(ring::digest::Context);

impl Hasher {
    /// A hasher that has seen nothing yet.
    pub fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything taken.
    pub fn finish(self) -> Digest {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        Digest(out)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The text has no `ALGORITHM:` in front.
    #[error("no algorithm: a digest is written sha256:HEX")]
    NoAlgorithm,
    /// An algorithm that this version does not take.
    #[error("digest algorithm {algorithm:?}: only sha256 in this version")]
    Algorithm {
        /// The algorithm as written, cut at 32 characters.
        algorithm: String,
    },
    /// Not 64 digits.
    #[error("a sha256 digest has 64 hexadecimal digits, this has {found}")]
    Length {
        /// How many there are.
        found: usize,
    },
    /// A character that is not a lower-case hexadecimal digit.
    #[error("a digest has only the digits 0-9 and a-f")]
    NotHex,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_writing_and_reading() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
    }

    #[test]
    fn what_is_not_a_sha256_digest_is_refused() {
        let good = Digest::of(b"abc").hex();
        assert_eq!(good.parse::<Digest>(), Err(DigestError::NoAlgorithm));
        assert!(matches!(format!("sha512:{good}").parse::<Digest>(), Err(DigestError::Algorithm { .. })));
        assert_eq!(format!("sha256:{}", &good[1..]).parse::<Digest>(), Err(DigestError::Length { found: 63 }));
        assert_eq!(format!("sha256:{}", good.to_uppercase()).parse::<Digest>(), Err(DigestError::NotHex));
        assert_eq!(format!("sha256:{}é", &good[2..]).parse::<Digest>(), Err(DigestError::NotHex));
    }
}
