// Products with weights of TYPE, of many columns.
// Modules: TYPE=f32|f16|bf16|q4_0|q4_1|q5_0|q5_1|q8_0|q2_k|q3_k|q4_k|q5_k|q6_k|iq4_nl|iq4_xs|mxfp4
#include "named.cuh"
#include "product_many.cuh"

KERNEL_BOUNDS(NAMED(product_, TYPE, _mat), ProductArgs, MANY_THREADS, 8) {
    SHARED(shared, ManyColumns<BLOCK>::Shared);
    ManyColumns<BLOCK>(a, shared).run();
}
