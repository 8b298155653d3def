//! Padded copies of a part of a volume.
//!
//! A piece of work copies the voxels it reads, with zeros where they lie outside the volume, into a slab of its own that
//! stays in the second-level cache. Inner loops then know no borders, and no padded copy of a whole volume exists.

/// Coordinates `start..start + length` of one axis; those outside the volume are zeros.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub start: isize,
    pub length: usize,
}

/// Fills `slab` (`[depth][height][width][channels]` of the spans) from the volume `x` (`[source…][channels]`).
pub(super) fn fill(x: &[f32], source: [usize; 3], channels: usize, spans: [Span; 3], slab: &mut [f32]) {
    let [depth, height, width] = spans;
    let line = width.length * channels;
    // The part of a line inside the volume.
    let from = width.start.clamp(0, source[2] as isize) as usize;
    let to = (width.start + width.length as isize).clamp(from as isize, source[2] as isize) as usize;
    let before = ((from as isize - width.start).max(0) as usize * channels).min(line);
    let inside = (to - from) * channels;
    let mut lines = slab[..depth.length * height.length * line].chunks_exact_mut(line.max(1));
    for d in depth.start..depth.start + depth.length as isize {
        for h in height.start..height.start + height.length as isize {
            let Some(target) = lines.next() else { return };
            let outside = d < 0 || h < 0 || d >= source[0] as isize || h >= source[1] as isize;
            if outside || inside == 0 {
                target.fill(0.0);
                continue;
            }
            let first = ((d as usize * source[1] + h as usize) * source[2] + from) * channels;
            target[..before].fill(0.0);
            target[before..before + inside].copy_from_slice(&x[first..first + inside]);
            target[before + inside..].fill(0.0);
        }
    }
}
