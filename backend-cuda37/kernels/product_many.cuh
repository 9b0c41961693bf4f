// Products of many columns: tiles of 128 rows by 64 columns, a step of 32 of K at a time. A thread decodes a row's 32 weights
// into shared memory, and has 8 × 8 sums: rows 4 side by side and 4 that lie 64 on, so that a gate and its up projection meet.
#pragma once
#include "product.cuh"

#define MANY_ROWS 128
#define MANY_COLUMNS 64
#define MANY_THREADS 128
#define MANY_STEP 32

template <class B> struct ManyColumns {
    // values of K after which the decoding begins anew with a unit
    static const int SPAN = B::UNIT > MANY_STEP ? B::UNIT : MANY_STEP;

    struct Shared {
        float w[MANY_STEP][MANY_ROWS];
        float x[MANY_STEP][MANY_COLUMNS];
    };

    const ProductArgs &a;
    Shared &shared;
    ExpertTile tile;
    BlockRows block;
    float sums[8][8];

    __device__ __forceinline__ ManyColumns(const ProductArgs &a, Shared &shared)
        : a(a), shared(shared), block(a, blockIdx.x, a.gate ? MANY_ROWS / 2 : MANY_ROWS) {
        if (a.pairs) {
            tile = reinterpret_cast<const ExpertTile *>(a.pairs)[blockIdx.y];
        } else {
            tile.expert = 0;
            tile.first = blockIdx.y * MANY_COLUMNS;
            tile.count = min(uint32_t(MANY_COLUMNS), a.columns - tile.first);
        }
    }

    // The tile's column j.
    __device__ __forceinline__ Column column(uint32_t j) const {
        if (!a.pairs) return Column(a, tile.first + j);
        const uint32_t *order = reinterpret_cast<const uint32_t *>(a.pairs + uint64_t(gridDim.y) * sizeof(ExpertTile));
        return Column(a, order[tile.first + j]);
    }

    __device__ __forceinline__ const uint8_t *my_row() const {
        uint32_t local = threadIdx.x;
        const Matrix &m = a.matrices[a.gate ? local >= MANY_ROWS / 2 : block.matrix];
        uint32_t row = min(block.first + (a.gate ? local % (MANY_ROWS / 2) : local), m.rows - 1);
        return reinterpret_cast<const uint8_t *>(m.weights + row * m.row_stride + tile.expert * m.expert_stride);
    }

    // Where in K the values of a chunk of the span begin.
    __device__ __forceinline__ uint32_t index(uint32_t first_unit, int c, int i) const {
        uint32_t unit = first_unit + c / B::CHUNKS;
        return B::block(unit) * B::VALUES + B::index(B::part(unit), c % B::CHUNKS, i);
    }

    __device__ __forceinline__ void stage_input(const float *x, uint32_t first_unit, int half) {
        uint32_t j = threadIdx.x % MANY_COLUMNS, from = threadIdx.x / MANY_COLUMNS * 4;
#pragma unroll 1
        for (int c = 0; c < 4; ++c)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                uint32_t k = index(first_unit, half * 8 + from + c, i);
                shared.x[4 * (from + c) + i][j] = x && k < a.k ? x[k] : 0.0f;
            }
    }

    __device__ __forceinline__ void multiply() {
        uint32_t ty = threadIdx.x / 8, tx = threadIdx.x % 8;
#pragma unroll 2
        for (int k = 0; k < MANY_STEP; ++k) {
            float w[8], x[8];
            load(w, &shared.w[k][4 * ty], &shared.w[k][64 + 4 * ty]);
            load(x, &shared.x[k][4 * tx], &shared.x[k][32 + 4 * tx]);
#pragma unroll
            for (int i = 0; i < 8; ++i)
#pragma unroll
                for (int j = 0; j < 8; ++j) sums[i][j] = fmaf(w[i], x[j], sums[i][j]);
        }
    }

    static __device__ __forceinline__ void load(float (&to)[8], const float *low, const float *high) {
        float4 l = *reinterpret_cast<const float4 *>(low), h = *reinterpret_cast<const float4 *>(high);
        to[0] = l.x, to[1] = l.y, to[2] = l.z, to[3] = l.w;
        to[4] = h.x, to[5] = h.y, to[6] = h.z, to[7] = h.w;
    }

    __device__ __forceinline__ void add_span(const uint8_t *row, const float *x, uint32_t span) {
        const int PER_SPAN = SPAN / B::UNIT;
        uint32_t first_unit = span * PER_SPAN, units = ceil_div(a.k, B::UNIT);
#pragma unroll
        for (int half = 0; half < SPAN / MANY_STEP; ++half) {
            typename B::Raw raw;
            __syncthreads();
#pragma unroll
            for (int c = 0; c < 8; ++c) {
                const int chunk = half * 8 + c;
                uint32_t unit = first_unit + chunk / B::CHUNKS;
                float v[4] = {0, 0, 0, 0};
                if (unit < units) {
                    if (c == 0 || chunk % B::CHUNKS == 0) {
                        Place place = B::place_of(a.k, unit).from(0);
                        B::template load<false>(raw, row, place, B::part(unit), a.k - unit * B::UNIT);
                    }
                    Chunk<B>::values(v, raw, B::part(unit), chunk % B::CHUNKS);
                }
#pragma unroll
                for (int i = 0; i < 4; ++i) shared.w[4 * c + i][threadIdx.x] = v[i];
            }
            stage_input(x, first_unit, half);
            __syncthreads();
            multiply();
        }
    }

    __device__ __forceinline__ void run() {
        if (tile.count == 0) return;
#pragma unroll
        for (int i = 0; i < 8; ++i)
#pragma unroll
            for (int j = 0; j < 8; ++j) sums[i][j] = 0;
        bool absent = tile.expert < 0;
        if (absent) tile.expert = 0;
        uint32_t j = threadIdx.x % MANY_COLUMNS;
        const float *x = j < tile.count ? column(j).x(a) : nullptr;
        const uint8_t *row = my_row();
        uint32_t spans = absent ? 0 : ceil_div(a.k, SPAN);
        for (uint32_t span = 0; span < spans; ++span) add_span(row, x, span);
        write();
    }

    // Results go through shared memory, half of the columns at a time: a thread finishes them in a loop, and neighbours have
    // neighbouring rows.
    __device__ __forceinline__ void write() {
        uint32_t ty = threadIdx.x / 8, tx = threadIdx.x % 8, rows = a.gate ? MANY_ROWS / 2 : MANY_ROWS;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            __syncthreads();
#pragma unroll
            for (int j = 0; j < 4; ++j)
#pragma unroll
                for (int i = 0; i < 8; ++i) shared.w[4 * tx + j][4 * ty + i % 4 + 64 * (i / 4)] = sums[i][4 * half + j];
            __syncthreads();
            finish_half(half * (MANY_COLUMNS / 2), rows);
        }
    }

    __device__ __forceinline__ void finish_half(uint32_t from, uint32_t rows) {
        uint32_t row = threadIdx.x % rows;
        if (block.first + row >= a.matrices[block.matrix].rows) return;
#pragma unroll 1
        for (uint32_t j = threadIdx.x / rows; j < MANY_COLUMNS / 2 && from + j < tile.count; j += MANY_THREADS / rows)
            finish(a, block.matrix, block.first + row, column(from + j), tile.expert, shared.w[j][row], shared.w[j][row % 64 + 64]);
    }
};
