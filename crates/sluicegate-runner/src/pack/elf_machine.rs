use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::Path,
};

use tar::EntryType;

use super::{
    PackError,
    archive_entries::each_entry,
    listing::readable,
    retarget::{broken, inside},
};

/// What the header of an ELF file says that it is for (`e_machine`), if it is a program or a library that is loaded; `None` for objects,
/// such as those for the kernel, and for what is no ELF file. No more than the header is read.
pub(crate) fn elf_machine(mut reader: impl Read) -> io::Result<Option<u16>> {
    const LENGTH: u64 = 20;
    let mut header = Vec::new();
    reader.by_ref().take(LENGTH).read_to_end(&mut header)?;
    if header.len() as u64 != LENGTH || !header.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    let machine = [header[18], header[19]];
    let kind = [header[16], header[17]];
    // The sixth byte says in which order the others stand; what says neither is run nowhere.
    let (kind, machine) = match header[5] {
        1 => (u16::from_le_bytes(kind), u16::from_le_bytes(machine)),
        2 => (u16::from_be_bytes(kind), u16::from_be_bytes(machine)),
        _ => return Ok(None),
    };
    const PROGRAM: u16 = 2;
    const SHARED: u16 = 3;
    Ok([PROGRAM, SHARED].contains(&kind).then_some(machine))
}

/// The same of every regular file of an archive that this module wrote. The reader is read to its end.
pub(crate) fn list_elf_machines(reader: impl Read) -> Result<BTreeMap<String, u16>, PackError> {
    let mut machines = BTreeMap::new();
    each_entry(reader, |entry| {
        if entry.header().entry_type() != EntryType::Regular {
            return Ok(());
        }
        let path = inside(Path::new(""), &entry.path_bytes())?;
        if let Some(machine) = elf_machine(entry).map_err(|error| broken(&error))? {
            machines.insert(readable(path.as_os_str()), machine);
        }
        Ok(())
    })?;
    Ok(machines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(order: u8, machine: [u8; 2]) -> Vec<u8> {
        let mut header = b"\x7fELF\x02".to_vec();
        header.push(order);
        header.resize(16, 0);
        header.extend(if order == 2 { [0, 3] } else { [2, 0] });
        header.extend(machine);
        header
    }

    #[test]
    fn the_header_of_a_program_says_what_runs_it() {
        let of = |bytes: &[u8]| elf_machine(bytes).unwrap();
        assert_eq!(of(&header(1, [183, 0])), Some(183));
        assert_eq!(of(&header(2, [0, 22])), Some(22));
        let mut whole = header(1, [62, 0]);
        whole.extend([0; 100]);
        assert_eq!(of(&whole), Some(62));
        assert_eq!(of(&header(3, [62, 0])), None);
        let mut object = header(1, [62, 0]);
        object[16] = 1;
        assert_eq!(of(&object), None);
        assert_eq!(of(&header(1, [62, 0])[..19]), None);
        assert_eq!(of(b"#!/bin/sh\necho 1234567890"), None);
        assert_eq!(of(b""), None);
    }

    #[test]
    fn programs_are_found_anywhere_in_a_tree_of_ours() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |path: &str, bytes: &[u8]| {
            let mut entry = tar::Header::new_gnu();
            entry.set_size(bytes.len() as u64);
            entry.set_mode(0o755);
            archive.append_data(&mut entry, path, bytes).unwrap();
        };
        add("bin/tool", &header(1, [183, 0]));
        add("bin/script", b"#!/bin/sh\necho here I am, not short\n");
        add("lib/a/b.so", &header(1, [62, 0]));
        let bytes = archive.into_inner().unwrap();
        let found = list_elf_machines(bytes.as_slice()).unwrap();
        assert_eq!(found, BTreeMap::from([("bin/tool".to_owned(), 183), ("lib/a/b.so".to_owned(), 62)]));
        assert!(list_elf_machines(&bytes[..700]).is_err(), "it is cut");
    }
}
