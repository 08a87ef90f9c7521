#![forbid(unsafe_code)]
//! What a zstd stream (RFC 8878) holds that nobody vouches for: all its frames as one content, within a bounded memory.
//!
//! Layers are read by `sluicegate-runner` to run them and by `sluicegate-scan` to look beside the scanner. Neither may know the other,
//! and both must read the same out of the same bytes.

use std::{
    error::Error,
    io::{self, BufRead, Read},
    ops::RangeInclusive,
};

use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, FrameHeaderError},
};

/// Bytes that a frame may ask to be kept as its window: what `zstd -d` gives without being told to give more.
pub const MAX_WINDOW: u64 = 128 << 20;

/// The first bytes of a frame (RFC 8878 section 3.1.1).
pub const FRAME_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What a frame to be skipped may begin with (section 3.1.2).
const SKIPPABLE: RangeInclusive<u32> = 0x184d_2a50..=0x184d_2a5f;

/// The bit of a frame's descriptor that must be zero.
const RESERVED: u8 = 0b0000_1000;

/// The bits of a frame's descriptor of which one is set where the frame says its content's size.
const SIZED: u8 = 0b1110_0000;

/// Reads frame after frame; frames to be skipped are read and dropped. The end of the source is the end only where a frame ends, after
/// at least one frame that is not to be skipped. Refused are dictionaries, windows above [`MAX_WINDOW`], and content that has not the
/// size or checksum that its frame says.
pub struct MultiFrameDecoder<R> {
    source: R,
    decoder: FrameDecoder,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// Where a frame may begin, or the end may be once there was one.
    Between { any: bool },
    /// In a frame that says it holds `declared` bytes and has given `given`.
    Inside { declared: Option<u64>, given: u64 },
    /// After an error: what came before it is no whole content, so there is no end to report.
    Failed,
}

impl<R: BufRead> MultiFrameDecoder<R> {
    /// Nothing is read yet.
    pub fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW);
        Self { source, decoder, state: State::Between { any: false } }
    }

    fn some_of_it(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.state {
                State::Failed => return Err(refused("it could not be read to its end before")),
                State::Between { any } => {
                    if self.is_at_end()? {
                        return if any { Ok(0) } else { Err(refused("there is no zstd frame in it")) };
                    }
                    if let Some(declared) = self.begin_frame()? {
                        self.state = State::Inside { declared, given: 0 };
                    }
                }
                State::Inside { declared, given } => {
                    let read = self.decoder.read(buffer)?;
                    if read > 0 {
                        self.state = State::Inside { declared, given: given + read as u64 };
                        return Ok(read);
                    }
                    if self.decoder.is_finished() {
                        self.end_frame(declared, given)?;
                        self.state = State::Between { any: true };
                    } else {
                        // One block, at most 1 MiB of content: more would be kept here until it is asked for.
                        let one = BlockDecodingStrategy::UptoBlocks(1);
                        self.decoder.decode_blocks(&mut self.source, one).map_err(|error| reason(&error))?;
                    }
                }
            }
        }
    }

    /// Reads the header of a frame and gives the size that it says, or reads all of a frame to be skipped and gives nothing.
    fn begin_frame(&mut self) -> io::Result<Option<Option<u64>>> {
        let magic: [u8; 4] = self.exactly()?;
        if SKIPPABLE.contains(&u32::from_le_bytes(magic)) {
            let length = u64::from(u32::from_le_bytes(self.exactly()?));
            let skipped = io::copy(&mut self.source.by_ref().take(length), &mut io::sink())?;
            return if skipped == length { Ok(None) } else { Err(cut_off()) };
        }
        if magic != FRAME_MAGIC {
            return Err(refused("there are bytes where a zstd frame should begin that are none"));
        }
        let descriptor: [u8; 1] = self.exactly()?;
        if descriptor[0] & RESERVED != 0 {
            return Err(refused("a zstd frame has a bit set that is reserved"));
        }
        let header = magic.as_slice().chain(descriptor.as_slice()).chain(&mut self.source);
        self.decoder.reset(header).map_err(|error| reason(&error))?;
        Ok(Some((descriptor[0] & SIZED != 0).then(|| self.decoder.content_size())))
    }

    fn end_frame(&self, declared: Option<u64>, given: u64) -> io::Result<()> {
        if declared.is_some_and(|declared| declared != given) {
            return Err(refused("a zstd frame holds more or less than it says"));
        }
        let said = self.decoder.get_checksum_from_data();
        if said.is_some() && said != self.decoder.get_calculated_checksum() {
            return Err(refused("the content of a zstd frame has another checksum than the frame says"));
        }
        Ok(())
    }

    fn is_at_end(&mut self) -> io::Result<bool> {
        loop {
            match self.source.fill_buf() {
                Ok(bytes) => return Ok(bytes.is_empty()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn exactly<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        match self.source.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(cut_off()),
            Err(error) => Err(error),
        }
    }
}

impl<R: BufRead> Read for MultiFrameDecoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.some_of_it(buffer);
        if read.is_err() {
            self.state = State::Failed;
        }
        read
    }
}

/// Words of our own: the library's can hold tables out of the stream, megabytes of them.
fn reason(error: &FrameDecoderError) -> io::Error {
    match error {
        FrameDecoderError::WindowSizeTooBig { requested: window, .. }
        | FrameDecoderError::FrameHeaderError(FrameHeaderError::WindowTooBig { got: window }) => {
            refused(&format!("a zstd frame asks for a window of {window} bytes, more than the limit of {MAX_WINDOW}"))
        }
        FrameDecoderError::DictNotProvided { dict_id } => {
            refused(&format!("a zstd frame needs the dictionary {dict_id}, and layers have none"))
        }
        other => match of_the_source(other) {
            Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => cut_off(),
            Some(error) => io::Error::new(error.kind(), error.to_string()),
            None => refused("a zstd frame is damaged"),
        },
    }
}

/// The error of whoever is read from, where that is the cause.
fn of_the_source<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the zstd stream is cut off")
}

fn refused(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

#[cfg(test)]
mod tests;
