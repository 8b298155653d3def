//! Layers as they run: measured, fused, pooled, of a few rows, on tensor cores, folded for inference.

use ossnet::error::Result;
use ossnet::models::{Encoding, Network, OssNet, OssNetConfig};
use ossnet::nn::layers::{self, Act, Builder, Conv};
use ossnet::nn::{Parameters, conv_norm_act_pool};
use ossnet::ops::conv3d::ConvGeometry;
use ossnet::ops::patch_conv::PatchSource;
use ossnet::ops::{self, Activation, Grouping, NormActArgs};
use ossnet::rng::Rng;
use ossnet::tape::{Mode, Precision, Tape};

use super::bench::{Bench, Case};

const fn case(name: &'static str, run: fn(&Bench) -> Result<()>) -> Case {
    Case { name, run, only: &[] }
}

/// One case for each.
pub const CASES: [Case; 38] = [
    case("linear 8, 256 to 512", |b| linear(b, [8, 256, 512], Precision::F32)),
    case("linear_pair 8, 256 to 512 each", |b| pair(b, [8, 256, 512])),
    case("linear_measured 2048, 32 to 16 and beside", |b| measured(b, [2048, 32, 16], Precision::F32)),
    case("linear_measured 2048, 32 to 32 and beside", |b| measured(b, [2048, 32, 32], Precision::F32)),
    case("linear_measured 2048, 64 to 64 and beside", |b| measured(b, [2048, 64, 64], Precision::F32)),
    case("linear_measured 8192, 32 to 256 and beside", |b| measured(b, [8192, 32, 256], Precision::F32)),
    case("norm_act_linear 2×512, 64 to 64", |b| fused(b, [512, 64, 64], Precision::F32)),
    case("norm_act_linear 2×512, 256 to 256", |b| fused(b, [512, 256, 256], Precision::F32)),
    case("norm_act_linear 2×256, 512 to 512", |b| fused(b, [256, 512, 512], Precision::F32)),
    case("norm_act_linear 2×1024, 1024 to 8", |b| fused(b, [1024, 1024, 8], Precision::F32)),
    case("bf16: linear 8192, 64 to 16", |b| linear(b, [8192, 64, 16], Precision::Bf16)),
    case("bf16: linear 8192, 32 to 32", |b| linear(b, [8192, 32, 32], Precision::Bf16)),
    case("bf16: linear 2048, 64 to 64", |b| linear(b, [2048, 64, 64], Precision::Bf16)),
    case("bf16: linear 16384, 128 to 128", |b| linear(b, [16384, 128, 128], Precision::Bf16)),
    case("bf16: linear_measured 2048, 64 to 64 and beside", |b| measured(b, [2048, 64, 64], Precision::Bf16)),
    case("bf16: linear_measured 8192, 32 to 256 and beside", |b| measured(b, [8192, 32, 256], Precision::Bf16)),
    case("bf16: norm_act_linear 2×1024, 256 to 256", |b| fused(b, [1024, 256, 256], Precision::Bf16)),
    case("bf16: norm_act_linear 2×1024, 1024 to 512", |b| fused(b, [1024, 1024, 512], Precision::Bf16)),
    case("bf16: conv3d 3³, 8 to 16 at 16³", |b| conv(b, [16; 3], [8, 16], 3, Precision::Bf16)),
    case("bf16: conv3d 3³, 16 to 32 at 12³", |b| conv(b, [12; 3], [16, 32], 3, Precision::Bf16)),
    case("bf16: conv3d 3³, 32 to 64 at 8³", |b| conv(b, [8; 3], [32, 64], 3, Precision::Bf16)),
    case("bf16: conv3d 1³, 128 to 128 at 32×32×16", |b| conv(b, [32, 32, 16], [128, 128], 1, Precision::Bf16)),
    case("bf16: conv3d_measured 3³, 8 to 16 at 16³", |b| measured_conv(b, [16; 3], [8, 16], [3; 3])),
    case("bf16: conv3d_measured 3³, 16 to 32 at 12³", |b| measured_conv(b, [12; 3], [16, 32], [3; 3])),
    case("bf16: conv3d_measured 3³, 16 to 64 at 8³", |b| measured_conv(b, [8; 3], [16, 64], [3; 3])),
    case("bf16: conv3d_measured 1×1×3, 8 to 128 at 32×32×16", |b| {
        measured_conv(b, [32, 32, 16], [8, 128], [1, 1, 3])
    }),
    case("tf32: linear 2048, 64 to 64", |b| linear(b, [2048, 64, 64], Precision::Tf32)),
    case("tf32: linear 16384, 128 to 128", |b| linear(b, [16384, 128, 128], Precision::Tf32)),
    case("tf32: norm_act_linear 2×1024, 256 to 256", |b| fused(b, [1024, 256, 256], Precision::Tf32)),
    case("tf32: conv3d 3³, 32 to 64 at 8³", |b| conv(b, [8; 3], [32, 64], 3, Precision::Tf32)),
    case("norm_act_pool 2×16³×32", |b| pooled(b, Precision::F32)),
    case("bf16: norm_act_pool 2×16³×32", |b| pooled(b, Precision::Bf16)),
    pooled_convolution("conv_norm_act_pool 2×32³, 4 to 16", |b| convolution(b, 32, [4, 16], Precision::F32)),
    pooled_convolution("conv_norm_act_pool 2×16³, 16 to 32", |b| convolution(b, 16, [16, 32], Precision::F32)),
    pooled_convolution("conv_norm_act_pool 2×8³, 32 to 64", |b| convolution(b, 8, [32, 64], Precision::F32)),
    pooled_convolution("bf16: conv_norm_act_pool 2×16³, 32 to 64", |b| convolution(b, 16, [32, 64], Precision::Bf16)),
    case("occupancy of oss-net-c, 256 points", |b| occupancy(b, Precision::F32)),
    case("bf16: occupancy of oss-net-c, 256 points", |b| occupancy(b, Precision::Bf16)),
];

fn linear(b: &Bench, [rows, from, to]: [usize; 3], precision: Precision) -> Result<()> {
    b.op_in(precision, &[&[rows, from], &[to, from], &[to]], |t, v| ops::linear(t, &v[0], &v[1], None, Some(&v[2])))
}

/// Scale and shift of a norm, added up.
fn pair(b: &Bench, [rows, from, to]: [usize; 3]) -> Result<()> {
    b.op_in(Precision::F32, &[&[rows, from], &[to, from], &[to], &[to, from], &[to]], |t, v| {
        let [scale, shift] = ops::linear_pair(t, &v[0], [[&v[1], &v[2]], [&v[3], &v[4]]], None)?;
        ops::add(t, &scale, &shift)
    })
}

fn measured(b: &Bench, [rows, from, to]: [usize; 3], precision: Precision) -> Result<()> {
    b.op_in(precision, &[&[rows, from], &[to, from], &[to], &[to, from], &[to]], |t, v| {
        let made = ops::linear_with_stats(t, &v[0], [&v[1], &v[2]], 0..v[0].shape()[1], Some([&v[3], &v[4]]))?;
        Ok(made.0.value)
    })
}

fn conv(b: &Bench, [d, h, w]: [usize; 3], [from, to]: [usize; 2], side: usize, precision: Precision) -> Result<()> {
    let geometry = ConvGeometry { stride: [1; 3], padding: [side / 2; 3] };
    b.op_in(precision, &[&[1, d, h, w, from], &[to, from, side, side, side], &[to]], |t, v| {
        ops::conv3d(t, &v[0], &v[1], Some(&v[2]), geometry)
    })
}

fn measured_conv(b: &Bench, [d, h, w]: [usize; 3], [from, to]: [usize; 2], kernel: [usize; 3]) -> Result<()> {
    let geometry = ConvGeometry { stride: [1; 3], padding: kernel.map(|side| side / 2) };
    let [kd, kh, kw] = kernel;
    b.op_in(Precision::Bf16, &[&[1, d, h, w, from], &[to, from, kd, kh, kw], &[to]], |t, v| {
        Ok(ops::conv3d_with_stats(t, &v[0], &v[1], Some(&v[2]), geometry, Grouping::Channel)?.value)
    })
}

/// The second layer of a decoder block for two volumes.
fn fused(b: &Bench, [rows, from, to]: [usize; 3], precision: Precision) -> Result<()> {
    let activation = Activation::Pade { numerator: 5, denominator: 4 };
    let statistics = b.filled(&[2, 1], |i| [0.1, 0.7][i])?;
    b.op_in(precision, &[&[2 * rows, from], &[2, from], &[2, from], &[6], &[4], &[to, from], &[to]], |t, v| {
        let statistics = t.constant(statistics.clone());
        let parts = NormActArgs {
            statistics: Some((&statistics, Grouping::Scalar)),
            through_statistics: true,
            gamma: Some(&v[1]),
            beta: Some(&v[2]),
            activation,
            parameters: &[&v[3], &v[4]],
            ..NormActArgs::default()
        };
        Ok(ops::norm_act_linear(t, &v[0], &parts, [&v[5], &v[6]], true)?.value)
    })
}

/// What an encoder block does behind its first convolution.
fn pooled(b: &Bench, precision: Precision) -> Result<()> {
    let statistics = b.filled(&[2, 32], |i| if i < 32 { 0.1 } else { 0.7 })?;
    b.op_in(precision, &[&[2, 16, 16, 16, 32], &[32], &[32], &[6], &[4]], |t, v| {
        let statistics = t.constant(statistics.clone());
        let parts = NormActArgs {
            statistics: Some((&statistics, Grouping::Channel)),
            through_statistics: true,
            gamma: Some(&v[1]),
            beta: Some(&v[2]),
            activation: Activation::PADE,
            parameters: &[&v[3], &v[4]],
            ..NormActArgs::default()
        };
        ops::norm_act_pool(t, &v[0], &parts)
    })
}

/// The kernels that are one launch where nothing of the convolution's result is kept.
const fn pooled_convolution(name: &'static str, run: fn(&Bench) -> Result<()>) -> Case {
    let only = &[
        "conv3d_pooled_pade54_16",
        "conv3d_pooled_pade54_32",
        "conv3d_pooled_pade54_64",
        "conv3d_pooled_pade54_bf16_64",
    ];
    Case { name, run, only }
}

/// The first half of an encoder block in evaluation.
fn convolution(b: &Bench, side: usize, [from, to]: [usize; 2], precision: Precision) -> Result<()> {
    let mut parameters = Parameters::new(&b.device);
    let mut rng = Rng::new(5);
    let mut builder = Builder::new(&mut parameters, &mut rng);
    let conv = Conv::new(&mut builder.child("conv"), from, to, [3; 3], [1; 3], [1; 3], false)?;
    let norm = layers::NormAct::batch(&mut builder.child("norm"), to)?;
    let act = Act::new(&mut builder.child("act"), Activation::PADE)?;
    let tape = Tape::new(&b.device, Mode::Eval).with_precision(precision);
    let x = tape.constant(b.tensor(&[2, side, side, side, from])?);
    let x = ops::cast(&tape, &x, precision.storage())?;
    b.start();
    conv_norm_act_pool(&tape, &parameters, (&conv, &norm, &act), &x).map(|_| ())
}

/// The decoder folded for a volume, and its answers.
fn occupancy(b: &Bench, precision: Precision) -> Result<()> {
    const SIDE: usize = 16;
    let config = OssNetConfig::sample("oss-net-c", 1, [SIDE; 3])?;
    let mut parameters = Parameters::new(&b.device);
    let mut network = OssNet::new(config.clone(), &mut parameters, &mut Rng::new(5))?;
    network.set_precision(precision);
    let tape = Tape::new(&b.device, Mode::Eval);
    let volume = tape.constant(b.tensor(&[1, SIDE, SIDE, SIDE, 1])?);
    let coordinates = tape.constant(b.filled(&[256, 3], |i| (i * 7919 % SIDE) as f32)?);
    let latents = tape.constant(b.tensor(&[1, config.latents(), config.latent_features()])?);
    let encoding = Encoding { latents, auxiliary: None };
    let source =
        PatchSource::Volume { volume: &volume, coordinates: &coordinates, options: config.patch_options(false) };
    b.start();
    let folded = network.fold(&tape, &parameters, &encoding)?.expect("its layers fit the tiles");
    network.decode_folded(&tape, &parameters, &folded, &coordinates, Some(source)).map(|_| ())
}
