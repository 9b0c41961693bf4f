// Products with weights of TYPE: few columns, many columns, and rows of a table.
// Modules: TYPE=f32|f16|bf16|q4_0|q4_1|q5_0|q5_1|q8_0|q2_k|q3_k|q4_k|q5_k|q6_k|iq4_nl|iq4_xs|mxfp4
#include "product_few.cuh"
#include "product_many.cuh"
#include "rows.cuh"

#define PASTE(a, b, c) a##b##c
#define NAMED(before, type, after) PASTE(before, type, after)
#define BLOCK NAMED(Block_, TYPE, )

// Columns from blockIdx.y · C on; experts have a column a block.
#define FEW(columns)                                                                                                   \
    KERNEL_BOUNDS(NAMED(product_, TYPE, _c##columns), ProductArgs, 256, 4) {                                           \
        SHARED(shared, FewColumns<BLOCK, columns>::Shared);                                                            \
        FewColumns<BLOCK, columns>(a, shared, blockIdx.y * columns).run();                                             \
    }

FEW(1)
FEW(4)

KERNEL_BOUNDS(NAMED(product_, TYPE, _mat), ProductArgs, MANY_THREADS, 8) {
    SHARED(shared, ManyColumns<BLOCK>::Shared);
    ManyColumns<BLOCK>(a, shared).run();
}

KERNEL(NAMED(rows_, TYPE, ), RowsArgs) { decode_rows<BLOCK>(a); }
