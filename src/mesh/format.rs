//! Meshes as files: OBJ, PLY (binary, with normals), STL (binary), GLB, and pairs of PyTorch tensors.
//!
//! Positions are millimetres of the patient, RAS or LPS; OBJ, PLY and STL say which in the comment that 3D Slicer reads
//! (`SPACE=RAS`). GLB prescribes metres and a vertical y axis: its node carries that turn and scale, its buffer the
//! millimetres.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Mesh, norm, normal};
use crate::checkpoint::{Array, Data, torch};
use crate::error::{Error, Result};
use crate::files::write_atomic_with;

/// How a mesh is stored; follows from the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeshFormat {
    /// Wavefront OBJ, text, with normals.
    Obj,
    /// Stanford PLY, binary little endian, with normals.
    Ply,
    /// STL, binary: triangles without shared vertices.
    Stl,
    /// glTF 2.0 in one binary file.
    Glb,
    /// Two files as `torch.save` writes them: `NAME_vertices.pt` (f32, `[V, 3]`) and `NAME_triangles.pt` (i64, `[T, 3]`).
    Pt,
}

/// The directions of the axes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Space {
    /// Right, anterior, superior (NIfTI, FreeSurfer).
    #[default]
    Ras,
    /// Left, posterior, superior (DICOM, ITK).
    Lps,
}

impl MeshFormat {
    /// The format of a file's name.
    ///
    /// # Errors
    /// [`Error::Usage`] for another extension.
    pub fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        match extension.as_deref() {
            Some("obj") => Ok(MeshFormat::Obj),
            Some("ply") => Ok(MeshFormat::Ply),
            Some("stl") => Ok(MeshFormat::Stl),
            Some("glb") => Ok(MeshFormat::Glb),
            Some("pt") => Ok(MeshFormat::Pt),
            _ => {
                let problem = format!("{} is not the name of a mesh", path.display());
                Err(Error::Usage(format!("{problem}; let it end in .obj, .ply, .stl, .glb or .pt")))
            }
        }
    }

    /// The files that a mesh of this format takes.
    pub fn files(self, path: &Path) -> Vec<PathBuf> {
        match self {
            MeshFormat::Pt => {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                ["vertices", "triangles"].map(|part| path.with_file_name(format!("{stem}_{part}.pt"))).to_vec()
            }
            _ => vec![path.into()],
        }
    }
}

/// Writes a mesh in RAS millimetres, in `space`, as the file's name asks; returns the files written.
///
/// # Errors
/// [`Error::Usage`] for an unknown extension, [`Error::File`] if the operating system refuses, [`Error::Data`] for a mesh too
/// large for the format.
pub fn write(path: &Path, mesh: &Mesh, space: Space) -> Result<Vec<PathBuf>> {
    let format = MeshFormat::of(path)?;
    let turned;
    let mesh = match space {
        Space::Ras => mesh,
        // A half turn about the vertical axis: triangles keep facing outwards.
        Space::Lps => {
            let vertices = mesh.vertices.iter().map(|&[x, y, z]| [-x, -y, z]).collect();
            turned = Mesh { vertices, triangles: mesh.triangles.clone() };
            &turned
        }
    };
    let comment = format!("ossnet, millimetres, SPACE={}", if space == Space::Ras { "RAS" } else { "LPS" });
    let files = format.files(path);
    match format {
        MeshFormat::Obj => write_atomic_with(path, |out| obj(out, mesh, &comment))?,
        MeshFormat::Ply => write_atomic_with(path, |out| ply(out, mesh, &comment))?,
        MeshFormat::Stl => write_atomic_with(path, |out| stl(out, mesh, &comment))?,
        MeshFormat::Glb => {
            // The container counts its bytes in 32 bits.
            if 24 * mesh.vertices.len() as u64 + 12 * mesh.triangles.len() as u64 > u64::from(u32::MAX) - 4096 {
                return Err(Error::data(path, "the mesh is too large for a .glb", "simplify it, or write .ply"));
            }
            write_atomic_with(path, |out| glb(out, mesh))?;
        }
        MeshFormat::Pt => tensors(&files, mesh)?,
    }
    Ok(files)
}

fn obj(out: &mut impl Write, mesh: &Mesh, comment: &str) -> io::Result<()> {
    writeln!(out, "# {comment}")?;
    for [x, y, z] in &mesh.vertices {
        writeln!(out, "v {x} {y} {z}")?;
    }
    for [x, y, z] in &mesh.normals() {
        writeln!(out, "vn {x} {y} {z}")?;
    }
    for triangle in &mesh.triangles {
        let [a, b, c] = triangle.map(|vertex| vertex + 1);
        writeln!(out, "f {a}//{a} {b}//{b} {c}//{c}")?;
    }
    Ok(())
}

fn ply(out: &mut impl Write, mesh: &Mesh, comment: &str) -> io::Result<()> {
    writeln!(out, "ply\nformat binary_little_endian 1.0\ncomment {comment}\nelement vertex {}", mesh.vertices.len())?;
    for name in ["x", "y", "z", "nx", "ny", "nz"] {
        writeln!(out, "property float {name}")?;
    }
    writeln!(out, "element face {}\nproperty list uchar int vertex_indices\nend_header", mesh.triangles.len())?;
    for (vertex, normal) in mesh.vertices.iter().zip(&mesh.normals()) {
        floats(out, vertex)?;
        floats(out, normal)?;
    }
    for triangle in &mesh.triangles {
        out.write_all(&[3])?;
        integers(out, triangle)?;
    }
    Ok(())
}

fn stl(out: &mut impl Write, mesh: &Mesh, comment: &str) -> io::Result<()> {
    // 80 bytes that must not begin with "solid".
    out.write_all(format!("{comment:80.80}").as_bytes())?;
    integers(out, &[mesh.triangles.len() as u32])?;
    for &triangle in &mesh.triangles {
        let normal = normal(mesh.corners(triangle));
        let length = norm(normal);
        floats(out, &normal.map(|v| if length > 0.0 { (v / length) as f32 } else { 0.0 }))?;
        triangle.iter().try_for_each(|&vertex| floats(out, &mesh.vertices[vertex as usize]))?;
        out.write_all(&[0; 2])?;
    }
    Ok(())
}

fn glb(out: &mut impl Write, mesh: &Mesh) -> io::Result<()> {
    let asset = serde_json::json!({ "version": "2.0", "generator": format!("ossnet {}", env!("CARGO_PKG_VERSION")) });
    if mesh.triangles.is_empty() {
        // Accessors of nothing are not allowed: an empty scene.
        return container(out, &serde_json::json!({ "asset": asset, "scene": 0, "scenes": [{}] }), 0);
    }
    let extreme = |pick: fn(f32, f32) -> f32| {
        let start = mesh.vertices.first().copied().unwrap_or_default();
        mesh.vertices.iter().fold(start, |best, vertex| [0, 1, 2].map(|i| pick(best[i], vertex[i])))
    };
    let (vertices, indices) = (12 * mesh.vertices.len(), 12 * mesh.triangles.len());
    let view = |offset: usize, length: usize, target: u32| serde_json::json!({ "buffer": 0, "byteOffset": offset, "byteLength": length, "target": target });
    let accessor = |view: usize, component: u32, count: usize, kind: &str| serde_json::json!({ "bufferView": view, "componentType": component, "count": count, "type": kind });
    let (float, unsigned, array, elements) = (5126, 5125, 34962, 34963);
    let mut positions = accessor(0, float, mesh.vertices.len(), "VEC3");
    positions["min"] = serde_json::json!(extreme(f32::min));
    positions["max"] = serde_json::json!(extreme(f32::max));
    // A quarter turn about x brings superior from z to y.
    let half = std::f64::consts::FRAC_1_SQRT_2;
    let document = serde_json::json!({
        "asset": asset,
        "scene": 0,
        "scenes": [{ "nodes": [0] }],
        "nodes": [{ "mesh": 0, "rotation": [-half, 0, 0, half], "scale": [0.001, 0.001, 0.001] }],
        "materials": [{ "pbrMetallicRoughness": { "baseColorFactor": [0.86, 0.72, 0.62, 1], "metallicFactor": 0, "roughnessFactor": 0.6 } }],
        "meshes": [{ "primitives": [{ "attributes": { "POSITION": 0, "NORMAL": 1 }, "indices": 2, "material": 0 }] }],
        "accessors": [positions, accessor(1, float, mesh.vertices.len(), "VEC3"), accessor(2, unsigned, 3 * mesh.triangles.len(), "SCALAR")],
        "bufferViews": [view(0, vertices, array), view(vertices, vertices, array), view(2 * vertices, indices, elements)],
        "buffers": [{ "byteLength": 2 * vertices + indices }],
    });
    container(out, &document, 2 * vertices + indices)?;
    floats(out, mesh.vertices.as_flattened())?;
    floats(out, mesh.normals().as_flattened())?;
    integers(out, mesh.triangles.as_flattened())
}

/// All of a GLB file but the content of its binary chunk.
fn container(out: &mut impl Write, document: &serde_json::Value, binary: usize) -> io::Result<()> {
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

fn tensors(files: &[PathBuf], mesh: &Mesh) -> Result<()> {
    let vertices = Array::f32([mesh.vertices.len(), 3], mesh.vertices.as_flattened());
    let indices = mesh.triangles.as_flattened().iter().map(|&vertex| i64::from(vertex)).collect();
    let triangles = Array::new([mesh.triangles.len(), 3], Data::I64(indices));
    for (path, array) in files.iter().zip([vertices, triangles].iter().flatten()) {
        torch::write_tensor(path, array.view())?;
    }
    Ok(())
}

fn floats(out: &mut impl Write, values: &[f32]) -> io::Result<()> {
    values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
}

fn integers(out: &mut impl Write, values: &[u32]) -> io::Result<()> {
    values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
}
