//! How many instructions an op issues, from the committed counts of `kernels/counts.tsv`.
//!
//! The emulator counts a warp's PTX instruction once. What ptxas makes of it differs (it drops moves, merges address arithmetic,
//! adds waits), so that these are estimates of what a multiprocessor's schedulers issue, each one a clock.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::packed::packed;
use crate::tape::Precision;

/// Sums over the counted cases of an op in a number format.
#[derive(Clone, Copy, Default)]
struct Counted {
    flops: f64,
    bytes: f64,
    instructions: f64,
}

/// Ops whose instructions grow with their operations; those of others grow with their bytes.
const BY_FLOPS: [&str; 4] = ["conv3d", "conv_transpose3d", "linear", "norm_act_linear"];

static COUNTS: LazyLock<HashMap<(&str, &str), Counted>> = LazyLock::new(|| read(packed!("kernels-counts.tsv").leak()));

/// Lines of whole ops, whose first word is the op's name; `bf16: ` or `tf32: ` may stand before it.
fn read(table: &'static str) -> HashMap<(&'static str, &'static str), Counted> {
    let mut counts: HashMap<_, Counted> = HashMap::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let cells: Vec<&str> = line.split('\t').collect();
        let [case, "(op)", _, _, _, _, bytes, _, _, _, flops, instructions, ..] = cells[..] else { continue };
        let (format, case) = case.split_once(": ").unwrap_or(("f32", case));
        let number = |text: &str| text.parse::<f64>().ok();
        let (Some(bytes), Some(flops), Some(instructions)) = (number(bytes), number(flops), number(instructions))
        else {
            continue;
        };
        let sum = counts.entry((name(case), format)).or_default();
        sum.bytes += bytes;
        sum.flops += flops;
        sum.instructions += instructions;
    }
    counts
}

/// The op of a case; products that take statistics belong to the plain ones.
fn name(case: &str) -> &str {
    let word = case.split([' ', ',']).next().unwrap_or(case);
    word.strip_suffix("_measured").or_else(|| word.strip_suffix("_pair")).unwrap_or(word)
}

/// Instructions of a pass of `op` that makes `flops` operations and moves `bytes` bytes; `None` for an op that no case counts.
pub fn instructions(op: &str, precision: Precision, flops: f64, bytes: f64) -> Option<f64> {
    let format = precision.to_string();
    let counted = COUNTS.get(&(op, format.as_str())).or_else(|| COUNTS.get(&(op, "f32")))?;
    let (own, all) = if BY_FLOPS.contains(&op) { (flops, counted.flops) } else { (bytes, counted.bytes) };
    (all > 0.0).then(|| own / all * counted.instructions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_scaled() {
        let table = "# a line\ncase\tkernel\nlinear 8, 4 to 4\t(op)\t1\t0\t0\t1\t100\t-\t-\t-\t1000\t50\t-\n\
                     linear_measured 8\t(op)\t1\t0\t0\t1\t100\t-\t-\t-\t3000\t150\t-\nbf16: linear 8\tlinear_64\t1\n";
        let counts = read(table);
        let linear = counts[&("linear", "f32")];
        assert_eq!((linear.flops, linear.bytes, linear.instructions), (4000.0, 200.0, 200.0));
        assert_eq!(counts.len(), 1);
        // The committed counts: twice the work, twice the instructions; tensor cores need fewer than the others.
        let of = |precision, flops| instructions("linear", precision, flops, 0.0).unwrap();
        assert!((of(Precision::F32, 2e9) / of(Precision::F32, 1e9) - 2.0).abs() < 1e-12);
        assert!(of(Precision::Bf16, 1e9) < 0.5 * of(Precision::F32, 1e9));
        assert!(instructions("patch_conv", Precision::F32, 1e9, 1e9).is_some_and(|all| all > 0.0));
        assert_eq!(instructions("nothing", Precision::F32, 1.0, 1.0), None);
    }
}
