// Writing keys and values to the cache. Slots outside of the pool are skipped.
#include "common.cuh"

struct StoreArgs {
    View x, pool;  // [hd, Hkv, T] and [hd, P, Hkv, pages]
    uint64_t slots;
};

// The row of the pool for head `h` of column `t`, or nothing.
__device__ __forceinline__ uint8_t *cell_of(const StoreArgs &a, uint32_t h, uint32_t t) {
    int32_t slot = reinterpret_cast<const int32_t *>(a.slots)[t];
    uint32_t page = a.pool.dims[1], number = uint32_t(slot);
    if (slot < 0 || number / page >= a.pool.dims[3]) return nullptr;
    return row_at<uint8_t>(a.pool, number % page, h, number / page);
}

// A thread an element: grid (hd / block, Hkv, T).
template <class T, class F> __device__ __forceinline__ void store(const StoreArgs &a, F convert) {
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.x.dims[0]) return;
    for (uint32_t t = blockIdx.z; t < a.x.dims[2]; t += gridDim.z) {
        T *cell = reinterpret_cast<T *>(cell_of(a, blockIdx.y, t));
        if (cell) cell[i] = convert(row_at<const float>(a.x, blockIdx.y, t)[i]);
    }
}

KERNEL(cache_store_f32, StoreArgs) {
    store<float>(a, [](float v) { return v; });
}

KERNEL(cache_store_f16, StoreArgs) {
    store<uint16_t>(a, [](float v) { return f32_to_f16(v); });
}

// The signed value of largest magnitude among the warp's, the first of equals.
__device__ __forceinline__ float extreme(float v FROM_HERE) {
    float most = warp_join<Greatest>(fabsf(v) FROM_THERE);
    int first = __ffs(__ballot_sync(ALL_LANES, fabsf(v) == most FROM_THERE)) - 1;
    return __shfl_sync(ALL_LANES, v, first, WARP FROM_THERE);
}

__device__ __forceinline__ float quotient(float v, float d) { return d == 0.0f ? 0.0f : v / d; }

// d = max|x|/127, codes to nearest. Blocks have 34 bytes.
struct Q8_0 {
    static const uint32_t BYTES = 34;
    static __device__ __forceinline__ void encode(uint8_t *block, float v, uint32_t lane) {
        float d = fabsf(extreme(v)) / 127.0f;
        if (lane == 0) *reinterpret_cast<uint16_t *>(block) = f32_to_f16(d);
        block[2 + lane] = uint8_t(int8_t(roundf(quotient(v, d))));
    }
};

// d = −m/8, m the extreme; codes min(15, ⌊x/d + 8.5⌋), those of the halves side by side. Blocks have 18 bytes.
struct Q4_0 {
    static const uint32_t BYTES = 18;
    static __device__ __forceinline__ void encode(uint8_t *block, float v, uint32_t lane) {
        float d = extreme(v) / -8.0f;
        uint32_t code = min(15, int(quotient(v, d) + 8.5f));
        uint32_t upper = __shfl_xor_sync(ALL_LANES, code, 16);
        if (lane == 0) *reinterpret_cast<uint16_t *>(block) = f32_to_f16(d);
        if (lane < 16) block[2 + lane] = uint8_t(code | upper << 4);
    }
};

// A warp a block of values: grid (hd / 32 / warps, Hkv, T).
template <class Type> __device__ __forceinline__ void store_blocks(const StoreArgs &a) {
    uint32_t lane = threadIdx.x % WARP, block = (blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    if (block * WARP >= a.x.dims[0]) return;
    for (uint32_t t = blockIdx.z; t < a.x.dims[2]; t += gridDim.z) {
        uint8_t *cell = cell_of(a, blockIdx.y, t);
        if (!cell) continue;
        float v = row_at<const float>(a.x, blockIdx.y, t)[block * WARP + lane];
        Type::encode(cell + block * Type::BYTES, v, lane);
    }
}

KERNEL(cache_store_q8_0, StoreArgs) { store_blocks<Q8_0>(a); }
KERNEL(cache_store_q4_0, StoreArgs) { store_blocks<Q4_0>(a); }
