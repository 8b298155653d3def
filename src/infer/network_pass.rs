//! Passes of a dense network, whose requests are known beforehand: their buffers are placed by their lifetimes.

use std::fmt::Debug;

use crate::device::Foreseen;
use crate::error::Result;
use crate::models::Network;
use crate::nn::Parameters;
use crate::rng::Rng;

/// Where the buffers of a pass will lie: `rehearse` makes it with the same network on a plan, as a step of it. Passes of one
/// network that are called the same are taken to be alike.
pub(crate) fn foreseen(
    network: &dyn Network,
    parameters: &Parameters,
    name: impl Debug,
    rehearse: impl Fn(&dyn Network, &Parameters) -> Result<()>,
) -> Foreseen {
    let (architecture, precision) = (network.architecture(), network.precision());
    parameters.device().foresee(("pass", format!("{name:?} {architecture:?} {precision:?}")), |plan| {
        let mut parameters = Parameters::new(plan);
        let mut same = architecture.build(&mut parameters, &mut Rng::new(0))?;
        same.set_precision(precision);
        rehearse(&*same, &parameters)
    })
}

/// Makes a pass that changes nothing but what it returns, with its buffers so placed.
///
/// # Errors
/// Those of `work`.
pub(crate) fn placed<T>(
    network: &dyn Network,
    parameters: &Parameters,
    name: impl Debug,
    work: impl Fn(&dyn Network, &Parameters) -> Result<T>,
) -> Result<T> {
    let foreseen = foreseen(network, parameters, name, |network, parameters| {
        rehearsed(parameters, || work(network, parameters).map(drop))
    });
    parameters.device().place_ahead(&foreseen, 0, || work(network, parameters))
}

/// Takes `step` on the plan that `parameters` are of.
pub(crate) fn rehearsed(parameters: &Parameters, step: impl FnOnce() -> Result<()>) -> Result<()> {
    parameters.device().place_ahead(&Foreseen::default(), 0, step)
}
