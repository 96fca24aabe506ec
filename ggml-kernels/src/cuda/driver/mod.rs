//! Device, streams, memory and graphs, over the driver's own interface.
//!
//! The driver (`libcuda.so.1`) is opened when the first [`Device`] is: where there is none, that is an
//! error that says so. Everything runs in the device's primary context, which is made current on
//! whichever thread calls: a device's things may move between threads. Memory on the card is
//! reached by copies only, so no Rust reference ever points to it; what a kernel does to it is
//! the affair of the safe function that launches the kernel.
//!
//! | file | job |
//! |---|---|
//! | `device` | finds the card, holds its context and the kernels |
//! | `kernels` | the file of kernels: where it lies, whose build it is |
//! | `memory` | memory of the card, and memory of the host that the card reaches |
//! | `stream` | copies and launches in order |
//! | `graph` | those recorded once and run often |
//! | `clock` | what each kernel took |
//! | `error` | what can go wrong |

mod clock;
mod device;
mod error;
mod graph;
mod kernels;
mod memory;
mod stream;

pub use clock::Took;
pub use device::{Device, Kernel, Memory};
pub use error::{Code, CudaError};
pub use graph::Graph;
pub use kernels::{FILE, ID, find};
pub use memory::{Buffer, Part, Pinned, Plain};
pub(crate) use stream::Overlap;
pub use stream::Stream;
