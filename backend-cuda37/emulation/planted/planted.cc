// Kernels with a planted fault each, and right ones beside them: `planted NAME SEED` runs one and prints `fault: …`, or how many
// values came out wrong. Every kernel gives a block's sum of its part of x, but where a test of its own says otherwise.
#include "../../kernels/common.cuh"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

struct Args {
    uint64_t x, y;
    uint32_t n, nothing;
};

constexpr unsigned THREADS = 128, BLOCKS = 7, LONGEST = 1000;

// Entry `i` of the block's part, of which there are `n` at most; 0 behind the end.
static float entry(const Args &a, uint32_t i) {
    uint32_t at = blockIdx.x * THREADS + i;
    return at < a.n ? reinterpret_cast<const float *>(a.x)[at] : 0.0f;
}

static void give(const Args &a, float sum) {
    if (threadIdx.x == 0) reinterpret_cast<float *>(a.y)[blockIdx.x] = sum;
}

// A sum by halves in shared memory.
template <bool BARRIER> static void by_halves(const Args &a) {
    SHARED(parts, float[THREADS]);
    parts[threadIdx.x] = entry(a, threadIdx.x);
    __syncthreads();
    for (uint32_t half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
        if (BARRIER) __syncthreads();
    }
    give(a, parts[0]);
}
KERNEL(right_halves, Args) { by_halves<true>(a); }
KERNEL(missing_barrier, Args) { by_halves<false>(a); }

KERNEL(right_join, Args) { give(a, block_join<Sum>(entry(a, threadIdx.x))); }

KERNEL(right_dynamic, Args) {
    DYNAMIC_SHARED(float, parts);
    parts[threadIdx.x] = entry(a, threadIdx.x);
    __syncthreads();
    float sum = 0.0f;
    for (uint32_t i = 0; i < THREADS; ++i) sum += parts[i];
    give(a, sum);
}

// No barrier between writing and reading.
KERNEL(unwritten_shared, Args) {
    SHARED(parts, float[THREADS]);
    parts[threadIdx.x] = entry(a, threadIdx.x);
    float sum = 0.0f;
    for (uint32_t i = 0; i < THREADS; ++i) sum += parts[i];
    __syncthreads();
    give(a, sum);
}

// Half a warp is at the shuffle.
KERNEL(divergent_shuffle, Args) {
    float v = entry(a, threadIdx.x);
    if (threadIdx.x % WARP < 16) v += __shfl_xor_sync(ALL_LANES, v, 1);
    give(a, block_join<Sum>(v));
}

// The halves of a warp are at two shuffles.
KERNEL(two_shuffles, Args) {
    float v = entry(a, threadIdx.x);
    if (threadIdx.x % WARP < 16)
        v += __shfl_xor_sync(ALL_LANES, v, 1);
    else
        v += __shfl_xor_sync(ALL_LANES, v, 2);
    give(a, v);
}

// The same of a helper, which is called at two places.
KERNEL(two_helpers, Args) {
    float v = entry(a, threadIdx.x);
    if (threadIdx.x % WARP < 16)
        v = warp_join<Sum>(v);
    else
        v = warp_join<Greatest>(v);
    give(a, v);
}

KERNEL(outside_of_mask, Args) {
    float v = entry(a, threadIdx.x);
    v += __shfl_xor_sync(0x0000ffffu, v, 1);
    give(a, v);
}

KERNEL(source_outside_of_mask, Args) {
    float v = entry(a, threadIdx.x);
    if (threadIdx.x % WARP < 16) v += __shfl_xor_sync(0x0000ffffu, v, 16);
    give(a, v);
}

// Threads behind the end leave before the block joins.
KERNEL(early_return, Args) {
    if (blockIdx.x * THREADS + threadIdx.x >= a.n) return;
    give(a, block_join<Sum>(entry(a, threadIdx.x)));
}

KERNEL(early_return_before_barrier, Args) {
    SHARED(parts, float[THREADS]);
    parts[threadIdx.x] = entry(a, threadIdx.x);
    if (threadIdx.x >= 64) return;
    __syncthreads();
    give(a, parts[0]);
}

KERNEL(two_barriers, Args) {
    if (threadIdx.x < 64)
        __syncthreads();
    else
        __syncthreads();
    give(a, 0.0f);
}

// One entry too many: writes x + 1 to the entries of y.
template <bool TAIL> static void each(const Args &a) {
    uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    if (i < a.n + (TAIL ? 1 : 0)) reinterpret_cast<float *>(a.y)[i] = reinterpret_cast<const float *>(a.x)[i] + 1.0f;
}
KERNEL(right_each, Args) { each<false>(a); }
KERNEL(tail_off_by_one, Args) { each<true>(a); }

KERNEL(index_outside_of_shared, Args) {
    SHARED(parts, float[THREADS]);
    parts[threadIdx.x + 1] = entry(a, threadIdx.x);
    __syncthreads();
    give(a, parts[0]);
}

KERNEL(index_outside_of_local, Args) {
    float own[4];
    for (uint32_t i = 0; i < 4; ++i) own[i] = entry(a, i);
    give(a, own[a.n % 13]);
}

KERNEL(pointer_outside_of_shared, Args) {
    SHARED(parts, float[THREADS]);
    float *at = parts;
    at[threadIdx.x + 1] = entry(a, threadIdx.x);
    __syncthreads();
    give(a, at[1]);
}

KERNEL(too_much_shared, Args) {
    SHARED(low, float[8192]);
    SHARED(high, float[8192]);
    low[threadIdx.x] = high[threadIdx.x] = 0.0f;
    give(a, 0.0f);
}

KERNEL(too_deep, Args) {
    volatile float wide[17000];
    for (uint32_t i = 0; i < 17000; ++i) wide[i] = i;
    give(a, wide[threadIdx.x]);
}

extern "C" const char *emu_launch(const char *, const unsigned *, const unsigned *, unsigned, const void *, size_t, unsigned);

int main(int count, char **words) {
    if (count < 3) return 2;
    bool partial = count > 3 && std::string(words[3]) == "partial";
    std::vector<float> x(LONGEST + 1), y(LONGEST + 1, -1.0f), expected = y;
    for (unsigned i = 0; i < x.size(); ++i) x[i] = 1.0f + i % 5;
    unsigned n = BLOCKS * THREADS - 40, length = n;
    bool by_entry = strcmp(words[1], "right_each") == 0 || strcmp(words[1], "tail_off_by_one") == 0;
    for (unsigned i = 0; i < n; ++i) {
        if (by_entry) expected[i] = x[i] + 1.0f;
        else expected[i / THREADS] = (i % THREADS ? expected[i / THREADS] : 0.0f) + x[i];
    }
    Args args{reinterpret_cast<uint64_t>(x.data()), reinterpret_cast<uint64_t>(y.data()), length, 0};
    unsigned grid[3] = {BLOCKS, 1, 1}, block[3] = {partial ? THREADS - 12 : THREADS, 1, 1};
    const char *fault = emu_launch(words[1], grid, block, THREADS * sizeof(float), &args, sizeof args, atoi(words[2]));
    if (fault) return printf("fault: %s\n", fault), 0;
    unsigned wrong = 0;
    for (unsigned i = 0; i < y.size(); ++i) wrong += !(y[i] == expected[i]);
    printf("%u wrong\n", wrong);
}
