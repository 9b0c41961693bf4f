// What normalizes or selects by the statistics of a row: a row is a warp's or a block's, as its length asks.
#include "sharing.cuh"

struct NormArgs {
    View x, y;
    uint64_t w;  // 0: none
    View r;      // of norm_add
    float epsilon;
    uint32_t nothing;
};

struct MatchArgs {
    View x, reference, y;
    float floor;
    uint32_t nothing;
};

struct SparsifyArgs {
    View x, y;
    float s;
    uint32_t nothing;
};

__device__ __forceinline__ uint32_t rows_of(const View &v) { return v.dims[1] * v.dims[2] * v.dims[3]; }

template <class By> __device__ __forceinline__ float sum_of_squares(const float *x, uint32_t d) {
    float sum = 0.0f;
    for (uint32_t i = By::first(); i < d; i += By::step()) sum += x[i] * x[i];
    return By::template join<Sum>(sum);
}

// (x·r)·w, r = 1/√(mean x² + ε), and plus the residual where there is one. A whole warp or block leaves at once.
template <class By, bool ADD> __device__ __forceinline__ void normed(const NormArgs &a) {
    uint32_t row = By::row(), d = a.y.dims[0];
    if (row >= rows_of(a.y)) return;
    const float *x = row_of<const float>(a.x, a.y.dims, row), *w = reinterpret_cast<const float *>(a.w);
    const float *residual = ADD ? row_of<const float>(a.r, a.y.dims, row) : nullptr;
    float *y = row_of<float>(a.y, a.y.dims, row);
    float r = 1.0f / sqrtf(sum_of_squares<By>(x, d) / d + a.epsilon);
    for (uint32_t i = By::first(); i < d; i += By::step()) {
        float v = x[i] * r;
        if (w) v *= w[i];
        y[i] = ADD ? v + residual[i] : v;
    }
}

KERNEL(norm_rms_warp, NormArgs) { normed<ByWarp, false>(a); }
KERNEL_BOUNDS(norm_rms_block, NormArgs, 1024, 1) { normed<ByBlock, false>(a); }
KERNEL(norm_add_warp, NormArgs) { normed<ByWarp, true>(a); }
KERNEL_BOUNDS(norm_add_block, NormArgs, 1024, 1) { normed<ByBlock, true>(a); }

// x·√(mean ref²)/√(max(mean x², floor)); row (m, t) of x goes by row (0, t) of ref.
KERNEL_BOUNDS(norm_match, MatchArgs, 1024, 1) {
    uint32_t row = blockIdx.x, d = a.y.dims[0];
    const float *x = row_of<const float>(a.x, a.y.dims, row);
    const float *reference = row_of<const float>(a.reference, a.y.dims, row);
    float *y = row_of<float>(a.y, a.y.dims, row);
    float goal = sum_of_squares<ByBlock>(reference, d) / d, own = sum_of_squares<ByBlock>(x, d) / d;
    float factor = sqrtf(goal) / sqrtf(fmaxf(own, a.floor));
    for (uint32_t i = threadIdx.x; i < d; i += blockDim.x) y[i] = x[i] * factor;
}

// max(x − (μ + s·σ), 0), σ² the mean of (x − μ)².
KERNEL_BOUNDS(norm_sparsify, SparsifyArgs, 1024, 1) {
    uint32_t row = blockIdx.x, d = a.y.dims[0];
    const float *x = row_of<const float>(a.x, a.y.dims, row);
    float *y = row_of<float>(a.y, a.y.dims, row);
    float sum = 0.0f, squares = 0.0f;
    for (uint32_t i = threadIdx.x; i < d; i += blockDim.x) sum += x[i];
    float mean = block_join<Sum>(sum) / d;
    for (uint32_t i = threadIdx.x; i < d; i += blockDim.x) squares += (x[i] - mean) * (x[i] - mean);
    float least = mean + a.s * sqrtf(block_join<Sum>(squares) / d);
    for (uint32_t i = threadIdx.x; i < d; i += blockDim.x) y[i] = fmaxf(x[i] - least, 0.0f);
}
