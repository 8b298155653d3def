//! What an occupancy network is asked at single places: voxels that several networks differ on, and surfaces between voxels.

use std::time::Instant;

use super::{Occupancy, QueryGrid, Refinement, Segmenter, refine};
use crate::data::Volume;
use crate::error::{Error, Result};
use crate::memory::{Phase, Role};
use crate::mesh::Mesh;
use crate::models::OssNet;
use crate::tensor::Tensor;

impl Segmenter<'_> {
    /// Moves a mesh of the image's segmentation, in millimetres, to where the network itself sees the surface. Returns the mesh
    /// and the loss of each step.
    ///
    /// # Errors
    /// [`Error::Usage`] for a network that is no function of space or has several outputs; as for [`Segmenter::segment`].
    pub fn refine(
        &self,
        name: &str,
        image: Volume,
        mesh: Mesh,
        refinement: &Refinement,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<(Mesh, Vec<f64>)> {
        let Some(network) = self.network.occupancy() else {
            return Err(Error::Usage(
                "a U-Net knows nothing between voxels; refine meshes of occupancy networks".into(),
            ));
        };
        let (volume, way) = self.task.image(name, image, |shape| self.padding(shape))?;
        let device = self.parameters.device();
        device.in_phase(Phase::Evaluate, || {
            let occupancy = self.encoded(network, volume)?;
            // From voxels of the network's volume over those of the scan to millimetres.
            let grid = QueryGrid::over(&way, way.shape);
            let start = [0, 1, 2].map(|k| -grid.start[k] / grid.step[k]);
            let affine = way.geometry.affine.regrid(start, grid.step.map(f64::recip));
            let mut mesh = mesh.transformed(&affine.inverse());
            let mut positions: Vec<[f64; 3]> = mesh.vertices.iter().map(|vertex| vertex.map(f64::from)).collect();
            let field = |points: &[[f64; 3]]| occupancy.jets_at(points);
            let losses = refine::refine(&mut positions, &mesh.triangles, refinement, field, tick);
            let losses = losses.map_err(|error| error.of_case(name))?;
            mesh.vertices = positions.iter().map(|position| position.map(|x| x as f32)).collect();
            Ok((mesh.transformed(&affine), losses))
        })
    }

    /// An occupancy network that has seen a volume.
    pub(super) fn encoded<'n>(&'n self, network: &'n OssNet, volume: Volume) -> Result<Occupancy<'n>> {
        let (device, [x, y, z]) = (self.parameters.device(), volume.shape);
        let shape = [1, x, y, z, volume.channels];
        let tensor = device.in_op("volume", || Tensor::from_slice(device, &shape, Role::Data, &volume.voxels))?;
        drop(volume);
        Occupancy::new(network, self.parameters, tensor, self.options.most_points)
    }

    /// The probabilities `[voxels, outputs]` of some voxels of the answer, by their places in it; the seconds and the most bytes
    /// that it took.
    ///
    /// # Errors
    /// As for [`Segmenter::segment`]; a U-Net, which answers for whole volumes.
    pub(super) fn probabilities_at(
        &self,
        name: &str,
        image: Volume,
        voxels: &[usize],
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<(Vec<f32>, f64, u64)> {
        let Some(network) = self.network.occupancy() else {
            return Err(Error::Model("a U-Net is asked about single voxels; report this".into()));
        };
        let (volume, way) = self.task.image(name, image, |shape| self.padding(shape))?;
        let (device, started) = (self.parameters.device(), Instant::now());
        let grid = QueryGrid::over(&way, self.options.shape.unwrap_or(way.shape));
        let [_, h, w] = grid.shape;
        let found = device.in_phase(Phase::Evaluate, || {
            device.ledger(|ledger| ledger.reset_peak());
            let occupancy = self.encoded(network, volume)?;
            let mut found = Vec::with_capacity(voxels.len() * self.network.architecture().classes());
            for part in voxels.chunks(occupancy.most_points().max(1)) {
                tick()?;
                let indices: Vec<f32> =
                    part.iter().flat_map(|at| [at / (h * w), at / w % h, at % w]).map(|index| index as f32).collect();
                let indices = Tensor::from_slice(device, &[part.len(), 3], Role::Data, &indices)?;
                found.extend(occupancy.probabilities(&occupancy.logits(&grid, indices)?)?);
            }
            Ok(found)
        });
        let found = found.map_err(|error: Error| error.of_case(name))?;
        Ok((found, started.elapsed().as_secs_f64(), self.peak_bytes()))
    }
}
