//! What kernels do, counted by the emulator at named sizes and held to a committed table: a change that makes one move more,
//! conflict more, or work more fails here and says which. `scripts/counts.sh` writes the tables anew.

mod bench;
mod cases;
mod inference;
mod layers;
mod steps;
mod table;

use std::collections::BTreeSet;

use table::Table;

/// Bytes that a kernel or an op moves, over the bytes that it must: the aim for those that memory bounds.
const AIM: f64 = 1.25;

/// Share of a case's bytes below which a kernel need not meet the aim.
const SHARE: f64 = 0.005;

/// Warp instructions of a long case: nine of them are half of all instructions.
const LONG: f64 = 15e6;

/// Files whose kernels are bound by memory and should move each byte once.
const STREAMING: [&str; 19] = [
    "activation",
    "dice",
    "dropout",
    "elementwise",
    "layout",
    "loss",
    "moments",
    "norm_act",
    "norm_act_pool",
    "optimizer",
    "pade",
    "pade54",
    "patch",
    "pool",
    "resize",
    "softmax",
    "sums",
    "tensors",
    "worst",
];

/// Files whose kernels multiply out of shared memory and should have no bank conflicts.
const PRODUCTS: [&str; 11] = [
    "conv3d",
    "conv3d_mma",
    "conv3d_pooled",
    "conv3d_pooled_mma",
    "linear",
    "linear_measured",
    "linear_measured_mma",
    "linear_mma",
    "norm_act_linear",
    "norm_act_linear_mma",
    "patch_conv",
];

/// Kernels that miss an aim, and why: docs/kernels.md, "Aims".
const MISSES: [&str; 34] = [
    "avg_pool_backward",
    "avg_pool_forward",
    "conv3d_correlate_tf32_32",
    "conv3d_correlate_tf32_64",
    "conv3d_pack",
    "conv3d_weight_gradient_tf32_64",
    "dice_backward",
    "dice_pieces",
    "fourier_backward",
    "fourier_forward",
    "guard_loss",
    "linear_input_gradient_tf32_128",
    "linear_input_gradient_tf32_64",
    "linear_weight_gradient_tf32_64",
    "max_pool_backward",
    "max_pool_forward",
    "max_pool_places",
    "norm_act_linear_input_gradient_pade54_tf32_64",
    "norm_act_pade54",
    "patch_conv_forward",
    "patch_conv_spectra",
    "patch_conv_weight_gradient",
    "patch_conv_weight_sums",
    "patch_coordinate_gradient",
    "patch_sample_1",
    "patch_sample_4",
    "patch_volume_gradient",
    "reference_entropy_backward",
    "resize_backward",
    "resize_forward",
    "softmax",
    "softmax_backward",
    "worst_count",
    "worst_gradients",
];

/// Warp instructions of a case's kernels, as committed.
fn instructions(table: &Table, case: &str) -> f64 {
    let of_case = table.rows().filter(|row| row.get("case") == case && row.get("kernel") != "(op)");
    of_case.map(|row| row.number("instructions")).sum()
}

/// Every case with the feature `exhaustive` and where the tables are written, else those of at most [`LONG`].
#[test]
fn kernels_do_no_more_than_committed() {
    if cuemu::gpu_present() {
        eprintln!("skipped: a GPU counts nothing");
        return;
    }
    let resources = Table::read("kernels/resources.tsv");
    let all = cfg!(feature = "exhaustive") || table::writes();
    let committed = (!all).then(|| Table::read("kernels/counts.tsv"));
    let long = |case: &str| committed.as_ref().is_some_and(|table| instructions(table, case) > LONG);
    let mut rows = Vec::new();
    for case in cases::CASES.iter().chain(&layers::CASES).chain(&inference::CASES) {
        if !long(case.name) {
            rows.extend(bench::measure(case, &resources));
        }
    }
    table::settle("kernels/counts.tsv", &bench::HEADS, &rows, long);
}

#[test]
fn steps_launch_no_more_than_committed() {
    if cuemu::gpu_present() {
        eprintln!("skipped: a GPU counts nothing");
        return;
    }
    table::settle("kernels/steps.tsv", &steps::HEADS, &steps::measure(), |_| false);
}

/// What the roofline charges for launches.
#[test]
fn launches_are_no_more_than_committed() {
    if cuemu::gpu_present() {
        eprintln!("skipped: a GPU counts nothing");
        return;
    }
    table::settle("kernels/launches.tsv", &steps::LAUNCH_HEADS, &steps::launches(), |_| false);
}

/// What the driver compiles before a first step, which scripts/compile_times.py takes the time of.
#[test]
fn first_kernels_are_no_more_than_committed() {
    if cuemu::gpu_present() {
        eprintln!("skipped: a GPU counts nothing");
        return;
    }
    table::settle("kernels/first.tsv", &steps::FIRST_HEADS, &steps::first(), |_| false);
}

/// True for kernels that are made of one source for many sizes, activations or precisions, of which some are counted.
fn is_a_twin(file: &str, kernel: &str) -> bool {
    file.starts_with("occupancy") || file.ends_with("_mma") || kernel.contains("bf16") || kernel.contains("tf32")
}

/// No kernel goes uncounted.
#[test]
fn every_kernel_has_a_case() {
    let (counts, resources) = (Table::read("kernels/counts.tsv"), Table::read("kernels/resources.tsv"));
    let counted: BTreeSet<&str> = counts.rows().map(|row| row.get("kernel")).collect();
    let missing: Vec<&str> = resources
        .rows()
        .filter(|row| !is_a_twin(row.get("file"), row.get("kernel")) && !counted.contains(row.get("kernel")))
        .map(|row| row.get("kernel"))
        .collect();
    assert!(missing.is_empty(), "without a case in tests/cuda/counts: {}", missing.join(", "));
}

/// The aims hold but for the misses that the docs explain, and those still are misses.
#[test]
fn aims() {
    let (counts, resources) = (Table::read("kernels/counts.tsv"), Table::read("kernels/resources.tsv"));
    let mut missed = BTreeSet::new();
    for row in counts.rows() {
        let kernel = row.get("kernel");
        let Some(of) = resources.rows().find(|of| of.get("kernel") == kernel) else { continue };
        let (file, moved) = (of.get("file"), row.number("moved"));
        let of_case: f64 =
            counts.rows().filter(|other| other.get("case") == row.get("case")).map(|other| other.number("moved")).sum();
        // The case's sum has each kernel twice, once in the line of the op.
        let matters = moved > SHARE * of_case;
        let moves_more = STREAMING.contains(&file) && matters && moved > AIM * row.number("touched");
        let conflicts = PRODUCTS.contains(&file) && row.number("conflicts") > 0.0;
        if moves_more || conflicts {
            missed.insert(kernel);
        }
    }
    let known: BTreeSet<&str> = MISSES.into_iter().collect();
    let new: Vec<_> = missed.difference(&known).collect();
    assert!(new.is_empty(), "these kernels miss the aims: {new:?}");
    let gone: Vec<_> = known.difference(&missed).collect();
    assert!(gone.is_empty(), "these kernels meet the aims now and are to be struck from the list: {gone:?}");
    let waits: Vec<String> = Table::read("kernels/steps.tsv")
        .rows()
        .filter(|row| row.number("bytes to host") > 0.0)
        .map(|row| row.get("model").to_string())
        .collect();
    assert!(waits.is_empty(), "steps copy to the host: {waits:?}");
}
