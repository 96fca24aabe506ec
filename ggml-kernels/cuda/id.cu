// Which sources these are: the program loads no other's kernels. scripts/cuda.sh says how the name is made.
#include "device.cuh"

GLOBAL_TEXT(deltad_kernels_id, DELTAD_KERNELS_ID)
