//! GLB: glTF 2.0 in one binary file, one named and coloured mesh for each part.
//!
//! glTF prescribes metres and a vertical y axis: the root node carries that turn and scale, the buffers keep millimetres.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::format::{floats, integers};
use super::{Mesh, Part};

/// Bytes of a part's positions, normals and indices.
pub(super) fn bytes(mesh: &Mesh) -> u64 {
    24 * mesh.vertices.len() as u64 + 12 * mesh.triangles.len() as u64
}

/// Writes parts; those without triangles are left out, for accessors of nothing are not allowed.
pub(super) fn write(out: &mut impl Write, parts: &[Part<'_>]) -> io::Result<()> {
    let asset = json!({ "version": "2.0", "generator": format!("ossnet {}", env!("CARGO_PKG_VERSION")) });
    let parts: Vec<&Part<'_>> = parts.iter().filter(|part| !part.mesh.triangles.is_empty()).collect();
    if parts.is_empty() {
        return container(out, &json!({ "asset": asset, "scene": 0, "scenes": [{}] }), 0);
    }
    let (mut accessors, mut views, mut offset) = (Vec::new(), Vec::new(), 0);
    let (float, unsigned, array, elements) = (5126, 5125, 34962, 34963);
    for part in &parts {
        let mesh = part.mesh;
        let (vertices, indices) = (12 * mesh.vertices.len(), 12 * mesh.triangles.len());
        for (length, target) in [(vertices, array), (vertices, array), (indices, elements)] {
            views.push(json!({ "buffer": 0, "byteOffset": offset, "byteLength": length, "target": target }));
            offset += length;
        }
        let first = views.len() - 3;
        let accessor = |view: usize, component: u32, count: usize, kind: &str| json!({ "bufferView": view, "componentType": component, "count": count, "type": kind });
        let mut positions = accessor(first, float, mesh.vertices.len(), "VEC3");
        positions["min"] = extreme(mesh, f32::min);
        positions["max"] = extreme(mesh, f32::max);
        accessors.push(positions);
        accessors.push(accessor(first + 1, float, mesh.vertices.len(), "VEC3"));
        accessors.push(accessor(first + 2, unsigned, 3 * mesh.triangles.len(), "SCALAR"));
    }
    let numbered = || parts.iter().enumerate();
    let children: Vec<Value> = numbered().map(|(i, part)| json!({ "name": part.name, "mesh": i })).collect();
    // A quarter turn about x brings superior from z to y.
    let half = std::f64::consts::FRAC_1_SQRT_2;
    let root = json!({
        "name": "ossnet",
        "children": (1..=parts.len()).collect::<Vec<_>>(),
        "rotation": [-half, 0, 0, half],
        "scale": [0.001, 0.001, 0.001],
    });
    let material = |part: &Part<'_>| {
        let [red, green, blue] = part.colour.map(linear);
        json!({
            "name": part.name,
            "pbrMetallicRoughness": { "baseColorFactor": [red, green, blue, 1], "metallicFactor": 0, "roughnessFactor": 0.6 },
        })
    };
    let mesh = |(i, part): (usize, &&Part<'_>)| {
        let attributes = json!({ "POSITION": 3 * i, "NORMAL": 3 * i + 1 });
        json!({ "name": part.name, "primitives": [{ "attributes": attributes, "indices": 3 * i + 2, "material": i }] })
    };
    let document = json!({
        "asset": asset,
        "scene": 0,
        "scenes": [{ "nodes": [0] }],
        "nodes": std::iter::once(root).chain(children).collect::<Vec<_>>(),
        "materials": parts.iter().map(|part| material(part)).collect::<Vec<_>>(),
        "meshes": numbered().map(mesh).collect::<Vec<_>>(),
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{ "byteLength": offset }],
    });
    container(out, &document, offset)?;
    for part in parts {
        floats(out, part.mesh.vertices.as_flattened())?;
        floats(out, part.mesh.normals().as_flattened())?;
        integers(out, part.mesh.triangles.as_flattened())?;
    }
    Ok(())
}

/// The smallest or largest coordinate on each axis.
fn extreme(mesh: &Mesh, pick: fn(f32, f32) -> f32) -> Value {
    let start = mesh.vertices.first().copied().unwrap_or_default();
    json!(mesh.vertices.iter().fold(start, |best, vertex| [0, 1, 2].map(|i| pick(best[i], vertex[i]))))
}

/// A channel of an sRGB colour as glTF wants it: linear, from 0 to 1, to four digits.
fn linear(channel: u8) -> f64 {
    let value = f64::from(channel) / 255.0;
    let linear = if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) };
    (linear * 1e4).round() / 1e4
}

/// All of a file but the content of its binary chunk.
fn container(out: &mut impl Write, document: &Value, binary: usize) -> io::Result<()> {
    let mut json = document.to_string().into_bytes();
    json.resize(json.len().next_multiple_of(4), b' ');
    let chunk = if binary > 0 { 8 + binary } else { 0 };
    integers(out, &[u32::from_le_bytes(*b"glTF"), 2, (12 + 8 + json.len() + chunk) as u32])?;
    integers(out, &[json.len() as u32, u32::from_le_bytes(*b"JSON")])?;
    out.write_all(&json)?;
    if binary > 0 {
        integers(out, &[binary as u32, u32::from_le_bytes(*b"BIN\0")])?;
    }
    Ok(())
}
