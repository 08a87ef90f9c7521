use super::*;

const LAYER: &[u8] = include_bytes!("../../../fixtures/zstd-layers/layer.tar");
const LEVEL_19: &[u8] = include_bytes!("../../../fixtures/zstd-layers/level-19.zst");
const CHUNKED: &[u8] = include_bytes!("../../../fixtures/zstd-layers/chunked.zst");
const PZSTD: &[u8] = include_bytes!("../../../fixtures/zstd-layers/pzstd.zst");
const WINDOW_27: &[u8] = include_bytes!("../../../fixtures/zstd-layers/window-27.zst");
const WINDOW_28: &[u8] = include_bytes!("../../../fixtures/zstd-layers/window-28.zst");
const DICTIONARY: &[u8] = include_bytes!("../../../fixtures/zstd-layers/dictionary.zst");

/// The content, or the words of the refusal, which must be short and must not become an end when it is read on.
fn read(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut decoder = MultiFrameDecoder::new(bytes);
    let mut content = Vec::new();
    match decoder.read_to_end(&mut content) {
        Ok(_) => Ok(content),
        Err(error) => {
            assert!(decoder.read(&mut [0; 8]).is_err(), "after {error} it ends as if it were whole");
            let words = error.to_string();
            assert!(words.len() < 120, "{words}");
            Err(words)
        }
    }
}

fn refused_as(bytes: &[u8], words: &str) {
    let said = read(bytes).unwrap_err();
    assert!(said.contains(words), "{said}");
}

/// A frame of one raw block, after a header of this descriptor and these fields.
fn frame(descriptor: u8, fields: &[u8], content: &[u8]) -> Vec<u8> {
    let block = u32::try_from(content.len()).unwrap() << 3 | 1;
    [&FRAME_MAGIC, [descriptor].as_slice(), fields, &block.to_le_bytes()[..3], content].concat()
}

fn to_be_skipped(magic: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    [&[magic, 0x2a, 0x4d, 0x18], length.to_le_bytes().as_slice(), content].concat()
}

#[test]
fn what_real_writers_write_is_read_whole() {
    assert_eq!(PZSTD[0], 0x50, "its first frame is one to be skipped");
    for (name, bytes) in
        [("zstd", LEVEL_19), ("zstd:chunked", CHUNKED), ("pzstd", PZSTD), ("a window of 128 MiB", WINDOW_27)]
    {
        assert!(read(bytes).unwrap() == LAYER, "{name}");
    }
    assert!(read(&[LEVEL_19, LEVEL_19].concat()).unwrap() == [LAYER, LAYER].concat());
}

#[test]
fn a_stream_ends_where_a_frame_ends_and_nowhere_else() {
    let parts =
        [to_be_skipped(0x5f, b"first"), frame(0, &[0], b"one, "), to_be_skipped(0x50, b""), frame(0, &[0], b"two")];
    let whole = parts.concat();
    assert_eq!(read(&whole).unwrap(), b"one, two");
    // Without the second frame the content is another, which is for whoever knows its digest.
    let (first, second) = (parts[0].len() + parts[1].len(), whole.len() - parts[3].len());
    for length in 0..whole.len() {
        assert_eq!(read(&whole[..length]).is_ok(), length == first || length == second, "cut at {length}");
    }
    for length in 0..LEVEL_19.len() {
        let said = read(&LEVEL_19[..length]).unwrap_err();
        assert!(said.contains(if length == 0 { "no zstd frame" } else { "cut off" }), "cut at {length}: {said}");
    }
    refused_as(&to_be_skipped(0x50, b"nothing else"), "no zstd frame");
}

#[test]
fn what_stands_behind_the_last_frame_is_refused() {
    for garbage in [b"x".as_slice(), &[0; 4], &[0; 512], &FRAME_MAGIC, &[0x60, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]] {
        assert!(read(&[LEVEL_19, garbage].concat()).is_err(), "{garbage:?}");
    }
    refused_as(&[LEVEL_19, &[0; 4]].concat(), "bytes where a zstd frame should begin");
    refused_as(LAYER, "bytes where a zstd frame should begin");
}

#[test]
fn a_window_may_be_128_mib_and_not_more() {
    assert_eq!(read(&frame(0, &[17 << 3], b"content")).unwrap(), b"content");
    refused_as(&frame(0, &[17 << 3 | 1], b"content"), "window of 150994944 bytes");
    refused_as(&frame(0, &[0xff], b"content"), "window of");
    refused_as(WINDOW_28, "window of 268435456 bytes, more than the limit of 134217728");
    // Where there is no window the whole content is one.
    let sized = |size: u64| frame(0b1110_0000, &size.to_le_bytes(), b"content");
    assert_eq!(read(&sized(7)).unwrap(), b"content");
    refused_as(&sized(MAX_WINDOW), "more or less than it says");
    refused_as(&sized(MAX_WINDOW + 1), "window of 134217729 bytes");
    refused_as(&sized(u64::MAX), "window of");
    // In any frame, not only in the first.
    refused_as(&[LEVEL_19, WINDOW_28].concat(), "window of");
}

#[test]
fn a_dictionary_is_refused() {
    refused_as(DICTIONARY, "needs the dictionary 970453125");
    refused_as(&frame(0b0000_0001, &[0, 7], b"content"), "needs the dictionary 7");
    assert_eq!(read(&frame(0b0000_0001, &[0, 0], b"content")).unwrap(), b"content", "0 is none");
    refused_as(&[LEVEL_19, DICTIONARY].concat(), "needs the dictionary");
}

#[test]
fn a_frame_must_hold_what_it_says() {
    let mut other = LEVEL_19.to_vec();
    *other.last_mut().unwrap() ^= 1;
    refused_as(&other, "another checksum");
    for (size, holds) in [(7, true), (6, false), (8, false), (0, false)] {
        let framed = frame(0b1000_0000, &[&[0], 7_u32.to_le_bytes().as_slice()].concat(), &b"contents"[..size]);
        assert_eq!(read(&framed).is_ok(), holds, "{size} bytes");
    }
    refused_as(&frame(0b0000_1000, &[0], b"content"), "reserved");
    refused_as(&[&FRAME_MAGIC, [0, 0, 0b111, 0, 0].as_slice()].concat(), "damaged");
}

/// These frames say a checksum of their content: whatever else is changed in them, they are read as they were or not at all.
#[test]
fn no_change_of_a_byte_gives_another_content() {
    for (name, bytes) in [("zstd", LEVEL_19), ("zstd:chunked", CHUNKED)] {
        for at in 0..bytes.len() {
            for change in [0x01, 0x10, 0x80, 0xff] {
                let mut bytes = bytes.to_vec();
                bytes[at] ^= change;
                assert!(read(&bytes).is_ok_and(|content| content == LAYER) || read(&bytes).is_err(), "{name} at {at}");
            }
        }
    }
}

#[test]
fn an_error_of_the_source_keeps_its_kind_and_its_words() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "no more of it"))
        }
    }
    for length in [0, 3, 4, 6, 9, 200, LEVEL_19.len() - 2, LEVEL_19.len()] {
        let source = io::BufReader::new(LEVEL_19[..length].chain(Failing));
        let error = MultiFrameDecoder::new(source).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::PermissionDenied, "no more of it"));
    }
}
