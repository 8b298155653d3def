//! The checkers: what they look for ([`config`]), what they report ([`finding`]), and how they know ([`race`],
//! [`checker`]).

pub mod checker;
pub mod config;
pub mod finding;
pub mod race;
