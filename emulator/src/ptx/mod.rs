//! PTX text to a syntax tree: [`lexer`] cuts tokens, [`parser`] builds the tree of [`ast`].
//!
//! The parser knows the shape of PTX (directives, declarations, labels, instructions and their operands) and no opcode;
//! which instructions exist is decided when the tree is decoded (`crate::ops`).

pub mod ast;
pub mod lexer;
pub mod parser;

pub use parser::parse;
