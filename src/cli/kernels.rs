//! `ossnet devices --kernels`: every kernel loaded, and what the driver made of it beside what ptxas did.

use std::time::Instant;

use serde_json::{Value, json};

use super::output::print;
use super::progress::Verbosity;
use super::provenance::print_json;
use crate::device::{Backend, Device, KernelInfo};
use crate::error::{Error, Result};
use crate::memory::format_bytes;
use crate::order;
use crate::packed::packed;
use crate::report::TextTable;

/// Address space that loading needs: none but the engine's own.
const BUDGET: u64 = 2 << 20;

/// The slowest that are printed.
const SHOWN: usize = 10;

/// Registers by kernel, as ptxas of the pinned toolkit gives them for the architecture of this capability.
fn expected(capability: (u32, u32)) -> impl Fn(&str) -> Option<u32> {
    let table = packed!("kernels-resources.tsv");
    let mut lines = table.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let heads = lines.next().unwrap_or_default();
    let wanted = format!("registers sm_{}{}", capability.0, capability.1);
    let column = heads.iter().position(|head| *head == wanted);
    let rows = lines.filter_map(|row| Some((row.get(1)?.to_string(), row.get(column?)?.parse().ok()?)));
    let rows: Vec<(String, u32)> = rows.collect();
    move |kernel| rows.iter().find(|row| row.0 == kernel).map(|row| row.1)
}

/// Loads all kernels on device `ordinal` and prints what came of it.
///
/// # Errors
/// What the driver says; [`Error::Device`] that names the first kernel that could not be loaded.
pub fn run(ordinal: usize, as_json: bool) -> Result<()> {
    let device = Device::cuda(ordinal, BUDGET)?;
    let Backend::Cuda(cuda) = device.backend() else { return Ok(()) };
    let verbosity = Verbosity::detect(as_json);
    cuda.on_compiling(move |done, all| verbosity.compiling(done, all));
    let started = Instant::now();
    let kernels = cuda.load_all()?;
    let (seconds, expected) = (started.elapsed().as_secs_f64(), expected(cuda.target().capability));
    match as_json {
        true => print_json(in_json(&kernels, seconds, &expected), "kernels")?,
        false => print(in_text(&kernels, seconds, &expected))?,
    }
    match kernels.iter().find_map(|kernel| kernel.problem.as_ref()) {
        Some(problem) => Err(Error::Device(problem.clone())),
        None => Ok(()),
    }
}

fn in_json(kernels: &[KernelInfo], seconds: f64, expected: &dyn Fn(&str) -> Option<u32>) -> Value {
    let row = |kernel: &KernelInfo| {
        let mut row = json!(kernel);
        row["ptxas_registers"] = json!(expected(kernel.kernel));
        row
    };
    json!({
        "seconds": seconds,
        "seconds_of_all_threads": kernels.iter().map(|kernel| kernel.seconds).sum::<f64>(),
        "kernels": kernels.iter().map(row).collect::<Vec<_>>(),
    })
}

fn in_text(kernels: &[KernelInfo], seconds: f64, expected: &dyn Fn(&str) -> Option<u32>) -> String {
    let all: f64 = kernels.iter().map(|kernel| kernel.seconds).sum();
    let loaded = kernels.iter().filter(|kernel| kernel.problem.is_none()).count();
    let spilling: Vec<&str> = kernels.iter().filter(|kernel| kernel.local > 0).map(|kernel| kernel.kernel).collect();
    let other = |kernel: &&KernelInfo| expected(kernel.kernel).is_some_and(|registers| registers != kernel.registers);
    let text = format!(
        "{loaded} of {} kernels loaded in {seconds:.1} s ({all:.1} s of all threads); {} have other registers than ptxas gave, {} use local memory{}{}\n\n",
        kernels.len(),
        kernels.iter().filter(other).count(),
        spilling.len(),
        if spilling.is_empty() { "" } else { ": " },
        spilling.join(", "),
    );
    let mut slowest: Vec<&KernelInfo> = kernels.iter().collect();
    order::by_key_descending(&mut slowest, |kernel| order::of_number(kernel.seconds));
    let mut grid = TextTable::new(["slowest kernels", "seconds", "registers", "of ptxas", "shared", "local"]);
    for kernel in slowest.into_iter().take(SHOWN) {
        grid.push([
            kernel.kernel.to_string(),
            format!("{:.2}", kernel.seconds),
            kernel.registers.to_string(),
            expected(kernel.kernel).map_or_else(String::new, |registers| registers.to_string()),
            format_bytes(kernel.shared.into()),
            format_bytes(kernel.local.into()),
        ]);
    }
    text + &grid.render()
}

#[cfg(test)]
mod tests {
    use super::expected;

    #[test]
    fn registers_are_told_by_architecture() {
        assert!(expected((8, 0))("conv3d_pack").is_some_and(|registers| registers > 8));
        assert_eq!(expected((7, 5))("conv3d_pack"), None);
        assert_eq!(expected((8, 0))("no_such_kernel"), None);
    }
}
