//! Kernels of our own for the processor: plain functions over slices, no graph. What may run where
//! is a [`Tier`]; who runs it is a [`Pool`]. Every kernel has a scalar form that the others are
//! held against, and gives the same bits whatever the number of rows or threads.

pub mod activations;
pub mod aligned;
pub mod ceiling;
pub mod crew;
pub mod experts;
mod floats;
mod foreign;
pub mod heads;
pub mod kda;
pub mod math;
pub mod matrix;
pub mod mla;
pub mod norm;
pub mod pages;
pub mod pool;
pub mod products;
mod quantized;
pub mod route;
mod share;
pub(crate) mod simd;
pub mod tier;
pub mod weights;

pub use activations::Activations;
pub use crew::Crew;
pub use experts::{ExpertScratch, Experts, Routes, experts};
pub use matrix::{Matrix, Stack};
pub use pool::Pool;
pub use products::{Product, gate_up, products, products_by_head};
pub use tier::{Kind, Tier};
