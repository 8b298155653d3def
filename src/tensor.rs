//! Tensors: a shape over a buffer.
//!
//! Elements lie in C order (last axis fastest). Activations are channels-last: `[batch, D, H, W, C]` for volumes,
//! `[points, features]` for points. A tensor is shared by cloning (no copy); it can be written only while unshared.

mod arithmetic;
mod finite;

use std::borrow::Cow;
use std::sync::Arc;

use bytemuck::Pod;

use crate::device::{Buffer, Device, Later, Target};
use crate::error::{Error, Result};
use crate::memory::Role;
pub use finite::first_not_finite;

/// Storage type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// 16-bit brain float.
    Bf16,
    /// Unsigned byte.
    U8,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 32-bit integer: indices and bit masks.
    U32,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> u64 {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::F16 | DType::Bf16 | DType::I16 => 2,
            DType::U8 => 1,
        }
    }
}

/// Bytes of one element on `device`: a CPU computes in f32, and holds numbers of bf16 as such.
fn stored_size(device: &Device, dtype: DType) -> u64 {
    match (dtype, device.target()) {
        (DType::Bf16, Target::Cpu { .. }) => DType::F32.size(),
        _ => dtype.size(),
    }
}

/// Lengths of the axes.
pub type Shape = Vec<usize>;

/// Number of elements of `shape`; `None` on overflow.
pub fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &length| product.checked_mul(length))
}

/// A shape over a shared buffer.
#[derive(Clone, Debug)]
pub struct Tensor {
    shape: Shape,
    dtype: DType,
    buffer: Arc<Buffer>,
}

impl Tensor {
    /// A tensor with unspecified contents.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], or [`Error::Shape`] if the element count overflows.
    pub fn empty(device: &Device, shape: &[usize], dtype: DType, role: Role) -> Result<Self> {
        let bytes = elements(shape)
            .and_then(|count| (count as u64).checked_mul(stored_size(device, dtype)))
            .ok_or_else(|| Error::shape("tensor", format!("shape {shape:?} has too many elements")))?;
        let buffer = Arc::new(device.allocate(bytes, role)?);
        Ok(Self { shape: shape.to_vec(), dtype, buffer })
    }

    /// An f32 tensor of zeros.
    ///
    /// # Errors
    /// As [`Tensor::empty`].
    pub fn zeros(device: &Device, shape: &[usize], role: Role) -> Result<Self> {
        Self::zeros_of(device, shape, DType::F32, role)
    }

    /// A tensor of zeros of any type.
    ///
    /// # Errors
    /// As [`Tensor::empty`].
    pub fn zeros_of(device: &Device, shape: &[usize], dtype: DType, role: Role) -> Result<Self> {
        let mut tensor = Self::empty(device, shape, dtype, role)?;
        tensor.zero()?;
        Ok(tensor)
    }

    /// An f32 tensor with the given elements (ignored on a plan, which holds none).
    ///
    /// # Errors
    /// As [`Tensor::empty`], or [`Error::Shape`] if the number of elements differs from the shape's.
    pub fn from_slice(device: &Device, shape: &[usize], role: Role, values: &[f32]) -> Result<Self> {
        if elements(shape) != Some(values.len()) {
            return Err(Error::shape("tensor", format!("{} values for shape {shape:?}", values.len())));
        }
        let mut tensor = Self::empty(device, shape, DType::F32, role)?;
        tensor.write(values)?;
        Ok(tensor)
    }

    /// A tensor of `T` with the given elements (ignored on a plan).
    ///
    /// # Errors
    /// As [`Tensor::from_slice`].
    pub fn from_typed<T: Pod>(
        device: &Device,
        shape: &[usize],
        dtype: DType,
        role: Role,
        values: &[T],
    ) -> Result<Self> {
        if elements(shape) != Some(values.len()) || size_of::<T>() as u64 != stored_size(device, dtype) {
            return Err(Error::shape("tensor", format!("{} values of {dtype:?} for shape {shape:?}", values.len())));
        }
        let mut tensor = Self::empty(device, shape, dtype, role)?;
        tensor.write(values)?;
        Ok(tensor)
    }

    /// An unshared copy on the same device.
    ///
    /// # Errors
    /// No memory.
    pub fn copied(&self, role: Role) -> Result<Self> {
        let mut copy = Self::empty(self.device(), &self.shape, self.dtype, role)?;
        copy.unshared().copy_from(&self.buffer)?;
        Ok(copy)
    }

    /// Lengths of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of the last axis: features or channels.
    pub fn channels(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Product of all axes but the last.
    pub fn rows(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(1)].iter().product()
    }

    /// Storage type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device that holds the elements.
    pub fn device(&self) -> &Device {
        self.buffer.device()
    }

    /// Gives the buffer another role in the ledger.
    pub fn retag(&self, role: Role) {
        self.buffer.retag(role);
    }

    /// The same elements under another shape of equal length.
    ///
    /// # Errors
    /// [`Error::Shape`] if the lengths differ.
    pub fn reshaped(mut self, shape: &[usize]) -> Result<Self> {
        if elements(shape) != Some(self.len()) {
            return Err(Error::shape("reshape", format!("{:?} cannot become {shape:?}", self.shape)));
        }
        self.shape = shape.to_vec();
        Ok(self)
    }

    /// The f32 elements; empty on a plan.
    pub fn data(&self) -> &[f32] {
        self.typed()
    }

    /// The elements as `T`, whose size must be the storage type's; empty on a plan.
    pub fn typed<T: Pod>(&self) -> &[T] {
        debug_assert_eq!(size_of::<T>() as u64, stored_size(self.device(), self.dtype));
        self.buffer.as_slice()
    }

    /// True if no other tensor shares the buffer.
    pub fn is_unique(&self) -> bool {
        Arc::strong_count(&self.buffer) == 1
    }

    /// The f32 elements for writing; empty on a plan.
    ///
    /// # Panics
    /// If the buffer is shared: that is a bug in the engine, never a user's input.
    pub fn data_mut(&mut self) -> &mut [f32] {
        self.typed_mut()
    }

    /// The elements as `T` for writing; empty on a plan.
    ///
    /// # Panics
    /// As [`Tensor::data_mut`].
    pub fn typed_mut<T: Pod>(&mut self) -> &mut [T] {
        debug_assert_eq!(size_of::<T>() as u64, stored_size(self.device(), self.dtype));
        self.unshared().as_mut_slice()
    }

    /// The f32 elements on the host, wherever the tensor lives; zeros on a plan.
    ///
    /// # Errors
    /// What the driver says: a kernel that failed is often noticed here first.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        self.to_typed()
    }

    /// The f32 elements: borrowed where they lie on the host, else as [`Tensor::to_vec`].
    ///
    /// # Errors
    /// What the driver says.
    pub fn on_host(&self) -> Result<Cow<'_, [f32]>> {
        match self.device().target() {
            Target::Cpu { .. } if !self.device().is_plan() => Ok(Cow::Borrowed(self.data())),
            _ => self.to_vec().map(Cow::Owned),
        }
    }

    /// The f32 elements, to be waited for later; at most 64 of them on CUDA.
    ///
    /// # Errors
    /// What the driver says.
    pub fn fetch(&self) -> Result<Later> {
        debug_assert_eq!(size_of::<f32>() as u64, stored_size(self.device(), self.dtype));
        self.buffer.fetch(size_of::<f32>() * self.len())
    }

    /// The elements as `T` on the host; zeros on a plan.
    ///
    /// # Errors
    /// As [`Tensor::to_vec`].
    pub fn to_typed<T: Pod>(&self) -> Result<Vec<T>> {
        debug_assert_eq!(size_of::<T>() as u64, stored_size(self.device(), self.dtype));
        let mut values = vec![T::zeroed(); self.len()];
        self.buffer.read(&mut values)?;
        Ok(values)
    }

    /// Writes the first elements from the host; nothing on a plan.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// As [`Tensor::data_mut`], or if there are more values than elements.
    pub fn write<T: Pod>(&mut self, values: &[T]) -> Result<()> {
        debug_assert_eq!(size_of::<T>() as u64, stored_size(self.device(), self.dtype));
        self.unshared().write(values)
    }

    /// Copies the elements of a tensor of equal length and storage type on the same device.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// As [`Tensor::data_mut`], or if length or storage type differ.
    pub fn copy_from(&mut self, other: &Tensor) -> Result<()> {
        self.unshared().copy_from(&other.buffer)
    }

    /// Sets all elements to zero.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// As [`Tensor::data_mut`].
    pub fn zero(&mut self) -> Result<()> {
        self.unshared().zero()
    }

    /// Device address of the elements on CUDA; 0 elsewhere.
    pub fn address(&self) -> u64 {
        self.buffer.address()
    }

    /// What holds the elements.
    pub(crate) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// The same for writing.
    ///
    /// # Panics
    /// As [`Tensor::data_mut`].
    pub(crate) fn unshared(&mut self) -> &mut Buffer {
        Arc::get_mut(&mut self.buffer).expect("a shared tensor was written")
    }
}
