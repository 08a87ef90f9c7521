//! The machines that an image is for (image-spec, "image-index", `platform`).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Machines that an image is for. What an index of somebody says is taken as it is; what is asked for is parsed and one that is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// More about the architecture, such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// An architecture by Go's name (image-spec, "config", `architecture`).
struct Architecture {
    name: &'static str,
    /// The usual one first.
    variants: &'static [&'static str],
    /// `e_machine` of the programs that it runs (System V ABI, "ELF Header"): its own, and those of the 32-bit machine before it.
    elf_machines: &'static [u16],
}

const ARCHITECTURES: [Architecture; 9] = [
    Architecture { name: "386", variants: &[], elf_machines: &[3] },
    Architecture { name: "amd64", variants: &["v1"], elf_machines: &[62, 3] },
    Architecture { name: "arm", variants: &["v7", "v5", "v6"], elf_machines: &[40] },
    Architecture { name: "arm64", variants: &["v8"], elf_machines: &[183, 40] },
    Architecture { name: "loong64", variants: &[], elf_machines: &[258] },
    Architecture { name: "mips64le", variants: &[], elf_machines: &[8] },
    Architecture { name: "ppc64le", variants: &[], elf_machines: &[21] },
    Architecture { name: "riscv64", variants: &[], elf_machines: &[243] },
    Architecture { name: "s390x", variants: &[], elf_machines: &[22] },
];

impl Platform {
    /// What steps run on: Linux on x86-64.
    pub fn of_steps() -> Self {
        Self { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None }
    }

    /// Whether an image for `other` is one for this: the usual variant of an architecture need not be said.
    pub fn is_same(&self, other: &Self) -> bool {
        self.os == other.os && self.architecture == other.architecture && self.variant_meant() == other.variant_meant()
    }

    fn variant_meant(&self) -> Option<&str> {
        let usual = || self.known().and_then(|known| known.variants.first().copied());
        self.variant.as_deref().or_else(usual)
    }

    fn known(&self) -> Option<&'static Architecture> {
        ARCHITECTURES.iter().find(|known| known.name == self.architecture)
    }

    /// Whether it runs programs whose ELF header says `machine`.
    pub fn runs_elf(&self, machine: u16) -> bool {
        self.known().is_some_and(|known| known.elf_machines.contains(&machine))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// A platform that is none, or not in this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {reason}")]
pub struct PlatformError {
    text: String,
    reason: String,
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let refused = |reason: String| Err(PlatformError { text: text.to_owned(), reason });
        let (os, rest) = text.split_once('/').unwrap_or((text, ""));
        if os != "linux" {
            return refused(
                "write linux/ARCHITECTURE, such as linux/arm64; other systems are not in this version".to_owned(),
            );
        }
        let (architecture, variant) =
            rest.split_once('/').map_or((rest, None), |(name, variant)| (name, Some(variant)));
        let Some(known) = ARCHITECTURES.iter().find(|known| known.name == architecture) else {
            let known: Vec<&str> = ARCHITECTURES.iter().map(|known| known.name).collect();
            return refused(format!("no architecture that is known; those are {}", known.join(", ")));
        };
        if let Some(variant) = variant.filter(|variant| !known.variants.contains(variant)) {
            return refused(format!("{architecture} has no variant {variant:?} that is known"));
        }
        Ok(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_written_as_it_is_read() {
        for text in ["linux/amd64", "linux/arm64", "linux/arm64/v8", "linux/arm/v6", "linux/s390x"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (text, words) in [
            ("", "write linux/ARCHITECTURE"),
            ("amd64", "write linux/ARCHITECTURE"),
            ("windows/amd64", "other systems"),
            ("linux", "no architecture"),
            ("linux/", "no architecture"),
            ("linux/x86_64", "no architecture"),
            ("linux/amd64/v3", "no variant \"v3\""),
            ("linux/arm64/", "no variant \"\""),
            ("linux/arm/v7/x", "no variant \"v7/x\""),
            ("Linux/amd64", "write linux/ARCHITECTURE"),
        ] {
            let error = text.parse::<Platform>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_machine_runs_its_own_programs_and_those_of_the_one_before() {
        let runs = |text: &str, machine: u16| text.parse::<Platform>().unwrap().runs_elf(machine);
        assert!(
            runs("linux/amd64", 62) && runs("linux/amd64", 3) && runs("linux/arm64", 183) && runs("linux/arm64", 40)
        );
        assert!(
            !runs("linux/amd64", 183) && !runs("linux/arm64", 62) && !runs("linux/386", 62) && !runs("linux/arm", 183)
        );
    }

    #[test]
    fn the_usual_variant_need_not_be_said() {
        let is_same = |one: &str, other: &str| one.parse::<Platform>().unwrap().is_same(&other.parse().unwrap());
        assert!(is_same("linux/arm64", "linux/arm64/v8"));
        assert!(is_same("linux/arm", "linux/arm/v7"));
        assert!(!is_same("linux/arm", "linux/arm/v6"));
        assert!(!is_same("linux/arm", "linux/arm64"));
    }
}
