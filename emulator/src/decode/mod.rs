//! From the syntax tree to executable form.
//!
//! [`module`] walks a kernel's statements; [`builder`] gives registers, constants and symbols their slots; the families
//! in `crate::ops` decode the instructions. What nothing knows is refused here, by name, when the module is loaded.

pub mod builder;
pub mod ir;
pub mod module;
