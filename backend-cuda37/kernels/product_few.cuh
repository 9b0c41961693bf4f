// Products of up to eight columns: every weight is decoded once for all of them, straight from where it lies.
//
// A group of 16 lanes has ROWS rows; its lanes take the units of K in turn. The input goes through shared memory in tiles,
// in the order in which units are decoded, divided by the powers of two of their places. A column's sums run in the same
// order however many columns there are.
#pragma once
#include "product.cuh"

template <class B, int C> struct FewColumns {
    static const int LANES = 16, MOST_THREADS = 256;
    static const int ROWS = C <= 2 ? 4 : 2;
    static const int WISHED = 4096 / (B::UNIT * C);
    static const uint32_t TILE = WISHED > LANES ? WISHED : LANES; // units
    // codes are whole numbers times 2^−149, inputs are brought up by 2^80
    static constexpr float RAISED = B::CODES ? 1208925819614629174706176.0f : 1.0f;
    static constexpr float LOWERED = B::CODES ? 590295810358705651712.0f : 1.0f;

    struct Shared {
        float4 x[C][B::CHUNKS][TILE];
        float sums[C][B::GROUPS][TILE];
    };

    const ProductArgs &a;
    Shared &shared;
    uint32_t units, first_column;

    // Whether anything of a block of 256 or of elements is left to do for the sums of groups.
    static const bool SUMS = B::CODES;

    __device__ __forceinline__ FewColumns(const ProductArgs &a, Shared &shared, uint32_t first_column)
        : a(a), shared(shared), units(ceil_div(a.k, B::UNIT)), first_column(first_column) {}

    // Four values of the input, of chunk c of a unit.
    __device__ __forceinline__ void stage_chunk(int column, const float *x, uint32_t begin, uint32_t slot) {
        const int CHUNKS = B::CHUNKS;
        uint32_t c = slot % CHUNKS, u = slot / CHUNKS, unit = begin + u;
        uint32_t base = B::CODES ? unit / B::PARTS * B::VALUES : unit * B::UNIT, part = B::part(unit);
        float v[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            uint32_t k = base + B::index(part, c, i);
            v[i] = x && k < a.k && unit < units ? x[k] : 0.0f;
            if (B::CODES) v[i] *= RAISED * __uint_as_float(uint32_t(127 - place<B>(c, i)) << 23);
        }
        shared.x[column][c][u] = make_float4(v[0], v[1], v[2], v[3]);
    }

    // The sum of the inputs of a group, times what its codes are biased by.
    __device__ __forceinline__ void stage_sum(int column, uint32_t slot) {
        uint32_t g = slot % B::GROUPS, u = slot / B::GROUPS;
        float sum = 0;
        for (uint32_t c = g * B::CHUNKS_OF_GROUP; c < (g + 1) * B::CHUNKS_OF_GROUP; ++c) {
            float4 v = shared.x[column][c][u];
            const float in[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int i = 0; i < 4; ++i) sum = fmaf(in[i], __uint_as_float(uint32_t(127 + place<B>(c, i)) << 23), sum);
        }
        shared.sums[column][g][u] = sum * ((B::LEAST ? 1.0f : -B::BIAS) / RAISED);
    }

    __device__ __forceinline__ void stage(uint32_t begin) {
        __syncthreads();
        for (int column = 0; column < C; ++column) {
            const float *x = first_column + column < a.columns ? Column(a, first_column + column).x(a) : nullptr;
            for (uint32_t slot = threadIdx.x; slot < TILE * B::CHUNKS; slot += blockDim.x) stage_chunk(column, x, begin, slot);
        }
        __syncthreads();
        if (!SUMS) return;
        for (int column = 0; column < C; ++column)
            for (uint32_t slot = threadIdx.x; slot < TILE * B::GROUPS; slot += blockDim.x) stage_sum(column, slot);
        __syncthreads();
    }

    // Adds what unit `unit` of each row gives; it stands at `u` of the tile.
    __device__ __forceinline__ void add_unit(const uint8_t *const (&rows)[ROWS], uint32_t unit, uint32_t u,
                                             float (&sums)[ROWS][C]) {
        typename B::Raw raw[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) B::load(raw[r], rows[r], unit, a.k);
        uint32_t part = B::part(unit);
#pragma unroll
        for (int g = 0; g < B::GROUPS; ++g) {
            float group[ROWS][C];
#pragma unroll
            for (int r = 0; r < ROWS; ++r)
#pragma unroll
                for (int column = 0; column < C; ++column) group[r][column] = 0;
#pragma unroll
            for (int c = g * B::CHUNKS_OF_GROUP; c < (g + 1) * B::CHUNKS_OF_GROUP; ++c) {
                float4 x[C];
#pragma unroll
                for (int column = 0; column < C; ++column) x[column] = shared.x[column][c][u];
#pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    float f[4];
                    Chunk<B>::factors(f, raw[r], part, c);
#pragma unroll
                    for (int column = 0; column < C; ++column) {
                        float s = fmaf(f[0], x[column].x, group[r][column]);
                        s = fmaf(f[1], x[column].y, s);
                        s = fmaf(f[2], x[column].z, s);
                        group[r][column] = fmaf(f[3], x[column].w, s);
                    }
                }
            }
            add_group(raw, part, g, u, group, sums);
        }
    }

    __device__ __forceinline__ void add_group(const typename B::Raw (&raw)[ROWS], uint32_t part, int g, uint32_t u,
                                              const float (&group)[ROWS][C], float (&sums)[ROWS][C]) {
        float total[C];
#pragma unroll
        for (int column = 0; column < C; ++column) total[column] = SUMS ? shared.sums[column][g][u] : 0.0f;
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            float scale, least = 0;
            B::factors(raw[r], part, g, scale, least);
#pragma unroll
            for (int column = 0; column < C; ++column) {
                float &sum = sums[r][column], s = group[r][column];
                if (!B::CODES) sum = __fadd_rn(sum, s);
                else if (!B::LEAST) sum = fmaf(scale, fmaf(s, LOWERED, total[column]), sum);
                else sum = fmaf(least, total[column], fmaf(scale, __fmul_rn(s, LOWERED), sum));
            }
        }
    }

    __device__ __forceinline__ void run() {
        uint32_t groups = blockDim.x / LANES, group = threadIdx.x / LANES, lane = threadIdx.x % LANES;
        uint32_t of_group = a.gate ? ROWS / 2 : ROWS;
        BlockRows block(a, blockIdx.x, groups * of_group);
        uint32_t first = block.first + group * of_group;
        int32_t expert = Column(a, first_column).expert(a);
        bool absent = a.ids && uint32_t(expert) >= a.experts;
        const uint8_t *rows[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const Matrix &m = a.matrices[a.gate ? r >= ROWS / 2 : block.matrix];
            uint32_t row = min(first + (a.gate ? r % (ROWS / 2) : r), m.rows - 1);
            rows[r] = reinterpret_cast<const uint8_t *>(m.weights + row * m.row_stride + (absent ? 0 : expert) * m.expert_stride);
        }
        float sums[ROWS][C];
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
#pragma unroll
            for (int column = 0; column < C; ++column) sums[r][column] = 0;
        for (uint32_t begin = 0; begin < units && !absent; begin += TILE) {
            stage(begin);
            uint32_t end = min(TILE, units - begin);
            for (uint32_t u = lane; u < end; u += LANES) add_unit(rows, begin + u, u, sums);
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
#pragma unroll
            for (int column = 0; column < C; ++column) sums[r][column] = lanes_join<Sum>(sums[r][column], LANES);
        if (lane == 0) write(block.matrix, first, absent ? 0 : expert, sums);
    }

    __device__ __forceinline__ void write(uint32_t matrix, uint32_t first, int32_t expert, const float (&sums)[ROWS][C]) {
        uint32_t rows = a.matrices[matrix].rows;
#pragma unroll
        for (int column = 0; column < C; ++column) {
            if (first_column + column >= a.columns) return;
            Column to(a, first_column + column);
            if (!a.gate) {
#pragma unroll
                for (int r = 0; r < ROWS; ++r)
                    if (first + r < rows) finish(a, matrix, first + r, to, expert, sums[r][column], 0);
            } else {
#pragma unroll
                for (int r = 0; r < ROWS / 2; ++r)
                    if (first + r < rows) finish(a, 0, first + r, to, expert, sums[r][column], sums[r + ROWS / 2][column]);
            }
        }
    }
};
