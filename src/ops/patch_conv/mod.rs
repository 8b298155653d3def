//! stub
use crate::tape::{Tape, Var};
#[derive(Clone, Copy)]
pub enum MidRange {
    Average,
    Maximum,
}
#[derive(Clone, Copy)]
pub enum PatchSource<'a> {
    Patches(&'a Var),
    Volume { volume: &'a Var, coordinates: &'a Var, mid_range: Option<MidRange> },
}
pub fn patch_conv(_: &Tape, _: PatchSource<'_>, _: &Var, _: Option<&Var>) -> crate::Result<Var> {
    unimplemented!()
}
