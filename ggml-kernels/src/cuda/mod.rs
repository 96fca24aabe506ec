//! The model's parts on an NVIDIA card, by kernels of our own (`ggml-kernels/cuda/*.cu`). The driver is
//! opened at run time and the kernels are read from a file: the same program starts where there is no
//! card. Every function here checks lengths and then launches.
//!
//! | file | job |
//! |---|---|
//! | `check` | what is checked before a launch |
//! | `driver` | device, streams, memory, graphs |
//! | `weights` | matrices and rows as the kernels find them |
//! | `products` | products of up to 16 rows; experts; embedding |
//! | `mixers` | norms, router, KDA |
//! | `attention` | MLA |
//! | `wide` | products of many rows on tensor cores |
//! | `draw` | the next token, or the few that it is among |
//! | `ceiling` | what the card's memory moves at most |

pub mod attention;
pub mod ceiling;
mod check;
pub mod draw;
pub mod driver;
pub mod mixers;
pub mod products;
pub mod weights;
pub mod wide;
