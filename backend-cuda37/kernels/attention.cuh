// What both ways of attention share: which positions a column sees, and where their cells are.
#pragma once
#include "pages.cuh"

struct AttentionArgs {
    View q, y;    // [hd, H, T]
    View k, v;    // [hd, P, Hkv, pages]
    View table;   // i32 [B, S]
    uint64_t positions, starts;
    uint64_t sinks;   // 0: none
    uint64_t sums;    // of the parts, [hd, parts, H, T]
    uint64_t weights; // the parts' largest scores and sums of powers, [2, parts, H, T]
    float scale, cap, beta;
    uint32_t window_kind, window, span;
    uint32_t page_shift;
    uint32_t splits; // parts that tiles make of the cache, 0: one; few columns have parts of their own, PARTS at most
};

#define LOG2_E 1.44269504f
// Lower than any score, and finite.
#define LOWEST -1e30f

__device__ __forceinline__ float power_of_2(float x) {
#ifdef __CUDACC__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

__device__ __forceinline__ int32_t position_of(const AttentionArgs &a, uint32_t t) {
    return reinterpret_cast<const int32_t *>(a.positions)[t];
}

// The first position that position `p` sees.
__device__ __forceinline__ int32_t first_seen(const AttentionArgs &a, int32_t p) {
    int32_t w = int32_t(a.window);
    if (a.window_kind == 0) return 0;
    return a.window_kind == 1 ? max(0, p + 1 - w) : p - p % w;
}

// What q is multiplied with: scores come out as exponents of 2 then, or, where they are capped, divided by the cap.
__device__ __forceinline__ float query_factor(const AttentionArgs &a, int32_t p) {
    float scale = a.scale;
    if (a.beta != 0.0f) scale *= 1.0f + a.beta * logf(1.0f + uint32_t(p) / a.span);
    return a.cap > 0.0f ? scale / a.cap : scale * LOG2_E;
}

// tanh without a branch: a polynomial for small x (Cephes, single precision), else 1 − 2/(e^2x + 1).
__device__ __forceinline__ float tanh_of(float x) {
    float z = x * x, large = 1.0f - __fdividef(2.0f, power_of_2(2.0f * LOG2_E * fabsf(x)) + 1.0f);
    float small = -5.70498872745e-3f * z + 2.06390887954e-2f;
    small = (small * z - 5.37397155531e-2f) * z + 1.33314422036e-1f;
    small = (small * z - 3.33332819422e-1f) * z * x + x;
    return z < 0.390625f ? small : copysignf(large, x);
}

__device__ __forceinline__ float exponent_of(const AttentionArgs &a, float score) {
    return a.cap > 0.0f ? a.cap * LOG2_E * tanh_of(score) : score;
}

// The pages of sequence `s`.
__device__ __forceinline__ const int32_t *pages_of(const AttentionArgs &a, uint32_t s) {
    return row_at<const int32_t>(a.table, s);
}

// The row of a pool for position `i` of a sequence with these pages.
__device__ __forceinline__ const uint8_t *cell_of(const AttentionArgs &a, const View &pool, const int32_t *pages,
                                                  int32_t i, uint32_t head) {
    uint32_t cell = i & ((1u << a.page_shift) - 1);
    return row_at<const uint8_t>(pool, cell, head, uint32_t(__ldg(pages + (i >> a.page_shift))));
}

// Adds up, over groups of LANES lanes, the value of each head. HEADS is a power of two, at most LANES; a lane's heads stand
// at h ^ `left_head`, and its v[0] is left with the sum of that head.
template <int HEADS, int LANES> __device__ __forceinline__ void fold(float (&v)[HEADS] FROM_HERE) {
    int n = HEADS;
#pragma unroll
    for (int o = LANES / 2; o > 0; o >>= 1) {
        int sent = n > 1 ? n / 2 : 0;
        n = n > 1 ? n / 2 : 1;
#pragma unroll
        for (int i = 0; i < HEADS; ++i)
            if (i < n) v[i] += __shfl_xor_sync(ALL_LANES, v[(i + sent) % HEADS], o, WARP FROM_THERE);
    }
}

// The head that a lane is left with.
template <int HEADS, int LANES> __device__ __forceinline__ uint32_t left_head(uint32_t lane) {
    uint32_t head = 0;
    int n = HEADS;
#pragma unroll
    for (int o = LANES / 2; o > 0; o >>= 1)
        if (n > 1) {
            n /= 2;
            if (lane & o) head += n;
        }
    return head;
}
