// All kernels as one translation unit: scripts/cuda.sh gives it to nvcc, or to a C++ compiler for the emulated card.
#include "device.cuh"

#if __has_include("products.cu")
#include "products.cu"
#endif
#if __has_include("mixers.cu")
#include "mixers.cu"
#endif
#if __has_include("attention.cu")
#include "attention.cu"
#endif
#if __has_include("wide.cu")
#include "wide.cu"
#endif

// Which sources these are: the program loads no other's. scripts/cuda.sh says how it is made.
GLOBAL_TEXT(deltad_kernels_id, DELTAD_KERNELS_ID)
