//! NumPy's `.npz` archives and the `.npy` arrays in them, as `tests/fixtures` holds them.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>. Golden files are part of the
//! tests, so that whatever is wrong with one is a panic that names it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use ossnet::checkpoint::{Array, Data, Dtype};
use zip::ZipArchive;

/// The members of an archive by name, without the `.npy`.
pub struct Npz {
    pub arrays: BTreeMap<String, Array>,
    /// Members that are a single text.
    pub texts: BTreeMap<String, String>,
}

/// One member.
enum Member {
    Array(Array),
    Text(String),
}

impl Npz {
    pub fn open(path: &Path) -> Npz {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut zip = ZipArchive::new(file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut npz = Npz { arrays: BTreeMap::new(), texts: BTreeMap::new() };
        for index in 0..zip.len() {
            let mut file = zip.by_index(index).unwrap();
            let name = file.name().unwrap().trim_end_matches(".npy").to_owned();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            match npy(&bytes).unwrap_or_else(|problem| panic!("{}: {name}: {problem}", path.display())) {
                Member::Array(array) => drop(npz.arrays.insert(name, array)),
                Member::Text(text) => drop(npz.texts.insert(name, text)),
            }
        }
        npz
    }
}

/// Parses one `.npy` file.
fn npy(bytes: &[u8]) -> Result<Member, String> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("not an .npy file")?;
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (u16::from_le_bytes([*a, *b]) as usize, rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => return Err("unknown version".into()),
    };
    let (header, content) = rest.split_at_checked(length).ok_or("header cut short")?;
    let header = std::str::from_utf8(header).map_err(|error| error.to_string())?;
    let descr = value(header, "descr")?.trim_matches('\'');
    let fortran = value(header, "fortran_order")? == "True";
    let shape = value(header, "shape")?
        .trim_matches(['(', ')'])
        .split(',')
        .map(str::trim)
        .filter(|length| !length.is_empty())
        .map(|length| length.parse().map_err(|_| format!("bad length {length}")))
        .collect::<Result<Vec<usize>, String>>()?;

    if let Some(capacity) = descr.strip_prefix("<U") {
        // UTF-32, padded with zeros.
        let capacity: usize = capacity.parse().map_err(|_| format!("bad type {descr}"))?;
        if !shape.is_empty() || content.len() != 4 * capacity {
            return Err("only single texts are supported".into());
        }
        let text = content
            .as_chunks()
            .0
            .iter()
            .map(|&unit| char::from_u32(u32::from_le_bytes(unit)).ok_or("bad character"))
            .collect::<Result<String, _>>()?;
        return Ok(Member::Text(text.trim_end_matches('\0').to_owned()));
    }
    let dtype = match descr {
        "<f8" => Dtype::F64,
        "<f4" => Dtype::F32,
        "<f2" => Dtype::F16,
        "<i8" => Dtype::I64,
        "<i4" => Dtype::I32,
        "<i2" => Dtype::I16,
        "|i1" => Dtype::I8,
        "|u1" => Dtype::U8,
        "|b1" => Dtype::Bool,
        _ => return Err(format!("type {descr} is not supported")),
    };
    let content = if fortran { c_order(content, &shape, dtype.size()) } else { content.to_vec() };
    if content.len() % dtype.size() != 0 {
        return Err("elements cut short".into());
    }
    let array = Array::new(shape, Data::from_bytes(dtype, &content)).ok_or("shape and elements do not fit")?;
    Ok(Member::Array(array))
}

/// The value of `key` in the header, which is a Python dictionary of three entries, each followed by a comma.
fn value<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let (_, rest) = header.split_once(&format!("'{key}': ")).ok_or(format!("no {key}"))?;
    let end = match rest.find(')') {
        Some(end) if rest.starts_with('(') => end + 1,
        _ => rest.find([',', '}']).ok_or(format!("{key} has no end"))?,
    };
    Ok(&rest[..end])
}

/// Reorders elements of `size` bytes from Fortran order (first axis fastest) to C order (last axis fastest).
fn c_order(content: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let mut out = Vec::with_capacity(content.len());
    for flat in 0..count {
        let (mut rest, mut place, mut stride) = (flat, 0, count);
        // Peels the C-order index from its last axis; that axis has the largest stride in Fortran order.
        for &length in shape.iter().rev() {
            stride /= length;
            place += rest % length * stride;
            rest /= length;
        }
        out.extend_from_slice(&content[place * size..(place + 1) * size]);
    }
    out
}

#[test]
fn reads_both_orders_and_texts() {
    let file = |header: &str, content: &[u8]| {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes());
        bytes.extend(content);
        npy(&bytes)
    };
    let expected = Array::new([2, 3], Data::I8(vec![0, 1, 2, 10, 11, 12])).unwrap();
    let c = file("{'descr': '|i1', 'fortran_order': False, 'shape': (2, 3), }\n", &[0, 1, 2, 10, 11, 12]);
    assert!(matches!(c, Ok(Member::Array(array)) if array == expected));
    let fortran = file("{'descr': '|i1', 'fortran_order': True, 'shape': (2, 3), }\n", &[0, 10, 1, 11, 2, 12]);
    assert!(matches!(fortran, Ok(Member::Array(array)) if array == expected));
    let text = file("{'descr': '<U3', 'fortran_order': False, 'shape': (), }\n", b"h\0\0\0\xe9\0\0\0\0\0\0\0");
    assert!(matches!(text, Ok(Member::Text(text)) if text == "hé"));
    let vector = file("{'descr': '<i2', 'fortran_order': False, 'shape': (1,), }\n", &[1, 2]);
    assert!(matches!(vector, Ok(Member::Array(array)) if *array.data() == Data::I16(vec![0x201])));
    assert!(file("{'descr': '<i2', 'fortran_order': False, 'shape': (2,), }\n", &[1, 2]).is_err());
}
