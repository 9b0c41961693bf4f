// Rotary position embedding, and the norm of a head before it. A block has the heads of one column.
#include "common.cuh"

struct RopeArgs {
    View x, y;
    uint64_t positions, freq;
    uint64_t w;  // of norm_rope
    uint32_t pairs, layout;
    float magnitude, epsilon;
};

// A head's rotations are kept in shared memory; so many pairs a head has at most.
#define MOST_PAIRS 1024

// Polynomials of sin and cos on [−π/4, π/4] (Cephes, single precision).
__device__ __forceinline__ float sin_of_small(float x) {
    float z = x * x;
    return x + x * z * (-1.6666654611e-1f + z * (8.3321608736e-3f - z * 1.9515295891e-4f));
}
__device__ __forceinline__ float cos_of_small(float x) {
    float z = x * x;
    return 1.0f - 0.5f * z + z * z * (4.166664568298827e-2f + z * (-1.388731625493765e-3f + z * 2.443315711809948e-5f));
}

// (cos a, sin a), within 2e-7 for |a| < 2^24: quarter turns are taken off in double precision.
__device__ __forceinline__ float2 turn(float angle) {
    double quarters = rint(angle * 0.63661977236758134308);
    float rest = float(angle - quarters * 1.57079632679489661923);
    int quadrant = int(quarters) & 3;
    float s = sin_of_small(rest), c = cos_of_small(rest);
    float sine = quadrant & 1 ? c : s, cosine = quadrant & 1 ? s : c;
    return make_float2((quadrant + 1) & 2 ? -cosine : cosine, quadrant & 2 ? -sine : sine);
}

// (u, v) lie at j and j + n/2 (layout 0), or at 2j and 2j + 1.
template <bool NORM> __device__ __forceinline__ void rotated(const RopeArgs &a) {
    SHARED(turns, float2[MOST_PAIRS]);
    uint32_t hd = a.y.dims[0], heads = a.y.dims[1], t = blockIdx.x, pairs = a.pairs;
    float position = float(reinterpret_cast<const int32_t *>(a.positions)[t]);
    const float *freq = reinterpret_cast<const float *>(a.freq), *w = reinterpret_cast<const float *>(a.w);
    for (uint32_t j = threadIdx.x; j < pairs; j += blockDim.x) {
        float2 cs = turn(__fmul_rn(position, freq[j]));
        turns[j] = make_float2(a.magnitude * cs.x, a.magnitude * cs.y);
    }
    __syncthreads();
    uint32_t lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    uint32_t apart = a.layout ? 1 : pairs, spread = a.layout ? 2 : 1;
    for (uint32_t head = blockIdx.y * warps + threadIdx.x / WARP; head < heads; head += gridDim.y * warps) {
        const float *x = row_at<const float>(a.x, head, t);
        float *y = row_at<float>(a.y, head, t);
        float r = 1.0f;
        if (NORM) {
            float sum = 0.0f;
            for (uint32_t i = lane; i < hd; i += WARP) sum += x[i] * x[i];
            r = 1.0f / sqrtf(warp_join<Sum>(sum) / hd + a.epsilon);
        }
        for (uint32_t j = lane; j < pairs; j += WARP) {
            uint32_t i = j * spread, k = i + apart;
            float u = x[i], v = x[k];
            if (NORM) u = u * r * w[i], v = v * r * w[k];
            float2 cs = turns[j];
            y[i] = u * cs.x - v * cs.y;
            y[k] = v * cs.x + u * cs.y;
        }
        for (uint32_t i = 2 * pairs + lane; i < hd; i += WARP) y[i] = NORM ? x[i] * r * w[i] : x[i];
    }
}

KERNEL(rope, RopeArgs) { rotated<false>(a); }
KERNEL(rope_norm, RopeArgs) { rotated<true>(a); }
