//! What does a training step cost at each size? A plan goes through the motions and allocates nothing.
//!
//! `cargo run --release --example plan`

use ossnet::device::Device;
use ossnet::device::cpu::SimdLevel;
use ossnet::memory::format_bytes;
use ossnet::models::{Architecture, Family, NetworkConfig};
use ossnet::train::dry_run::{StepSizes, dry_run};

/// The program; a test runs it too.
pub fn main() -> ossnet::Result<()> {
    println!("{:<10} {:>6} {:>14} {:>14}", "network", "side", "activations", "all");
    for name in ["oss-net-c", "unet3d"] {
        for side in [64, 128, 256] {
            let config = NetworkConfig::official(name, Family::Brats)?;
            let (channels, classes) = (config.image_channels(), config.classes());
            let config = config.adapted(channels, classes, [side; 3]);
            // Nothing of this budget is taken; it is what the planned machine may have.
            let device = Device::plan(2, SimdLevel::detect(), 1 << 40);
            let cost = dry_run(&device, &config, StepSizes::new([side; 3], 1, 16_384), 2)?;
            let (activations, all) = (cost.peak_activations, cost.peak.by_role.total());
            println!("{name:<10} {side:>6} {:>14} {:>14}", format_bytes(activations), format_bytes(all));
        }
    }
    Ok(())
}
