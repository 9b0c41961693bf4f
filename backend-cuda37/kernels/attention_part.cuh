// Attention for few columns: the cache is cut into parts at fixed multiples of positions, each for a block; a second
// kernel joins them. Cuts and orders of summation depend on a column's position and window alone.
//
// Half of a block's warps score positions, against queries that they hold; the others add up values, weighted, in sums that they
// hold, a turn later. So a thread holds one of the two, and twice as many threads have room.
#pragma once
#include "attention.cuh"

// A column has at most so many parts, of at least 2^LEAST_SHIFT positions.
#define PARTS 32
#define LEAST_SHIFT 7
#define PART_WARPS 8
#define PAIRS (PART_WARPS / 2)
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
    static const int LANES = WIDTH / 8, ROWS = WARP / LANES, STEPS = STRIP / ROWS;
    static const int BATCH = HEADS == 8 && sizeof(typename Page::Raw) != 16 ? 2 : 4;  // rows that a lane reads at once, as registers allow
    static const int WEIGHED = HEADS / 2;
    static_assert(HEADS <= LANES && STEPS % BATCH == 0, "a lane is left with one head, and strips are whole batches");

    // What scorers tell the warp that adds their strip.
    struct alignas(16) Strip {
        float scores[STRIP][HEADS], factors[HEADS];
        int grown;  // whether a factor is not 1
    };
    struct Stats {
        float most[PAIRS][HEADS], powers[PAIRS][HEADS];
    };
    typedef float4 Room[HEADS][WIDTH / 4];

    const AttentionArgs &a;
    uint32_t lane, pair, slot, chunk, own;
    bool scores;  // or adds
    bool inside;  // whether the lane's eight values exist
    int32_t begin, end;
    float held[HEADS][8];  // of scorers: queries; of the others: sums
    float most[WEIGHED], powers[WEIGHED];  // of the heads whose scores this lane weighs

    __device__ __forceinline__ Part(const AttentionArgs &a)
        : a(a), lane(threadIdx.x % WARP), pair(threadIdx.x / WARP % PAIRS), slot(lane / LANES), chunk(lane % LANES),
          own(left_head<HEADS, LANES>(lane)), scores(threadIdx.x < PAIRS * WARP), inside(chunk * 8 < a.q.dims[0]) {}

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

    // The scores of a strip. A lane has the heads in an order of its own, `own` first, so that in every round
    // of `fold` it keeps the first half.
    __device__ __forceinline__ void score(const int32_t *pages, int32_t strip, uint32_t head, Strip &to) {
        for_rows(a.k, pages, strip, head, [&](uint32_t row, const float (&k)[8]) {
            float dots[HEADS];
#pragma unroll
            for (int h = 0; h < HEADS; ++h) {
                dots[h] = 0.0f;
#pragma unroll
                for (int j = 0; j < 8; ++j) dots[h] += held[h][j] * k[j];
            }
            fold<HEADS, LANES>(dots);
            to.scores[row][own] = dots[0];
        });
    }

    // Makes probabilities of the scores, relative to the largest so far, and what earlier sums are multiplied with. A lane has a
    // row, and half of the heads.
    __device__ __forceinline__ void weigh(int32_t strip, Strip &of) {
        uint32_t row = lane % STRIP, half = lane / STRIP;
        int32_t i = strip + row;
        bool seen = i >= begin && i < end, grown = false;
#pragma unroll
        for (int n = 0; n < WEIGHED; ++n) {
            uint32_t h = half * WEIGHED + n;
            float z = seen ? exponent_of(a, of.scores[row][h]) : LOWEST;
            float next = fmaxf(most[n], lanes_join<Greatest>(z, STRIP));
            float factor = power_of_2(most[n] - next), p = seen ? power_of_2(z - next) : 0.0f;
            powers[n] = powers[n] * factor + p;
            grown |= next != most[n];
            most[n] = next;
            of.scores[row][h] = p;
            of.factors[h] = factor;
        }
        of.grown = __any_sync(ALL_LANES, grown);
    }

    __device__ __forceinline__ void rescale(const float (&factors)[HEADS]) {
#pragma unroll
        for (int h = 0; h < HEADS; ++h) {
            float factor = factors[h];
#pragma unroll
            for (int j = 0; j < 8; ++j) held[h][j] *= factor;
        }
    }

    __device__ __forceinline__ void add(const int32_t *pages, int32_t strip, uint32_t head, const Strip &of) {
        if (of.grown) rescale(of.factors);
        for_rows(a.v, pages, strip, head, [&](uint32_t row, const float (&v)[8]) {
#pragma unroll
            for (int h = 0; h < HEADS; ++h) {
                float p = of.scores[row][h];
#pragma unroll
                for (int j = 0; j < 8; ++j) held[h][j] += p * v[j];
            }
        });
    }

    // Grid (T, Hkv · groups of heads, parts): columns that share cells run side by side, and find them in the L2 cache.
    __device__ __forceinline__ void run() {
        SHARED(strips, Strip[2][PAIRS]);
        SHARED(room, Room[PAIRS / 2]);
        SHARED(stats, Stats);
        uint32_t t = blockIdx.x, ratio = a.q.dims[1] / a.k.dims[2];
        uint32_t groups = ceil_div(ratio, HEADS), head = blockIdx.y / groups;
        uint32_t first_head = head * ratio + blockIdx.y % groups * HEADS, last_head = (head + 1) * ratio;
        int32_t p = position_of(a, t), low = first_seen(a, p);
        uint32_t shift = part_shift(low, p);
        int32_t first = ((low >> shift) + int32_t(blockIdx.z)) << shift;
        if (first > p) return;
        begin = max(first, low), end = min(first + (1 << shift), p + 1);
        const int32_t *pages = pages_of(a, sequence_of(a, t));
        hold(first_head, last_head, t, query_factor(a, p), room[0]);
        int32_t from = begin & -STRIP, turns = ceil_div(end - from, PAIRS * STRIP);
#pragma unroll 1
        for (int32_t turn = 0; turn <= turns; ++turn) {
            int32_t own_turn = scores ? turn : turn - 1, strip = from + (own_turn * PAIRS + pair) * STRIP;
            Strip &of = strips[own_turn & 1][pair];
            if (own_turn >= 0 && strip < end) {
                if (scores) {
                    score(pages, strip, head, of);
                    __syncwarp();
                    weigh(strip, of);
                } else {
                    add(pages, strip, head, of);
                }
            }
            __syncthreads();
        }
        join_pairs(stats, room);
        write(first_head, last_head, t, stats, room);
    }

    // What a thread has at first: its values of the queries, or sums of nothing.
    __device__ __forceinline__ void hold(uint32_t first_head, uint32_t last_head, uint32_t t, float factor, Room &room) {
        float *queries = reinterpret_cast<float *>(room);
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < HEADS * WIDTH; i += PART_WARPS * WARP) {
            uint32_t h = i / WIDTH, d = i % WIDTH;
            bool exists = d < a.q.dims[0] && first_head + h < last_head;
            queries[i] = exists ? row_at<const float>(a.q, first_head + h, t)[d] * factor : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int h = 0; h < HEADS; ++h)
#pragma unroll
            for (int j = 0; j < 8; ++j) held[h][j] = scores ? queries[(h ^ own) * WIDTH + chunk * 8 + j] : 0.0f;
#pragma unroll
        for (int n = 0; n < WEIGHED; ++n) most[n] = LOWEST, powers[n] = 0.0f;
        __syncthreads();
    }

    // The largest score and the sum of powers of each pair of warps, and the sums of two pairs, relative to the largest of all.
    __device__ __forceinline__ void join_pairs(Stats &stats, Room (&room)[PAIRS / 2]) {
        if (scores) {
#pragma unroll
            for (int n = 0; n < WEIGHED; ++n) {
                float total = lanes_join<Sum>(powers[n], STRIP);
                uint32_t h = lane / STRIP * WEIGHED + n;
                if (lane % STRIP == 0) stats.most[pair][h] = most[n], stats.powers[pair][h] = total;
            }
        }
        __syncthreads();
        if (!scores) {
#pragma unroll
            for (int h = 0; h < HEADS; ++h) {
                float factor = power_of_2(stats.most[pair][h] - top_of(stats, h));
#pragma unroll
                for (int j = 0; j < 8; ++j) held[h][j] = rows_join(held[h][j] * factor);
            }
        }
        if (!scores && slot == 0 && pair >= PAIRS / 2) put<false>(room[pair - PAIRS / 2]);
        __syncthreads();
        if (!scores && slot == 0 && pair < PAIRS / 2) put<true>(room[pair]);
        __syncthreads();
    }

    static __device__ __forceinline__ float top_of(const Stats &stats, uint32_t h) {
        float top = stats.most[0][h];
#pragma unroll
        for (int i = 1; i < PAIRS; ++i) top = fmaxf(top, stats.most[i][h]);
        return top;
    }

    // The sum over the lanes that have the same values of different rows.
    static __device__ __forceinline__ float rows_join(float v FROM_HERE) {
#pragma unroll
        for (int o = LANES; o < WARP; o <<= 1) v += __shfl_xor_sync(ALL_LANES, v, o, WARP FROM_THERE);
        return v;
    }

    // Puts the sums into the room, or adds them to what is there.
    template <bool ADDED> __device__ __forceinline__ void put(Room &room) {
#pragma unroll
        for (int h = 0; h < HEADS; ++h)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                float4 &to = room[h][chunk * 2 + i];
                float4 v = ADDED ? to : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                const float *of = held[h] + 4 * i;
                to = make_float4(v.x + of[0], v.y + of[1], v.z + of[2], v.w + of[3]);
            }
    }

    __device__ __forceinline__ void write(uint32_t first_head, uint32_t last_head, uint32_t t, const Stats &stats,
                                          const Room (&room)[PAIRS / 2]) {
        uint32_t hd = a.q.dims[0];
        const float *some = reinterpret_cast<const float *>(room[0]), *others = reinterpret_cast<const float *>(room[1]);
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < HEADS * WIDTH; i += PART_WARPS * WARP) {
            uint32_t h = i / WIDTH, d = i % WIDTH;
            if (first_head + h >= last_head) return;
            uint64_t place = (uint64_t(t) * a.q.dims[1] + first_head + h) * PARTS + blockIdx.z;
            if (d < hd) reinterpret_cast<float *>(a.sums)[place * hd + d] = some[i] + others[i];
            if (d > 0) continue;
            float top = top_of(stats, h), total = 0.0f;
            for (int pair = 0; pair < PAIRS; ++pair) total += stats.powers[pair][h] * power_of_2(stats.most[pair][h] - top);
            reinterpret_cast<float2 *>(a.weights)[place] = make_float2(top, total);
        }
    }
};

// Joins the parts of a head of a column, be they the column's own or of a tile: grid (H, T), a thread a value, in whole warps.
__device__ __forceinline__ void join_parts(const AttentionArgs &a) {
    uint32_t h = blockIdx.x, t = blockIdx.y, lane = threadIdx.x % WARP, hd = a.q.dims[0];
    int32_t p = position_of(a, t), low = first_seen(a, p);
    uint32_t shift = part_shift(low, p), parts = a.splits ? a.splits : (p >> shift) - (low >> shift) + 1;
    uint64_t place = (uint64_t(t) * a.q.dims[1] + h) * (a.splits ? a.splits : PARTS);
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
