// What every kernel shares: how one is declared, views of tensors, reductions, conversions.
//
// Compiled by NVRTC for compute_37, or by g++ over the emulation. Everything is f32 arithmetic; every lane of a warp
// reaches the same shuffle (sm_37 knows no other way).
#pragma once

#ifdef __CUDACC__

typedef unsigned char uint8_t;
typedef signed char int8_t;
typedef unsigned short uint16_t;
typedef short int16_t;
typedef unsigned int uint32_t;
typedef int int32_t;
typedef unsigned long long uint64_t;
typedef long long int64_t;

template <class T> struct SameType {
    typedef T type;
};
#define KERNEL_BOUNDS(name, Args, threads, blocks)                                                                     \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const Args a)
#define SHARED(name, ...) __shared__ typename SameType<__VA_ARGS__>::type name
#define DYNAMIC_SHARED(T, name)                                                                                        \
    extern __shared__ char dynamic_shared_memory[];                                                                    \
    T *const name = reinterpret_cast<T *>(dynamic_shared_memory)
// Parameters and arguments that tell a helper's rendezvous where it was called; the emulation needs them.
#define FROM_HERE
#define FROM_THERE
#define BARRIER_THERE() __syncthreads()

__device__ __forceinline__ float f16_to_f32(uint16_t h) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}
__device__ __forceinline__ uint16_t f32_to_f16(float f) {
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}

#else

#include "../emulation/cuda_emu.h"
#define FROM_HERE , EMU_HERE
#define FROM_THERE , file, line
#define BARRIER_THERE() __syncthreads(file, line)

static inline float f16_to_f32(uint16_t h) { return float(emu_bits<_Float16>(h)); }
static inline uint16_t f32_to_f16(float f) { return emu_bits<uint16_t>(_Float16(f)); }

#endif

// Declares a kernel: `KERNEL(name, Args) { … a.x … }`. Args is a plain struct by value: 64-bit members first, no
// padding, no bool. A block has at most 256 threads; KERNEL_BOUNDS says other limits (threads a block, blocks an SM).
#define KERNEL(name, Args) KERNEL_BOUNDS(name, Args, 256, 1)

#define WARP 32
#define ALL_LANES 0xffffffffu

__device__ __forceinline__ float bf16_to_f32(uint16_t h) { return __uint_as_float(uint32_t(h) << 16); }

// To nearest even; a NaN stays one.
__device__ __forceinline__ uint16_t f32_to_bf16(float f) {
    uint32_t bits = __float_as_uint(f);
    if (f != f) return uint16_t(bits >> 16 | 0x40);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

__device__ __forceinline__ uint32_t ceil_div(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

// A tensor of the step: dims of this step, strides in bytes; a dim of 1 has stride 0, so that it broadcasts.
struct View {
    uint64_t address;
    int64_t strides[4];
    uint32_t dims[4];
};
static_assert(sizeof(View) == 56, "as on the host's side");

// Where row `row` of a view begins, rows counted along dims 1 to 3 of `shape`.
template <class T> __device__ __forceinline__ T *row_of(const View &v, const uint32_t (&shape)[4], uint32_t row) {
    uint32_t i1 = row % shape[1], rest = row / shape[1];
    int64_t along = i1 * v.strides[1] + rest % shape[2] * v.strides[2] + rest / shape[2] * v.strides[3];
    return reinterpret_cast<T *>(v.address + along);
}

// As `row_of`, given the indices.
template <class T>
__device__ __forceinline__ T *row_at(const View &v, uint32_t i1, uint32_t i2 = 0, uint32_t i3 = 0) {
    return reinterpret_cast<T *>(v.address + (i1 * v.strides[1] + i2 * v.strides[2] + i3 * v.strides[3]));
}

// An element of a row whose dim 0 may skip, or be one element for all.
template <class T> __device__ __forceinline__ T &element(T *row, const View &v, uint32_t i) {
    return *reinterpret_cast<T *>(reinterpret_cast<uint64_t>(row) + i * v.strides[0]);
}

// This thread's number within the block.
__device__ __forceinline__ uint32_t thread_number() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

__device__ __forceinline__ uint32_t threads_of_block() { return blockDim.x * blockDim.y * blockDim.z; }

struct Sum {
    static __device__ __forceinline__ float join(float a, float b) { return a + b; }
    static __device__ __forceinline__ float nothing() { return 0.0f; }
};
struct Greatest {
    static __device__ __forceinline__ float join(float a, float b) { return fmaxf(a, b); }
    static __device__ __forceinline__ float nothing() { return -__uint_as_float(0x7f800000u); }
};

// The larger of two keys.
struct LargestKey {
    static __device__ __forceinline__ uint64_t join(uint64_t a, uint64_t b) { return a < b ? b : a; }
    static __device__ __forceinline__ uint64_t nothing() { return 0; }
};

// Joins the values of groups of `lanes` adjacent lanes (a power of two); every lane of the warp calls, and gets its group's.
template <class Join, class T> __device__ __forceinline__ T lanes_join(T v, int lanes FROM_HERE) {
    for (int o = lanes / 2; o > 0; o >>= 1) v = Join::join(v, __shfl_xor_sync(ALL_LANES, v, o, WARP FROM_THERE));
    return v;
}

template <class Join, class T> __device__ __forceinline__ T warp_join(T v FROM_HERE) {
    return lanes_join<Join>(v, WARP FROM_THERE);
}

// Joins the values of a block of whole warps; every thread calls, and gets the result.
template <class Join, class T> __device__ __forceinline__ T block_join(T v FROM_HERE) {
    SHARED(parts, T[32]);
    uint32_t warps = threads_of_block() / WARP, number = thread_number(), lane = number % WARP;
    v = warp_join<Join>(v FROM_THERE);
    if (warps == 1) return v;
    BARRIER_THERE();
    if (lane == 0) parts[number / WARP] = v;
    BARRIER_THERE();
    v = lane < warps ? parts[lane] : Join::nothing();
    return warp_join<Join>(v FROM_THERE);
}
