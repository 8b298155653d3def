//! cuDNN's convolutions, through cudarc's module, loaded at run time: an option beside the engine's own.
//!
//! Type-checked and never executed by this project's tests: there is no cuDNN where they run, and the emulator cannot stand in
//! for it. `OSSNET_CUDNN=1` turns it on. Activations are described by their strides, so nothing is copied. What this cuDNN
//! refuses for that layout (`CUDNN_STATUS_NOT_SUPPORTED`) the engine's own kernels do. Algorithms are fixed, so a result does
//! not depend on a heuristic's mood; their workspaces are in the ledger but not in plans.
//!
//! Source: NVIDIA cuDNN API reference, `cudnnConvolutionForward`, `-BackwardData`, `-BackwardFilter`.

use std::ffi::{c_int, c_void};
use std::sync::{Mutex, PoisonError};

use cudarc::cudnn::result::{self, CudnnError};
use cudarc::cudnn::sys;
use cudarc::driver::CudaStream;

use crate::device::cudnn_desc::{ConvDescriptor, Operands, Pass};
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::tensor::{DType, Tensor};

/// A handle of the library on the device's stream.
pub struct Cudnn(Mutex<Handle>);

struct Handle(sys::cudnnHandle_t);

// SAFETY: cuDNN's handles may move between threads; the mutex lets one use it at a time.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made in `open`, destroyed once.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

fn failed(what: &str, error: CudnnError) -> Error {
    Error::Device(format!("cuDNN, {what}: {error:?}; unset OSSNET_CUDNN to use the engine's own convolutions"))
}

impl Cudnn {
    /// The library, if `OSSNET_CUDNN` asks for it.
    pub(super) fn open(stream: &CudaStream) -> Result<Option<Self>> {
        if std::env::var_os("OSSNET_CUDNN").is_none() {
            return Ok(None);
        }
        // SAFETY: this only tries to load the library. Asked before any other call, which would panic without it.
        if !unsafe { sys::is_culib_present() } {
            let remedy = "install cuDNN 9, or unset OSSNET_CUDNN";
            return Err(Error::Device(format!("OSSNET_CUDNN is set, but libcudnn.so was not found; {remedy}")));
        }
        let handle = Handle(result::create_handle().map_err(|e| failed("starting", e))?);
        // SAFETY: both live; the device drops this before its stream.
        unsafe { result::set_stream(handle.0, stream.cu_stream().cast()) }.map_err(|e| failed("using a stream", e))?;
        Ok(Some(Self(Mutex::new(handle))))
    }

    /// Runs a pass, adding to `target` if `accumulate`. False if cuDNN does not do it for this layout.
    pub(crate) fn run(
        &self,
        sizes: &ConvDescriptor,
        pass: Pass,
        operands: Operands<'_>,
        target: &mut Tensor,
        accumulate: bool,
    ) -> Result<bool> {
        let handle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match Described::new(sizes).and_then(|described| described.run(handle.0, pass, operands, target, accumulate)) {
            Ok(outcome) => outcome.map(|()| true),
            Err(CudnnError(sys::cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED)) => Ok(false),
            Err(error) => Err(failed("a convolution", error)),
        }
    }
}

/// The descriptors of one convolution.
struct Described {
    x: sys::cudnnTensorDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    w: sys::cudnnFilterDescriptor_t,
    convolution: sys::cudnnConvolutionDescriptor_t,
}

fn ints<const N: usize>(lengths: [usize; N]) -> [c_int; N] {
    lengths.map(|length| length as c_int)
}

/// A descriptor of `[batch, d, h, w, channels]` in cuDNN's order of axes: batch, channels, d, h, w.
fn tensor(batch: usize, [d, h, w]: [usize; 3], channels: usize) -> Result<sys::cudnnTensorDescriptor_t, CudnnError> {
    let descriptor = result::create_tensor_descriptor()?;
    let lengths = ints([batch, channels, d, h, w]);
    let strides = ints([d * h * w * channels, 1, h * w * channels, w * channels, channels]);
    let float = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
    // SAFETY: a descriptor made above; both arrays have five elements.
    unsafe { result::set_tensornd_descriptor(descriptor, float, 5, lengths.as_ptr(), strides.as_ptr()) }?;
    Ok(descriptor)
}

impl Described {
    fn new(sizes: &ConvDescriptor) -> Result<Self, CudnnError> {
        let ConvDescriptor { batch, input, output, in_channels, out_channels, kernel, stride, padding } = *sizes;
        let float = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
        let described = Self {
            x: tensor(batch, input, in_channels)?,
            y: tensor(batch, output, out_channels)?,
            w: result::create_filter_descriptor()?,
            convolution: result::create_convolution_descriptor()?,
        };
        let format = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;
        let filter = ints([out_channels, in_channels, kernel[0], kernel[1], kernel[2]]);
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let (padding, stride, dilation) = (ints(padding), ints(stride), ints([1; 3]));
        // SAFETY: descriptors made above; the arrays have as many elements as is said.
        unsafe {
            result::set_filternd_descriptor(described.w, float, format, 5, filter.as_ptr())?;
            let (padding, stride, dilation) = (padding.as_ptr(), stride.as_ptr(), dilation.as_ptr());
            result::set_convolutionnd_descriptor(described.convolution, 3, padding, stride, dilation, mode, float)?;
        }
        Ok(described)
    }

    /// The outer result is cuDNN's, the inner one that of the workspace.
    fn run(
        &self,
        handle: sys::cudnnHandle_t,
        pass: Pass,
        [a, b]: Operands<'_>,
        target: &mut Tensor,
        accumulate: bool,
    ) -> Result<Result<()>, CudnnError> {
        let (one, beta) = (1.0f32, if accumulate { 1.0f32 } else { 0.0 });
        let (alpha, beta) = ((&raw const one).cast::<c_void>(), (&raw const beta).cast::<c_void>());
        let pointer = |tensor: &Tensor| tensor.address() as *mut c_void;
        let (forward, data, filter) = (
            sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
            // The second ones sum in a fixed order.
            sys::cudnnConvolutionBwdDataAlgo_t::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
            sys::cudnnConvolutionBwdFilterAlgo_t::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
        );
        let Self { x, y, w, convolution } = *self;
        // SAFETY: live descriptors and handle.
        let bytes = unsafe {
            match pass {
                Pass::Forward => result::get_convolution_forward_workspace_size(handle, x, w, convolution, y, forward),
                Pass::InputGradient => {
                    result::get_convolution_backward_data_workspace_size(handle, w, y, convolution, x, data)
                }
                Pass::WeightGradient => {
                    result::get_convolution_backward_filter_workspace_size(handle, x, y, convolution, w, filter)
                }
            }
        }?;
        let scratch = match Tensor::empty(target.device(), &[bytes], DType::U8, Role::Workspace) {
            Ok(scratch) => scratch,
            Err(error) => return Ok(Err(error)),
        };
        let (scratch, a, b, target) = (pointer(&scratch), pointer(a), pointer(b), pointer(target));
        // SAFETY: the tensors have the described shapes; the stream orders their frees after this work.
        unsafe {
            match pass {
                Pass::Forward => result::convolution_forward(
                    handle,
                    alpha,
                    x,
                    a,
                    w,
                    b,
                    convolution,
                    forward,
                    scratch,
                    bytes,
                    beta,
                    y,
                    target,
                ),
                Pass::InputGradient => result::convolution_backward_data(
                    handle,
                    alpha,
                    w,
                    b,
                    y,
                    a,
                    convolution,
                    data,
                    scratch,
                    bytes,
                    beta,
                    x,
                    target,
                ),
                Pass::WeightGradient => result::convolution_backward_filter(
                    handle,
                    alpha,
                    x,
                    a,
                    y,
                    b,
                    convolution,
                    filter,
                    scratch,
                    bytes,
                    beta,
                    w,
                    target,
                ),
            }
        }?;
        Ok(Ok(()))
    }
}

impl Drop for Described {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once.
        unsafe {
            let _ = result::destroy_tensor_descriptor(self.x);
            let _ = result::destroy_tensor_descriptor(self.y);
            let _ = result::destroy_filter_descriptor(self.w);
            let _ = result::destroy_convolution_descriptor(self.convolution);
        }
    }
}
