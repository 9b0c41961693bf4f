// Rows of the cache by eights of values: `fetch` reads the eighth `chunk` of a row, `widen` makes floats of it. Between
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
    static __device__ __forceinline__ Raw fetch(const uint8_t *row, uint32_t chunk) {
        const float4 *at = reinterpret_cast<const float4 *>(row) + 2 * chunk;
        return {__ldg(at), __ldg(at + 1)};
    }
    static __device__ __forceinline__ void widen(const Raw &raw, uint32_t, float (&out)[8]) {
        out[0] = raw.low.x, out[1] = raw.low.y, out[2] = raw.low.z, out[3] = raw.low.w;
        out[4] = raw.high.x, out[5] = raw.high.y, out[6] = raw.high.z, out[7] = raw.high.w;
    }
};

struct Page_f16 {
    typedef uint4 Raw;
    static __device__ __forceinline__ Raw nothing() { return make_uint4(0, 0, 0, 0); }
    static __device__ __forceinline__ Raw fetch(const uint8_t *row, uint32_t chunk) {
        return __ldg(reinterpret_cast<const uint4 *>(row) + chunk);
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

// Bytes as floats: a byte under the exponent of 2²³ is 2²³ + the byte.
__device__ __forceinline__ void widen_bytes(const Codes &c, float zero, float (&out)[8]) {
    float d = f16_to_f32(uint16_t(c.factor));
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        uint32_t bits = __byte_perm(i < 4 ? c.low : c.high, 0x4B000000u, 0x7440 | (i & 3));
        out[i] = (__uint_as_float(bits) - (8388608.0f + zero)) * d;
    }
}

struct Page_q8_0 {
    typedef Codes Raw;
    static __device__ __forceinline__ Raw nothing() { return {0, 0, 0}; }
    static __device__ __forceinline__ Raw fetch(const uint8_t *row, uint32_t chunk) {
        return fetch_codes(row + chunk / 4 * 34, chunk % 4 * 8);
    }
    static __device__ __forceinline__ void widen(const Raw &raw, uint32_t, float (&out)[8]) {
        widen_bytes({raw.low ^ 0x80808080u, raw.high ^ 0x80808080u, raw.factor}, 128.0f, out);
    }
};

// The first half of a block is in the lower halves of its bytes.
struct Page_q4_0 {
    typedef Codes Raw;
    static __device__ __forceinline__ Raw nothing() { return {0, 0, 0}; }
    static __device__ __forceinline__ Raw fetch(const uint8_t *row, uint32_t chunk) {
        return fetch_codes(row + chunk / 4 * 18, chunk % 2 * 8);
    }
    static __device__ __forceinline__ void widen(const Raw &raw, uint32_t chunk, float (&out)[8]) {
        uint32_t shift = chunk % 4 / 2 * 4;
        widen_bytes({raw.low >> shift & 0x0F0F0F0Fu, raw.high >> shift & 0x0F0F0F0Fu, raw.factor}, 8.0f, out);
    }
};
