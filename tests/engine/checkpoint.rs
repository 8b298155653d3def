//! Weights are read exactly as they were written, by PyTorch or by this program, and no file can do harm.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use crate::common::fixture::{self, Fixture};
use half::{bf16, f16};
use ossnet::Error;
use ossnet::checkpoint::{Array, CheckpointFormat, Data, Metadata, StateDict, View, load, safetensors, torch};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// One array of each type, with scalars, an empty array and a name that is not ASCII among them.
fn every_type() -> StateDict {
    let array = |shape: &[usize], data| Array::new(shape, data).unwrap();
    [
        ("wöight", array(&[2, 3], Data::F32(vec![1.0, -0.0, f32::NAN, f32::INFINITY, 1e-40, 3.5]))),
        ("steps", array(&[], Data::I64(vec![-7]))),
        ("mask", array(&[3], Data::U8(vec![0, 255, 7]))),
        ("f64", array(&[1], Data::F64(vec![1.0 / 3.0]))),
        ("f16", array(&[2], Data::F16(vec![f16::MAX, f16::from_f32(0.1)]))),
        ("bf16", array(&[1], Data::Bf16(vec![bf16::from_f32(0.1)]))),
        ("i32", array(&[2], Data::I32(vec![i32::MIN, 1]))),
        ("i16", array(&[1], Data::I16(vec![-2]))),
        ("i8", array(&[1, 1], Data::I8(vec![-128]))),
        ("bool", array(&[2], Data::Bool(vec![1, 0]))),
        ("empty", array(&[0, 70000], Data::F32(vec![]))),
    ]
    .map(|(name, array)| (name.to_owned(), array))
    .into_iter()
    .collect()
}

/// The message of the error that loading `bytes` gives.
fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    fs::write(&path, bytes).unwrap();
    let error = load(&path).unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.starts_with(path.to_str().unwrap()) && !message.contains('\n'), "{message}");
    message
}

/// A zip archive of stored members.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored)).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// An archive of a pickle and one storage, the bytes 0 to 23.
fn torch_archive(pickle: &[u8]) -> Vec<u8> {
    let storage: Vec<u8> = (0..24).collect();
    archive(&[("w/data.pkl", pickle), ("w/data/0", &storage), ("w/version", b"3\n")])
}

/// A pickled tensor of bytes on that storage, which claims to have `length` elements.
fn tensor(length: u8, offset: u8, shape: &[u8], stride: &[u8]) -> Vec<u8> {
    let tuple = |items: &[u8]| [b"(".to_vec(), items.iter().flat_map(|&item| [b'K', item]).collect(), b"t".to_vec()];
    let mut pickle = b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nByteStorage\nU\x010U\x03cpu".to_vec();
    pickle.extend([b'K', length, b't', b'Q', b'K', offset]);
    pickle.extend(tuple(shape).concat());
    pickle.extend(tuple(stride).concat());
    pickle.extend(b"\x89}tR");
    pickle
}

/// A pickled dictionary of texts to pickled values.
fn dict(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut pickle = b"}".to_vec();
    for (name, value) in entries {
        pickle.extend([b'U', name.len() as u8]);
        pickle.extend(name.bytes());
        pickle.extend(*value);
        pickle.push(b's');
    }
    pickle
}

/// Loads the state that `pickle`, without its frame, describes.
fn load_pickle(pickle: &[u8]) -> ossnet::Result<StateDict> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pt");
    fs::write(&path, torch_archive(&[b"\x80\x02", pickle, b"."].concat())).unwrap();
    torch::read(&path)
}

fn bytes(values: &[u8]) -> Array {
    Array::new([values.len()], Data::U8(values.into())).unwrap()
}

/// Both the `.pt` reader and the rule for procedural weights: each is right only if the other is.
#[test]
fn official_archives_hold_the_procedural_weights() {
    let mut compared = 0;
    for path in fixture::find("*.npz") {
        let weights = path.file_stem().unwrap().to_string_lossy().into_owned() + ".pt";
        let is_model = ["tiny_", "off_", "off128_"].iter().any(|kind| weights.starts_with(kind));
        if !is_model {
            continue;
        }
        let Some(weights) = fixture::find(&weights).pop() else { continue };
        let official = load(&weights).unwrap();
        assert_eq!((official.format, official.metadata), (CheckpointFormat::Torch, Metadata::new()));
        let fixture = Fixture::open(&path);
        let buffers = fixture.with_prefix("buffer/");
        let shapes = official.state.iter().map(|(name, array)| (name, array.shape()));
        let procedural = fixture.state_with(shapes.filter(|(name, _)| !buffers.contains_key(name)));
        assert_eq!(procedural.len(), official.state.len(), "{}", fixture.name);
        for (name, array) in procedural.iter() {
            // Equality of arrays is that of bits.
            assert!(official.state.get(name) == Some(array), "{}: {name} differs", fixture.name);
        }
        if fixture.name.starts_with("tiny_") {
            assert!(fixture.state() == procedural, "{}: the gradients have other shapes", fixture.name);
        }
        compared += 1;
    }
    assert!(compared >= 8, "only {compared} archives lie beside their fixtures");
}

#[test]
fn every_official_archive_is_read_and_written_back() {
    let folder = tempfile::tempdir().unwrap();
    for path in fixture::find("*.pt") {
        let official = torch::read(&path).unwrap();
        assert!(!official.is_empty());
        let copy = folder.path().join("copy.pt");
        torch::write(&copy, &official.views()).unwrap();
        assert!(torch::read(&copy).unwrap() == official, "{}", path.display());
        let copy = folder.path().join("copy.safetensors");
        safetensors::write(&copy, &official.views(), &Metadata::new()).unwrap();
        assert!(load(&copy).unwrap().state == official, "{}", path.display());
    }
}

#[test]
fn every_element_type_survives_both_formats() {
    let folder = tempfile::tempdir().unwrap();
    let state = every_type();
    let metadata: Metadata =
        [("config", r#"{"a": "ü\n"}"#), ("epoch", "12")].map(|(key, value)| (key.into(), value.into())).into();
    // Neither name tells the format.
    let path = folder.path().join("weights.bin");
    safetensors::write(&path, &state.views(), &metadata).unwrap();
    let loaded = load(&path).unwrap();
    assert_eq!(
        (loaded.state, loaded.metadata, loaded.format),
        (state.clone(), metadata.clone(), CheckpointFormat::Safetensors)
    );
    let first = fs::read(&path).unwrap();
    safetensors::write(&path, &state.views(), &metadata).unwrap();
    assert_eq!(fs::read(&path).unwrap(), first, "equal checkpoints are equal files");

    torch::write(&path, &state.views()).unwrap();
    let loaded = load(&path).unwrap();
    assert_eq!((loaded.state, loaded.format), (state.clone(), CheckpointFormat::Torch));
    let first = fs::read(&path).unwrap();
    torch::write(&path, &state.views()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), first, "equal weights are equal files");
}

/// Border maps, grids and meshes are saved as bare tensors, with no dictionary around them.
#[test]
fn a_bare_tensor_is_written_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tensor.pt");
    for (name, array) in every_type().iter() {
        torch::write_tensor(&path, array.view()).unwrap();
        assert_eq!(&torch::read_tensor(&path).unwrap(), array, "{name}");
    }
    let message = torch::read(&path).unwrap_err().to_string();
    assert!(message.contains("dictionary"), "{message}");
    torch::write(&path, &every_type().views()).unwrap();
    let message = torch::read_tensor(&path).unwrap_err().to_string();
    assert!(message.contains("bare tensor") && message.contains("torch.save(tensor, path)"), "{message}");
}

/// The layout that other programs rely on, seen by the format's own crate and by its alignment rule.
#[test]
fn safetensors_are_aligned_to_their_elements() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    safetensors::write(&path, &every_type().views(), &Metadata::new()).unwrap();
    let bytes = fs::read(&path).unwrap();
    let (header, metadata) = ::safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header % 8, 0);
    for (name, info) in metadata.tensors() {
        assert_eq!(info.data_offsets.0 % (info.dtype.bitsize() / 8), 0, "{name}");
    }
}

#[test]
fn every_element_type_converts_to_f32() {
    let state = every_type();
    for (name, values) in [
        ("mask", &[0.0, 255.0, 7.0][..]),
        ("steps", &[-7.0]),
        ("f64", &[1.0 / 3.0]),
        // A tenth in half precision, whose eleven bits are 1638 / 2^14, and in the upper half of an f32, 205 / 2^11.
        ("f16", &[65504.0, 1638.0 / 16384.0]),
        ("bf16", &[205.0 / 2048.0]),
        ("i32", &[-2147483648.0, 1.0]),
        ("i16", &[-2.0]),
        ("i8", &[-128.0]),
        ("bool", &[1.0, 0.0]),
    ] {
        assert_eq!(*state.get(name).unwrap().to_f32(), *values, "{name}");
    }
    assert!(Array::f32([2, 2], [1.0]).is_none() && View::f32(&[usize::MAX, 2], &[]).is_none());
}

#[test]
fn two_tensors_of_one_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let view = View::f32(&[1], &[1.0]).unwrap();
    for tensors in [vec![("a", view), ("a", view)], vec![("__metadata__", view)]] {
        let error = safetensors::write(folder.path().join("w"), &tensors, &Metadata::new()).unwrap_err();
        assert!(matches!(error, Error::Usage(_)), "{error:?}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn tensors_are_windows_on_storages() {
    let state = load_pickle(&dict(&[
        ("whole", &tensor(24, 0, &[24], &[1])),
        ("part", &tensor(24, 20, &[4], &[1])),
        ("scalar", &tensor(24, 5, &[], &[])),
        ("transposed", &tensor(24, 0, &[3, 2], &[1, 3])),
        ("inner", &tensor(24, 1, &[2, 2, 3], &[12, 4, 1])),
        ("repeated", &tensor(24, 7, &[2, 2], &[0, 1])),
        ("one", &tensor(24, 3, &[1, 2, 1], &[200, 2, 99])),
        ("empty", &tensor(24, 99, &[0, 3], &[3, 1])),
        ("epoch", b"K\x07"),
    ]))
    .unwrap();
    let expect = |name: &str, shape: &[usize], values: &[u8]| {
        assert_eq!(state.get(name), Array::new(shape, Data::U8(values.into())).as_ref(), "{name}");
    };
    expect("whole", &[24], &(0..24).collect::<Vec<u8>>());
    expect("part", &[4], &[20, 21, 22, 23]);
    expect("scalar", &[], &[5]);
    expect("transposed", &[3, 2], &[0, 3, 1, 4, 2, 5]);
    expect("inner", &[2, 2, 3], &[1, 2, 3, 5, 6, 7, 13, 14, 15, 17, 18, 19]);
    expect("repeated", &[2, 2], &[7, 8, 7, 8]);
    expect("one", &[1, 2, 1], &[3, 5]);
    expect("empty", &[0, 3], &[]);
    assert_eq!(state.len(), 8, "what is no tensor is passed over");
}

#[test]
fn tensors_beyond_their_storage_are_refused() {
    for (problem, tensor) in [
        ("beyond the end", tensor(24, 0, &[25], &[1])),
        ("beyond the end", tensor(24, 1, &[24], &[1])),
        ("beyond the end", tensor(24, 0, &[3, 2], &[11, 3])),
        ("beyond the end", tensor(10, 0, &[12], &[1])),
        ("shorter than it claims", tensor(25, 0, &[2], &[1])),
        ("malformed", tensor(24, 0, &[2], &[1, 1])),
        // 255^4 elements from one byte.
        ("more memory", tensor(24, 0, &[255; 4], &[0; 4])),
        ("impossible shape", tensor(24, 0, &[255; 9], &[0; 9])),
        ("impossible shape", tensor(24, 0, &[1; 65], &[0; 65])),
    ] {
        let message = load_pickle(&dict(&[("w", &tensor)])).unwrap_err().to_string();
        assert!(message.contains("tensor w ") && message.contains(problem), "{message}");
    }
}

#[test]
fn wrapped_states_are_found() {
    let state = dict(&[("a", &tensor(24, 0, &[2], &[1])), ("b", &tensor(24, 2, &[1], &[1]))]);
    let parallel = dict(&[("module.a", &tensor(24, 0, &[2], &[1])), ("module.b", &tensor(24, 2, &[1], &[1]))]);
    let loss = tensor(24, 9, &[], &[]);
    let expected: StateDict = [("a".to_owned(), bytes(&[0, 1])), ("b".to_owned(), bytes(&[2]))].into_iter().collect();
    for wrapped in [
        dict(&[("epoch", b"K\x07"), ("loss", &loss), ("model_state_dict", &state)]),
        dict(&[("optimizer", &dict(&[("lr", b"G\x3f\xf0\0\0\0\0\0\0")])), ("weights", &state)]),
        dict(&[("state_dict", &parallel)]),
        parallel,
        state.clone(),
    ] {
        assert_eq!(load_pickle(&wrapped).unwrap(), expected);
    }
    for (problem, pickle) in [
        ("several dictionaries", dict(&[("first", &state), ("second", &state)])),
        ("holds no tensors", dict(&[("epoch", b"K\x07")])),
        ("not hold a dictionary", loss),
        ("not hold a dictionary", b"N".to_vec()),
    ] {
        let message = load_pickle(&pickle).unwrap_err().to_string();
        assert!(message.contains(problem), "{message}");
    }
}

#[test]
fn pickles_that_call_functions_are_refused() {
    for (name, pickle) in [
        ("os.system", &b"cos\nsystem\n(S'echo harm'\ntR."[..]),
        ("posix.system", b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04harm\x85R."),
        ("builtins.eval", b"(ibuiltins\neval\n."),
        ("torch.load", b"ctorch\nload\n)R."),
        ("oss_net.OSSNet", b"\x80\x02coss_net\nOSSNet\n)\x81."),
        ("__setstate__", b"\x80\x02K\x01}b."),
        ("not a function", b"\x80\x02ctorch\nFloatStorage\n)R."),
    ] {
        let message = refusal(&torch_archive(pickle));
        assert!(message.contains("refuses to call") && message.contains(name), "{message}");
    }
}

#[test]
fn archives_that_are_not_pytorchs_are_refused() {
    let pickle = b"\x80\x02}.";
    for (problem, bytes) in [
        ("no member data.pkl", archive(&[("w/readme", b"")])),
        ("ends in the middle", torch_archive(b"")),
        ("ends in the middle", torch_archive(b"\x80\x02X\xff\xff\xff\xffab")),
        ("opcode 0x70", torch_archive(b"\x80\x02p")),
        ("takes more from its stack", torch_archive(b"\x80\x02(\x85.")),
        ("64 bits", torch_archive(b"\x80\x02\x8a\x09123456789.")),
        ("holds no tensors", torch_archive(pickle)),
        ("data/0", archive(&[("w/data.pkl", &[&dict(&[("w", &tensor(24, 0, &[2], &[1]))])[..], b"."].concat())])),
        ("legacy format", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec()),
    ] {
        let message = refusal(&bytes);
        assert!(message.contains(problem), "{problem}: {message}");
    }
}

#[test]
fn compressed_members_are_refused() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("w/data.pkl", SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated))
        .unwrap();
    zip.write_all(&[b'('; 1000]).unwrap();
    let message = refusal(&zip.finish().unwrap().into_inner());
    assert!(message.contains("compressed"), "{message}");
}

#[test]
fn files_that_are_no_checkpoints_are_refused() {
    for (problem, bytes) in [
        ("empty", &b""[..]),
        ("neither", b"garbage"),
        ("neither", &[0; 100]),
        ("safetensors", b"\xff\xff\xff\xff\xff\xff\xff\xff{"),
        ("safetensors", b"\x10\0\0\0\0\0\0\0{"),
        ("safetensors", b"\x02\0\0\0\0\0\0\0{}trailing"),
    ] {
        let message = refusal(bytes);
        assert!(message.contains(problem), "{message}");
    }
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path(), &folder.path().join("missing")] {
        let error = load(path).unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{error:?}");
    }
}

#[test]
fn safetensors_whose_headers_lie_are_refused() {
    for header in [
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,12]}}"#,
        r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,16]}}"#,
        r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[4,16]}}"#,
        r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#,
        r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[-3],"data_offsets":[0,12]}}"#,
        // Two tensors of 2^63 and 2^63 − 4 bytes: behind the header they would end where 64 bits begin anew.
        r#"{"a":{"dtype":"F32","shape":[2305843009213693952],"data_offsets":[0,9223372036854775808]},"b":{"dtype":"F32","shape":[2305843009213693951],"data_offsets":[9223372036854775808,18446744073709551612]}}"#,
        r#"{"a":{"dtype":"F9","shape":[3],"data_offsets":[0,12]}}"#,
        r#"{"a":{"dtype":"U64","shape":[1],"data_offsets":[0,8]}}"#,
        r#"{"a":7}"#,
        "{",
    ] {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.extend([0; 12]);
        refusal(&bytes);
    }
}

/// A fixed stream of numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// Loads `rounds` damaged copies of `original`: cut short, or with up to four bytes changed. `wrap` makes a file of
/// the damaged bytes. Whatever comes of it, it is a value; returns how many were refused.
fn damage(original: &[u8], rounds: usize, path: &Path, wrap: impl Fn(&[u8]) -> Vec<u8>) -> usize {
    let mut random = Random(original.len() as u64);
    let mut refused = 0;
    for _ in 0..rounds {
        let mut bytes = original.to_vec();
        if random.below(4) == 0 {
            bytes.truncate(random.below(original.len()));
        } else {
            for _ in 0..=random.below(4) {
                let place = random.below(bytes.len());
                bytes[place] = match random.below(3) {
                    0 => 0xff,
                    1 => bytes[place] ^ (1 << random.below(8)),
                    _ => original[random.below(original.len())],
                };
            }
        }
        // A new file each time: truncating an old one makes some file systems wait for the disk.
        fs::remove_file(path).unwrap();
        fs::write(path, wrap(&bytes)).unwrap();
        match load(path) {
            Ok(_) => (),
            Err(Error::Data { problem, .. }) => {
                assert!(!problem.contains('\n'));
                refused += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    refused
}

#[test]
fn damaged_files_are_refused_and_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    let rounds = 3000;

    torch::write(&path, &every_type().views()).unwrap();
    let archive = fs::read(&path).unwrap();
    assert!(damage(&archive, rounds, &path, <[u8]>::to_vec) > rounds / 4);

    // Past the zip archive's checksums: the pickle itself.
    let mut zip = zip::ZipArchive::new(Cursor::new(&archive)).unwrap();
    let members: Vec<(String, Vec<u8>)> = (0..zip.len())
        .map(|index| {
            let mut file = zip.by_index(index).unwrap();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut content).unwrap();
            (file.name().unwrap().into_owned(), content)
        })
        .collect();
    let pickle = &members.iter().find(|(name, _)| name.ends_with("/data.pkl")).unwrap().1;
    let wrap = |pickle: &[u8]| {
        let member = |(name, content): &'_ (String, Vec<u8>)| match name.ends_with("/data.pkl") {
            true => (name.clone(), pickle.to_vec()),
            false => (name.clone(), content.clone()),
        };
        let members: Vec<_> = members.iter().map(member).collect();
        self::archive(&members.iter().map(|(name, content)| (&**name, &**content)).collect::<Vec<_>>())
    };
    assert!(damage(pickle, rounds, &path, wrap) > rounds / 2);

    safetensors::write(&path, &every_type().views(), &Metadata::from([("a".into(), "b".into())])).unwrap();
    let checkpoint = fs::read(&path).unwrap();
    assert!(damage(&checkpoint, rounds, &path, <[u8]>::to_vec) > rounds / 2);
}

/// The official files end where they end: no shorter file passes for one.
#[test]
fn truncated_official_archives_are_refused() {
    let whole = fs::read(fixture::path("tiny_unet2d.pt")).unwrap();
    for part in 1..20 {
        refusal(&whole[..whole.len() * part / 20]);
    }
    refusal(&whole[..whole.len() - 1]);
}
