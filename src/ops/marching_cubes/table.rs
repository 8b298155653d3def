//! Which triangles cross a cell: derived from one rule for faces.
//!
//! A cell has eight corners, twelve edges and six faces. Corner `c` lies at offset `(c >> 2 & 1, c >> 1 & 1, c & 1)` along
//! the axes 0, 1, 2; a *case* is the byte whose bit `c` says that corner `c` is inside. Edge `4·axis + k` runs along `axis`
//! from the `k`-th of the four corners whose offset along it is 0 ([`EDGES`]).
//!
//! **The rule.** Going round a face, each maximal run of inside corners is cut off from the rest of the face by one segment.
//! An ambiguous face (inside corners on one diagonal only) has two such runs, hence its inside corners are *separated*.
//!
//! A segment depends on the four corners of its face alone, so two cells that share a face agree on it and run along it in
//! opposite directions. Each crossed edge lies on two faces of the cell and ends one segment on each, so the segments form
//! closed loops; filling each with triangles gives a closed, oriented surface whatever the field.
//!
//! One thing remains to be excluded: a diagonal of such a filling that lies in a face would meet the same diagonal of the
//! neighbouring cell, and four triangles would share an edge. So a loop is filled by clipping ears, every second vertex or
//! all from one apex, none of whose diagonals lies in a face (every loop of all 256 cases has such a filling, or the table
//! would not compile). Of those the one is taken that favours neither side: with the least volume, by magnitude, between
//! the triangles and the cell's centre when they cut the edges in the middle. The classic table does so too where no
//! face is ambiguous.
//!
//! Why not Lorensen and Cline's table: its complementary cases disagree on ambiguous faces and leave holes. Why not MC33 or
//! the asymptotic decider: they follow the trilinear interpolant inside ambiguous cells, at the price of 33 cases, values
//! in the decision and extra vertices; a segmentation has no interpolant to follow, and separated inside corners are just
//! what 6-connected components mean: each component of the foreground gets surfaces of its own.

/// Edges as (corner of offset 0 along the axis, axis).
pub const EDGES: [(u8, u8); 12] =
    [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (1, 1), (4, 1), (5, 1), (0, 2), (2, 2), (4, 2), (6, 2)];

/// Most triangles of a case.
pub const MOST_TRIANGLES: usize = 5;

/// For each case: the number of triangles, then the edges of their vertices, counterclockwise seen from outside.
pub const TRIANGLES: [[u8; 16]; 256] = {
    let mut table = [[0; 16]; 256];
    let mut case = 0;
    while case < 256 {
        table[case] = triangulate(case as u8);
        case += 1;
    }
    table
};

/// Corners of the faces, counterclockwise seen from outside the cell. Face `2·axis + side` has offset `side` along `axis`.
const FACES: [[u8; 4]; 6] = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]];

/// Mark of an edge that the surface does not cross.
const NONE: u8 = 12;

const fn triangulate(case: u8) -> [u8; 16] {
    let mut next = segments(case);
    let mut row = [0; 16];
    let mut edge = 0;
    while edge < 12 {
        if next[edge] != NONE {
            // Walk the loop through this edge and strike its edges out.
            let (mut vertices, mut length, mut at) = ([NONE; 12], 0, edge);
            while next[at] != NONE {
                vertices[length] = at as u8;
                length += 1;
                let here = at;
                at = next[here] as usize;
                next[here] = NONE;
            }
            fill(&mut row, vertices, length);
        }
        edge += 1;
    }
    row
}

/// The segments on the faces of a case: for each crossed edge, the edge that follows on its loop.
const fn segments(case: u8) -> [u8; 12] {
    let mut next = [NONE; 12];
    let mut face = 0;
    while face < 6 {
        let corners = FACES[face];
        let mut k = 0;
        while k < 4 {
            // A run of inside corners starts at `k` if its predecessor is outside.
            if inside(case, corners[k]) && !inside(case, corners[(k + 3) % 4]) {
                let mut last = k;
                while inside(case, corners[(last + 1) % 4]) {
                    last += 1;
                }
                let first = edge_between(corners[(k + 3) % 4], corners[k]);
                next[first] = edge_between(corners[last % 4], corners[(last + 1) % 4]) as u8;
            }
            k += 1;
        }
        face += 1;
    }
    next
}

const fn inside(case: u8, corner: u8) -> bool {
    case >> corner & 1 == 1
}

const fn edge_between(a: u8, b: u8) -> usize {
    let lower = a & b;
    let axis = match a ^ b {
        4 => 0,
        2 => 1,
        _ => 2,
    };
    let mut edge = 0;
    while EDGES[edge].0 != lower || EDGES[edge].1 != axis {
        edge += 1;
    }
    edge
}

/// Appends the filling of a loop to the row of its case.
const fn fill(row: &mut [u8; 16], vertices: [u8; 12], length: usize) {
    let (mut best, mut found) = ((u32::MAX, [[0; 3]; MOST_TRIANGLES]), false);
    let mut way = 0;
    while way < 2 * length {
        // Every second vertex first, from each start; then fans.
        let (start, fan) = (way % length, way >= length);
        if let Some((volume, triangles)) = clipped(vertices, length, start, fan)
            && volume < best.0
        {
            (best, found) = ((volume, triangles), true);
        }
        way += 1;
    }
    assert!(found, "a loop without an admissible filling");
    let mut triangle = 0;
    while triangle + 2 < length {
        let place = 1 + 3 * row[0] as usize;
        let mut k = 0;
        while k < 3 {
            row[place + k] = best.1[triangle][k];
            k += 1;
        }
        row[0] += 1;
        triangle += 1;
    }
}

/// A filling by clipping the vertex after `start`, then that after its successor (or after `start` again: a fan), and so on
/// round; with six times its volume about the centre. `None` if a diagonal lies in a face.
const fn clipped(
    mut ring: [u8; 12],
    mut length: usize,
    start: usize,
    fan: bool,
) -> Option<(u32, [[u8; 3]; MOST_TRIANGLES])> {
    let (mut triangles, mut count, mut volume, mut at) = ([[0; 3]; MOST_TRIANGLES], 0, 0, start);
    while length >= 3 {
        let ear = (at + 1) % length;
        let triangle = [ring[at], ring[ear], ring[(at + 2) % length]];
        if length > 3 && faces_of(triangle[0]) & faces_of(triangle[2]) != 0 {
            return None;
        }
        triangles[count] = triangle;
        count += 1;
        volume += determinant(triangle);
        // Strike the ear out; where the ring is cut before `at`, it moves down by one.
        let mut k = ear;
        while k + 1 < length {
            ring[k] = ring[k + 1];
            k += 1;
        }
        length -= 1;
        let here = if ear < at { at - 1 } else { at };
        at = if fan { here } else { (here + 1) % length };
    }
    Some((volume.unsigned_abs(), triangles))
}

/// Of the middles of three edges, seen from the centre, in halves of a voxel.
const fn determinant(edges: [u8; 3]) -> i32 {
    let [a, b, c] = [middle(edges[0]), middle(edges[1]), middle(edges[2])];
    a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0])
}

const fn middle(edge: u8) -> [i32; 3] {
    let (corner, along) = EDGES[edge as usize];
    let mut position = [(corner >> 2 & 1) as i32, (corner >> 1 & 1) as i32, (corner & 1) as i32];
    let mut axis = 0;
    while axis < 3 {
        position[axis] = if axis == along as usize { 0 } else { 2 * position[axis] - 1 };
        axis += 1;
    }
    position
}

/// The two faces of an edge, as bits.
const fn faces_of(edge: u8) -> u8 {
    let (corner, along) = EDGES[edge as usize];
    let (mut faces, mut axis) = (0, 0);
    while axis < 3 {
        if axis != along {
            faces |= 1 << (2 * axis + (corner >> (2 - axis) & 1));
        }
        axis += 1;
    }
    faces
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The corner of lower offset and the axis name an edge once, and no edge leaves the cell.
    #[test]
    fn edges_are_the_twelve() {
        let mut seen = std::collections::BTreeSet::new();
        for (corner, axis) in EDGES {
            assert_eq!(corner >> (2 - axis) & 1, 0);
            assert!(seen.insert((corner, axis)));
        }
    }

    /// In each case the triangles use exactly the crossed edges; inner edges of the filling occur once in each direction, and
    /// the rest are segments: one or two on each mixed face.
    #[test]
    fn fillings_are_discs_bounded_by_the_segments() {
        for (case, row) in TRIANGLES.iter().enumerate() {
            assert!(row[0] as usize <= MOST_TRIANGLES);
            let triangles: Vec<&[u8]> = row[1..1 + 3 * row[0] as usize].chunks_exact(3).collect();
            let used: std::collections::BTreeSet<u8> = triangles.iter().flat_map(|t| t.iter().copied()).collect();
            let crossed = (0..12u8).filter(|&e| {
                let (corner, axis) = EDGES[e as usize];
                inside(case as u8, corner) != inside(case as u8, corner | 4 >> axis)
            });
            assert_eq!(used, crossed.collect(), "case {case}");
            let directed: Vec<(u8, u8)> =
                triangles.iter().flat_map(|t| [(t[0], t[1]), (t[1], t[2]), (t[2], t[0])]).collect();
            for &(a, b) in &directed {
                assert_eq!(directed.iter().filter(|&&e| e == (a, b)).count(), 1, "case {case}");
                let within_face = faces_of(a) & faces_of(b) != 0;
                assert_eq!(
                    directed.contains(&(b, a)),
                    !within_face,
                    "case {case}: segments lie in faces, diagonals do not"
                );
            }
        }
    }

    /// One corner inside: the triangle's normal points away from it.
    #[test]
    fn normals_point_outwards() {
        let middle = |edge: u8| {
            let (corner, along) = EDGES[edge as usize];
            [0u8, 1, 2].map(|axis| f64::from(corner >> (2 - axis) & 1) + if axis == along { 0.5 } else { 0.0 })
        };
        for corner in 0..8u8 {
            let row = TRIANGLES[1 << corner];
            assert_eq!(row[0], 1);
            let [a, b, c] = [1, 2, 3].map(|i| middle(row[i]));
            let (u, v) = ([0, 1, 2].map(|i| b[i] - a[i]), [0, 1, 2].map(|i| c[i] - a[i]));
            let normal = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
            let outwards = [0, 1, 2].map(|axis| 0.5 - f64::from(corner >> (2 - axis) & 1));
            assert!((0..3).map(|i| normal[i] * outwards[i]).sum::<f64>() > 0.0, "corner {corner}");
        }
    }
}
