// Products of up to eight columns: every weight is decoded once for all of them, straight from where it lies.
//
// A group of 16 lanes has ROWS rows; its lanes take the units of K in turn. The input goes through shared memory in tiles,
// in the order in which units are decoded, divided by the powers of two of their places. A column's sums run in the same
// order however many columns there are.
#pragma once
#include "product.cuh"

template <class B, int C> struct FewColumns {
    static const int LANES = 16;
    static const int ROWS = C == 1 ? B::ROWS : 2;
    static const int WISHED = 4096 / (B::UNIT * C);
    static const uint32_t TILE = WISHED > LANES ? WISHED : LANES; // units
    // codes are whole numbers times 2^−149, inputs are brought up by 2^88: sums are too small by 2^61, and by SCALE. Inputs below
    // 2^32 (4e9) are within range, and sums above 2^−42 (2e−13) have all their bits.
    static constexpr float RAISED = B::CODES ? 309485009821345068724781056.0f : 1.0f;
    static constexpr float LOWERED = B::CODES ? 2305843009213693952.0f : 1.0f;
    // one column's inputs of a unit are held while rows are decoded one after the other
    static constexpr bool ROW_BY_ROW = C == 1 && B::GROUPS == 1 && B::CODES;
    // the inputs' own sums are asked for: times least values, or to begin with, as what codes are biased by
    static constexpr bool SUMS = B::CODES && (B::LEAST || B::BIAS != 0);

    struct Shared {
        float4 x[C][B::CHUNKS][TILE];
        float sums[C][TILE][B::GROUPS];
    };

    // A lane's rows: those of the first half, and how far behind each lies one of the second. It takes fewer registers than all.
    static const int HALF = ROWS / 2;
    struct Rows {
        const uint8_t *first[HALF];
        uint64_t second;
    };

    const ProductArgs &a;
    Shared &shared;
    uint32_t first_column;

    __device__ __forceinline__ FewColumns(const ProductArgs &a, Shared &shared, uint32_t first_column)
        : a(a), shared(shared), first_column(first_column) {}

    __device__ __forceinline__ uint32_t units() const { return ceil_div(a.k, B::UNIT); }

    static __device__ __forceinline__ float power_of_two(int n) { return __uint_as_float(uint32_t(127 + n) << 23); }

    // Brings a column's tile into place. A thread stays with its chunk and part, since both divide a block's threads.
    __device__ __forceinline__ void stage_column(int column, const float *x, uint32_t begin, uint32_t end) {
        const uint32_t CHUNKS = B::CHUNKS, PARTS = B::PARTS;
        uint32_t thread = threadIdx.x;
        opaque(thread); // or what follows from it would take registers from one tile to the next
        uint32_t c = thread % CHUNKS, u = thread / CHUNKS, turn = blockDim.x / CHUNKS;
        uint32_t first = B::index(B::part(begin + u), c, 0), k = B::block(begin + u) * B::VALUES + first;
        float factors[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) factors[i] = RAISED * power_of_two(-place<B>(c, i));
        char *to = reinterpret_cast<char *>(&shared.x[column][c][u]);
        uint32_t bytes = k * sizeof(float), step = turn / PARTS * B::VALUES * sizeof(float), step_to = turn * sizeof(float4);
        opaque(turn), opaque(step), opaque(step_to);
#pragma unroll 1
        for (; u < end; u += turn, bytes += step, to += step_to) {
            opaque(bytes);
            const float *in = reinterpret_cast<const float *>(reinterpret_cast<const char *>(x) + bytes);
            float v[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const uint32_t ahead = B::index(0, 0, i) - B::index(0, 0, 0);
                if (B::CODES) v[i] = in[ahead] * factors[i];
                else v[i] = (begin + u) * B::UNIT + first + i < a.k ? in[i] : 0.0f;
            }
            *reinterpret_cast<float4 *>(to) = make_float4(v[0], v[1], v[2], v[3]);
        }
    }

    // The sums of inputs of groups, times what their codes are biased by. Places are those of the first group, or repeat within
    // each.
    __device__ __forceinline__ void stage_sums(int column, uint32_t end) {
        const int REPEATED = B::PERIOD ? B::PERIOD : 1;
        const uint32_t GROUPS = B::GROUPS;
        uint32_t thread = threadIdx.x;
        opaque(thread);
        uint32_t g = thread % GROUPS;
        float factors[REPEATED][4];
#pragma unroll
        for (int i = 0; i < 4 * REPEATED; ++i)
            factors[i / 4][i % 4] = power_of_two(place<B>(g * B::CHUNKS_OF_GROUP + i / 4, i % 4));
#pragma unroll 1
        for (uint32_t u = thread / GROUPS; u < end; u += blockDim.x / GROUPS) {
            float sum = 0;
#pragma unroll
            for (int j = 0; j < B::CHUNKS_OF_GROUP; ++j) {
                float4 v = shared.x[column][g * B::CHUNKS_OF_GROUP + j][u];
                const float in[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    sum = fmaf(in[i], B::PERIOD ? factors[j % REPEATED][i] : power_of_two(place<B>(j, i)), sum);
            }
            shared.sums[column][u][g] = sum * (1.0f / RAISED) * (1.0f / LOWERED) * (B::LEAST ? 1.0f : -B::BIAS);
        }
    }

    // Columns behind the last are that one again.
    __device__ __forceinline__ void stage(uint32_t begin, uint32_t end) {
        __syncthreads();
#pragma unroll 1
        for (int column = 0; column < C; ++column) {
            uint32_t number = min(first_column + column, a.columns - 1);
            opaque(number); // as in `stage_column`
            stage_column(column, Column(a, number).x(a), begin, end);
        }
        __syncthreads();
        if (!SUMS) return;
#pragma unroll 1
        for (int column = 0; column < C; ++column) stage_sums(column, end);
        __syncthreads();
    }

    // A unit's sum with that of its group g.
    static __device__ __forceinline__ float with_group(float sum, const typename B::Raw &raw, int g, float group) {
        if constexpr (B::GROUPS == 1) {
            return group;
        } else {
            float scale, least = 0;
            B::group(raw, g, scale, least);
            return g == 0 ? scale * group : fmaf(scale, group, sum);
        }
    }

    // A row's sum with that of a unit, which lacks what the block multiplies, and the least values.
    static __device__ __forceinline__ float with_unit(float sum, const typename B::Raw &raw, float unit,
                                                      const float (&totals)[B::GROUPS]) {
        if constexpr (!B::CODES) {
            return __fadd_rn(sum, unit);
        } else {
            float scale, least = 0;
            B::whole(raw, scale, least);
            sum = fmaf(scale, unit, sum);
            return B::LEAST ? fmaf(least, leasts(raw, totals), sum) : sum;
        }
    }

    static __device__ __forceinline__ float leasts(const typename B::Raw &raw, const float (&totals)[B::GROUPS]) {
        if constexpr (B::GROUPS == 1) {
            return totals[0];
        } else {
            float sum = 0;
#pragma unroll
            for (int g = 0; g < B::GROUPS; ++g) {
                float scale, least = 0;
                B::group(raw, g, scale, least);
                sum = g == 0 ? least * totals[g] : fmaf(least, totals[g], sum);
            }
            return sum;
        }
    }

    // The sums of a unit's inputs.
    __device__ __forceinline__ void totals_of(float (&totals)[B::GROUPS], int column, uint32_t u) const {
#pragma unroll
        for (int g = 0; g < B::GROUPS; ++g) totals[g] = SUMS ? shared.sums[column][u][g] : 0.0f;
    }

    static __device__ __forceinline__ float with_chunk(float sum, const float (&f)[4], float4 x) {
        return fmaf(f[3], x.w, fmaf(f[2], x.z, fmaf(f[1], x.y, fmaf(f[0], x.x, sum))));
    }

    template <bool WHOLE>
    static __device__ __forceinline__ void load(typename B::Raw &raw, const Rows &rows, int r, const PlaceInRow &unit, uint32_t part,
                                                uint32_t left) {
        B::template load<WHOLE>(raw, rows.first[r % HALF], unit.from(r < HALF ? 0 : rows.second), part, left);
    }

    // Adds what a unit of each row gives; its inputs stand at `u` of the tile.
    template <bool WHOLE>
    __device__ __forceinline__ void add_unit(const Rows &rows, const PlaceInRow &unit, uint32_t part, uint32_t left, uint32_t u,
                                             float (&sums)[ROWS][C]) {
        typename B::Raw raw[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) load<WHOLE>(raw[r], rows, r, unit, part, left);
        float units[ROWS][C] = {};
#pragma unroll
        for (int g = 0; g < B::GROUPS; ++g) {
            float group[ROWS][C];
#pragma unroll
            for (int column = 0; column < C; ++column) {
                float first = SUMS && !B::LEAST ? shared.sums[column][u][g] : 0.0f;
#pragma unroll
                for (int r = 0; r < ROWS; ++r) group[r][column] = first;
            }
#pragma unroll
            for (int c = g * B::CHUNKS_OF_GROUP; c < (g + 1) * B::CHUNKS_OF_GROUP; ++c) {
                float f[ROWS][4];
#pragma unroll
                for (int r = 0; r < ROWS; ++r) Chunk<B>::factors(f[r], raw[r], part, c);
#pragma unroll
                for (int column = 0; column < C; ++column) {
                    float4 x = shared.x[column][c][u];
#pragma unroll
                    for (int r = 0; r < ROWS; ++r) group[r][column] = with_chunk(group[r][column], f[r], x);
                }
            }
#pragma unroll
            for (int r = 0; r < ROWS; ++r)
#pragma unroll
                for (int column = 0; column < C; ++column)
                    units[r][column] = with_group(units[r][column], raw[r], g, group[r][column]);
        }
#pragma unroll
        for (int column = 0; column < C; ++column) {
            float totals[B::GROUPS];
            totals_of(totals, column, u);
#pragma unroll
            for (int r = 0; r < ROWS; ++r) sums[r][column] = with_unit(sums[r][column], raw[r], units[r][column], totals);
        }
    }

    // As `add_unit`, of one column and units of one group.
    __device__ __forceinline__ void add_row_by_row(const Rows &rows, const PlaceInRow &unit, uint32_t part, uint32_t u,
                                                   float (&sums)[ROWS][C]) {
        float4 x[B::CHUNKS];
#pragma unroll
        for (int c = 0; c < B::CHUNKS; ++c) x[c] = shared.x[0][c][u];
        float totals[B::GROUPS];
        totals_of(totals, 0, u);
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            typename B::Raw raw;
            load<true>(raw, rows, r, unit, part, B::UNIT);
            float group = SUMS && !B::LEAST ? totals[0] : 0.0f;
#pragma unroll
            for (int c = 0; c < B::CHUNKS; ++c) {
                float f[4];
                Chunk<B>::factors(f, raw, part, c);
                group = with_chunk(group, f, x[c]);
            }
            sums[r][0] = with_unit(sums[r][0], raw, group, totals);
        }
    }

    // A lane's next unit.
    static __device__ __forceinline__ void to_next(PlaceInRow &unit) {
        static_assert(LANES % B::PARTS == 0, "a lane's units are the same part of their blocks");
        unit.codes += LANES * B::UNIT_BYTES, unit.meta += LANES / B::PARTS * B::META;
        opaque(unit.codes), opaque(unit.meta);
    }

    // Which rows a group of lanes has: `count` from `first` on, of which those before `own` are another group's too.
    struct Share {
        uint32_t matrix, first, own, count;
        bool twice; // the second half's rows are the first's again: of another matrix, or since there are too few
    };

    __device__ __forceinline__ Share share() const {
        uint32_t groups = blockDim.x / LANES, group = threadIdx.x / LANES;
        BlockRows block(a, blockIdx.x, groups * (a.gate ? HALF : ROWS));
        uint32_t rows = a.matrices[block.matrix].rows;
        bool twice = a.gate || rows < ROWS;
        uint32_t count = twice ? HALF : ROWS, own = block.first + group * count;
        return Share{block.matrix, twice ? own : min(own, rows - ROWS), own, count, twice};
    }

    __device__ __forceinline__ Rows rows_of(const Share &share, int32_t expert) const {
        const Matrix &m = a.matrices[share.matrix];
        uint64_t weights = m.weights + expert * m.expert_stride;
        Rows rows;
#pragma unroll
        for (int r = 0; r < HALF; ++r)
            rows.first[r] = reinterpret_cast<const uint8_t *>(weights + min(share.first + r, m.rows - 1) * m.row_stride);
        const Matrix &up = a.matrices[1];
        rows.second = a.gate ? up.weights + expert * up.expert_stride - weights : share.twice ? 0 : HALF * m.row_stride;
        return rows;
    }

    __device__ __forceinline__ void run() {
        uint32_t lane = threadIdx.x % LANES;
        int32_t expert = Column(a, first_column).expert(a);
        bool absent = a.ids && uint32_t(expert) >= a.experts;
        const Rows rows = rows_of(share(), absent ? 0 : expert);
        PlaceInRow unit = B::place_of(a.k, lane);
        uint32_t part = lane % B::PARTS;
        // elements may be read sixteen bytes at a time where all rows begin so
        uint32_t whole_units = a.k / B::UNIT;
#pragma unroll
        for (int r = 0; r < HALF; ++r)
            if (!B::CODES && (reinterpret_cast<uint64_t>(rows.first[r]) | rows.second) % 16 != 0) whole_units = 0;
        float sums[ROWS][C];
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
#pragma unroll
            for (int column = 0; column < C; ++column) sums[r][column] = 0;
        for (uint32_t begin = 0; begin < units() && !absent; begin += TILE) {
            uint32_t end = min(TILE, units() - begin), u = lane;
            stage(begin, end);
            uint32_t whole = B::CODES ? end : whole_units > begin ? min(end, whole_units - begin) : 0;
#pragma unroll 1
            for (; u < whole; u += LANES) {
                if constexpr (ROW_BY_ROW) add_row_by_row(rows, unit, part, u, sums);
                else add_unit<true>(rows, unit, part, B::UNIT, u, sums);
                to_next(unit);
            }
#pragma unroll 1
            for (; !B::CODES && u < end; u += LANES) {
                add_unit<false>(rows, unit, part, a.k - (begin + u) * B::UNIT, u, sums);
                to_next(unit);
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
#pragma unroll
            for (int column = 0; column < C; ++column)
                sums[r][column] = lanes_join<Sum>(sums[r][column], LANES) * (LOWERED * B::SCALE);
        write(sums);
    }

    // All lanes of a group have all sums: each finishes one. Where it goes is found anew, which leaves registers to the loop.
    __device__ __forceinline__ void write(const float (&sums)[ROWS][C]) {
        static_assert(ROWS * C <= LANES, "a lane has a result at most");
        uint32_t lane = threadIdx.x % LANES, column = lane / ROWS;
        float sum = 0, up = 0;
#pragma unroll
        for (int n = 0; n < ROWS * C; ++n)
            if (lane == n) sum = sums[n % ROWS][n / ROWS], up = sums[(n + HALF) % ROWS][n / ROWS];
        Share mine = share();
        uint32_t row = mine.first + lane % ROWS;
        if (column >= C || first_column + column >= a.columns || lane % ROWS >= mine.count) return;
        if (row < mine.own || row >= a.matrices[mine.matrix].rows) return;
        int32_t expert = Column(a, first_column).expert(a);
        finish(a, mine.matrix, row, Column(a, first_column + column), a.ids && uint32_t(expert) >= a.experts ? 0 : expert, sum, up);
    }
};

// The kernel of `columns` columns at a time: from blockIdx.y · columns on; experts have a column a block.
#define FEW(columns)                                                                                                   \
    KERNEL_BOUNDS(NAMED(product_, TYPE, _c##columns), ProductArgs, 256, 4) {                                           \
        SHARED(shared, FewColumns<BLOCK, columns>::Shared);                                                            \
        FewColumns<BLOCK, columns>(a, shared, blockIdx.y * columns).run();                                             \
    }
