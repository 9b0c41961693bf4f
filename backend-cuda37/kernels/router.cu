// Choosing entries, weighing them (a warp a column), and combining vectors with weights.
#include "sharing.cuh"

struct TopArgs {
    View x;          // [n, T]
    uint64_t y;      // i32 [k, T]
    int64_t stride;  // of a column of y, in bytes
    uint32_t k, nothing;
};

struct PickArgs {
    View x;           // [n, T]
    View ids, y;      // [k, T]
    float scale;
    uint32_t nothing;
};

struct CombineArgs {
    View x;        // [d, I, T]
    View c;        // [I, J, T]; address 0: none
    View base, y;  // [d, J, T]; base may have address 0
    float c0;
    uint32_t nothing;
};

// A key for each entry, larger for what comes earlier: by value (−0 as 0, NaN below everything), then by lower index.
__device__ __forceinline__ uint64_t key_of(float v, uint32_t index) {
    uint32_t bits = __float_as_uint(v + 0.0f);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return uint64_t(v != v ? 0 : bits) << 32 | ~index;
}

// The indices of the k largest of a column, one after the other.
template <class By> __device__ __forceinline__ void chosen(const TopArgs &a) {
    uint32_t t = By::row(), n = a.x.dims[0];
    if (t >= a.x.dims[1]) return;
    const float *x = row_at<const float>(a.x, t);
    int32_t *y = reinterpret_cast<int32_t *>(a.y + t * a.stride);
    uint64_t last = ~0ull;
    for (uint32_t place = 0; place < a.k; ++place) {
        uint64_t best = 0;
        for (uint32_t i = By::first(); i < n; i += By::step()) {
            uint64_t key = key_of(x[i], i);
            if (key < last) best = LargestKey::join(best, key);
        }
        last = By::template join<LargestKey>(best);
        if (By::first() == 0) y[place] = int32_t(~uint32_t(last));
    }
}

KERNEL(router_top_k_warp, TopArgs) { chosen<ByWarp>(a); }
KERNEL_BOUNDS(router_top_k_block, TopArgs, 1024, 1) { chosen<ByBlock>(a); }

// Σ e^(v − most) over the warp's entries, `most` being the greatest of them.
template <class At> __device__ __forceinline__ float sum_of_powers(uint32_t n, float &most, At at FROM_HERE) {
    uint32_t lane = threadIdx.x % WARP;
    float own = Greatest::nothing(), sum = 0.0f;
    for (uint32_t i = lane; i < n; i += WARP) own = fmaxf(own, at(i));
    most = warp_join<Greatest>(own FROM_THERE);
    for (uint32_t i = lane; i < n; i += WARP) sum += expf(at(i) - most);
    return warp_join<Sum>(sum FROM_THERE);
}

// scale·v of the picked; scale·softmax over the picked, or over all.
enum Mode { PLAIN, OF_PICKED, OF_ALL };
template <Mode MODE> __device__ __forceinline__ void picked(const PickArgs &a) {
    uint32_t t = ByWarp::row(), lane = threadIdx.x % WARP, k = a.y.dims[0];
    if (t >= a.y.dims[1]) return;
    const float *x = row_at<const float>(a.x, t);
    const int32_t *ids = row_at<const int32_t>(a.ids, t);
    float *y = row_at<float>(a.y, t), most = 0.0f, sum = 1.0f;
    if (MODE == OF_PICKED) sum = sum_of_powers(k, most, [&](uint32_t i) { return x[ids[i]]; });
    if (MODE == OF_ALL) sum = sum_of_powers(a.x.dims[0], most, [&](uint32_t i) { return x[i]; });
    for (uint32_t i = lane; i < k; i += WARP) {
        float v = x[ids[i]];
        y[i] = MODE == PLAIN ? a.scale * v : a.scale * (expf(v - most) / sum);
    }
}

KERNEL(router_pick, PickArgs) { picked<PLAIN>(a); }
KERNEL(router_pick_softmax, PickArgs) { picked<OF_PICKED>(a); }
KERNEL(router_pick_softmax_all, PickArgs) { picked<OF_ALL>(a); }

// y(:, j, t) = base(:, j, t) + Σ_i (C(i, j, t) + c₀)·x(:, i, t): grid (d / block, J, T).
KERNEL(router_combine, CombineArgs) {
    uint32_t e = blockIdx.x * blockDim.x + threadIdx.x, j = blockIdx.y;
    if (e >= a.y.dims[0]) return;
    for (uint32_t t = blockIdx.z; t < a.y.dims[2]; t += gridDim.z) {
        float sum = a.base.address ? row_at<const float>(a.base, j, t)[e] : 0.0f;
        for (uint32_t i = 0; i < a.x.dims[1]; ++i) {
            float c = a.c.address ? row_at<const float>(a.c, j, t)[i] + a.c0 : a.c0;
            sum += c * row_at<const float>(a.x, i, t)[e];
        }
        row_at<float>(a.y, j, t)[e] = sum;
    }
}
