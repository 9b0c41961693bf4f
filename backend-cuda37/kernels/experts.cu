// The order in which pairs of a token and a slot are multiplied by their experts, when they are many: by expert, then by number.
#include "product_many.cuh"

struct OrderArgs {
    uint64_t ids, pairs; // pairs: `tiles` tiles, then the pairs' numbers
    int64_t ids_stride, ids_slot_stride;
    uint32_t columns, slots, experts, tiles;
};

#define MOST_EXPERTS 1023
#define ORDER_THREADS 1024

__device__ __forceinline__ uint32_t expert_of(const OrderArgs &a, uint32_t pair) {
    uint64_t place = a.ids + pair / a.slots * a.ids_stride + pair % a.slots * a.ids_slot_stride;
    return min(*reinterpret_cast<const uint32_t *>(place), a.experts); // those out of range are an expert of their own
}

// Calls `f` with the number of each pair of this thread's expert, ascending. Every thread of the block calls.
template <class F> __device__ __forceinline__ void for_own(const OrderArgs &a, uint32_t (&ids)[ORDER_THREADS], F f) {
    for (uint32_t begin = 0; begin < a.columns; begin += blockDim.x) {
        uint32_t end = min(blockDim.x, a.columns - begin);
        __syncthreads();
        if (threadIdx.x < end) ids[threadIdx.x] = expert_of(a, begin + threadIdx.x);
        __syncthreads();
        for (uint32_t i = 0; i < end; ++i)
            if (ids[i] == threadIdx.x) f(begin + i);
    }
}

// One block, a thread an expert, and one for what has none.
KERNEL_BOUNDS(experts_order, OrderArgs, ORDER_THREADS, 1) {
    SHARED(ids, uint32_t[ORDER_THREADS]);
    SHARED(pairs_before, uint32_t[MOST_EXPERTS + 2]);
    SHARED(tiles_before, uint32_t[MOST_EXPERTS + 2]);
    uint32_t expert = threadIdx.x, count = 0;
    for_own(a, ids, [&](uint32_t) { ++count; });
    if (expert <= a.experts) pairs_before[expert] = count, tiles_before[expert] = ceil_div(count, MANY_COLUMNS);
    __syncthreads();
    if (expert == 0) {
        uint32_t pairs = 0, tiles = 0;
        for (uint32_t e = 0; e <= a.experts + 1; ++e) {
            uint32_t own_pairs = e <= a.experts ? pairs_before[e] : 0, own_tiles = e <= a.experts ? tiles_before[e] : 0;
            pairs_before[e] = pairs, tiles_before[e] = tiles;
            pairs += own_pairs, tiles += own_tiles;
        }
    }
    __syncthreads();
    ExpertTile *tiles = reinterpret_cast<ExpertTile *>(a.pairs);
    uint32_t *order = reinterpret_cast<uint32_t *>(a.pairs + uint64_t(a.tiles) * sizeof(ExpertTile));
    uint32_t next = expert <= a.experts ? pairs_before[expert] : 0;
    if (expert <= a.experts)
        for (uint32_t done = 0, tile = tiles_before[expert]; done < count; done += MANY_COLUMNS, ++tile) {
            tiles[tile].expert = expert < a.experts ? int32_t(expert) : -1;
            tiles[tile].first = next + done;
            tiles[tile].count = min(uint32_t(MANY_COLUMNS), count - done);
        }
    for (uint32_t tile = tiles_before[a.experts + 1] + threadIdx.x; tile < a.tiles; tile += blockDim.x) tiles[tile].count = 0;
    for_own(a, ids, [&](uint32_t pair) { order[next++] = pair; });
}
