// Operations on single elements. A block of x × y threads covers x entries of y rows; rows go on by the grid's height.
#include "gate.cuh"

struct BinaryArgs {
    View a, b, y;
    float alpha, beta;
};

struct UnaryArgs {
    View x, y;
    float in, out;
};

struct GatedArgs {
    View g, u, y;
    float alpha, limit;
};

// Calls `f(row, i)` for the entries of `y` that are this thread's.
template <class F> __device__ __forceinline__ void for_entries(const View &y, F f) {
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x, rows = y.dims[1] * y.dims[2] * y.dims[3];
    if (i >= y.dims[0]) return;
    for (uint32_t row = blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += gridDim.y * blockDim.y) f(row, i);
}

template <class F> __device__ __forceinline__ void binary(const View &a, const View &b, const View &y, F f) {
    for_entries(y, [&](uint32_t row, uint32_t i) {
        float left = row_of<const float>(a, y.dims, row)[i];
        float right = element(row_of<const float>(b, y.dims, row), b, i);
        row_of<float>(y, y.dims, row)[i] = f(left, right);
    });
}

// α·(a + β·b).
KERNEL(elementwise_add, BinaryArgs) {
    binary(a.a, a.b, a.y, [&](float l, float r) { return a.alpha * (l + a.beta * r); });
}

// a·b.
KERNEL(elementwise_mul, BinaryArgs) {
    binary(a.a, a.b, a.y, [](float l, float r) { return l * r; });
}

template <class F> __device__ __forceinline__ void unary(const UnaryArgs &a, F f) {
    for_entries(a.y, [&](uint32_t row, uint32_t i) {
        float x = row_of<const float>(a.x, a.y.dims, row)[i];
        row_of<float>(a.y, a.y.dims, row)[i] = a.out * f(a.in * x);
    });
}

KERNEL(elementwise_identity, UnaryArgs) {
    unary(a, [](float z) { return z; });
}

KERNEL(elementwise_tanh, UnaryArgs) {
    unary(a, [](float z) { return tanhf(z); });
}

KERNEL(gated_silu, GatedArgs) {
    binary(a.g, a.u, a.y, [](float g, float u) { return silu(g, u); });
}

KERNEL(gated_gelu_tanh, GatedArgs) {
    binary(a.g, a.u, a.y, [](float g, float u) { return gelu_tanh(g, u); });
}

KERNEL(gated_swiglu_oai, GatedArgs) {
    binary(a.g, a.u, a.y, [&](float g, float u) { return swiglu_oai(g, u, a.alpha, a.limit); });
}
