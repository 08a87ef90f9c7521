//! The authorities that a folder in the form of Docker's `certs.d` names for one host.

use std::{
    fmt, fs,
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use ureq::tls::{Certificate, PemItem, parse_pem};

use crate::OutboundError;

/// Bytes of a certificate file, and files of a folder.
const MAX_CERTIFICATES: u64 = 1024 * 1024;
const MAX_FILES: usize = 64;
/// `O_NONBLOCK` of Linux (asm-generic/fcntl.h).
const O_NONBLOCK: i32 = 0o4_000;

/// Those in `HOST/*.crt` of each folder. Client certificates that lie there are warned about and not used.
pub(crate) fn of_host(
    folders: &[PathBuf],
    host: &str,
    warn: &dyn Fn(&str),
) -> Result<Vec<Certificate<'static>>, OutboundError> {
    let mut out = Vec::new();
    for folder in folders.iter().map(|folder| folder.join(host)).filter(|folder| folder.is_dir()) {
        let wrong = |path: &Path, why: &dyn fmt::Display| OutboundError::Certificates {
            host: host.to_owned(),
            path: path.to_owned(),
            reason: why.to_string(),
        };
        let entries = fs::read_dir(&folder).map_err(|error| wrong(&folder, &error))?;
        for (number, entry) in entries.enumerate() {
            // What is left out would be an authority that somebody put there and that does not count.
            if number >= MAX_FILES {
                return Err(wrong(&folder, &format!("it holds more than {MAX_FILES} files")));
            }
            let path = entry.map_err(|error| wrong(&folder, &error))?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => {}
                Some("cert" | "key") => {
                    warn(&format!("{}: client certificates are not in this version", path.display()));
                    continue;
                }
                _ => continue,
            }
            // A pipe is not waited for.
            let opened = fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(&path);
            let file = opened.map_err(|error| wrong(&path, &error))?;
            if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
                return Err(wrong(&path, &"it is no regular file"));
            }
            let mut pem = Vec::new();
            file.take(MAX_CERTIFICATES).read_to_end(&mut pem).map_err(|error| wrong(&path, &error))?;
            let before = out.len();
            for item in parse_pem(&pem) {
                if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(&path, &error))? {
                    out.push(certificate);
                }
            }
            if out.len() == before {
                return Err(wrong(&path, &"there is none in it"));
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    #[test]
    fn the_certificates_of_a_host_have_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("registry.example");
        fs::create_dir(&own).unwrap();
        let folders = [folder.path().to_owned()];
        let read = || of_host(&folders, "registry.example", &|_| {}).map(|all| all.len());
        let behind = |length: u64| fs::write(own.join("ca.crt"), format!("{}\n{PEM}", "#".repeat(length as usize)));
        behind(MAX_CERTIFICATES / 2).unwrap();
        assert_eq!(read(), Ok(1));
        behind(MAX_CERTIFICATES).unwrap();
        assert!(read().unwrap_err().to_string().contains("there is none in it"));
        behind(0).unwrap();
        (1..MAX_FILES).for_each(|number| fs::write(own.join(format!("{number}.crt")), PEM).unwrap());
        assert_eq!(read(), Ok(MAX_FILES));
        fs::write(own.join("one-more.crt"), PEM).unwrap();
        assert!(read().unwrap_err().to_string().contains("it holds more than 64 files"));
    }

    #[test]
    fn client_certificates_are_warned_about_and_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("registry.example");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("ca.crt"), PEM).unwrap();
        let heard = RefCell::new(Vec::new());
        let folders = [folder.path().to_owned(), folder.path().join("missing")];
        let read = || of_host(&folders, "registry.example", &|words| heard.borrow_mut().push(words.to_owned()));
        assert_eq!((read().unwrap().len(), heard.borrow().len()), (1, 0));
        fs::write(own.join("client.cert"), PEM).unwrap();
        fs::write(own.join("client.key"), "secret").unwrap();
        fs::write(own.join("README"), PEM).unwrap();
        assert_eq!(read().unwrap().len(), 1);
        let heard = heard.into_inner();
        assert!(heard.len() == 2 && heard.iter().all(|words| words.contains("not in this version")), "{heard:?}");
        // Those of another host are not looked at.
        assert!(of_host(&folders, "registry.example:5000", &|_| {}).unwrap().is_empty());
    }
}
