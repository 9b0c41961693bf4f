// The types of weights: how blocks lie in memory, and how their values come out of them without conversions.
//
// A *unit* is what a lane decodes at a time: UNIT values of a block, in chunks of four codes, a code a byte of a word. All types
// of blocks are one formula: value = scale·(code − BIAS) + least, with scale and least for each of the unit's GROUPS, whose
// chunks follow each other.
//
// A word whose low 24 bits hold a whole number n, read as an f32, is n·2^−149: below 2^23 a denormal, which FMA takes at full
// speed, above it a normal number of the same spacing. So one AND isolates a code, at its place, as a number; what it is
// too large by its place, the input is too small by (`place`), once for all rows.
#pragma once
#include "common.cuh"

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

// n·2^Bits + c by one instruction, where the compiler would take two.
template <int Bits> __device__ __forceinline__ int32_t shifted_sum(uint32_t n, int32_t c) {
#ifdef __CUDACC__
    int32_t r;
    asm("mad.lo.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(n), "n"(1 << Bits), "r"(c));
    return r;
#else
    return int32_t(n << Bits) + c;
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

// A scale, and bytes of a word times it: d·(2^23 + byte) − d·2^23 in one FMA, exact where the product is.
struct Scale {
    float d, far;
    __device__ __forceinline__ Scale(float d) : d(d), far(d * -8388608.0f) {}
    __device__ __forceinline__ float times(uint32_t word, int i) const {
        return fmaf(d, __uint_as_float(permute(word, 0x4b000000u, 0x7440u + i)), far);
    }
};

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

// A block, or the word in which it begins: `selector` takes out of two neighbouring words the one that lies `head` bytes
// further than the block's start would. Words are read whole, but none that has no byte of the block.
struct Start {
    const uint8_t *p;
    uint32_t selector;
    Start() = default;
    __device__ __forceinline__ Start(const uint8_t *block, uint32_t lead, uint32_t head)
        : p(block - lead), selector(0x76543210u >> 4 * (lead + head)) {}
    // N words of the N + 1 from `offset` on, a multiple of 4.
    template <int N> __device__ __forceinline__ void load(uint32_t offset, uint32_t *w) const {
        uint32_t raw[N + 1];
        load4<N + 1>(p + offset, raw);
#pragma unroll
        for (int i = 0; i < N; ++i) w[i] = permute(raw[i], raw[i + 1], selector);
    }
    // What the block's last word has of it, from `offset` on.
    __device__ __forceinline__ uint32_t last(uint32_t offset) const {
        uint32_t w = at<uint32_t>(p + offset);
        return permute(w, w, selector);
    }
    // N words behind a block's first `HEAD` bytes, and a word that begins with these.
    template <int N, int HEAD> __device__ __forceinline__ uint32_t load_headed(uint32_t *w) const {
        uint32_t raw[N + 1];
        load4<N + 1>(p, raw);
#pragma unroll
        for (int i = 0; i < N; ++i) w[i] = permute(raw[i], raw[i + 1], selector);
        return permute(raw[0], raw[1], selector - 0x1111u * HEAD);
    }
};

// Blocks' common ground. Types of blocks shadow what differs.
struct BlockOfCodes {
    static const bool CODES = true;
    static const int PLACE = -1;     // of types whose codes are taken out of words by `number`: where they then stand
    static const bool LEAST = false; // the value of code BIAS is not 0
    static const int HEAD = 0;       // bytes ahead of the words of a block that begins between words
    static const int ROWS = 4;       // that a lane has at a time
};

template <int Values, int Bytes, int Unit, int Groups> struct Shape : BlockOfCodes {
    static const int VALUES = Values, BYTES = Bytes, UNIT = Unit, GROUPS = Groups;
    static const int CHUNKS = UNIT / 4, PARTS = VALUES / UNIT, CHUNKS_OF_GROUP = CHUNKS / GROUPS;
    static __device__ __forceinline__ uint32_t block(uint32_t unit) { return unit / PARTS; }
    static __device__ __forceinline__ uint32_t part(uint32_t unit) { return unit % PARTS; }
    template <class B> static __device__ __forceinline__ Start start(const uint8_t *row, uint32_t block) {
        const uint8_t *p = row + uint64_t(block) * B::BYTES;
        return Start(p, B::CODES && B::BYTES % 4 ? uint32_t(reinterpret_cast<uint64_t>(p)) & 3 : 0, B::HEAD);
    }
};

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

// Nibbles of a block of 32: low ones are values 0 to 15.
struct Nibbles32 {
    static __device__ __forceinline__ uint32_t index(uint32_t, int c, int i) { return 4 * c + i; }
    static __device__ __forceinline__ constexpr uint32_t mask(int c) { return c < 4 ? 0x0f : 0xf0; }
    static __device__ __forceinline__ constexpr int shift(int c) { return c < 4 ? 0 : 4; }
};

struct Block_q4_0 : Shape<32, 18, 32, 1>, Nibbles32 {
    static constexpr float BIAS = 8;
    static const int HEAD = 2;
    static const int ROWS = 6;
    struct Raw {
        uint32_t q[4];
        uint16_t d;
    };
    template <bool WHOLE> static __device__ __forceinline__ void load(Raw &r, const Start &b, uint32_t part, uint32_t) {
        r.d = uint16_t(b.load_headed<4, 2>(r.q));
    }
    static __device__ __forceinline__ uint32_t codes(const Raw &r, uint32_t, int c) { return r.q[c & 3]; }
    static __device__ __forceinline__ void factors(const Raw &r, uint32_t, int, float &scale, float &) {
        scale = f16_to_f32(r.d);
    }
};

struct Block_q4_1 : Shape<32, 20, 32, 1>, Nibbles32 {
    static constexpr float BIAS = 0;
    static const int ROWS = 8;
    static const bool LEAST = true;
    struct Raw {
        uint32_t w[5];
    };
    template <bool WHOLE> static __device__ __forceinline__ void load(Raw &r, const Start &b, uint32_t part, uint32_t) {
        load4<5>(b.p, r.w);
    }
    static __device__ __forceinline__ uint32_t codes(const Raw &r, uint32_t, int c) { return r.w[1 + (c & 3)]; }
    static __device__ __forceinline__ void factors(const Raw &r, uint32_t, int, float &scale, float &least) {
        scale = low_f16(r.w[0]), least = high_f16(r.w[0]);
    }
};

// Five bits of a block of 32: chunk c has a word's low or high nibbles. A nibble of `high` selects a byte by PRMT: that which
// has one bit of it, so that a word has this bit of four nibbles.
struct FiveBits32 {
    static __device__ __forceinline__ uint32_t index(uint32_t, int c, int i) { return 4 * c + i; }
    static __device__ __forceinline__ uint32_t five(uint32_t high, const uint32_t *q, int c, int i) {
        uint32_t nibbles = (c < 4 ? q[c & 3] << 4 : q[c & 3]) & 0xf0f0f0f0u;
        uint32_t selector = ((i == 3 ? high >> 1 : high) & 0x77777777u) >> (c < 4 ? 0 : 16);
        uint32_t below = i == 0 ? 0x01000100u : i == 1 ? 0x01010000u : 0u;
        uint32_t above = i == 0 ? 0x01000100u : i == 1 ? 0x01010000u : 0x01010101u;
        return joined(nibbles, i, permute(below, above, selector), c & 3);
    }
};

struct Block_q5_0 : Shape<32, 22, 32, 1>, FiveBits32 {
    static constexpr float BIAS = 16;
    static const int PLACE = 4;
    static const int HEAD = 2;
    static const int ROWS = 6;
    struct Raw {
        uint32_t w[5];
        uint16_t d;
    };
    template <bool WHOLE> static __device__ __forceinline__ void load(Raw &r, const Start &b, uint32_t part, uint32_t) {
        r.d = uint16_t(b.load_headed<5, 2>(r.w));
    }
    static __device__ __forceinline__ uint32_t number(const Raw &r, int c, int i) { return five(r.w[0], r.w + 1, c, i); }
    static __device__ __forceinline__ void factors(const Raw &r, uint32_t, int, float &scale, float &) {
        scale = f16_to_f32(r.d);
    }
};

struct Block_q5_1 : Shape<32, 24, 32, 1>, FiveBits32 {
    static constexpr float BIAS = 0;
    static const int PLACE = 4;
    static const int ROWS = 6;
    static const bool LEAST = true;
    struct Raw {
        uint32_t w[6];
    };
    template <bool WHOLE> static __device__ __forceinline__ void load(Raw &r, const Start &b, uint32_t part, uint32_t) {
        load8<6>(b.p, r.w);
    }
    static __device__ __forceinline__ uint32_t number(const Raw &r, int c, int i) { return five(r.w[1], r.w + 2, c, i); }
    static __device__ __forceinline__ void factors(const Raw &r, uint32_t, int, float &scale, float &least) {
        scale = low_f16(r.w[0]), least = high_f16(r.w[0]);
    }
};

struct Block_q8_0 : Shape<32, 34, 32, 1> {
    static constexpr float BIAS = 128;
    static const int HEAD = 2;
    struct Raw {
        uint32_t q[8];
        uint16_t d;
    };
    static __device__ __forceinline__ uint32_t index(uint32_t, int c, int i) { return 4 * c + i; }
    static __device__ __forceinline__ constexpr uint32_t mask(int) { return 0xff; }
    static __device__ __forceinline__ constexpr int shift(int) { return 0; }
    template <bool WHOLE> static __device__ __forceinline__ void load(Raw &r, const Start &b, uint32_t part, uint32_t) {
        r.d = uint16_t(b.load_headed<8, 2>(r.q));
    }
    static __device__ __forceinline__ uint32_t codes(const Raw &r, uint32_t, int c) { return r.q[c] ^ 0x80808080u; }
    static __device__ __forceinline__ void factors(const Raw &r, uint32_t, int, float &scale, float &) {
        scale = f16_to_f32(r.d);
    }
};

// A block of 256 in four units: 16 positions of a half, at which four values each lie 32 apart. Chunk 4k + j: words j.
struct Quarters256 {
    static __device__ __forceinline__ uint32_t index(uint32_t part, int c, int i) {
        return (part >> 1) * 128 + (c >> 2) * 32 + (part & 1) * 16 + 4 * (c & 3) + i;
    }
};

struct Block_q2_k : Shape<256, 84, 64, 4>, Quarters256 {
    static constexpr float BIAS = 0;
    static const bool LEAST = true;
    struct Raw {
        uint32_t q[4], scales, leasts, d; // a byte for each group
    };
    static __device__ __forceinline__ constexpr uint32_t mask(int c) { return 3 << 2 * (c >> 2); }
    static __device__ __forceinline__ constexpr int shift(int c) { return 2 * (c >> 2); }
    template <bool WHOLE> static __device__ __forceinline__ void load(Raw &r, const Start &b, uint32_t part, uint32_t) {
        load4<4>(b.p + 16 + 16 * part, r.q);
        uint32_t packed[2];
        load4<2>(b.p + 8 * (part >> 1), packed);
        packed[0] = permute(packed[0], packed[1], 0x6420u + 0x1111u * (part & 1));
        r.scales = packed[0] & 0x0f0f0f0fu, r.leasts = packed[0] >> 4 & 0x0f0f0f0fu;
        r.d = at<uint32_t>(b.p + 80);
    }
    static __device__ __forceinline__ uint32_t codes(const Raw &r, uint32_t, int c) { return r.q[c & 3]; }
    static __device__ __forceinline__ void factors(const Raw &r, uint32_t part, int g, float &scale, float &least) {
        scale = Scale(low_f16(r.d)).times(r.scales, g);
        least = Scale(-high_f16(r.d)).times(r.leasts, g);
    }
};

struct Block_q3_k : Shape<256, 110, 64, 4>, Quarters256 {
    static constexpr float BIAS = 4;
    static const int PLACE = 6;
    static const int ROWS = 6;
    struct Raw {
        uint32_t q[4], high[4], scales, d;
    };
    template <bool WHOLE> static __device__ __forceinline__ void load(Raw &r, const Start &b, uint32_t part, uint32_t) {
        uint32_t p = part, half = p >> 1, packed[3];
        b.load<4>(16 * (p & 1), r.high);
        b.load<4>(32 + 16 * p, r.q);
        b.load<3>(96, packed);
        r.d = b.last(108);
        // bytes p & 1, + 2, + 4, + 6 of the half's eight low nibbles, under their two high bits
        uint32_t bytes = 0x6420u + 0x1111u * (p & 1);
        uint32_t low = permute(packed[0], packed[1], bytes) >> 4 * half & 0x0f0f0f0fu;
        uint32_t top = permute(packed[2] >> 4 * half, packed[2] >> (4 * half + 2), bytes);
        r.scales = low | (top & 0x03030303u) << 4;
        // the bit of the half's k-th quarter at bit k
#pragma unroll
        for (int i = 0; i < 4; ++i) r.high[i] >>= 4 * half;
    }
    static __device__ __forceinline__ uint32_t number(const Raw &r, int c, int i) {
        int k = c >> 2, j = c & 3;
        return joined(r.q[j] << (6 - 2 * k) & 0xc0c0c0c0u, i, r.high[j] >> k & 0x01010101u, i);
    }
    static __device__ __forceinline__ void factors(const Raw &r, uint32_t, int g, float &scale, float &) {
        scale = low_f16(r.d) * byte_less(r.scales, g, 32);
    }
};

// The scales of Q4_K and Q5_K: bytes scale, scale, minimum, minimum of the pair of groups `part`.
__device__ __forceinline__ uint32_t pair_of_scales(const uint32_t *s, uint32_t part) {
    uint32_t pair = part & 1 ? 0x7632u : 0x5410u;
    uint32_t high = permute(s[0], s[1], pair), low = permute(s[2], s[2] >> 4, pair);
    return part < 2 ? high & 0x3f3f3f3fu : (low & 0x0f0f0f0fu) | (high >> 2 & 0x30303030u);
}

// A block of 256 in four units of two groups: low nibbles, then high ones.
struct Pairs256 {
    static __device__ __forceinline__ uint32_t index(uint32_t part, int c, int i) { return part * 64 + 4 * c + i; }
};

struct Block_q4_k : Shape<256, 144, 64, 2>, Pairs256 {
    static constexpr float BIAS = 0;
    static const bool LEAST = true;
    struct Raw {
        uint32_t d, scales, q[8];
    };
    static __device__ __forceinline__ constexpr uint32_t mask(int c) { return c < 8 ? 0x0f : 0xf0; }
    static __device__ __forceinline__ constexpr int shift(int c) { return c < 8 ? 0 : 4; }
    template <bool WHOLE> static __device__ __forceinline__ void load(Raw &r, const Start &b, uint32_t part, uint32_t) {
        uint32_t head[4];
        load16<4>(b.p, head);
        r.d = head[0], r.scales = pair_of_scales(head + 1, part);
        load16<8>(b.p + 16 + 32 * part, r.q);
    }
    static __device__ __forceinline__ uint32_t codes(const Raw &r, uint32_t, int c) { return r.q[c & 7]; }
    static __device__ __forceinline__ void factors(const Raw &r, uint32_t, int g, float &scale, float &least) {
        scale = Scale(low_f16(r.d)).times(r.scales, g);
        least = Scale(-high_f16(r.d)).times(r.scales, 2 + g);
    }
};

struct Block_q5_k : Shape<256, 176, 64, 2>, Pairs256 {
    static constexpr float BIAS = 0;
    static const int PLACE = 4;
    static const bool LEAST = true;
    struct Raw {
        uint32_t d, scales, high[8], q[8];
    };
    template <bool WHOLE> static __device__ __forceinline__ void load(Raw &r, const Start &b, uint32_t part, uint32_t) {
        uint32_t head[4];
        load16<4>(b.p, head);
        r.d = head[0], r.scales = pair_of_scales(head + 1, part);
        load16<8>(b.p + 16, r.high);
        load16<8>(b.p + 48 + 32 * part, r.q);
        // the unit's two bits at bits 0 and 1
#pragma unroll
        for (int i = 0; i < 8; ++i) r.high[i] >>= 2 * part;
    }
    static __device__ __forceinline__ uint32_t number(const Raw &r, int c, int i) {
        uint32_t q = r.q[c & 7], high = r.high[c & 7];
        return joined((c < 8 ? q << 4 : q) & 0xf0f0f0f0u, i, (c < 8 ? high : high >> 1) & 0x01010101u, i);
    }
    static __device__ __forceinline__ void factors(const Raw &r, uint32_t, int g, float &scale, float &least) {
        scale = Scale(low_f16(r.d)).times(r.scales, g);
        least = Scale(-high_f16(r.d)).times(r.scales, 2 + g);
    }
};

struct Block_q6_k : Shape<256, 210, 64, 4>, Quarters256 {
    static constexpr float BIAS = 32;
    static const int PLACE = 4;
    struct Raw {
        uint32_t low[8], high[4], scales, d;
    };
    template <bool WHOLE> static __device__ __forceinline__ void load(Raw &r, const Start &b, uint32_t part, uint32_t) {
        uint32_t half = part >> 1, late = part & 1, scales[2];
        b.load<4>(64 * half + 16 * late, r.low);
        b.load<4>(64 * half + 16 * late + 32, r.low + 4);
        b.load<4>(128 + 32 * half + 16 * late, r.high);
        b.load<2>(192 + 8 * half, scales);
        r.scales = permute(scales[0], scales[1], late ? 0x7531u : 0x6420u) ^ 0x80808080u;
        r.d = b.last(208);
    }
    static __device__ __forceinline__ uint32_t number(const Raw &r, int c, int i) {
        int k = c >> 2, j = c & 3;
        uint32_t low = r.low[j + 4 * (k & 1)];
        return joined((k < 2 ? low << 4 : low) & 0xf0f0f0f0u, i, r.high[j] >> 2 * k & 0x03030303u, i);
    }
    static __device__ __forceinline__ void factors(const Raw &r, uint32_t, int g, float &scale, float &) {
        scale = low_f16(r.d) * byte_less(r.scales, g, 128);
    }
};

// Types whose nibbles are places in a table: PRMT looks up four that are neighbours in a word, low and high ones mixed.
struct Looked32 {
    static __device__ __forceinline__ uint32_t index32(int c, int i) { return 2 * c + (i >> 1) + 16 * (i & 1); }
    static __device__ __forceinline__ constexpr uint32_t mask(int) { return 0xff; }
    static __device__ __forceinline__ constexpr int shift(int) { return 0; }
};

// Four values of IQ4 types, more by 128. The table's halves are −127…−10 and 1…113, and where one is meant the other gives 0.
__device__ __forceinline__ uint32_t iq4_codes(uint32_t nibbles) {
    uint32_t positive = permute(0x26190d01u, 0x71594535u, nibbles ^ 0x88888888u);
    uint32_t negative = permute(0x4153687fu, 0x0a162331u, nibbles);
    return (positive + 0x80808080u) - negative;
}

struct Block_iq4_nl : Shape<32, 18, 32, 1>, Looked32 {
    static constexpr float BIAS = 128;
    static const int HEAD = 2;
    static const int ROWS = 8;
    typedef Block_q4_0::Raw Raw;
    static __device__ __forceinline__ uint32_t index(uint32_t, int c, int i) { return index32(c, i); }
    template <bool WHOLE> static __device__ __forceinline__ void load(Raw &r, const Start &b, uint32_t part, uint32_t left) {
        Block_q4_0::load<WHOLE>(r, b, part, left);
    }
    static __device__ __forceinline__ uint32_t codes(const Raw &r, uint32_t, int c) {
        return iq4_codes(r.q[c >> 1] >> 16 * (c & 1));
    }
    static __device__ __forceinline__ void factors(const Raw &r, uint32_t, int, float &scale, float &) {
        scale = f16_to_f32(r.d);
    }
};

struct Block_iq4_xs : Shape<256, 136, 64, 2>, Looked32 {
    static constexpr float BIAS = 128;
    static const int ROWS = 6;
    struct Raw {
        uint32_t head[2], q[8];
    };
    static __device__ __forceinline__ uint32_t index(uint32_t part, int c, int i) {
        return part * 64 + (c >> 3) * 32 + index32(c & 7, i);
    }
    template <bool WHOLE> static __device__ __forceinline__ void load(Raw &r, const Start &b, uint32_t part, uint32_t) {
        load8<2>(b.p, r.head);
        load8<8>(b.p + 8 + 32 * part, r.q);
    }
    static __device__ __forceinline__ uint32_t codes(const Raw &r, uint32_t, int c) {
        return iq4_codes(r.q[c >> 1] >> 16 * (c & 1));
    }
    static __device__ __forceinline__ void factors(const Raw &r, uint32_t part, int g, float &scale, float &) {
        uint32_t group = 2 * part + g;
        uint32_t low = r.head[1] >> 4 * group & 0x0f, high = r.head[0] >> (12 + 2 * group) & 0x30;
        scale = low_f16(r.head[0]) * byte_less(low | high, 0, 32);
    }
};

struct Block_mxfp4 : Shape<32, 17, 32, 1> {
    static constexpr float BIAS = 0;
    static const int PLACE = 16;
    static const int ROWS = 8;
    // Bytes of a block in the order 16, 1 to 15, so that words lie as they are loaded; and the exponent.
    struct Raw {
        uint32_t q[4], e;
    };
    static __device__ __forceinline__ uint32_t index(uint32_t, int c, int i) {
        return (2 * c + (i >> 1) + 15) % 16 + 16 * (i & 1);
    }
    template <bool WHOLE> static __device__ __forceinline__ void load(Raw &r, const Start &b, uint32_t part, uint32_t) {
        b.load<4>(0, r.q);
        r.e = r.q[0] & 255;
        r.q[0] = permute(r.q[0], b.last(16), 0x3214);
    }
    // Magnitudes are doubled.
    static __device__ __forceinline__ uint32_t number(const Raw &r, int c, int i) {
        uint32_t q = r.q[c >> 1], selector = half_of(q & 0x77777777u, c & 1);
        uint32_t magnitudes = permute(0x03020100u, 0x0c080604u, selector);
        return signed_byte(magnitudes, i, (i & 1 ? q : q << 4) & 0x80808080u, 2 * (c & 1) + (i >> 1));
    }
    // 2^(e − 128), since magnitudes are doubled: a denormal for e < 2, which is the larger of the two there, and only there.
    static __device__ __forceinline__ void factors(const Raw &r, uint32_t, int, float &scale, float &) {
        scale = __int_as_float(max(shifted_sum<23>(r.e, -0x00800000), shifted_sum<21>(r.e, 0x00200000)));
    }
};

// Elements by themselves, a unit a block; K may cut the last, of which `left` values are there. WHOLE: none is cut, and all
// begin at multiples of 16 bytes.
template <int Bytes, int Unit> struct Elements : Shape<Unit, Bytes * Unit, Unit, 1> {
    static const bool CODES = false;
    static constexpr float BIAS = 0;
    static __device__ __forceinline__ uint32_t index(uint32_t, int c, int i) { return 4 * c + i; }
    static __device__ __forceinline__ constexpr uint32_t mask(int) { return 0; }
    static __device__ __forceinline__ constexpr int shift(int) { return 0; }
    template <class Raw> static __device__ __forceinline__ void factors(const Raw &, uint32_t, int, float &scale, float &) {
        scale = 1;
    }
};

struct Block_f32 : Elements<4, 4> {
    struct Raw {
        uint32_t w[4];
    };
    template <bool WHOLE> static __device__ __forceinline__ void load(Raw &r, const Start &b, uint32_t, uint32_t left) {
        const uint8_t *p = b.p;
        if (WHOLE) return load16<4>(p, r.w);
#pragma unroll
        for (int i = 0; i < 4; ++i) r.w[i] = i < left ? at<uint32_t>(p + 4 * i) : 0;
    }
    static __device__ __forceinline__ float value(const Raw &r, int, int i) { return __uint_as_float(r.w[i]); }
};

struct Halves : Elements<2, 8> {
    struct Raw {
        uint32_t w[4];
    };
    template <bool WHOLE> static __device__ __forceinline__ void load(Raw &r, const Start &b, uint32_t, uint32_t left) {
        const uint8_t *p = b.p;
        if (WHOLE) return load16<4>(p, r.w);
        uint32_t h[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) h[i] = i < left ? at<uint16_t>(p + 2 * i) : 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) r.w[i] = h[2 * i] | h[2 * i + 1] << 16;
    }
    static __device__ __forceinline__ uint16_t half(const Raw &r, int c, int i) {
        return uint16_t(r.w[2 * c + i / 2] >> 16 * (i & 1));
    }
};

struct Block_f16 : Halves {
    static __device__ __forceinline__ float value(const Raw &r, int c, int i) { return f16_to_f32(half(r, c, i)); }
};

struct Block_bf16 : Halves {
    static __device__ __forceinline__ float value(const Raw &r, int c, int i) { return bf16_to_f32(half(r, c, i)); }
};

// Whether the codes of a chunk share bytes with others.
template <class B> __device__ __forceinline__ constexpr bool nibbles(int c) {
    if constexpr (B::PLACE >= 0) return false;
    else return B::mask(c) == 0x0f || B::mask(c) == 0xf0;
}

// How many powers of two the code i of chunk c is too large by for where it stands. A word's fourth byte is moved to the
// first; of nibbles, that of every second word to the second.
template <class B> __device__ __forceinline__ constexpr int place(int c, int i) {
    if constexpr (B::PLACE >= 0) return B::PLACE;
    else return B::shift(c) + 8 * (i < 3 ? i : nibbles<B>(c) ? c & 1 : 0);
}

// What a chunk's four weights are: as factors, whose places are to be taken from, times 2^−149; and as they are in the file.
template <class B, bool Codes = B::CODES, bool Placed = (B::PLACE >= 0)> struct Chunk {
    typedef typename B::Raw Raw;
    static __device__ __forceinline__ void factors(float (&f)[4], const Raw &r, uint32_t part, int c) {
        uint32_t w = B::codes(r, part, c), mask = B::mask(c);
        f[0] = __uint_as_float(w & mask);
        f[1] = __uint_as_float(w & mask << 8);
        f[2] = __uint_as_float(w & mask << 16);
        if (nibbles<B>(c)) f[3] = __uint_as_float(permute(B::codes(r, part, c & ~1), B::codes(r, part, c | 1), 0x0073) & mask << 8 * (c & 1));
        else if (mask == 0xff) f[3] = __uint_as_float(permute(w, 0, 0x4443));
        else f[3] = __uint_as_float(permute(w, 0, 0x4443) & mask);
    }
    static __device__ __forceinline__ void values(float (&f)[4], const Raw &r, uint32_t part, int c) {
        float scale, least = 0;
        B::factors(r, part, c / B::CHUNKS_OF_GROUP, scale, least);
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
        const float LIFT = 85070591730234615865843651857942052864.0f; // 2^126; 2^23 are left
        float scale, least = 0;
        B::factors(r, part, c / B::CHUNKS_OF_GROUP, scale, least);
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
