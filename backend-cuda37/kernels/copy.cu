// Copies through any strides, with conversion to nearest even. As for elements, a block covers x entries of y rows.
#include "common.cuh"

struct CopyArgs {
    View x, y;
};

template <class From, class To, class F> __device__ __forceinline__ void copied(const CopyArgs &a, F convert) {
    const View &y = a.y;
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x, rows = y.dims[1] * y.dims[2] * y.dims[3];
    if (i >= y.dims[0]) return;
    for (uint32_t row = blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += gridDim.y * blockDim.y)
        row_of<To>(y, y.dims, row)[i] = convert(element(row_of<const From>(a.x, y.dims, row), a.x, i));
}

#define COPY(name, From, To, convert)                                                                                  \
    KERNEL(name, CopyArgs) { copied<From, To>(a, [](From v) { return To(convert); }); }

COPY(copy_words, uint32_t, uint32_t, v)
COPY(copy_halves, uint16_t, uint16_t, v)
COPY(copy_f16_f32, uint16_t, float, f16_to_f32(v))
COPY(copy_bf16_f32, uint16_t, float, bf16_to_f32(v))
COPY(copy_f32_f16, float, uint16_t, f32_to_f16(v))
COPY(copy_f32_bf16, float, uint16_t, f32_to_bf16(v))
COPY(copy_f16_bf16, uint16_t, uint16_t, f32_to_bf16(f16_to_f32(v)))
COPY(copy_bf16_f16, uint16_t, uint16_t, f32_to_f16(bf16_to_f32(v)))
