// Products with weights of TYPE, of a column each, or of experts by a column.
// Modules: TYPE=f32|f16|bf16|q4_0|q4_1|q5_0|q5_1|q8_0|q2_k|q3_k|q4_k|q5_k|q6_k|iq4_nl|iq4_xs|mxfp4
#include "named.cuh"
#include "product_few.cuh"

FEW(1)
