//! What a dynamically linked program asks for: its interpreter, its libraries and where it looks for them (System V ABI, chapters 4
//! and 5). Only what is needed for that is read, by offsets that are checked against limits; nothing is executed.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

/// How many segments a file may have.
const SEGMENTS: u16 = 1024;
/// Bytes of the dynamic section.
const DYNAMIC: u64 = 1024 * 1024;
/// Bytes of one name.
const NAME: usize = 4096;
/// How many libraries one file may need.
const NEEDED: usize = 1024;

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// What a file asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Elf {
    /// Its architecture; a library counts only with the same one.
    pub(super) machine: Machine,
    /// The program that loads it.
    pub(super) interpreter: Option<String>,
    /// The libraries it needs, by name or path.
    pub(super) needed: Vec<String>,
    /// The folders where they are looked for first, `$ORIGIN` not yet replaced.
    pub(super) folders: Vec<String>,
}

/// Word size, byte order and `e_machine`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Machine {
    wide: bool,
    big: bool,
    code: u16,
}

impl Machine {
    /// Debian's name of the architecture's library folders; empty for one this version does not know.
    pub(super) fn triplet(self) -> &'static str {
        match (self.code, self.wide) {
            (62, true) => "x86_64-linux-gnu",
            (183, true) => "aarch64-linux-gnu",
            (3, false) => "i386-linux-gnu",
            (40, false) => "arm-linux-gnueabihf",
            (243, true) => "riscv64-linux-gnu",
            (21, true) if !self.big => "powerpc64le-linux-gnu",
            (22, true) => "s390x-linux-gnu",
            _ => "",
        }
    }
}

/// Reads `file`; `None` where it is no ELF file. A damaged one is an error.
pub(super) fn read(file: &mut File) -> io::Result<Option<Elf>> {
    let mut ident = [0; 64];
    let mut got = 0;
    while got < ident.len() {
        match file.read(&mut ident[got..])? {
            0 => break,
            n => got += n,
        }
    }
    if got < 52 || ident[..4] != *b"\x7fELF" {
        return Ok(None);
    }
    let (wide, big) = match (ident[4], ident[5]) {
        (1 | 2, 1 | 2) => (ident[4] == 2, ident[5] == 2),
        _ => return Err(damaged("neither 32 nor 64 bits, or no byte order")),
    };
    let mut reader = Reader { file, wide, big };
    let machine = Machine { wide, big, code: reader.number(&ident[18..20]) as u16 };
    let (offset, size, count) = if wide {
        (reader.number(&ident[32..40]), reader.number(&ident[54..56]), reader.number(&ident[56..58]))
    } else {
        (reader.number(&ident[28..32]), reader.number(&ident[42..44]), reader.number(&ident[44..46]))
    };
    let mut elf = Elf { machine, ..Elf::default() };
    if count == 0 {
        return Ok(Some(elf));
    }
    if count > u64::from(SEGMENTS) || size < if wide { 56 } else { 32 } {
        return Err(damaged("too many segments, or segments of an impossible size"));
    }
    let table = reader.bytes(offset, count * size)?;
    let segments: Vec<_> = table.chunks_exact(size as usize).map(|entry| reader.segment(entry)).collect();
    if let Some(segment) = segments.iter().find(|segment| segment.kind == PT_INTERP) {
        let bytes = reader.bytes(segment.offset, segment.size.min(NAME as u64))?;
        elf.interpreter = Some(text_until_nul(&bytes)?);
    }
    if let Some(segment) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) {
        reader.dynamic(segment, &segments, &mut elf)?;
    }
    Ok(Some(elf))
}

struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    size: u64,
}

struct Reader<'a> {
    file: &'a mut File,
    wide: bool,
    big: bool,
}

impl Reader<'_> {
    fn segment(&self, entry: &[u8]) -> Segment {
        let [kind, offset, address, size] = if self.wide {
            [&entry[..4], &entry[8..16], &entry[16..24], &entry[32..40]]
        } else {
            [&entry[..4], &entry[4..8], &entry[8..12], &entry[16..20]]
        }
        .map(|field| self.number(field));
        Segment { kind, offset, address, size }
    }

    fn dynamic(&mut self, segment: &Segment, segments: &[Segment], elf: &mut Elf) -> io::Result<()> {
        if segment.size > DYNAMIC {
            return Err(damaged("its dynamic section is larger than 1 MiB"));
        }
        let bytes = self.bytes(segment.offset, segment.size)?;
        let word = if self.wide { 8 } else { 4 };
        let entries: Vec<(u64, u64)> = bytes
            .chunks_exact(2 * word)
            .map(|entry| (self.number(&entry[..word]), self.number(&entry[word..])))
            .take_while(|(tag, _)| *tag != 0)
            .collect();
        let Some((_, address)) = entries.iter().find(|(tag, _)| *tag == DT_STRTAB) else { return Ok(()) };
        let strings = segments
            .iter()
            .filter(|segment| segment.kind == PT_LOAD)
            .find_map(|load| {
                let inside = address.checked_sub(load.address).filter(|inside| *inside < load.size)?;
                load.offset.checked_add(inside)
            })
            .ok_or_else(|| damaged("its names are in no segment"))?;
        let runpath = entries.iter().any(|(tag, _)| *tag == DT_RUNPATH);
        for (tag, value) in entries {
            match tag {
                DT_NEEDED if elf.needed.len() == NEEDED => return Err(damaged("it needs too many libraries")),
                DT_NEEDED => elf.needed.push(self.name(strings, value)?),
                // RUNPATH, where there is one, makes RPATH be ignored.
                DT_RUNPATH | DT_RPATH if tag == DT_RUNPATH || !runpath => {
                    elf.folders.extend(self.name(strings, value)?.split(':').map(str::to_owned));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn name(&mut self, table: u64, at: u64) -> io::Result<String> {
        let start = table.checked_add(at).ok_or_else(|| damaged("a name is outside of the file"))?;
        self.file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        self.file.take(NAME as u64).read_to_end(&mut bytes)?;
        text_until_nul(&bytes)
    }

    fn bytes(&mut self, offset: u64, size: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.take(size).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == size { Ok(bytes) } else { Err(damaged("it ends too early")) }
    }

    fn number(&self, bytes: &[u8]) -> u64 {
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        if self.big { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) }
    }
}

fn text_until_nul(bytes: &[u8]) -> io::Result<String> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or_else(|| damaged("a name without an end"))?;
    String::from_utf8(bytes[..end].to_vec()).map_err(|_| damaged("a name that is not UTF-8"))
}

fn damaged(reason: &str) -> io::Error {
    io::Error::other(format!("not a whole ELF file: {reason}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read_bytes(bytes: &[u8]) -> io::Result<Option<Elf>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        read(&mut file)
    }

    #[test]
    fn this_very_program_needs_the_c_library() {
        let elf = read(&mut File::open(std::env::current_exe().unwrap()).unwrap()).unwrap().unwrap();
        assert!(elf.interpreter.unwrap().contains("ld-linux"));
        assert!(elf.needed.iter().any(|name| name == "libc.so.6"), "{:?}", elf.needed);
        assert!(!elf.machine.triplet().is_empty());
    }

    #[test]
    fn a_made_file_says_what_it_needs_and_where() {
        let bytes = super::super::test_tree::elf(
            &["libz.so.1", "libc.so.6"],
            Some("/lib64/ld.so"),
            Some("$ORIGIN/../lib:/opt"),
        );
        let elf = read_bytes(&bytes).unwrap().unwrap();
        assert_eq!(elf.needed, ["libz.so.1", "libc.so.6"]);
        assert_eq!(elf.interpreter.as_deref(), Some("/lib64/ld.so"));
        assert_eq!(elf.folders, ["$ORIGIN/../lib", "/opt"]);
        assert_eq!(read_bytes(b"#!/bin/sh\n").unwrap(), None);
    }

    #[test]
    fn damaged_files_are_errors_and_never_panics() {
        let whole = super::super::test_tree::elf(&["libz.so.1"], Some("/lib64/ld.so"), None);
        for length in 64..whole.len() {
            assert!(read_bytes(&whole[..length]).is_err(), "cut at {length}");
        }
        for at in 4..whole.len() {
            for mask in [1, 0x80, 0xff] {
                let mut broken = whole.clone();
                broken[at] ^= mask;
                let _ = read_bytes(&broken);
            }
        }
    }
}
