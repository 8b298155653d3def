//! What help says beside the flags: examples (which a test parses), exit statuses, variables.

#![cfg_attr(not(feature = "train"), allow(dead_code))] // a build without those commands

use clap::builder::Styles;
use clap::builder::styling::AnsiColor;

/// Colours of help and errors.
pub const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

pub const TOP: &str = "\
Examples:
  ossnet                                             compares networks
  ossnet memory -m oss-net-c --volume 256x256x160    what a training step costs
  ossnet train -m unet3d -d DATA -o run              one network on your data
  ossnet infer -l run/unet3d.safetensors -i SCAN.nii.gz -o seg.nii.gz

Exit status:
  0 done   1 a file, the data, memory or a device   2 the command line
  130 interrupted; what was done is saved

Variables:
  OSSNET_THREADS, OSSNET_MEMORY_BUDGET, OSSNET_DEVICE, OSSNET_QUIET,
  OSSNET_VERBOSE, OSSNET_PROGRESS and OSSNET_COLOR stand for the flags of
  these names;
  OSSNET_SIMD=avx2 or portable forces a level of CPU kernels;
  NO_COLOR is respected.

Not a medical device: for research only.";

/// What ends the help of every command.
pub const STATUS: &str = "\
Exit status:
  0 done   1 a file, the data, memory or a device   2 the command line
  130 interrupted";

pub const COMPARE: &str = "\
Examples:
  ossnet compare -m o-net-small,unet3d -d DATA -o result
  ossnet compare -d DATA --folds 5 --time-budget 30m
  ossnet compare --epochs 20 --seed 1";

pub const PLAN: &str = "\
Examples:
  ossnet plan -d DATA -o plans --memory-budget 8GiB --time-budget 30m
  ossnet plan -d DATA -m oss-net-c-small,unet3d,unet2d --epochs 20";

pub const TRAIN: &str = "\
Examples:
  ossnet train -m oss-net-c -d DATA -o run --epochs 100
  ossnet train --resume run
  ossnet train -d DATA -m unet3d --time-budget 30m    set up by the data
  ossnet train --config run.toml --device cuda --precision bf16
  ossnet train -m full --dataset BraTS --dataset-path BraTS2020

An interrupt saves a checkpoint; --resume goes on from it to the same bits.";

pub const EVALUATE: &str = "\
Examples:
  ossnet evaluate -l run/unet3d.safetensors -d DATA
  ossnet evaluate -l run/unet3d.safetensors --part all --tolerance 2 -o scores
  ossnet evaluate --predictions SEGMENTATIONS -d DATA";

pub const INFER: &str = "\
Examples:
  ossnet infer -l model.safetensors -i SCAN.nii.gz -o seg.nii.gz
  ossnet infer -l model.safetensors -i SCANS -o found --mesh ply --report
  ossnet infer -l model.safetensors -i SCAN.nii.gz -o fine --spacing 0.5
  ossnet infer -l cv/fold-1 cv/fold-2 -i SCAN.nii.gz -o seg.nii.gz
  ossnet infer -l unet.safetensors -i CT.nii.gz -o out --window 96x96x96 --tta
  ossnet infer -l model.safetensors -i cases.txt -o out --resume --shard 3/64
  ossnet infer --merge out
  ossnet infer -l model.safetensors -i SCANS --plan";

pub const MEMORY: &str = "\
Examples:
  ossnet memory -m oss-net-c --volume 256x256x160 --points 16384 --recompute 3
  ossnet memory --sweep 64..512 --models oss-net-c,unet3d --html sweep.html
  ossnet memory --config plans/unet3d.toml
  ossnet memory --fit 24GB --plan-for sm_89
  ossnet memory --fit gpus -m unet3d
  ossnet memory -m unet3d --volume 64x64x64 --compare-to measured";

pub const ROOFLINE: &str = "\
Examples:
  ossnet roofline --device a100 -m unet3d --volume 128x128x128 --batch 2
  ossnet roofline --device h100 --precision bf16 --launch 0";

pub const MESH: &str = "\
Examples:
  ossnet mesh SEG.nii.gz -o organ.ply
  ossnet mesh SEG.nii.gz -o meshes/organs.glb --smooth 15 --triangles 20000
  ossnet mesh PROBABILITIES.nii.gz -o tumour.stl --threshold 0.3";

pub const BORDERS: &str = "\
Examples:
  ossnet borders DATA
  ossnet borders LABEL.nii.gz -o maps --format pt";

pub const INSPECT: &str = "\
Examples:
  ossnet inspect DATA
  ossnet inspect DATA --full -o inspection";

pub const CONVERT: &str = "\
Examples:
  ossnet convert best_model.pt model.safetensors --model full
  ossnet convert model.safetensors model.pt";

pub const COMPLETIONS: &str = "\
Examples:
  ossnet completions bash > ~/.local/share/bash-completion/completions/ossnet
  ossnet completions fish > ~/.config/fish/completions/ossnet.fish
  ossnet completions zsh > ~/.zfunc/_ossnet";

pub const MAN: &str = "\
Examples:
  ossnet man ~/.local/share/man/man1";

pub const DEVICES: &str = "\
Examples:
  ossnet devices
  ossnet devices --kernels    loads every kernel on the first GPU";

pub const LICENCES: &str = "\
Examples:
  ossnet licences";
