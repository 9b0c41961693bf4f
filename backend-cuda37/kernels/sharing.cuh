// Who shares a row: a warp, or a block, as its length asks.
#pragma once
#include "common.cuh"

struct ByWarp {
    static __device__ __forceinline__ uint32_t row() {
        return blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    }
    static __device__ __forceinline__ uint32_t first() { return threadIdx.x % WARP; }
    static __device__ __forceinline__ uint32_t step() { return WARP; }
    template <class Join, class T> static __device__ __forceinline__ T join(T v FROM_HERE) {
        return warp_join<Join>(v FROM_THERE);
    }
};
struct ByBlock {
    static __device__ __forceinline__ uint32_t row() { return blockIdx.x; }
    static __device__ __forceinline__ uint32_t first() { return threadIdx.x; }
    static __device__ __forceinline__ uint32_t step() { return blockDim.x; }
    template <class Join, class T> static __device__ __forceinline__ T join(T v FROM_HERE) {
        return block_join<Join>(v FROM_THERE);
    }
};
