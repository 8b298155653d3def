//! CUDA devices in a build without the feature `cuda`: there are none, and no value of [`Cuda`] ever exists
//! (its emptiness is private, so that code elsewhere does not count as unreachable).

use std::borrow::Cow;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::ops::Range;

use bytemuck::Pod;

use super::cudnn_desc::{ConvDescriptor, Operands, Pass};
use super::device_info::{DeviceInfo, KernelInfo, NCCL_ID, Observer};
use super::launch_config::LaunchConfig;
use super::target::CudaTarget;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// A CUDA device: here a type without values.
pub struct Cuda(Infallible);

/// cuDNN: here a type without values.
pub struct Cudnn(Infallible);

impl Cudnn {
    pub(crate) fn run(&self, _: &ConvDescriptor, _: Pass, _: Operands<'_>, _: &mut Tensor, _: bool) -> Result<bool> {
        match self.0 {}
    }
}

/// Captured work: here a type without values.
pub struct Graph(Infallible);

impl Graph {
    /// Does all of it.
    ///
    /// # Safety
    /// There is no graph.
    ///
    /// # Errors
    /// None: there is no graph.
    pub unsafe fn launch(&self) -> Result<()> {
        match self.0 {}
    }
}

/// Bytes on their way to the host: here a type without values.
pub struct Fetch(Infallible);

/// Page-locked memory: here a type without values.
pub struct Pinned(Infallible);

/// A point of a stream: here a type without values.
#[derive(Clone)]
pub struct StreamEvent(Infallible);

/// A copy on its way: here a type without values.
pub struct Upload(Infallible);

/// A kernel launch: here a type without values.
pub struct Kernel<'a>(Infallible, PhantomData<&'a Cuda>);

fn absent<T>() -> Result<T> {
    Err(Error::Device("this ossnet was built without CUDA; build it with --features cuda, or use --device cpu".into()))
}

/// This device among those of other ranks: here a type without values.
pub struct Communicator(Infallible);

impl Communicator {
    pub(in crate::device) fn leave(self) {
        match self.0 {}
    }
}

/// None.
///
/// # Errors
/// Always.
pub fn load_nccl() -> Result<()> {
    absent()
}

/// None.
///
/// # Errors
/// Always.
pub fn nccl_id() -> Result<[u8; NCCL_ID]> {
    absent()
}

/// None.
///
/// # Errors
/// Always.
pub fn count() -> Result<usize> {
    absent()
}

/// None, and why.
///
/// # Errors
/// Always.
pub fn devices() -> Result<Vec<DeviceInfo>> {
    absent()
}

#[allow(missing_docs, clippy::missing_errors_doc)] // as of the real one
impl Cuda {
    pub(super) fn open(_: usize, _: u64, _: Option<Box<dyn Observer>>) -> Result<Self> {
        absent()
    }

    pub fn target(&self) -> CudaTarget {
        match self.0 {}
    }

    pub fn ordinal(&self) -> usize {
        match self.0 {}
    }

    pub(super) fn budget(&self) -> u64 {
        match self.0 {}
    }

    pub(super) fn granularity(&self) -> u64 {
        match self.0 {}
    }

    pub fn load_all(&self) -> Result<Vec<KernelInfo>> {
        match self.0 {}
    }

    pub fn on_compiling(&self, _: impl Fn(usize, usize) + Send + 'static) {
        match self.0 {}
    }

    pub(crate) fn cudnn(&self) -> Option<&Cudnn> {
        match self.0 {}
    }

    pub fn capture<T>(&self, _: impl FnOnce() -> Result<T>) -> Result<(T, Graph)> {
        match self.0 {}
    }

    pub fn waits(&self) -> bool {
        match self.0 {}
    }

    pub fn launches(&self) -> u64 {
        match self.0 {}
    }

    pub(crate) fn kernel_of(&self, _: &'static str, _: DType) -> Kernel<'_> {
        match self.0 {}
    }

    pub fn launches_by_kernel(&self) -> Vec<(&'static str, u64)> {
        match self.0 {}
    }

    pub(crate) fn kernel(&self, _: impl Into<Cow<'static, str>>) -> Kernel<'_> {
        match self.0 {}
    }

    pub(crate) fn start_clock(&self) {
        match self.0 {}
    }

    pub(crate) fn mark(&self) {
        match self.0 {}
    }

    pub(crate) fn stop_clock(&self) -> Result<Vec<f64>> {
        match self.0 {}
    }

    pub fn synchronize(&self) -> Result<()> {
        match self.0 {}
    }

    pub(super) fn address(&self, _: u64) -> u64 {
        match self.0 {}
    }

    pub(super) fn back(&self, _: u64) -> Result<u64> {
        match self.0 {}
    }

    pub(super) fn allocated(&self, _: u64, _: u64) -> Result<()> {
        match self.0 {}
    }

    pub(super) fn freed(&self, _: u64, _: u64) {
        match self.0 {}
    }

    pub(super) fn upload(&self, _: u64, _: &[u8]) -> Result<()> {
        match self.0 {}
    }

    pub fn pin(&self, _: usize, _: impl FnOnce(&mut [u8])) -> Result<Pinned> {
        match self.0 {}
    }

    pub fn record_event(&self) -> Result<StreamEvent> {
        match self.0 {}
    }

    pub fn begin_upload(&self, pinned: Pinned, _: &[(u64, Range<usize>)], _: &StreamEvent) -> Result<Upload> {
        match pinned.0 {}
    }

    pub fn wait_in_stream(&self, sent: &Upload) -> Result<()> {
        match sent.0 {}
    }

    pub fn reclaim(&self, sent: &mut Upload) -> Result<()> {
        match sent.0 {}
    }

    pub fn stall(&self, passed: &StreamEvent, _: &Upload) -> Result<f64> {
        match passed.0 {}
    }

    pub(super) fn fetch(&self, _: u64, _: usize) -> Result<Fetch> {
        match self.0 {}
    }

    pub(super) fn arrived(&self, fetch: Fetch) -> Result<Vec<u8>> {
        match fetch.0 {}
    }

    pub(super) fn download(&self, _: u64, _: &mut [u8]) -> Result<()> {
        match self.0 {}
    }

    pub(crate) fn copy(&self, _: u64, _: u64, _: u64) -> Result<()> {
        match self.0 {}
    }

    pub(in crate::device) fn communicator(&self, _: [u8; NCCL_ID], _: usize, _: usize) -> Result<Communicator> {
        match self.0 {}
    }

    pub(in crate::device) fn all_reduce(&self, _: &Communicator, _: u64, _: u64) -> Result<()> {
        match self.0 {}
    }

    pub(in crate::device) fn all_gather(&self, _: &Communicator, _: u64, _: u64, _: u64) -> Result<()> {
        match self.0 {}
    }

    pub(crate) fn zero(&self, _: u64, _: u64) -> Result<()> {
        match self.0 {}
    }
}

#[allow(missing_docs, clippy::missing_errors_doc)] // as of the real one
impl Kernel<'_> {
    pub fn input(self, _: &Tensor) -> Self {
        self
    }

    pub fn optional(self, _: Option<&Tensor>) -> Self {
        self
    }

    pub fn input_from(self, _: &Tensor, _: usize) -> Self {
        self
    }

    pub fn output(self, _: &mut Tensor) -> Self {
        self
    }

    pub fn output_from(self, _: &mut Tensor, _: usize) -> Self {
        self
    }

    pub fn value<T: Pod>(self, _: T) -> Self {
        self
    }

    pub fn tickets(self, _: usize) -> Result<Self> {
        match self.0 {}
    }

    pub fn ticket_address(&self, _: usize) -> Result<u64> {
        match self.0 {}
    }

    pub fn launch(self, _: LaunchConfig) -> Result<()> {
        match self.0 {}
    }
}
