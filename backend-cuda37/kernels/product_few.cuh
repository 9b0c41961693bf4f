// Products of up to eight columns: every weight is decoded once for all of them, straight from where it lies.
//
// A group of 16 lanes has ROWS rows; its lanes take the units of K in turn. The input goes through shared memory in tiles,
// in the order in which units are decoded, divided by the powers of two of their places. A column's sums run in the same
// order however many columns there are.
#pragma once
#include "product.cuh"

template <class B, int C> struct FewColumns {
    static const int LANES = 16, MOST_THREADS = 256;
    static const int ROWS = C == 1 ? B::ROWS : 2;
    static const int WISHED = 4096 / (B::UNIT * C);
    static const uint32_t TILE = WISHED > LANES ? WISHED : LANES; // units
    // codes are whole numbers times 2^−149, inputs are brought up by 2^80: sums are too small by 2^69
    static constexpr float RAISED = B::CODES ? 1208925819614629174706176.0f : 1.0f;
    static constexpr float LOWERED = B::CODES ? 590295810358705651712.0f : 1.0f;
    // the inputs' own sums are asked for
    static constexpr bool SUMS = B::CODES && (B::LEAST || B::BIAS != 0);

    struct Shared {
        float4 x[C][B::CHUNKS][TILE];
        float sums[C][B::GROUPS][TILE];
    };

    const ProductArgs &a;
    Shared &shared;
    uint32_t units, first_column;

    __device__ __forceinline__ FewColumns(const ProductArgs &a, Shared &shared, uint32_t first_column)
        : a(a), shared(shared), units(ceil_div(a.k, B::UNIT)), first_column(first_column) {}

    static __device__ __forceinline__ float power_of_two(int n) { return __uint_as_float(uint32_t(127 + n) << 23); }

    // Brings a column's tile into place. A thread stays with its chunk and part, since both divide a block's threads.
    __device__ __forceinline__ void stage_column(int column, const float *x, uint32_t begin, uint32_t end) {
        const uint32_t CHUNKS = B::CHUNKS, PARTS = B::PARTS;
        uint32_t c = threadIdx.x % CHUNKS, u = threadIdx.x / CHUNKS, turn = blockDim.x / CHUNKS;
        uint32_t part = B::part(begin + u), first = B::index(part, c, 0), k = B::block(begin + u) * B::VALUES + first;
        float factors[4];
        int64_t ahead[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            factors[i] = RAISED * power_of_two(-place<B>(c, i));
            ahead[i] = int64_t(B::index(part, c, i)) - first;
        }
#pragma unroll 1
        for (x += k; u < end; u += turn, x += turn / PARTS * B::VALUES) {
            float v[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (B::CODES) v[i] = x[ahead[i]] * factors[i];
                else v[i] = (begin + u) * B::UNIT + first + i < a.k ? x[i] : 0.0f;
            }
            shared.x[column][c][u] = make_float4(v[0], v[1], v[2], v[3]);
        }
    }

    // The sums of inputs of groups, times what their codes are biased by. Even chunks of a group have the same places, and
    // odd ones, or the group is the unit.
    __device__ __forceinline__ void stage_sums(int column, uint32_t end) {
        const uint32_t GROUPS = B::GROUPS;
        uint32_t g = threadIdx.x % GROUPS;
        float factors[2][4]; // of even chunks and odd ones
#pragma unroll
        for (int i = 0; i < 8; ++i) factors[i / 4][i % 4] = power_of_two(place<B>(g * B::CHUNKS_OF_GROUP + i / 4, i % 4));
#pragma unroll 1
        for (uint32_t u = threadIdx.x / GROUPS; u < end; u += blockDim.x / GROUPS) {
            float sum = 0;
#pragma unroll
            for (int j = 0; j < B::CHUNKS_OF_GROUP; ++j) {
                float4 v = shared.x[column][g * B::CHUNKS_OF_GROUP + j][u];
                const float in[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    sum = fmaf(in[i], GROUPS == 1 ? power_of_two(place<B>(j, i)) : factors[j & 1][i], sum);
            }
            shared.sums[column][g][u] = sum * (B::LEAST ? 1.0f : -B::BIAS) * (1.0f / RAISED) * (1.0f / LOWERED);
        }
    }

    // Columns behind the last are that one again.
    __device__ __forceinline__ void stage(uint32_t begin, uint32_t end) {
        __syncthreads();
#pragma unroll 1
        for (int column = 0; column < C; ++column)
            stage_column(column, Column(a, min(first_column + column, a.columns - 1)).x(a), begin, end);
        __syncthreads();
        if (!SUMS) return;
#pragma unroll 1
        for (int column = 0; column < C; ++column) stage_sums(column, end);
        __syncthreads();
    }

    // Adds what a unit of each row gives, whose block begins at `rows`; its inputs stand at `u` of the tile.
    template <bool WHOLE>
    __device__ __forceinline__ void add_unit(const Start (&rows)[ROWS], uint32_t part, uint32_t left, uint32_t u,
                                             float (&sums)[ROWS][C]) {
        typename B::Raw raw[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) B::template load<WHOLE>(raw[r], rows[r], part, left);
#pragma unroll
        for (int g = 0; g < B::GROUPS; ++g) {
            float group[ROWS][C];
#pragma unroll
            for (int r = 0; r < ROWS; ++r)
#pragma unroll
                for (int column = 0; column < C; ++column) group[r][column] = 0;
#pragma unroll
            for (int c = g * B::CHUNKS_OF_GROUP; c < (g + 1) * B::CHUNKS_OF_GROUP; ++c) {
                float f[ROWS][4];
#pragma unroll
                for (int r = 0; r < ROWS; ++r) Chunk<B>::factors(f[r], raw[r], part, c);
#pragma unroll
                for (int column = 0; column < C; ++column) {
                    float4 x = shared.x[column][c][u];
#pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        float s = fmaf(f[r][0], x.x, group[r][column]);
                        s = fmaf(f[r][1], x.y, s);
                        s = fmaf(f[r][2], x.z, s);
                        group[r][column] = fmaf(f[r][3], x.w, s);
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
                else if (!B::LEAST) sum = fmaf(scale, SUMS ? __fadd_rn(s, total[column]) : s, sum);
                else sum = fmaf(least, total[column], fmaf(scale, s, sum));
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
        constexpr uint32_t BYTES = B::BYTES, PARTS = B::PARTS, TURN = LANES / PARTS * BYTES;
        static_assert(!B::CODES || TURN % 4 == 0, "a lane's blocks lie alike between words");
        Start rows[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const Matrix &m = a.matrices[a.gate ? r >= ROWS / 2 : block.matrix];
            uint32_t row = min(first + (a.gate ? r % (ROWS / 2) : r), m.rows - 1);
            uint64_t weights = m.weights + row * m.row_stride + (absent ? 0 : expert) * m.expert_stride;
            rows[r] = B::template start<B>(reinterpret_cast<const uint8_t *>(weights), lane / PARTS);
            // a shuffle, since what is only arithmetic would be computed anew in each turn
            if (B::CODES && B::BYTES % 4) rows[r].selector = __shfl_sync(ALL_LANES, rows[r].selector, threadIdx.x % WARP);
        }
        // elements may be read sixteen bytes at a time where all rows begin so
        uint32_t whole_units = a.k / B::UNIT;
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            if (!B::CODES && reinterpret_cast<uint64_t>(rows[r].p) % 16 != 0) whole_units = 0;
        float sums[ROWS][C];
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
#pragma unroll
            for (int column = 0; column < C; ++column) sums[r][column] = 0;
        for (uint32_t begin = 0; begin < units && !absent; begin += TILE) {
            uint32_t end = min(TILE, units - begin), u = lane;
            stage(begin, end);
            uint32_t whole = B::CODES ? end : whole_units > begin ? min(end, whole_units - begin) : 0;
#pragma unroll 1
            for (; u < whole; u += LANES) {
                add_unit<true>(rows, lane % PARTS, B::UNIT, u, sums);
#pragma unroll
                for (int r = 0; r < ROWS; ++r) rows[r].p += TURN;
            }
#pragma unroll 1
            for (; !B::CODES && u < end; u += LANES) {
                add_unit<false>(rows, lane % PARTS, a.k - (begin + u) * B::UNIT, u, sums);
#pragma unroll
                for (int r = 0; r < ROWS; ++r) rows[r].p += TURN;
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
#pragma unroll
            for (int column = 0; column < C; ++column) sums[r][column] = lanes_join<Sum>(sums[r][column], LANES) * LOWERED;
        write(sums);
    }

    // All lanes of a group have all sums: each finishes one. Where it goes is found anew, which leaves registers to the loop.
    __device__ __forceinline__ void write(const float (&sums)[ROWS][C]) {
        static_assert(ROWS * C <= LANES, "a lane has a result at most");
        uint32_t lane = threadIdx.x % LANES, column = lane / ROWS, row = lane % ROWS, of_group = a.gate ? ROWS / 2 : ROWS;
        float sum = 0, up = 0;
#pragma unroll
        for (int n = 0; n < ROWS * C; ++n)
            if (lane == n) sum = sums[n % ROWS][n / ROWS], up = sums[(n + ROWS / 2) % ROWS][n / ROWS];
        BlockRows block(a, blockIdx.x, blockDim.x / LANES * of_group);
        row += block.first + threadIdx.x / LANES * of_group;
        if (column >= C || first_column + column >= a.columns || lane % ROWS >= of_group) return;
        if (row >= a.matrices[block.matrix].rows) return;
        int32_t expert = Column(a, first_column).expert(a);
        finish(a, block.matrix, row, Column(a, first_column + column), a.ids && uint32_t(expert) >= a.experts ? 0 : expert, sum, up);
    }
};

// The kernel of `columns` columns at a time: from blockIdx.y · columns on; experts have a column a block.
#define FEW(columns)                                                                                                   \
    KERNEL_BOUNDS(NAMED(product_, TYPE, _c##columns), ProductArgs, 256, 4) {                                           \
        SHARED(shared, FewColumns<BLOCK, columns>::Shared);                                                            \
        FewColumns<BLOCK, columns>(a, shared, blockIdx.y * columns).run();                                             \
    }
