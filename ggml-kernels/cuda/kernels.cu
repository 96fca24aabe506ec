// All kernels as one translation unit, for nvcc. The emulated card is made of the same files one by one.
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
#if __has_include("draw.cu")
#include "draw.cu"
#endif
#include "id.cu"
