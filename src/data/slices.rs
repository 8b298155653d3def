//! Slices of a volume across any axis.

/// The planes of a volume across one axis.
#[derive(Clone, Copy, Debug)]
pub struct PlaneLayout {
    /// Sides of a plane: the other two axes, in their order.
    pub sides: [usize; 2],
    /// Distance in voxels between neighbours along each of them.
    strides: [usize; 2],
    /// Distance in voxels between planes.
    step: usize,
}

impl PlaneLayout {
    /// Planes of a volume of `shape` across `axis` (0, 1 or 2).
    pub fn new(shape: [usize; 3], axis: usize) -> Self {
        let strides = [shape[1] * shape[2], shape[2], 1];
        let [a, b] = [[1, 2], [0, 2], [0, 1]][axis];
        Self { sides: [shape[a], shape[b]], strides: [strides[a], strides[b]], step: strides[axis] }
    }

    /// Voxels of a plane.
    #[allow(clippy::len_without_is_empty)] // a plane without voxels does not occur
    pub fn len(&self) -> usize {
        self.sides[0] * self.sides[1]
    }

    /// Where the plane's voxels lie in the volume, in the plane's order.
    fn places(self, plane: usize) -> impl Iterator<Item = usize> {
        let row = move |i: usize| plane * self.step + i * self.strides[0];
        (0..self.sides[0]).flat_map(move |i| (0..self.sides[1]).map(move |j| row(i) + j * self.strides[1]))
    }

    /// The values of one plane of `[voxels, channels]`.
    pub fn cut<T: Copy>(self, volume: &[T], channels: usize, plane: usize) -> Vec<T> {
        self.places(plane).flat_map(|voxel| &volume[voxel * channels..][..channels]).copied().collect()
    }

    /// The inverse of [`PlaneLayout::cut`].
    pub fn put<T: Copy>(self, values: &[T], channels: usize, plane: usize, volume: &mut [T]) {
        for (value, voxel) in values.chunks_exact(channels).zip(self.places(plane)) {
            volume[voxel * channels..][..channels].copy_from_slice(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PlaneLayout;

    #[test]
    fn planes_across_every_axis_are_cut_and_put_back() {
        let shape = [2, 3, 4];
        let volume: Vec<u32> = (0..48).collect();
        assert_eq!(PlaneLayout::new(shape, 0).cut(&volume, 2, 1), (24..48).collect::<Vec<_>>());
        assert_eq!(PlaneLayout::new(shape, 1).cut(&volume, 1, 2), [8, 9, 10, 11, 20, 21, 22, 23]);
        assert_eq!(PlaneLayout::new(shape, 2).cut(&volume, 1, 3), [3, 7, 11, 15, 19, 23]);
        for axis in 0..3 {
            let (plane, mut back) = (PlaneLayout::new(shape, axis), vec![0; 48]);
            (0..shape[axis]).for_each(|i| plane.put(&plane.cut(&volume, 2, i), 2, i, &mut back));
            assert_eq!(back, volume);
        }
    }
}
