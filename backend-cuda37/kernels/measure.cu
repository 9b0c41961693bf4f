// What the device can do at most: plain reading, and multiply-adds in registers.
#include "common.cuh"

struct ReadArgs {
    uint64_t x, y;
    uint64_t words;  // of 16 bytes
};

struct ArithmeticArgs {
    uint64_t y;
    float a, b;
    uint32_t rounds, nothing;
};

// Multiply-adds of a round, none of which waits for another.
#define CHAINS 16

// Writes what cannot be, so that nothing is left out.
__device__ __forceinline__ void keep(uint64_t y, bool so, uint32_t value) {
    if (so) *reinterpret_cast<uint32_t *>(y) = value;
}

KERNEL(measure_read, ReadArgs) {
    const uint4 *x = reinterpret_cast<const uint4 *>(a.x);
    uint64_t step = uint64_t(gridDim.x) * blockDim.x;
    uint32_t all = 0;
    for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < a.words; i += step) {
        uint4 word = x[i];
        all |= word.x ^ word.y ^ word.z ^ word.w;
    }
    keep(a.y, all == 0x12345678u, all);
}

KERNEL(measure_arithmetic, ArithmeticArgs) {
    float sums[CHAINS];
#pragma unroll
    for (int i = 0; i < CHAINS; ++i) sums[i] = float(threadIdx.x + i);
    for (uint32_t round = 0; round < a.rounds; ++round) {
#pragma unroll
        for (int i = 0; i < CHAINS; ++i) sums[i] = fmaf(sums[i], a.a, a.b);
    }
    float all = 0.0f;
#pragma unroll
    for (int i = 0; i < CHAINS; ++i) all += sums[i];
    keep(a.y, all == 0.12345678f, threadIdx.x);
}
