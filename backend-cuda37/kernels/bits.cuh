// Words, their bytes and their bits: what codes are taken apart with, without a conversion.
#pragma once
#include "common.cuh"

// What brings n·2^−149, for a whole number n, to n·2^−23: numbers that are no denormals.
constexpr float LIFT = 85070591730234615865843651857942052864.0f; // 2^126
constexpr float LIFTED = 8388608.0f;                               // 2^23

// PRMT: bytes of b‖a by the nibbles of `selector`; a nibble with its highest bit gives the sign of the byte eight times.
__device__ __forceinline__ uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) {
#ifdef __CUDACC__
    uint32_t r;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(selector));
    return r;
#else
    uint64_t bytes = uint64_t(b) << 32 | a;
    uint32_t r = 0;
    for (int i = 0; i < 4; ++i) {
        uint32_t nibble = selector >> 4 * i & 15, byte = uint32_t(bytes >> 8 * (nibble & 7)) & 255;
        r |= (nibble & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
    }
    return r;
#endif
}

// Keeps a number from the compiler, which would otherwise carry sums with it from turn to turn of a loop.
__device__ __forceinline__ void opaque(uint32_t &n) {
#ifdef __CUDACC__
    asm volatile("" : "+r"(n));
#endif
}

template <class T> __device__ __forceinline__ T at(const uint8_t *p) { return *reinterpret_cast<const T *>(p); }

// By the plain instruction, whose address may be a distance from a register; that of read-only data takes a register as it is.
#ifdef __CUDACC__
template <> __device__ __forceinline__ uint32_t at<uint32_t>(const uint8_t *p) {
    uint32_t r;
    asm("ld.global.ca.u32 %0, [%1];" : "=r"(r) : "l"(p));
    return r;
}
template <> __device__ __forceinline__ uint2 at<uint2>(const uint8_t *p) {
    uint2 r;
    asm("ld.global.ca.v2.u32 {%0, %1}, [%2];" : "=r"(r.x), "=r"(r.y) : "l"(p));
    return r;
}
template <> __device__ __forceinline__ uint4 at<uint4>(const uint8_t *p) {
    uint4 r;
    asm("ld.global.ca.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w) : "l"(p));
    return r;
}
#endif

// Byte i of a word as a number, less `bias`.
__device__ __forceinline__ float byte_less(uint32_t word, int i, float bias) {
    return __uint_as_float(permute(word, 0x4b000000u, 0x7440u + i)) - (8388608.0f + bias);
}

__device__ __forceinline__ float low_f16(uint32_t word) { return f16_to_f32(uint16_t(word)); }
__device__ __forceinline__ float high_f16(uint32_t word) { return f16_to_f32(uint16_t(word >> 16)); }

// N words from a multiple of 16 or 8 bytes.
template <int N> __device__ __forceinline__ void load16(const uint8_t *p, uint32_t *w) {
#pragma unroll
    for (int i = 0; i < N / 4; ++i) {
        uint4 v = at<uint4>(p + 16 * i);
        w[4 * i] = v.x, w[4 * i + 1] = v.y, w[4 * i + 2] = v.z, w[4 * i + 3] = v.w;
    }
}
template <int N> __device__ __forceinline__ void load8(const uint8_t *p, uint32_t *w) {
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
        uint2 v = at<uint2>(p + 8 * i);
        w[2 * i] = v.x, w[2 * i + 1] = v.y;
    }
}
template <int N> __device__ __forceinline__ void load4(const uint8_t *p, uint32_t *w) {
#pragma unroll
    for (int i = 0; i < N; ++i) w[i] = at<uint32_t>(p + 4 * i);
}
// N words of several that follow each other from a multiple of sixteen bytes on, read as many at a time as N allows.
template <int N> __device__ __forceinline__ void load_words(const uint8_t *p, uint32_t *w) {
    if constexpr (N % 4 == 0) load16<N>(p, w);
    else if constexpr (N % 2 == 0) load8<N>(p, w);
    else load4<N>(p, w);
}

// A word whose low half is the one asked for. By PRMT, since a shift would change places with what is done to the word before.
__device__ __forceinline__ uint32_t half_of(uint32_t word, int half) { return half ? permute(word, word, 0x3232) : word; }

// Byte i of `low`, and above it byte j of `high`, all of whose bytes are below 128: the bits of a code that lie apart meet
// where the code is taken out of its word.
__device__ __forceinline__ uint32_t joined(uint32_t low, int i, uint32_t high, int j) {
    return permute(low, high, 0xcc40u + i + 16 * j);
}

// Byte i of `codes`, all of which are below 128, as a number times 2^16 whose sign is byte j of `signs`: 0 or 128.
__device__ __forceinline__ uint32_t signed_byte(uint32_t codes, int i, uint32_t signs, int j) {
    return permute(codes, signs, 0x4088u + 256 * i + 4096 * j);
}
