// Attention for many columns: a block has some columns of one sequence, with all query heads of a group, and goes
// through the cache by tiles. Scores live in registers. Where that makes few blocks, each goes through a part of the cache, and
// the kernel that joins parts joins these.
#pragma once
#include "attention.cuh"

#define TILE_THREADS 128
// Rows of a block: pairs of a column and a query head. Positions of a tile.
#define TILE_ROWS 64
#define TILE_POSITIONS 64
// Values of a row of q and k that are in shared memory at a time.
#define SLICE 32
// Floats from one value to the next there, and room for two slices.
#define PITCH (TILE_ROWS + 4)
#define ROOM (2 * SLICE * PITCH)

// Threads stand 16 × 8: each has 8 rows, 4 positions of the scores, and WIDTH / 16 values of the output.
template <class Page, int WIDTH> struct Tile {
    static const int VECTORS = WIDTH / 64;
    static const int VALUES = 4096 / WIDTH;  // rows of V at a time

    const AttentionArgs &a;
    uint32_t x, y;
    uint32_t head, first_head, heads, first_column, columns;
    const int32_t *pages;
    int32_t begin, end;
    bool gapless;  // whether the columns' positions follow one another
    float s[8][4], o[8][VECTORS][4], powers[8];

    __device__ __forceinline__ Tile(const AttentionArgs &a) : a(a), x(threadIdx.x % 16), y(threadIdx.x / 16) {}

    // Finds the columns of block `number`: those of a sequence are cut by `most_columns`. Whether there are any.
    __device__ __forceinline__ bool find(uint32_t number, uint32_t most_columns) {
        const int32_t *starts = reinterpret_cast<const int32_t *>(a.starts);
        for (uint32_t sequence = 0; sequence < a.table.dims[1]; ++sequence) {
            uint32_t from = starts[sequence], to = starts[sequence + 1], tiles = ceil_div(to - from, most_columns);
            if (number < tiles) {
                first_column = from + number * most_columns;
                columns = min(most_columns, to - first_column);
                pages = pages_of(a, sequence);
                return true;
            }
            number -= tiles;
        }
        return false;
    }

    // A row's limits (its first and last position; rows that do not exist see nothing), its q, and what q is multiplied with.
    __device__ __forceinline__ void find_rows(int2 (&limits)[TILE_ROWS], float (&factors)[TILE_ROWS],
                                              const float *(&queries)[TILE_ROWS], float (&most)[TILE_ROWS]) {
#pragma unroll 1
        for (uint32_t r = threadIdx.x; r < TILE_ROWS; r += TILE_THREADS) {
            uint32_t column = r / heads;
            limits[r] = make_int2(0x7fffffff, -1);
            factors[r] = 0.0f;
            most[r] = LOWEST;
            queries[r] = row_at<const float>(a.q, first_head, first_column);
            if (column >= columns) continue;
            int32_t p = position_of(a, first_column + column);
            limits[r] = make_int2(first_seen(a, p), p);
            factors[r] = query_factor(a, p);
            queries[r] = row_at<const float>(a.q, first_head + r % heads, first_column + column);
        }
        int32_t first = position_of(a, first_column), last = position_of(a, first_column + columns - 1);
        begin = first_seen(a, first), end = last + 1;
        gapless = uint32_t(last - first) == columns - 1;
        if (a.splits) cut();
    }

    // Leaves the block its part of the positions, whole tiles of them, perhaps none.
    __device__ __forceinline__ void cut() {
        int32_t low = begin & -TILE_POSITIONS, tiles = ceil_div(end - low, TILE_POSITIONS);
        int32_t part = ceil_div(tiles, a.splits) * TILE_POSITIONS;
        low += blockIdx.z * part;
        begin = max(begin, low), end = min(end, low + part);
    }

    // The rows of K and V of a tile; none where no column sees the position.
    __device__ __forceinline__ void find_cells(int32_t tile, const int2 (&limits)[TILE_ROWS],
                                               const uint8_t *(&cells)[2][TILE_POSITIONS]) {
        uint32_t i = threadIdx.x % TILE_POSITIONS, which = threadIdx.x / TILE_POSITIONS;
        bool found = seen(tile + i, limits);
        cells[which][i] = found ? cell_of(a, which ? a.v : a.k, pages, tile + i, head) : nullptr;
    }

    // Whether a column sees position `i`; others may be garbage, or have no page.
    __device__ __forceinline__ bool seen(int32_t i, const int2 (&limits)[TILE_ROWS]) const {
        if (i < begin || i >= end) return false;
        bool found = gapless;
#pragma unroll 1
        for (uint32_t c = 0; !found && c < columns; ++c) found = i >= limits[c * heads].x && i <= limits[c * heads].y;
        return found;
    }

    // Values `from` and on of the rows of q, transposed: [SLICE][PITCH].
    __device__ __forceinline__ void load_queries(uint32_t from, const float (&factors)[TILE_ROWS],
                                                 const float *const (&queries)[TILE_ROWS], float *slice) {
        uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, d = warp * 8 + lane % 8;
        bool inside = from + d < a.q.dims[0];
#pragma unroll 4
        for (uint32_t r = lane / 8; r < TILE_ROWS; r += 4)
            slice[d * PITCH + r] = inside ? queries[r][from + d] * factors[r] : 0.0f;
    }

    __device__ __forceinline__ void load_eight(const uint8_t *row, uint32_t chunk, float (&values)[8]) {
        typename Page::Raw raw = Page::nothing();
        if (row && chunk * 8 < a.q.dims[0]) raw = Page::fetch(row + Page::place(chunk), chunk);
        Page::widen(raw, chunk, values);
    }

    __device__ __forceinline__ void load_keys(uint32_t from, const uint8_t *const (&cells)[TILE_POSITIONS], float *slice) {
        uint32_t i = threadIdx.x % TILE_POSITIONS;
        const uint8_t *row = cells[i];
#pragma unroll
        for (uint32_t eighth = threadIdx.x / TILE_POSITIONS; eighth < SLICE / 8; eighth += TILE_THREADS / TILE_POSITIONS) {
            float values[8];
            load_eight(row, from / 8 + eighth, values);
#pragma unroll
            for (int j = 0; j < 8; ++j) slice[(eighth * 8 + j) * PITCH + i] = values[j];
        }
    }

    // Rows of V from the tile's position `from` on, as they are: [VALUES][WIDTH].
    __device__ __forceinline__ void load_values(uint32_t from, const uint8_t *const (&cells)[TILE_POSITIONS], float *rows) {
#pragma unroll 2
        for (uint32_t piece = threadIdx.x; piece < VALUES * WIDTH / 8; piece += TILE_THREADS) {
            uint32_t chunk = piece % (WIDTH / 8), i = piece / (WIDTH / 8);
            float values[8];
            load_eight(cells[from + i], chunk, values);
            float4 *to = reinterpret_cast<float4 *>(rows + piece * 8);
            to[0] = make_float4(values[0], values[1], values[2], values[3]);
            to[1] = make_float4(values[4], values[5], values[6], values[7]);
        }
    }

    __device__ __forceinline__ void score(const float *queries, const float *keys) {
#pragma unroll 4
        for (int d = 0; d < SLICE; ++d) {
            float4 low = *reinterpret_cast<const float4 *>(queries + d * PITCH + y * 8);
            float4 high = *reinterpret_cast<const float4 *>(queries + d * PITCH + y * 8 + 4);
            float4 key = *reinterpret_cast<const float4 *>(keys + d * PITCH + x * 4);
            float q[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
            float k[4] = {key.x, key.y, key.z, key.w};
#pragma unroll
            for (int r = 0; r < 8; ++r)
#pragma unroll
                for (int i = 0; i < 4; ++i) s[r][i] += q[r] * k[i];
        }
    }

    // Makes probabilities of the scores, relative to a row's largest so far, and writes them: [position][PITCH].
    __device__ __forceinline__ void weigh(int32_t tile, const int2 (&limits)[TILE_ROWS], float (&most)[TILE_ROWS], float *probabilities) {
#pragma unroll
        for (int r = 0; r < 8; ++r) {
            int2 limit = limits[y * 8 + r];
            float top = LOWEST;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                int32_t at = tile + x * 4 + i;
                bool sees = at >= limit.x && at <= limit.y;
                s[r][i] = sees ? exponent_of(a, s[r][i]) : 2.0f * LOWEST;
                top = fmaxf(top, s[r][i]);
            }
            float before = most[y * 8 + r];
            top = fmaxf(before, lanes_join<Greatest>(top, 16));
            float factor = power_of_2(before - top), total = 0.0f;
            if (x == 0) most[y * 8 + r] = top;
#pragma unroll
            for (int i = 0; i < 4; ++i) total += s[r][i] = power_of_2(s[r][i] - top);
            powers[r] = powers[r] * factor + total;
#pragma unroll
            for (int v = 0; v < VECTORS; ++v)
#pragma unroll
                for (int e = 0; e < 4; ++e) o[r][v][e] *= factor;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float4 *to = reinterpret_cast<float4 *>(probabilities + (x * 4 + i) * PITCH + y * 8);
            to[0] = make_float4(s[0][i], s[1][i], s[2][i], s[3][i]);
            to[1] = make_float4(s[4][i], s[5][i], s[6][i], s[7][i]);
        }
    }

    // Adds VALUES rows of V, weighted.
    __device__ __forceinline__ void add(const float *probabilities, const float *rows) {
#pragma unroll 2
        for (int i = 0; i < VALUES; ++i) {
            float4 low = *reinterpret_cast<const float4 *>(probabilities + i * PITCH + y * 8);
            float4 high = *reinterpret_cast<const float4 *>(probabilities + i * PITCH + y * 8 + 4);
            float p[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
            for (int v = 0; v < VECTORS; ++v) {
                float4 four = *reinterpret_cast<const float4 *>(rows + i * WIDTH + (v * 16 + x) * 4);
                float values[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
                for (int r = 0; r < 8; ++r)
#pragma unroll
                    for (int e = 0; e < 4; ++e) o[r][v][e] += p[r] * values[e];
            }
        }
    }

    // Grid (tiles of columns, Hkv · groups of heads, parts of the cache).
    __device__ __forceinline__ void run() {
        SHARED(limits, int2[TILE_ROWS]);
        SHARED(factors, float[TILE_ROWS]);
        SHARED(most, float[TILE_ROWS]);
        SHARED(queries, const float *[TILE_ROWS]);
        SHARED(cells, const uint8_t *[2][TILE_POSITIONS]);
        SHARED(probabilities, float4[TILE_POSITIONS * PITCH / 4]);
        SHARED(room, float4[ROOM / 4]);
        float *p = reinterpret_cast<float *>(probabilities), *slices = reinterpret_cast<float *>(room);
        uint32_t ratio = a.q.dims[1] / a.k.dims[2], groups = ceil_div(ratio, TILE_ROWS);
        uint32_t group = blockIdx.y % groups * TILE_ROWS;
        head = blockIdx.y / groups;
        heads = min(uint32_t(TILE_ROWS), ratio - group);
        first_head = head * ratio + group;
        // late columns see most: they begin first
        if (!find(gridDim.x - 1 - blockIdx.x, TILE_ROWS / min(uint32_t(TILE_ROWS), ratio))) return;
        find_rows(limits, factors, queries, most);
        clear();
        __syncthreads();
        for (int32_t tile = begin & -TILE_POSITIONS; tile < end; tile += TILE_POSITIONS) {
#pragma unroll
            for (int r = 0; r < 8; ++r)
#pragma unroll
                for (int i = 0; i < 4; ++i) s[r][i] = 0.0f;
            find_cells(tile, limits, cells);
            for (uint32_t from = 0; from < a.q.dims[0]; from += SLICE) {
                __syncthreads();
                load_queries(from, factors, queries, slices);
                load_keys(from, cells[0], slices + SLICE * PITCH);
                __syncthreads();
                score(slices, slices + SLICE * PITCH);
            }
            weigh(tile, limits, most, p);
            for (int i = 0; i < TILE_POSITIONS; i += VALUES) {
                __syncthreads();
                load_values(i, cells[1], slices);
                __syncthreads();
                add(p + i * PITCH, slices);
            }
        }
        write(most);
    }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int r = 0; r < 8; ++r) {
            powers[r] = 0.0f;
#pragma unroll
            for (int v = 0; v < VECTORS; ++v)
#pragma unroll
                for (int e = 0; e < 4; ++e) o[r][v][e] = 0.0f;
        }
    }

    __device__ __forceinline__ void write(const float (&most)[TILE_ROWS]) {
#pragma unroll
        for (int r = 0; r < 8; ++r) powers[r] = lanes_join<Sum>(powers[r], 16);
#pragma unroll
        for (int r = 0; r < 8; ++r) {
            uint32_t row = y * 8 + r, column = row / heads, h = first_head + row % heads, t = first_column + column;
            if (column >= columns) continue;
            float scale = share(h, most[row], a.splits ? 1.0f : powers[r]), *out;
            if (a.splits) {
                uint64_t place = (uint64_t(t) * a.q.dims[1] + h) * a.splits + blockIdx.z;
                out = reinterpret_cast<float *>(a.sums) + place * a.q.dims[0];
                if (x == 0) reinterpret_cast<float2 *>(a.weights)[place] = make_float2(most[row], powers[r]);
            } else {
                out = row_at<float>(a.y, h, t);
            }
#pragma unroll
            for (int v = 0; v < VECTORS; ++v) {
                uint32_t d = (v * 16 + x) * 4;
                if (d >= a.q.dims[0]) continue;
#pragma unroll
                for (int e = 0; e < 4; ++e) out[d + e] = o[r][v][e] * scale;
            }
        }
    }

    // What sums are multiplied with in the end, given the largest score and the sum of powers; a part's total is 1, and has no sink.
    __device__ __forceinline__ float share(uint32_t h, float most, float total) const {
        if (!a.sinks || a.splits) return 1.0f / total;
        float sink = reinterpret_cast<const float *>(a.sinks)[h] * LOG2_E, top = fmaxf(sink, most), scale = power_of_2(most - top);
        return scale / (total * scale + power_of_2(sink - top));
    }
};
