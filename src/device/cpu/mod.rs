//! The CPU: a thread pool whose size never changes a result, and SIMD chosen at run time.

pub(crate) mod loops;
pub mod pool;
pub mod simd;

pub use pool::{Pool, SharedMut};
pub use simd::SimdLevel;
