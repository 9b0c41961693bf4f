// gemma3n's coefficients of the combinations of its streams, from matrices of A_TYPE and F_TYPE.
// Modules: A_TYPE=f32|f16|bf16 F_TYPE=f32|f16|bf16
#include "common.cuh"

struct CoefficientArgs {
    View x, y;           // [d, T] and [n′, T]
    View a, f;           // [d, n] and [n, n′]
    uint64_t w;
    float epsilon, in;
};

// So many rows A has at most.
#define MOST_MIXED 32

struct Weight_f32 {
    static __device__ __forceinline__ float at(const View &w, uint32_t i, uint32_t row) {
        return row_at<const float>(w, row)[i];
    }
};
struct Weight_f16 {
    static __device__ __forceinline__ float at(const View &w, uint32_t i, uint32_t row) {
        return f16_to_f32(row_at<const uint16_t>(w, row)[i]);
    }
};
struct Weight_bf16 {
    static __device__ __forceinline__ float at(const View &w, uint32_t i, uint32_t row) {
        return bf16_to_f32(row_at<const uint16_t>(w, row)[i]);
    }
};

// F·tanh(in·A·norm(x)): a block a column.
template <class WeightA, class WeightF> __device__ __forceinline__ void coefficients(const CoefficientArgs &a) {
    SHARED(mixed, float[MOST_MIXED]);
    uint32_t d = a.x.dims[0], n = a.a.dims[1], t = blockIdx.x;
    const float *x = row_at<const float>(a.x, t), *w = reinterpret_cast<const float *>(a.w);
    float squares = 0.0f;
    for (uint32_t i = threadIdx.x; i < d; i += blockDim.x) squares += x[i] * x[i];
    float r = 1.0f / sqrtf(block_join<Sum>(squares) / d + a.epsilon);
    for (uint32_t row = 0; row < n; ++row) {
        float sum = 0.0f;
        for (uint32_t i = threadIdx.x; i < d; i += blockDim.x) sum += x[i] * r * w[i] * WeightA::at(a.a, i, row);
        sum = block_join<Sum>(sum);
        if (threadIdx.x == 0) mixed[row] = tanhf(a.in * sum);
    }
    __syncthreads();
    for (uint32_t m = threadIdx.x; m < a.y.dims[0]; m += blockDim.x) {
        float sum = 0.0f;
        for (uint32_t row = 0; row < n; ++row) sum += mixed[row] * WeightF::at(a.f, row, m);
        row_at<float>(a.y, t)[m] = sum;
    }
}

#define PASTE(a_type, f_type) mix_coefficients_##a_type##_##f_type
#define NAMED(a_type, f_type) PASTE(a_type, f_type)
#define WEIGHT_NAMED(type) Weight_##type
#define WEIGHT_OF(type) WEIGHT_NAMED(type)

KERNEL(NAMED(A_TYPE, F_TYPE), CoefficientArgs) { coefficients<WEIGHT_OF(A_TYPE), WEIGHT_OF(F_TYPE)>(a); }
