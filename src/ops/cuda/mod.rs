//! What the ops' launches share: how work is cut into blocks, products, copies, sums.

pub(crate) mod axes;
pub(crate) mod columns;
pub(crate) mod gemm;
pub(crate) mod morphology;
pub(crate) mod scan;
pub(crate) mod tiling;
