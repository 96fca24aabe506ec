//! See the kernels of the same name.
