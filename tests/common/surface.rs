//! What is asserted of meshes.

use std::collections::BTreeMap;

use ossnet::mesh::Mesh;

/// Every edge lies in exactly two triangles, in opposite directions; around every vertex there is one fan; every vertex
/// is used.
pub fn assert_closed(mesh: &Mesh, what: &str) {
    let mut next: Vec<BTreeMap<u32, u32>> = vec![BTreeMap::new(); mesh.vertices.len()];
    for &[a, b, c] in &mesh.triangles {
        assert!(a != b && b != c && c != a, "{what}: a triangle names a vertex twice");
        for [apex, from, to] in [[a, b, c], [b, c, a], [c, a, b]] {
            assert!(next[apex as usize].insert(from, to).is_none(), "{what}: edge {apex} → {from} occurs twice");
        }
    }
    for (vertex, fan) in next.iter().enumerate() {
        let &first = fan.keys().next().unwrap_or_else(|| panic!("{what}: vertex {vertex} is unused"));
        let (mut at, mut steps) = (first, 0);
        loop {
            at = *fan.get(&at).unwrap_or_else(|| panic!("{what}: edge {vertex} → {at} has one triangle"));
            steps += 1;
            if at == first {
                break;
            }
        }
        assert_eq!(steps, fan.len(), "{what}: two fans meet in vertex {vertex}");
    }
}

/// Vertices − edges + triangles of a closed mesh.
pub fn euler(mesh: &Mesh) -> i64 {
    mesh.vertices.len() as i64 - mesh.triangles.len() as i64 * 3 / 2 + mesh.triangles.len() as i64
}
