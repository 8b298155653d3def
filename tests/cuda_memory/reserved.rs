//! The ledger against the driver.

use crate::emulator;
use ossnet::device::Device;
use ossnet::models::{NetworkConfig, OssNetConfig};
use ossnet::train::dry_run::{StepSizes, dry_run};

/// The ledger's reserved bytes are the driver's live bytes, at the peak and at the end.
#[test]
fn reserved_bytes_are_the_drivers() {
    let Some(emulator) = emulator() else {
        return eprintln!("skipped: other programs hold memory of a GPU too");
    };
    let device = Device::cuda(0, 256 << 20).unwrap();
    assert_eq!(emulator.memory(0).0, device.reserved());
    let config = NetworkConfig::OssNet(OssNetConfig::sample("full", 1, [32; 3]).unwrap());
    let sizes = StepSizes::new([32; 3], 1, 300);
    let cost = dry_run(&device, &config, sizes, 1).unwrap();
    assert!(cost.peak.by_role.total() > 4 << 20 && cost.peak.by_role.total() <= device.reserved());
    assert_eq!(emulator.memory(0), (device.reserved(), device.reserved()));
    let plan = device.planned();
    dry_run(&plan, &config, sizes, 1).unwrap();
    assert_eq!(plan.reserved(), device.reserved());
    assert!(device.launches() > 100, "{} launches", device.launches());
    drop(device);
    assert_eq!(emulator.memory(0).0, 0);
}
