// Rows of the cache by eights of values: `fetch` reads eighth `chunk` at `place` of it, `widen` makes floats of it. Between
// the two stands what memory takes to answer.
#pragma once
#include "common.cuh"

__device__ __forceinline__ uint32_t load_u16(const uint8_t *at) { return __ldg(reinterpret_cast<const uint16_t *>(at)); }

// Rows are multiples of 16 bytes.
struct Page_f32 {
    struct Raw {
        float4 low, high;
    };
    static __device__ __forceinline__ Raw nothing() {
        return {make_float4(0.0f, 0.0f, 0.0f, 0.0f), make_float4(0.0f, 0.0f, 0.0f, 0.0f)};
    }
    static __device__ __forceinline__ uint32_t place(uint32_t chunk) { return chunk * 32; }
    static __device__ __forceinline__ Raw fetch(const uint8_t *at, uint32_t) {
        const float4 *values = reinterpret_cast<const float4 *>(at);
        return {__ldg(values), __ldg(values + 1)};
    }
    static __device__ __forceinline__ void widen(const Raw &raw, uint32_t, float (&out)[8]) {
        out[0] = raw.low.x, out[1] = raw.low.y, out[2] = raw.low.z, out[3] = raw.low.w;
        out[4] = raw.high.x, out[5] = raw.high.y, out[6] = raw.high.z, out[7] = raw.high.w;
    }
};

struct Page_f16 {
    typedef uint4 Raw;
    static __device__ __forceinline__ Raw nothing() { return make_uint4(0, 0, 0, 0); }
    static __device__ __forceinline__ uint32_t place(uint32_t chunk) { return chunk * 16; }
    static __device__ __forceinline__ Raw fetch(const uint8_t *at, uint32_t) {
        return __ldg(reinterpret_cast<const uint4 *>(at));
    }
    static __device__ __forceinline__ void widen(const Raw &raw, uint32_t, float (&out)[8]) {
        uint32_t pairs[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            out[2 * i] = f16_to_f32(uint16_t(pairs[i]));
            out[2 * i + 1] = f16_to_f32(uint16_t(pairs[i] >> 16));
        }
    }
};

// Eight codes, and the f16 factor of their block. Blocks lie at even addresses.
struct Codes {
    uint32_t low, high, factor;
};

__device__ __forceinline__ Codes fetch_codes(const uint8_t *block, uint32_t first) {
    const uint8_t *codes = block + 2 + first;
    return {load_u16(codes) | load_u16(codes + 2) << 16, load_u16(codes + 4) | load_u16(codes + 6) << 16, load_u16(block)};
}

// (byte − ZERO)·d. A byte under the exponent of 2¹⁵ is 2¹⁵ + the byte; with d of 11 bits all of it is exact.
template <int ZERO> __device__ __forceinline__ void widen_bytes(const Codes &c, float (&out)[8]) {
    float d = f16_to_f32(uint16_t(c.factor)), all = -(32768.0f + ZERO) * d;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        uint32_t bits = __byte_perm(i < 4 ? c.low : c.high, 0x47000000u, 0x7404 | (i & 3) << 4);
        out[i] = fmaf(__uint_as_float(bits), d, all);
    }
}

struct Page_q8_0 {
    typedef Codes Raw;
    static __device__ __forceinline__ Raw nothing() { return {0, 0, 0}; }
    static __device__ __forceinline__ uint32_t place(uint32_t chunk) { return chunk / 4 * 34; }
    static __device__ __forceinline__ Raw fetch(const uint8_t *block, uint32_t chunk) {
        return fetch_codes(block, chunk % 4 * 8);
    }
    static __device__ __forceinline__ void widen(const Raw &raw, uint32_t, float (&out)[8]) {
        widen_bytes<128>({raw.low ^ 0x80808080u, raw.high ^ 0x80808080u, raw.factor}, out);
    }
};

// The first half of a block is in the lower halves of its bytes.
struct Page_q4_0 {
    typedef Codes Raw;
    static __device__ __forceinline__ Raw nothing() { return {0, 0, 0}; }
    static __device__ __forceinline__ uint32_t place(uint32_t chunk) { return chunk / 4 * 18; }
    static __device__ __forceinline__ Raw fetch(const uint8_t *block, uint32_t chunk) {
        return fetch_codes(block, chunk % 2 * 8);
    }
    static __device__ __forceinline__ void widen(const Raw &raw, uint32_t chunk, float (&out)[8]) {
        uint32_t shift = chunk % 4 / 2 * 4;
        widen_bytes<8>({raw.low >> shift & 0x0F0F0F0Fu, raw.high >> shift & 0x0F0F0F0Fu, raw.factor}, out);
    }
};
