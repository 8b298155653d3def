//! Meshes as files: OBJ, PLY (binary, with normals), STL (binary), GLB, and pairs of PyTorch tensors.
//!
//! Positions are millimetres of the patient, RAS or LPS; OBJ, PLY and STL say which in the comment that 3D Slicer reads
//! (`SPACE=RAS`). A GLB holds several meshes, each with its name and colour.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Mesh, glb, norm, normal};
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
    if format == MeshFormat::Glb {
        return write_parts(path, &[Part { name: "surface", colour: PLAIN, mesh }], space);
    }
    let mesh = &*in_space(mesh, space);
    let comment = format!("ossnet, millimetres, SPACE={}", if space == Space::Ras { "RAS" } else { "LPS" });
    let files = format.files(path);
    match format {
        MeshFormat::Obj => write_atomic_with(path, |out| obj(out, mesh, &comment))?,
        MeshFormat::Ply => write_atomic_with(path, |out| ply(out, mesh, &comment))?,
        MeshFormat::Stl => write_atomic_with(path, |out| stl(out, mesh, &comment))?,
        MeshFormat::Glb => {}
        MeshFormat::Pt => tensors(&files, mesh)?,
    }
    Ok(files)
}

/// A mesh of several in one file.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// What it shows.
    pub name: &'a str,
    /// Red, green, blue (sRGB).
    pub colour: [u8; 3],
    /// In RAS millimetres.
    pub mesh: &'a Mesh,
}

/// The colour of a surface that is not one of several.
const PLAIN: [u8; 3] = [0xee, 0xdc, 0xcf];

/// Writes a GLB of several meshes, each under its name and in its colour, in `space`; returns its path.
///
/// # Errors
/// [`Error::File`] if the operating system refuses, [`Error::Data`] for meshes too large for the format.
pub fn write_parts(path: &Path, parts: &[Part<'_>], space: Space) -> Result<Vec<PathBuf>> {
    // The container counts its bytes in 32 bits.
    if parts.iter().map(|part| glb::bytes(part.mesh)).sum::<u64>() > u64::from(u32::MAX) - (1 << 16) {
        return Err(Error::data(path, "the mesh is too large for a .glb", "simplify it, or write .ply"));
    }
    let turned: Vec<Cow<'_, Mesh>> = parts.iter().map(|part| in_space(part.mesh, space)).collect();
    let parts: Vec<Part<'_>> = parts.iter().zip(&turned).map(|(part, mesh)| Part { mesh, ..*part }).collect();
    write_atomic_with(path, |out| glb::write(out, &parts))?;
    Ok(vec![path.into()])
}

fn in_space(mesh: &Mesh, space: Space) -> Cow<'_, Mesh> {
    match space {
        Space::Ras => Cow::Borrowed(mesh),
        // A half turn about the vertical axis: triangles keep facing outwards.
        Space::Lps => {
            let vertices = mesh.vertices.iter().map(|&[x, y, z]| [-x, -y, z]).collect();
            Cow::Owned(Mesh { vertices, triangles: mesh.triangles.clone() })
        }
    }
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

fn tensors(files: &[PathBuf], mesh: &Mesh) -> Result<()> {
    let vertices = Array::f32([mesh.vertices.len(), 3], mesh.vertices.as_flattened());
    let indices = mesh.triangles.as_flattened().iter().map(|&vertex| i64::from(vertex)).collect();
    let triangles = Array::new([mesh.triangles.len(), 3], Data::I64(indices));
    for (path, array) in files.iter().zip([vertices, triangles].iter().flatten()) {
        torch::write_tensor(path, array.view())?;
    }
    Ok(())
}

pub(super) fn floats(out: &mut impl Write, values: &[f32]) -> io::Result<()> {
    values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
}

pub(super) fn integers(out: &mut impl Write, values: &[u32]) -> io::Result<()> {
    values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
}
