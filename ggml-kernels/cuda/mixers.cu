// Norms, the router's choice, and KDA. Nothing here is a matrix product, but for the router's rows and the second
// matrix of a low-rank gate, which are small and sit in the kernel that needs them.
#include "mixers/norm.cuh"
#include "mixers/route.cuh"
#include "mixers/kda_small.cuh"
#include "mixers/kda_prepare.cuh"
#include "mixers/kda_scan.cuh"
