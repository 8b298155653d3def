//! Times between points of the stream, by the device's own clock.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, CudaStream};

use super::{Cuda, driver};
use crate::error::Result;

/// Points of the stream since it was started, the first among them, or what went wrong with one; none if it stands.
#[derive(Default)]
pub(super) struct Clock(Mutex<Option<Result<Vec<CudaEvent>>>>);

impl Clock {
    fn lock(&self) -> MutexGuard<'_, Option<Result<Vec<CudaEvent>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn point(stream: &CudaStream) -> Result<CudaEvent> {
    let event = stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
    event.map_err(|e| driver::failed("recording an event", e))
}

impl Cuda {
    /// Starts the clock.
    pub(crate) fn start_clock(&self) {
        *self.clock.lock() = Some(self.settle().and_then(|()| point(&self.stream)).map(|start| vec![start]));
    }

    /// Marks a point of the stream, if the clock runs. What the driver says against it [`Cuda::stop_clock`] reports.
    pub(crate) fn mark(&self) {
        let mut clock = self.clock.lock();
        if let Some(Ok(points)) = clock.as_mut() {
            match self.settle().and_then(|()| point(&self.stream)) {
                Ok(next) => points.push(next),
                Err(e) => *clock = Some(Err(e)),
            }
        }
    }

    /// Marks a last point and stops the clock: seconds to each mark from the one before it, or from the start.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn stop_clock(&self) -> Result<Vec<f64>> {
        self.mark();
        let points = self.clock.lock().take().transpose()?.unwrap_or_default();
        let seconds = |pair: &[CudaEvent]| pair[0].elapsed_ms(&pair[1]).map(|ms| f64::from(ms) / 1e3);
        points.windows(2).map(|pair| seconds(pair).map_err(|e| driver::failed("reading an event", e))).collect()
    }
}
