// Rows of a table by ids, decoded.
#pragma once
#include "chunks.cuh"

struct RowsArgs {
    View table, ids, y;
    float scale;
    uint32_t reserved;
};

// The row of the table for row `row` of the output; ids have no dim 0 of the output's.
__device__ __forceinline__ uint32_t row_by_id(const RowsArgs &a, uint32_t row) {
    uint32_t i1 = row % a.y.dims[1], rest = row / a.y.dims[1], i2 = rest % a.y.dims[2], i3 = rest / a.y.dims[2];
    uint64_t place = a.ids.address + i1 * a.ids.strides[0] + i2 * a.ids.strides[1] + i3 * a.ids.strides[2];
    int32_t id = *reinterpret_cast<const int32_t *>(place);
    return id < 0 || uint32_t(id) >= a.table.dims[1] ? 0 : uint32_t(id);
}

// The thread's unit of row blockIdx.y + n·gridDim.y of the output.
template <class B> __device__ __forceinline__ void decode_rows(const RowsArgs &a) {
    uint32_t unit = blockIdx.x * blockDim.x + threadIdx.x, k = a.y.dims[0];
    if (unit >= ceil_div(k, B::UNIT)) return;
    uint32_t rows = a.y.dims[1] * a.y.dims[2] * a.y.dims[3];
    for (uint32_t row = blockIdx.y; row < rows; row += gridDim.y) {
        typename B::Raw raw;
        const uint8_t *table = row_at<const uint8_t>(a.table, row_by_id(a, row));
        B::template load<false>(raw, table, B::place_of(k, unit).from(0), B::part(unit), k - unit * B::UNIT);
        float *y = row_of<float>(a.y, a.y.dims, row);
        uint32_t base = B::block(unit) * B::VALUES, part = B::part(unit);
#pragma unroll
        for (int c = 0; c < B::CHUNKS; ++c) {
            float v[4];
            Chunk<B>::values(v, raw, part, c);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                uint32_t at = base + B::index(part, c, i);
                if (at < k) y[at] = __fmul_rn(a.scale, v[i]);
            }
        }
    }
}
