//! Scalar twins of the operators, written from the formulas and nothing else: slow, in f64, the
//! judge of everything fast.

pub mod kda;
pub mod mla;
pub mod moe;
