// Attention for few columns: the cache is cut into parts at fixed multiples of positions, each for a block; a second
// kernel joins them. Cuts and orders of summation depend on a column's position and window alone.
#pragma once
#include "attention.cuh"

// A column has at most so many parts, of at least 2^LEAST_SHIFT positions.
#define PARTS 32
#define LEAST_SHIFT 7
#define PART_WARPS 8
// Positions that a warp takes at a time; no page is smaller.
#define STRIP 16

// Parts have 2^shift positions.
__device__ __forceinline__ uint32_t part_shift(int32_t first, int32_t last) {
    uint32_t shift = LEAST_SHIFT;
    while ((last >> shift) - (first >> shift) >= PARTS) ++shift;
    return shift;
}

__device__ __forceinline__ uint32_t sequence_of(const AttentionArgs &a, uint32_t t) {
    const int32_t *starts = reinterpret_cast<const int32_t *>(a.starts);
    uint32_t s = 0;
    while (s + 1 < a.table.dims[1] && uint32_t(starts[s + 1]) <= t) ++s;
    return s;
}

// Heads are `HEADS` of a group that share rows of the cache; a row of up to WIDTH values is WIDTH / 8 lanes'.
template <class Page, int WIDTH, int HEADS> struct Part {
    static const int LANES = WIDTH / 8, ROWS = WARP / LANES, STEPS = STRIP / ROWS, BATCH = STEPS < 4 ? STEPS : 4;
    static const int WEIGHED = HEADS / 2;
    static_assert(HEADS <= LANES, "a lane is left with one head");

    const AttentionArgs &a;
    uint32_t lane, warp, slot, chunk, own;
    bool inside;  // whether the lane's eight values exist
    int32_t begin, end;
    float q[HEADS][8], sums[HEADS][8];
    float most[WEIGHED], powers[WEIGHED];  // of the heads whose scores this lane weighs

    __device__ __forceinline__ Part(const AttentionArgs &a)
        : a(a), lane(threadIdx.x % WARP), warp(threadIdx.x / WARP), slot(lane / LANES), chunk(lane % LANES),
          own(held<HEADS, LANES>(lane)), inside(chunk * 8 < a.q.dims[0]) {}

    // The rows of a strip, a batch at a time: `use(row, values)`, zeros for what the column does not see. Lanes without
    // values of their own read the first ones.
    template <class Use>
    __device__ __forceinline__ void for_rows(const View &pool, const int32_t *pages, int32_t strip, uint32_t head, Use use) {
        uint32_t read = inside ? chunk : 0;
        int64_t step = pool.strides[1] * ROWS;
        const uint8_t *at = cell_of(a, pool, pages, strip, head) + slot * pool.strides[1] + Page::place(read);
        bool whole = strip >= begin && strip + STRIP <= end;
#pragma unroll 1
        for (int from = 0; from < STEPS; from += BATCH) {
            typename Page::Raw raw[BATCH];
            if (whole) {
#pragma unroll
                for (int s = 0; s < BATCH; ++s, at += step) raw[s] = Page::fetch(at, read);
            } else {
#pragma unroll
                for (int s = 0; s < BATCH; ++s, at += step) {
                    int32_t i = strip + (from + s) * ROWS + slot;
                    raw[s] = Page::nothing();
                    if (i >= begin && i < end) raw[s] = Page::fetch(at, read);
                }
            }
#pragma unroll
            for (int s = 0; s < BATCH; ++s) {
                float values[8];
                Page::widen(raw[s], read, values);
                use((from + s) * ROWS + slot, values);
            }
        }
    }

    // The scores of a strip, into `scores`. A lane has the heads in an order of its own, `own` first, so that in every round
    // of `fold` it keeps the first half.
    __device__ __forceinline__ void score(const int32_t *pages, int32_t strip, uint32_t head, float (*scores)[HEADS]) {
        for_rows(a.k, pages, strip, head, [&](uint32_t row, const float (&k)[8]) {
            float dots[HEADS];
#pragma unroll
            for (int h = 0; h < HEADS; ++h) {
                dots[h] = 0.0f;
#pragma unroll
                for (int j = 0; j < 8; ++j) dots[h] += q[h][j] * k[j];
            }
            fold<HEADS, LANES>(dots);
            scores[row][own] = dots[0];
        });
    }

    // Makes probabilities of the scores, relative to the largest so far; `factors` is what earlier sums are multiplied
    // with. A lane has a row, and half of the heads. Returns whether a factor is not 1.
    __device__ __forceinline__ bool weigh(int32_t strip, float (*scores)[HEADS], float *factors) {
        uint32_t row = lane % STRIP, half = lane / STRIP;
        int32_t i = strip + row;
        bool seen = i >= begin && i < end, grown = false;
#pragma unroll
        for (int n = 0; n < WEIGHED; ++n) {
            uint32_t h = half * WEIGHED + n;
            float z = seen ? exponent_of(a, scores[row][h]) : LOWEST;
            float next = fmaxf(most[n], lanes_join<Greatest>(z, STRIP));
            float factor = power_of_2(most[n] - next), p = seen ? power_of_2(z - next) : 0.0f;
            powers[n] = powers[n] * factor + p;
            grown |= next != most[n];
            most[n] = next;
            scores[row][h] = p;
            factors[h] = factor;
        }
        return __any_sync(ALL_LANES, grown);
    }

    __device__ __forceinline__ void rescale(const float *factors) {
#pragma unroll
        for (int h = 0; h < HEADS; ++h) {
            float factor = factors[h];
#pragma unroll
            for (int j = 0; j < 8; ++j) sums[h][j] *= factor;
        }
    }

    __device__ __forceinline__ void add(const int32_t *pages, int32_t strip, uint32_t head, float (*scores)[HEADS]) {
        for_rows(a.v, pages, strip, head, [&](uint32_t row, const float (&v)[8]) {
#pragma unroll
            for (int h = 0; h < HEADS; ++h) {
                float p = scores[row][h];
#pragma unroll
                for (int j = 0; j < 8; ++j) sums[h][j] += p * v[j];
            }
        });
    }

    // Grid (T, Hkv · groups of heads, parts): columns that share cells run side by side, and find them in the L2 cache.
    __device__ __forceinline__ void run() {
        SHARED(scores, float[PART_WARPS][STRIP][HEADS]);
        SHARED(factors, float[PART_WARPS][HEADS]);
        SHARED(room, float[PART_WARPS / 2][HEADS][WIDTH]);
        SHARED(stats, float[2][PART_WARPS][HEADS]);
        uint32_t t = blockIdx.x, hd = a.q.dims[0], ratio = a.q.dims[1] / a.k.dims[2];
        uint32_t groups = ceil_div(ratio, HEADS), head = blockIdx.y / groups;
        uint32_t first_head = head * ratio + blockIdx.y % groups * HEADS, last_head = (head + 1) * ratio;
        int32_t p = position_of(a, t), low = first_seen(a, p);
        uint32_t shift = part_shift(low, p);
        int32_t first = ((low >> shift) + int32_t(blockIdx.z)) << shift;
        if (first > p) return;
        begin = max(first, low), end = min(first + (1 << shift), p + 1);
        const int32_t *pages = pages_of(a, sequence_of(a, t));

        float factor = query_factor(a, p);
        for (uint32_t i = threadIdx.x; i < HEADS * WIDTH; i += blockDim.x) {
            uint32_t h = i / WIDTH, d = i % WIDTH;
            bool exists = d < hd && first_head + h < last_head;
            room[0][h][d] = exists ? row_at<const float>(a.q, first_head + h, t)[d] * factor : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int h = 0; h < HEADS; ++h)
#pragma unroll
            for (int j = 0; j < 8; ++j) q[h][j] = room[0][h ^ own][chunk * 8 + j], sums[h][j] = 0.0f;
#pragma unroll
        for (int n = 0; n < WEIGHED; ++n) most[n] = LOWEST, powers[n] = 0.0f;
        __syncthreads();

        for (int32_t strip = (begin & -STRIP) + warp * STRIP; strip < end; strip += PART_WARPS * STRIP) {
            score(pages, strip, head, scores[warp]);
            __syncwarp();
            bool grown = weigh(strip, scores[warp], factors[warp]);
            __syncwarp();
            if (grown) rescale(factors[warp]);
            add(pages, strip, head, scores[warp]);
            __syncwarp();
        }
        join_warps(stats, room);
        if (warp == 0) write(first_head, last_head, t, stats);
    }

    // The largest score and the sum of powers of each head, and the sums of all warps in those of warp 0.
    __device__ __forceinline__ void join_warps(float (&stats)[2][PART_WARPS][HEADS],
                                               float (&room)[PART_WARPS / 2][HEADS][WIDTH]) {
#pragma unroll
        for (int n = 0; n < WEIGHED; ++n) {
            float total = lanes_join<Sum>(powers[n], STRIP);
            uint32_t h = lane / STRIP * WEIGHED + n;
            if (lane % STRIP == 0) stats[0][warp][h] = most[n], stats[1][warp][h] = total;
        }
        __syncthreads();
#pragma unroll
        for (int h = 0; h < HEADS; ++h) {
            float top = stats[0][0][h];
#pragma unroll
            for (int w = 1; w < PART_WARPS; ++w) top = fmaxf(top, stats[0][w][h]);
            float factor = power_of_2(stats[0][warp][h] - top);
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                float sum = sums[h][j] * factor;
#pragma unroll
                for (int o = LANES; o < WARP; o <<= 1) sum += __shfl_xor_sync(ALL_LANES, sum, o);
                sums[h][j] = sum;
            }
        }
#pragma unroll
        for (uint32_t half = PART_WARPS / 2; half > 0; half /= 2) {
            if (warp >= half && warp < 2 * half && slot == 0) exchange_rows<true>(room[warp - half]);
            __syncthreads();
            if (warp < half) exchange_rows<false>(room[warp]);
            __syncthreads();
        }
    }

    template <bool OUT> __device__ __forceinline__ void exchange_rows(float (&room)[HEADS][WIDTH]) {
#pragma unroll
        for (int h = 0; h < HEADS; ++h)
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                if (OUT) room[h][chunk * 8 + j] = sums[h][j];
                else sums[h][j] += room[h][chunk * 8 + j];
            }
    }

    __device__ __forceinline__ void write(uint32_t first_head, uint32_t last_head, uint32_t t,
                                          const float (&stats)[2][PART_WARPS][HEADS]) {
        uint32_t hd = a.q.dims[0];
#pragma unroll
        for (int h = 0; h < HEADS; ++h) {
            if (first_head + h >= last_head) continue;
            uint64_t place = (uint64_t(t) * a.q.dims[1] + first_head + h) * PARTS + blockIdx.z;
            float *out = reinterpret_cast<float *>(a.sums) + place * hd + chunk * 8;
            if (inside && slot == 0)
#pragma unroll
                for (int j = 0; j < 8; ++j) out[j] = sums[h][j];
            float top = stats[0][0][h];
            for (int w = 1; w < PART_WARPS; ++w) top = fmaxf(top, stats[0][w][h]);
            float total = 0.0f;
            for (int w = 0; w < PART_WARPS; ++w) total += stats[1][w][h] * power_of_2(stats[0][w][h] - top);
            if (lane == 0) reinterpret_cast<float2 *>(a.weights)[place] = make_float2(top, total);
        }
    }
};

// Joins the parts of a head of a column: grid (H, T), a thread a value, in whole warps.
__device__ __forceinline__ void join_parts(const AttentionArgs &a) {
    uint32_t h = blockIdx.x, t = blockIdx.y, lane = threadIdx.x % WARP, hd = a.q.dims[0];
    int32_t p = position_of(a, t), low = first_seen(a, p);
    uint32_t shift = part_shift(low, p), parts = (p >> shift) - (low >> shift) + 1;
    uint64_t place = (uint64_t(t) * a.q.dims[1] + h) * PARTS;
    float2 own = make_float2(LOWEST, 0.0f);
    if (lane < parts) own = reinterpret_cast<const float2 *>(a.weights)[place + lane];
    float top = warp_join<Greatest>(own.x), sink = 0.0f;
    if (a.sinks) {
        sink = reinterpret_cast<const float *>(a.sinks)[h] * LOG2_E;
        top = fmaxf(top, sink);
        sink = power_of_2(sink - top);
    }
    float weight = power_of_2(own.x - top), total = warp_join<Sum>(own.y * weight) + sink, sum = 0.0f;
    const float *sums = reinterpret_cast<const float *>(a.sums) + place * hd;
    for (uint32_t part = 0; part < parts; ++part) {
        float w = __shfl_sync(ALL_LANES, weight, part);
        if (threadIdx.x < hd) sum += w * sums[part * hd + threadIdx.x];
    }
    if (threadIdx.x < hd) row_at<float>(a.y, h, t)[threadIdx.x] = sum / total;
}
