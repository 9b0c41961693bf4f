// Chunks of a unit's values: four weights as factors of the products, or as they are in the file.
#pragma once
#include "blocks.cuh"

// Whether the codes of a chunk share bytes with others.
template <class B> __device__ __forceinline__ constexpr bool nibbles(int c) {
    return B::mask(c) == 0x0f || B::mask(c) == 0xf0;
}

// How many powers of two the code i of chunk c is too large by for where it stands. A word's fourth byte is moved to the
// first; of nibbles, that of every second word to the second.
template <class B> __device__ __forceinline__ constexpr int place(int c, int i) {
    if constexpr (!B::CODES) return 0;
    else if constexpr (B::PLACED) return B::place(c, i);
    else return B::shift(c) + 8 * (i < 3 ? i : nibbles<B>(c) ? c & 1 : 0);
}

// A chunk's scale and least value.
template <class B>
__device__ __forceinline__ void scale_of(const typename B::Raw &r, int c, float &scale, float &least) {
    B::whole(r, scale, least);
    scale *= B::SCALE, least *= B::SCALE;
    if constexpr (B::GROUPS > 1) {
        float of_group, least_of_group = 0;
        B::group(r, c / B::CHUNKS_OF_GROUP, of_group, least_of_group);
        scale *= of_group, least *= least_of_group;
    }
}

// What a chunk's four weights are: as factors, whose places are to be taken from, times 2^−149; and as they are in the file.
template <class B, bool Codes = B::CODES, bool Placed = B::PLACED> struct Chunk {
    typedef typename B::Raw Raw;
    static __device__ __forceinline__ void factors(float (&f)[4], const Raw &r, uint32_t part, int c) {
        uint32_t w = B::codes(r, part, c), mask = B::mask(c);
        f[0] = __uint_as_float(w & mask);
        f[1] = __uint_as_float(w & mask << 8);
        f[2] = __uint_as_float(w & mask << 16);
        if (nibbles<B>(c)) {
            uint32_t fourths = permute(B::codes(r, part, c & ~1), B::codes(r, part, c | 1), 0x0073);
            f[3] = __uint_as_float(fourths & mask << 8 * (c & 1));
        } else if (mask == 0xff) f[3] = __uint_as_float(permute(w, 0, 0x4443));
        else f[3] = __uint_as_float(permute(w, 0, 0x4443) & mask);
    }
    static __device__ __forceinline__ void values(float (&f)[4], const Raw &r, uint32_t part, int c) {
        float scale, least = 0;
        scale_of<B>(r, c, scale, least);
        uint32_t w = B::codes(r, part, c) >> B::shift(c) & 0x01010101u * (B::mask(c) >> B::shift(c));
#pragma unroll
        for (int i = 0; i < 4; ++i) f[i] = fmaf(scale, byte_less(w, i, B::BIAS), least);
    }
};

template <class B> struct Chunk<B, true, true> {
    typedef typename B::Raw Raw;
    static __device__ __forceinline__ void factors(float (&f)[4], const Raw &r, uint32_t, int c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) f[i] = __uint_as_float(B::number(r, c, i));
    }
    static __device__ __forceinline__ void values(float (&f)[4], const Raw &r, uint32_t part, int c) {
        float scale, least = 0;
        scale_of<B>(r, c, scale, least);
        factors(f, r, part, c);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float code = fmaf(f[i] * LIFT, float(1 << 23 >> place<B>(c, i)), -B::BIAS);
            f[i] = fmaf(scale, code, least);
        }
    }
};

template <class B> struct Chunk<B, false, false> {
    typedef typename B::Raw Raw;
    static __device__ __forceinline__ void factors(float (&f)[4], const Raw &r, uint32_t, int c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) f[i] = B::value(r, c, i);
    }
    static __device__ __forceinline__ void values(float (&f)[4], const Raw &r, uint32_t part, int c) {
        factors(f, r, part, c);
    }
};
