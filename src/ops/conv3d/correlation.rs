//! Forward pass and data gradient as one thing: a sum of shifted inputs times weights.
//!
//! Along one axis the forward pass is `y[o] = Σ_t x[o·stride + t − padding]·w[t]`. Its adjoint with stride `s` is, for
//! each residue `r` of the destination modulo `s`, again such a sum, with stride 1 and every `s`-th tap in reverse:
//! `dx[s·j + r] = Σ_u dy[j + (r + padding − t₀)/s − u]·w[t₀ + s·u]` with `t₀ = (r + padding) mod s`. So no inserted zero
//! is ever multiplied. A [`Phase`] is one such sum; the forward pass has one, the adjoint `s` an axis.

use super::padded_tile::Span;
use super::sizes::Sizes;

/// One residue of one axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct AxisPhase {
    /// Number of taps; none if no tap meets the residue (the destination is then zero).
    pub taps: usize,
    /// Index in the kernel of the first tap.
    pub first_tap: isize,
    /// Step in the kernel from tap to tap.
    pub tap_step: isize,
    /// Source coordinate of the first tap at destination 0 of the phase.
    pub lead: isize,
    /// First destination coordinate.
    pub place: usize,
    /// Number of destinations.
    pub outputs: usize,
}

impl AxisPhase {
    /// Index in the kernel of tap `i`.
    pub fn tap(&self, i: usize) -> usize {
        (self.first_tap + self.tap_step * i as isize) as usize
    }
}

/// One axis of a correlation.
#[derive(Clone, Debug)]
pub(super) struct CorrelationAxis {
    /// Length of the source.
    pub source: usize,
    /// Length of the destination.
    pub destination: usize,
    /// Source voxels from one destination of a phase to the next.
    pub step: usize,
    /// Destination voxels from one destination of a phase to the next.
    pub spread: usize,
    /// The residues.
    pub phases: Vec<AxisPhase>,
}

impl CorrelationAxis {
    /// `y[o] = Σ_t x[o·stride + t − padding]·w[t]`.
    pub fn forward(sizes: &Sizes, axis: usize) -> Self {
        let window = &sizes.window;
        let phase = AxisPhase {
            taps: window.kernel[axis],
            first_tap: 0,
            tap_step: 1,
            lead: -(window.padding[axis] as isize),
            place: 0,
            outputs: sizes.output[axis],
        };
        Self {
            source: sizes.input[axis],
            destination: sizes.output[axis],
            step: window.stride[axis],
            spread: 1,
            phases: vec![phase],
        }
    }

    /// The adjoint of [`CorrelationAxis::forward`].
    pub fn adjoint(sizes: &Sizes, axis: usize) -> Self {
        let window = &sizes.window;
        let (kernel, stride, padding) = (window.kernel[axis], window.stride[axis], window.padding[axis]);
        let length = sizes.input[axis];
        let phases = (0..stride.min(length)).map(|residue| {
            let first = (residue + padding) % stride;
            let taps = if first < kernel { (kernel - first).div_ceil(stride) } else { 0 };
            AxisPhase {
                taps,
                first_tap: (first + stride * taps.saturating_sub(1)) as isize,
                tap_step: -(stride as isize),
                lead: ((residue + padding) / stride) as isize - taps.saturating_sub(1) as isize,
                place: residue,
                outputs: (length - residue).div_ceil(stride),
            }
        });
        Self { source: sizes.output[axis], destination: length, step: 1, spread: stride, phases: phases.collect() }
    }

    /// Destinations of the longest phase.
    pub fn outputs(&self) -> usize {
        self.phases.iter().map(|phase| phase.outputs).max().unwrap_or(0)
    }

    /// Source coordinates that the destinations `first..first + count` of all phases read.
    pub fn span(&self, first: usize, count: usize) -> Span {
        let start = self.lead();
        let end = self.phases.iter().map(|phase| phase.lead + phase.taps as isize).max().unwrap_or(0).max(start);
        Span {
            start: (first * self.step) as isize + start,
            length: count.saturating_sub(1) * self.step + (end - start) as usize,
        }
    }

    /// Smallest lead of the phases.
    pub fn lead(&self) -> isize {
        self.phases.iter().map(|phase| phase.lead).min().unwrap_or(0)
    }
}

/// One residue of each axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    /// Depth, height, width.
    pub axes: [AxisPhase; 3],
    /// Taps of the phases before this one: where its weights begin.
    pub taps_before: usize,
}

impl Phase {
    /// Taps of this phase.
    pub fn taps(&self) -> usize {
        self.axes.iter().map(|axis| axis.taps).product()
    }
}

/// A forward pass or a data gradient.
#[derive(Clone, Debug)]
pub(super) struct Correlation {
    /// Volumes.
    pub batch: usize,
    /// Depth, height, width.
    pub axes: [CorrelationAxis; 3],
    /// Channels of the source.
    pub inputs: usize,
    /// Channels of the destination.
    pub outputs: usize,
    /// All combinations of the axes' phases.
    pub phases: Vec<Phase>,
    /// What each of the neighbouring destinations that [`Correlation::folded`] made channels reads of a run along the
    /// line (`lead` counts from the run's first tap); empty if there are none.
    pub bands: Vec<AxisPhase>,
    /// True for the data gradient.
    pub adjoint: bool,
}

impl Correlation {
    /// `y` from `x`.
    pub fn forward(sizes: &Sizes) -> Self {
        let axes = [0, 1, 2].map(|axis| CorrelationAxis::forward(sizes, axis));
        Self::new(sizes.batch, axes, sizes.in_channels, sizes.out_channels, false)
    }

    /// `dx` from `dy`.
    pub fn adjoint(sizes: &Sizes) -> Self {
        let axes = [0, 1, 2].map(|axis| CorrelationAxis::adjoint(sizes, axis));
        Self::new(sizes.batch, axes, sizes.out_channels, sizes.in_channels, true)
    }

    fn new(batch: usize, axes: [CorrelationAxis; 3], inputs: usize, outputs: usize, adjoint: bool) -> Self {
        let mut phases = Vec::new();
        let mut taps_before = 0;
        for &d in &axes[0].phases {
            for &h in &axes[1].phases {
                for &w in &axes[2].phases {
                    let phase = Phase { axes: [d, h, w], taps_before };
                    taps_before += phase.taps();
                    phases.push(phase);
                }
            }
        }
        Self { batch, axes, inputs, outputs, phases, bands: Vec::new(), adjoint }
    }

    /// The same correlation with neighbouring destinations of a line as further output channels, if it is thereby cheaper
    /// for vectors of `lanes` floats.
    ///
    /// Few output channels leave most of a vector idle. Channels-last, `f` neighbouring voxels of `c` channels *are* one
    /// voxel of `f·c` channels, and each reads a band of the `f`-fold longer run of inputs. Its other weights are zero, but
    /// a vector computes all of them at once: `f − 1 + taps` steps instead of `f·taps`.
    pub fn folded(self, lanes: usize) -> Self {
        let line = &self.axes[2];
        let mut fold = 1;
        while 2 * fold * self.outputs <= lanes && line.destination.is_multiple_of(2 * fold) {
            fold *= 2;
        }
        if !fold.is_multiple_of(line.spread) || line.phases.len() != line.spread {
            return self;
        }
        let mut bands: Vec<AxisPhase> = (0..fold)
            .map(|i| {
                let phase = line.phases[i % line.spread];
                AxisPhase { lead: phase.lead + (i / line.spread * line.step) as isize, ..phase }
            })
            .collect();
        let lead = bands.iter().map(|band| band.lead).min().unwrap_or(0);
        bands.iter_mut().for_each(|band| band.lead -= lead);
        let taps = bands.iter().map(|band| band.lead as usize + band.taps).max().unwrap_or(0);
        if taps >= bands.iter().map(|band| band.taps).sum() {
            return self;
        }
        let outputs = line.destination / fold;
        let run = AxisPhase { taps, first_tap: 0, tap_step: 1, lead, place: 0, outputs };
        let line = CorrelationAxis {
            source: line.source,
            destination: outputs,
            step: line.step * (fold / line.spread),
            spread: 1,
            phases: vec![run],
        };
        let [depth, height, _] = self.axes;
        let folded = Self::new(self.batch, [depth, height, line], self.inputs, self.outputs * fold, self.adjoint);
        Self { bands, ..folded }
    }

    /// Output channels of the convolution, without those that folding made.
    pub fn channels(&self) -> usize {
        self.outputs / self.bands.len().max(1)
    }

    /// Taps of all phases.
    pub fn taps(&self) -> usize {
        self.phases.iter().map(Phase::taps).sum()
    }

    /// Lengths of the source's axes.
    pub fn source(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.axes[axis].source)
    }

    /// Lengths of the destination's axes.
    pub fn destination(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.axes[axis].destination)
    }

    /// Floats between neighbouring inputs and between neighbouring outputs in the weight `[out, in, taps]`, and taps of
    /// the whole kernel.
    pub fn weight_strides(&self, kernel: [usize; 3]) -> (usize, usize) {
        let taps: usize = kernel.iter().product();
        match self.adjoint {
            false => (taps, taps * self.inputs),
            true => (taps * self.channels(), taps),
        }
    }
}
