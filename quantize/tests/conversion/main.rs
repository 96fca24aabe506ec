//! Conversion from end to end: whole checkpoints in, whole files (or a clear refusal) out.

mod bad_input;
mod checkpoint;
mod importance;
mod ling;
mod meanwhile;
mod result;
mod resume;
