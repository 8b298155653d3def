//! The windows of one axis.

use std::ops::Range;

/// How windows lie on an axis.
#[derive(Clone, Copy, Debug)]
pub(super) enum PoolWindows {
    /// `kernel` voxels every `stride` voxels.
    Fixed { kernel: usize, stride: usize },
    /// `outputs` bins that cover the axis.
    Adaptive { outputs: usize },
}

/// Windows on an axis of known length.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolAxis {
    windows: PoolWindows,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl PoolAxis {
    /// `None` if the windows do not fit.
    pub(super) fn new(windows: PoolWindows, inputs: usize) -> Option<Self> {
        let outputs = match windows {
            PoolWindows::Fixed { kernel, stride } if kernel > 0 && stride > 0 && kernel <= inputs => {
                (inputs - kernel) / stride + 1
            }
            PoolWindows::Adaptive { outputs } if outputs > 0 => outputs,
            _ => return None,
        };
        Some(Self { windows, inputs, outputs })
    }

    /// How the windows lie.
    pub(super) fn windows(&self) -> PoolWindows {
        self.windows
    }

    /// Inputs of the window of `output`; both ends grow with `output`.
    pub(super) fn window(&self, output: usize) -> Range<usize> {
        match self.windows {
            PoolWindows::Fixed { kernel, stride } => output * stride..output * stride + kernel,
            PoolWindows::Adaptive { outputs } => {
                output * self.inputs / outputs..((output + 1) * self.inputs).div_ceil(outputs)
            }
        }
    }

    /// Total length of all windows.
    pub(super) fn visited(&self) -> usize {
        (0..self.outputs).map(|output| self.window(output).len()).sum()
    }

    /// Runs of outputs such that windows of different runs share no input.
    pub(super) fn separate_runs(&self) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        let mut end = 0;
        for output in 0..self.outputs {
            let window = self.window(output);
            match runs.last_mut() {
                Some(run) if window.start < end => run.end = output + 1,
                _ => runs.push(output..output + 1),
            }
            end = window.end;
        }
        runs
    }
}
