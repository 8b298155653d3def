//! The processes of a command that trains, and the device of each: those that a launcher has started, or one for each of
//! `--cuda-devices 0,1`.

use super::RunArgs;
use super::children;
use super::device_args::{DeviceArgs, DeviceChoice};
use super::output::plural;
use super::ranks;
use crate::device::collective::Launch;
use crate::device::cuda;
use crate::error::{Error, Result};
use crate::train::ranks::Ranks;

/// Joins the other processes of the command, and settles what this one takes of its machine. Where several devices are `listed`
/// and no launcher has started one process for each, this process does so, and ends with their exit status.
///
/// # Errors
/// [`Error::Usage`] for a list that cannot be, processes that cannot talk to each other, or fewer devices than processes.
pub fn join(listed: Option<&str>, device: &mut DeviceArgs, run: &mut RunArgs) -> Result<Ranks> {
    let launch = Launch::from_environment()?;
    let devices = parsed(listed)?;
    if launch.as_ref().is_none_or(|launch| launch.size <= 1) && devices.len() > 1 {
        // Each of them comes here again, as one that was launched.
        std::process::exit(children::run_on(&devices)?.into());
    }
    let gpus = !devices.is_empty() || device.device != DeviceChoice::Cpu;
    let ranks = ranks::join(launch.as_ref(), gpus)?;
    ranks.all(settle(device, &devices, launch.as_ref()))?;
    ranks::share_machine(run, &ranks, gpus)?;
    Ok(ranks)
}

/// The devices of `--cuda-devices`; none without it.
fn parsed(list: Option<&str>) -> Result<Vec<usize>> {
    let Some(list) = list else { return Ok(Vec::new()) };
    let numbers: Option<Vec<usize>> = list.split(',').map(|number| number.trim().parse().ok()).collect();
    let numbers = numbers.ok_or_else(|| {
        Error::Usage(format!("--cuda-devices '{list}' is no list of devices' numbers; give some, for example 0,1"))
    })?;
    let twice = numbers.iter().enumerate().find(|(i, number)| numbers[..*i].contains(number));
    match twice {
        Some((_, number)) => {
            Err(Error::Usage(format!("--cuda-devices {list} names device {number} twice; name it once")))
        }
        None => Ok(numbers),
    }
}

/// Chooses the device of this process: of the listed ones, or of those that there are, that of its number on its machine.
fn settle(device: &mut DeviceArgs, listed: &[usize], launch: Option<&Launch>) -> Result<()> {
    let launch = launch.filter(|launch| launch.size > 1);
    let local = launch.map_or(0, |launch| launch.local.unwrap_or(launch.rank));
    if !listed.is_empty() {
        let Some(&own) = listed.get(local) else {
            let problem = format!("--cuda-devices names {}", plural(listed.len(), "device"));
            let here = format!("this is process {local} of its machine, from 0");
            return Err(Error::Usage(format!("{problem}, and {here}; name one for each process")));
        };
        device.device = DeviceChoice::Cuda(own);
    } else if let (DeviceChoice::Cuda(number), Some(_)) = (device.device, launch) {
        if number > 0 {
            let problem = format!("--device cuda:{number} is one device, for several processes");
            return Err(Error::Usage(format!("{problem}; write --device cuda: each takes that of its number")));
        }
        // One that Slurm or a container shows a process alone is number 0 to it.
        device.device = DeviceChoice::Cuda(local % cuda::count()?);
    }
    Ok(())
}
