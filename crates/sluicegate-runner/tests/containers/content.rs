use sluicegate_ports::{
    execute::{Compression, Ended, ExecuteError, InputAccess::*, Layer, StepExecutor},
    store::{ContentStore, StoreError},
};
use sluicegate_runner::pack::{LayerWriter, PackOptions};
use sluicegate_types::Digest;

use crate::fixture::*;

fn layer(build: impl FnOnce(&mut LayerWriter<Vec<u8>>)) -> Vec<u8> {
    let mut writer = LayerWriter::new(Vec::new(), &PackOptions::fixed(EPOCH, 1 << 20));
    build(&mut writer);
    writer.finish().unwrap().0
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// One raw entry, for what a layer writer refuses.
pub(crate) fn raw_entry(path: &str, kind: tar::EntryType, link: &str) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(0);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn layers_stack_and_remove_what_is_below() {
    let store = &fixture().store;
    let below = layer(|layer| {
        layer.add_directory("data".as_ref(), 0o755).unwrap();
        layer.add_bytes("data/gone".as_ref(), b"1", 0o644).unwrap();
        layer.add_bytes("data/kept".as_ref(), b"2", 0o644).unwrap();
        layer.add_directory("opaque".as_ref(), 0o755).unwrap();
        layer.add_bytes("opaque/old".as_ref(), b"3", 0o644).unwrap();
    });
    let mut above = raw_entry("data/.wh.gone", tar::EntryType::Regular, "");
    above.extend(raw_entry("opaque/.wh..wh..opq", tar::EntryType::Regular, ""));
    above.extend(raw_entry("opaque/new", tar::EntryType::Regular, ""));
    above.extend([0; 1024]);
    let blob = store.put_bytes(&gzip(&above)).unwrap();
    let mut request = sh("ls /data /opaque");
    request.layers.push(plain_layer(store, &below));
    request.layers.push(Layer { blob, compression: Compression::Gzip, diff_id: Digest::of(&above) });
    let top = layer(|layer| layer.add_bytes("opaque/newest".as_ref(), b"4", 0o644).unwrap());
    let blob = store.put_bytes(&zstd(&top)).unwrap();
    request.layers.push(Layer { blob, compression: Compression::Zstd, diff_id: Digest::of(&top) });
    assert_eq!(log_of(&request), "/data:\nkept\n\n/opaque:\nnew\nnewest\n");
}

#[test]
fn a_layer_that_is_not_its_diff_id_is_never_used() {
    let store = &fixture().store;
    let bytes = layer(|layer| layer.add_bytes("marker-of-a-wrong-layer".as_ref(), b"1", 0o644).unwrap());
    let blob = store.put_bytes(&bytes).unwrap();
    let mut request = sh("true");
    let wrong = Layer { blob, compression: Compression::None, diff_id: Digest::of(b"something else") };
    request.layers.push(wrong.clone());
    for _ in 0..2 {
        let error = refused(&request);
        assert!(matches!(&error, ExecuteError::Content { digest, .. } if *digest == blob), "{error}");
    }
    assert!(!fixture().state.join("cache/layer").join(wrong.diff_id.hex()).exists());
    request.layers.pop();
    request.layers.push(Layer { diff_id: blob, ..wrong });
    assert_eq!(log_of(&request), "");
}

#[test]
fn content_that_the_store_lacks_or_holds_damaged_is_named() {
    let mut request = sh("true");
    let absent = Digest::of(b"never stored");
    request.layers.push(Layer { blob: absent, compression: Compression::None, diff_id: absent });
    assert!(matches!(refused(&request), ExecuteError::Store(StoreError::Missing { digest }) if digest == absent));

    let mut request = sh("cat /one");
    // Never unpacked before: the cache outlives a run of these tests.
    let text = format!("right {:?}", std::time::SystemTime::now());
    request.inputs = vec![file("/one", text.as_bytes(), ReadOnly)];
    let path = fixture().store.path(&request.inputs[0].content.digest).unwrap();
    std::fs::write(&path, "wrong").unwrap();
    assert!(matches!(refused(&request), ExecuteError::Store(StoreError::Corrupt { .. })));
    std::fs::write(&path, &text).unwrap();
    assert_eq!(log_of(&request), text);
}

#[test]
fn a_step_whose_layer_or_input_is_changed_while_it_runs_fails() {
    let fixture = fixture();
    let is_there = |path: &std::path::Path, name: &str| path.join(name).exists();
    for (kind, name) in [("alone", "read"), ("tree", "source")] {
        for is_changed in [false, true] {
            // Never unpacked before: the cache outlives a run of these tests.
            let text = format!("{kind} {is_changed} {:?}", std::time::SystemTime::now());
            let mut request = sh("cat /read /src/source; echo begun");
            request.layers.push(layer_of(&[("read", &text)]));
            request.inputs = vec![folder("/src", &[("source", &text)], CopyOnWrite)];
            let content = match kind {
                "alone" => request.layers[1].blob,
                _ => request.inputs[0].content.digest,
            };
            let mut changes = usize::from(is_changed);
            let result = fixture.executor.run_step(&request, &mut |output| {
                if !output.ends_with(b"begun\n") || std::mem::take(&mut changes) == 0 {
                    return;
                }
                // What it read is what it was; nobody knows that afterwards.
                let folders = std::fs::read_dir(fixture.state.join("cache").join(kind)).unwrap();
                let names_it = |path: &std::path::PathBuf| path.to_string_lossy().contains(&content.hex());
                let mut folders = folders.map(|entry| entry.unwrap().path()).filter(names_it);
                let path = folders.find(|path| is_there(path, name)).unwrap().join(name);
                std::fs::set_permissions(&path, std::fs::metadata(&path).unwrap().permissions()).unwrap();
            });
            match result {
                Ok(outcome) => assert!(!is_changed && outcome.ended == Ended::Exit(0), "{kind}"),
                Err(ExecuteError::Content { digest, reason, .. }) => {
                    assert!(is_changed && digest == content && reason.contains("changed"), "{kind}: {reason}");
                }
                Err(error) => panic!("{kind}: {error}"),
            }
            // The next one gets it as it was.
            assert_eq!(log_of(&request), format!("{text}{text}begun\n"));
        }
    }
}

#[test]
fn an_input_tree_may_not_leave_its_place() {
    for (path, kind, link) in [
        ("../x", tar::EntryType::Regular, ""),
        ("x", tar::EntryType::Link, "../../etc/passwd"),
        ("x", tar::EntryType::Char, ""),
        (".wh.x", tar::EntryType::Regular, ""),
    ] {
        let mut bytes = raw_entry(path, kind, link);
        bytes.extend([0; 1024]);
        let mut request = sh("true");
        request.inputs = vec![folder("/src", &[("a", "1")], ReadOnly)];
        request.inputs[0].content.digest = fixture().store.put_bytes(&bytes).unwrap();
        let error = refused(&request);
        assert!(matches!(error, ExecuteError::Content { .. }), "{path}: {error}");
    }
}

#[test]
fn an_image_whose_own_folders_are_links_out_is_refused() {
    for name in ["proc", "sys"] {
        let bytes = layer(|layer| layer.add_symlink(name.as_ref(), "/etc".as_ref()).unwrap());
        let mut request = sh("true");
        request.layers.push(plain_layer(&fixture().store, &bytes));
        assert!(matches!(refused(&request), ExecuteError::Engine { .. }), "{name}");
    }
}

#[test]
fn a_mount_point_behind_a_link_stays_inside() {
    let outside = tempfile::tempdir().unwrap();
    let bytes = layer(|layer| layer.add_symlink("mnt".as_ref(), outside.path()).unwrap());
    let mut request = sh("cat /mnt/a");
    request.layers.push(plain_layer(&fixture().store, &bytes));
    request.inputs = vec![folder("/mnt/sub", &[("a", "1")], CopyOnWrite)];
    // The link points to a folder that only the host has: it dangles inside.
    assert!(matches!(refused(&request), ExecuteError::Refused { .. }));
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    let bytes = layer(|layer| layer.add_symlink("mnt".as_ref(), "/image".as_ref()).unwrap());
    request.layers.pop();
    request.layers.push(plain_layer(&fixture().store, &bytes));
    request.argv[2] = "cat /image/sub/a".into();
    assert_eq!(log_of(&request), "1");
}
