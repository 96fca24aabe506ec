// MLA: attention over latent rows that all heads share.
#include "mla_row.cuh"
#include "mla_attend.cuh"
#include "mla_finish.cuh"
#include "mla_wide.cuh"
#include "mla_flash.cuh"
