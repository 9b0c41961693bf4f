// The types of weights: how rows lie in the device's memory, and how their values come out of them without conversions.
//
// A *unit* is what a lane decodes at a time: UNIT values of a block, in chunks of four codes. All types of blocks are one
// formula: value = scale·(code − BIAS) + least, with scale and least for each of the unit's GROUPS, whose chunks follow
// each other: what the block has as a whole (`whole`), times what the group has (`group`) where there are several.
//
// Rows of blocks are arranged when they are uploaded (src/arrange): first the codes of all units, UNIT_BYTES each, then what
// else the blocks have, META bytes each. A block's parts begin at multiples of what they are read by, up to sixteen bytes.
//
// A word whose low 24 bits hold a whole number n, read as an f32, is n·2^−149: below 2^23 a denormal, which FMA takes at full
// speed, above it a normal number of the same spacing. So one AND isolates a code, at its place, as a number; what it is
// too large by its place, the input is too small by (`place`), once for all rows.
#pragma once
#include "bits.cuh"

// Where a unit lies from something on: its codes, and what else its block has.
struct Place {
    uint64_t codes, meta;
};

// Where it lies in a row.
struct PlaceInRow {
    uint32_t codes, meta;
    // From what lies so far ahead of the row's start on.
    __device__ __forceinline__ Place from(uint64_t start) const { return Place{start + codes, start + meta}; }
};

// Blocks' common ground. Types of blocks shadow what differs.
struct BlockOfCodes {
    static const bool CODES = true;
    static const bool PLACED = false; // codes are taken out of words by `number`, and stand at `place` then
    static const bool LEAST = false;  // the value of code BIAS is not 0
    static const int ROWS = 8;        // that a lane has at a time, of one column
    static const int PERIOD = 0;      // chunks of a group after which places repeat; 0: groups are alike
    static constexpr float SCALE = 1; // what scales, and least values, are too small by
};

template <int Values, int UnitBytes, int Meta, int Unit, int Groups> struct Shape : BlockOfCodes {
    static const int VALUES = Values, UNIT_BYTES = UnitBytes, META = Meta, UNIT = Unit, GROUPS = Groups;
    static const int CHUNKS = UNIT / 4, PARTS = VALUES / UNIT, CHUNKS_OF_GROUP = CHUNKS / GROUPS;
    static __device__ __forceinline__ uint32_t block(uint32_t unit) { return unit / PARTS; }
    static __device__ __forceinline__ uint32_t part(uint32_t unit) { return unit % PARTS; }
    // Of unit `unit` of a row of k values.
    static __device__ __forceinline__ PlaceInRow place_of(uint32_t k, uint32_t unit) {
        return PlaceInRow{unit * UNIT_BYTES, k / UNIT * UNIT_BYTES + block(unit) * META};
    }
};

// A block of 32 with one scale.
template <int Words> struct Scaled32 {
    struct Raw {
        uint32_t q[Words];
        uint16_t d;
    };
    template <bool WHOLE>
    static __device__ __forceinline__ void load(Raw &r, const uint8_t *row, const Place &unit, uint32_t, uint32_t) {
        load_words<Words>(row + unit.codes, r.q);
        r.d = at<uint16_t>(row + unit.meta);
    }
    static __device__ __forceinline__ void whole(const Raw &r, float &scale, float &) { scale = f16_to_f32(r.d); }
};

// A block of 32 with a scale and a least value.
template <int Words> struct Shifted32 {
    struct Raw {
        uint32_t q[Words], d;
    };
    template <bool WHOLE>
    static __device__ __forceinline__ void load(Raw &r, const uint8_t *row, const Place &unit, uint32_t, uint32_t) {
        load_words<Words>(row + unit.codes, r.q);
        r.d = at<uint32_t>(row + unit.meta);
    }
    static __device__ __forceinline__ void whole(const Raw &r, float &scale, float &least) {
        scale = low_f16(r.d), least = high_f16(r.d);
    }
};

// Nibbles of a block of 32: low ones are values 0 to 15.
struct Nibbles32 {
    static __device__ __forceinline__ constexpr uint32_t index(uint32_t, int c, int i) { return 4 * c + i; }
    static __device__ __forceinline__ constexpr uint32_t mask(int c) { return c < 4 ? 0x0f : 0xf0; }
    static __device__ __forceinline__ constexpr int shift(int c) { return c < 4 ? 0 : 4; }
    template <class Raw> static __device__ __forceinline__ uint32_t codes(const Raw &r, uint32_t, int c) { return r.q[c & 3]; }
};

struct Block_q4_0 : Shape<32, 16, 2, 32, 1>, Scaled32<4>, Nibbles32 {
    static constexpr float BIAS = 8;
};

struct Block_q4_1 : Shape<32, 16, 4, 32, 1>, Shifted32<4>, Nibbles32 {
    static constexpr float BIAS = 0;
    static const bool LEAST = true;
};

// Codes of five bits in a word of bits and words of nibbles, chunk c in word c % WORDS of these. The first half's: the upper four bits
// in low nibbles, the lowest bit in `first`, from the top of its bytes on. The second half's: the lower four bits in high
// nibbles, the highest bit in `second`, from the bottom of its bytes on. So neither nibbles nor the bits of chunk 0 have to be moved
// to meet.
template <int WORDS> struct FiveBits {
    static const bool PLACED = true;
    static __device__ __forceinline__ constexpr int place(int c, int) { return c < WORDS ? 7 : 4; }
    static __device__ __forceinline__ uint32_t five(uint32_t first, uint32_t second, const uint32_t *nibbles, int c, int i) {
        if (c < WORDS) return joined(first << c & 0x80808080u, i, nibbles[c] & 0x0f0f0f0fu, i);
        return joined(nibbles[c - WORDS] & 0xf0f0f0f0u, i, second >> (c - WORDS) & 0x01010101u, i);
    }
};

// In a block of 32 one word has both halves' bits.
struct FiveBits32 : FiveBits<4> {
    static __device__ __forceinline__ constexpr uint32_t index(uint32_t, int c, int i) { return 4 * c + i; }
    template <class Raw> static __device__ __forceinline__ uint32_t number(const Raw &r, int c, int i) {
        return five(r.q[0], r.q[0], r.q + 1, c, i);
    }
};

struct Block_q5_0 : Shape<32, 20, 2, 32, 1>, Scaled32<5>, FiveBits32 {
    using FiveBits32::PLACED;
    static constexpr float BIAS = 16;
};

struct Block_q5_1 : Shape<32, 20, 4, 32, 1>, Shifted32<5>, FiveBits32 {
    using FiveBits32::PLACED;
    static constexpr float BIAS = 0;
    static const bool LEAST = true;
};

// Codes of a byte each.
struct Bytes {
    static __device__ __forceinline__ constexpr uint32_t mask(int) { return 0xff; }
    static __device__ __forceinline__ constexpr int shift(int) { return 0; }
};

struct Block_q8_0 : Shape<32, 32, 2, 32, 1>, Scaled32<8>, Bytes {
    static constexpr float BIAS = 128;
    static __device__ __forceinline__ constexpr uint32_t index(uint32_t, int c, int i) { return 4 * c + i; }
    static __device__ __forceinline__ uint32_t codes(const Raw &r, uint32_t, int c) { return r.q[c]; }
};

// A block of 256 in four units, whose values are neighbours.
struct Units256 {
    static __device__ __forceinline__ constexpr uint32_t index(uint32_t part, int c, int i) { return part * 64 + 4 * c + i; }
};

// Codes of `Bits` bits one beside the other. A word's low 24 bits have FIELDS of them, and three words' bytes above those make 24
// bits more: as many again.
template <int Bits> struct Fields {
    static const bool PLACED = true;
    static const int FIELDS = 24 / Bits, TRIO = 4 * FIELDS;
    // Value n of the words from q on.
    static __device__ __forceinline__ uint32_t field(const uint32_t *q, int n) {
        const uint32_t *trio = q + n / TRIO * 3;
        int word = n % TRIO / FIELDS;
        uint32_t w = word < 3 ? trio[word] : permute(permute(trio[0], trio[1], 0x0073u), trio[2], 0x0710u);
        return w & ((1u << Bits) - 1) << n % FIELDS * Bits;
    }
    static __device__ __forceinline__ constexpr int place(int c, int i) { return (4 * c + i) % FIELDS * Bits; }
};

struct Block_q2_k : Shape<256, 16, 20, 64, 4>, Units256, Fields<2> {
    using Fields<2>::PLACED;
    static constexpr float BIAS = 0;
    static const bool LEAST = true;
    static const int PERIOD = 4;
    struct Raw {
        uint32_t q[4], scales, leasts, d; // a byte for each group
    };
    template <bool WHOLE>
    static __device__ __forceinline__ void load(Raw &r, const uint8_t *row, const Place &unit, uint32_t part, uint32_t) {
        load16<4>(row + unit.codes, r.q);
        uint32_t both = at<uint32_t>(row + unit.meta + 4 * part);
        r.scales = both & 0x0f0f0f0fu, r.leasts = both >> 4 & 0x0f0f0f0fu;
        r.d = at<uint32_t>(row + unit.meta + 16);
    }
    // Values 48 to 63 are in the last word: twelve as in the others, four above them.
    static __device__ __forceinline__ uint32_t number(const Raw &r, int c, int i) {
        int n = 4 * c + i;
        if (n < 48) return field(r.q, n);
        return (n < 60 ? r.q[3] : permute(r.q[3], 0, 0x4443u)) & 3u << 2 * ((n - 48) % FIELDS);
    }
    static __device__ __forceinline__ void whole(const Raw &r, float &scale, float &least) {
        scale = low_f16(r.d), least = -high_f16(r.d);
    }
    static __device__ __forceinline__ void group(const Raw &r, int g, float &scale, float &least) {
        scale = byte_less(r.scales, g, 0), least = byte_less(r.leasts, g, 0);
    }
};

// Number i of the four of six bits each in a word's low 24 bits, less `bias`; divided by LIFTED.
__device__ __forceinline__ float six_bits(uint32_t numbers, int i, float bias) {
    return fmaf(__uint_as_float(numbers & 63u << 6 * i), LIFT / float(1 << 6 * i), -bias / LIFTED);
}
__device__ __forceinline__ float six_bits(uint32_t numbers, int i) {
    return __uint_as_float(numbers & 63u << 6 * i) * (LIFT / float(1 << 6 * i));
}

// The four of unit `part`, whose 24 bits follow those of the units before it in three words.
__device__ __forceinline__ uint32_t six_bits_of(const uint32_t *words, uint32_t part) {
    uint32_t of_two = uint32_t(0x3210767665433210ull >> 16 * part), of_last = uint32_t(0x7765541032103210ull >> 16 * part);
    return permute(permute(words[0], words[1], of_two), words[2], of_last);
}

struct Block_q3_k : Shape<256, 24, 16, 64, 4>, Units256, Fields<3> {
    using Fields<3>::PLACED;
    static constexpr float BIAS = 4;
    static const int ROWS = 10;
    struct Raw {
        uint32_t q[6], scales;
        float d;
    };
    template <bool WHOLE>
    static __device__ __forceinline__ void load(Raw &r, const uint8_t *row, const Place &unit, uint32_t part, uint32_t) {
        load8<6>(row + unit.codes, r.q);
        uint32_t meta[4]; // three words of scales, and the block's own times LIFTED as an f32
        load16<4>(row + unit.meta, meta);
        r.scales = six_bits_of(meta, part), r.d = __uint_as_float(meta[3]);
    }
    static __device__ __forceinline__ uint32_t number(const Raw &r, int c, int i) { return field(r.q, 4 * c + i); }
    static __device__ __forceinline__ void whole(const Raw &r, float &scale, float &) { scale = r.d; }
    static __device__ __forceinline__ void group(const Raw &r, int g, float &scale, float &) { scale = six_bits(r.scales, g, 32); }
};

// A unit of Q4_K and Q5_K: two groups, whose scales and least values are whole numbers of six bits.
template <int Words> struct TwoGroups {
    struct Raw {
        uint32_t d, scales, q[Words];
    };
    template <bool WHOLE>
    static __device__ __forceinline__ void load(Raw &r, const uint8_t *row, const Place &unit, uint32_t part, uint32_t) {
        load_words<Words>(row + unit.codes, r.q);
        uint32_t head[4];
        load16<4>(row + unit.meta, head);
        r.d = head[0], r.scales = six_bits_of(head + 1, part);
    }
    static __device__ __forceinline__ void whole(const Raw &r, float &scale, float &least) {
        scale = low_f16(r.d), least = -high_f16(r.d);
    }
    static __device__ __forceinline__ void group(const Raw &r, int g, float &scale, float &least) {
        scale = six_bits(r.scales, g), least = six_bits(r.scales, 2 + g);
    }
};

struct Block_q4_k : Shape<256, 32, 16, 64, 2>, Units256, TwoGroups<8> {
    static constexpr float BIAS = 0, SCALE = LIFTED;
    static const bool LEAST = true;
    static const int ROWS = 6;
    static __device__ __forceinline__ constexpr uint32_t mask(int c) { return c % 8 < 4 ? 0x0f : 0xf0; }
    static __device__ __forceinline__ constexpr int shift(int c) { return c % 8 < 4 ? 0 : 4; }
    static __device__ __forceinline__ uint32_t codes(const Raw &r, uint32_t, int c) { return r.q[c / 8 * 4 + c % 4]; }
};

struct Block_q5_k : Shape<256, 40, 16, 64, 2>, Units256, TwoGroups<10>, FiveBits<8> {
    using FiveBits<8>::PLACED;
    static constexpr float BIAS = 0, SCALE = LIFTED;
    static const bool LEAST = true;
    static const int PERIOD = 1;
    static const int ROWS = 6;
    static __device__ __forceinline__ uint32_t number(const Raw &r, int c, int i) { return five(r.q[0], r.q[1], r.q + 2, c, i); }
};

struct Block_q6_k : Shape<256, 48, 20, 64, 4>, Units256, Fields<6> {
    using Fields<6>::PLACED;
    static constexpr float BIAS = 32;
    static const int ROWS = 6;
    struct Raw {
        uint32_t q[12], scales;
        float d;
    };
    template <bool WHOLE>
    static __device__ __forceinline__ void load(Raw &r, const uint8_t *row, const Place &unit, uint32_t part, uint32_t) {
        load16<12>(row + unit.codes, r.q);
        r.scales = at<uint32_t>(row + unit.meta + 4 * part), r.d = __uint_as_float(at<uint32_t>(row + unit.meta + 16));
    }
    static __device__ __forceinline__ uint32_t number(const Raw &r, int c, int i) { return field(r.q, 4 * c + i); }
    static __device__ __forceinline__ void whole(const Raw &r, float &scale, float &) { scale = r.d; }
    static __device__ __forceinline__ void group(const Raw &r, int g, float &scale, float &) {
        scale = byte_less(r.scales, g, 128);
    }
};

// Types whose nibbles are places in a table: PRMT looks up four that are neighbours in a word, low and high ones mixed.
struct Looked32 {
    static __device__ __forceinline__ constexpr uint32_t index32(int c, int i) { return 2 * c + (i >> 1) + 16 * (i & 1); }
};

// Four values of IQ4 types, more by 128, from the low half of a word. Nibbles have bits 2 and 3 exchanged, so that bit 2 tells
// positive values from negative ones, and bit 3 one table from the other. The table that is not meant gives all bits of a
// byte the sign of the entry there: 0 by the second, and by the first 0 for negative values and 255 for positive ones, of
// which the second therefore has the complement.
__device__ __forceinline__ uint32_t iq4_codes(uint32_t word, int half) {
    uint32_t first = permute(0x3f2d1801u, 0xa6998d81u, half_of(word, half));
    uint32_t second = permute(0x766a5d4fu, 0x0e263a4au, half_of(word ^ 0x88888888u, half));
    return first ^ second;
}

struct Block_iq4_nl : Shape<32, 16, 2, 32, 1>, Scaled32<4>, Looked32, Bytes {
    static constexpr float BIAS = 128;
    static __device__ __forceinline__ constexpr uint32_t index(uint32_t, int c, int i) { return index32(c, i); }
    static __device__ __forceinline__ uint32_t codes(const Raw &r, uint32_t, int c) { return iq4_codes(r.q[c >> 1], c & 1); }
};

struct Block_iq4_xs : Shape<256, 32, 8, 64, 2>, Looked32, Bytes {
    static constexpr float BIAS = 128, SCALE = LIFTED;
    struct Raw {
        uint32_t q[8], scales, d;
    };
    static __device__ __forceinline__ constexpr uint32_t index(uint32_t part, int c, int i) {
        return part * 64 + (c >> 3) * 32 + index32(c & 7, i);
    }
    template <bool WHOLE>
    static __device__ __forceinline__ void load(Raw &r, const uint8_t *row, const Place &unit, uint32_t part, uint32_t) {
        load16<8>(row + unit.codes, r.q);
        // eight scales, and a half of the block's own in each top byte
        uint2 pair = at<uint2>(row + unit.meta);
        r.scales = (part & 2 ? pair.y : pair.x) >> 12 * (part & 1), r.d = permute(pair.x, pair.y, 0x0073u);
    }
    static __device__ __forceinline__ uint32_t codes(const Raw &r, uint32_t, int c) { return iq4_codes(r.q[c >> 1], c & 1); }
    static __device__ __forceinline__ void whole(const Raw &r, float &scale, float &) { scale = low_f16(r.d); }
    static __device__ __forceinline__ void group(const Raw &r, int g, float &scale, float &) { scale = six_bits(r.scales, g, 32); }
};

struct Block_mxfp4 : Shape<32, 16, 1, 32, 1>, Looked32 {
    static const bool PLACED = true;
    static constexpr float BIAS = 0, SCALE = 0.25f;
    static const int ROWS = 16;
    struct Raw {
        uint32_t q[4], e;
    };
    static __device__ __forceinline__ constexpr int place(int, int) { return 16; }
    static __device__ __forceinline__ constexpr uint32_t index(uint32_t, int c, int i) { return index32(c, i); }
    template <bool WHOLE>
    static __device__ __forceinline__ void load(Raw &r, const uint8_t *row, const Place &unit, uint32_t, uint32_t) {
        load16<4>(row + unit.codes, r.q);
        r.e = at<uint8_t>(row + unit.meta);
    }
    // Magnitudes are doubled.
    static __device__ __forceinline__ uint32_t number(const Raw &r, int c, int i) {
        uint32_t q = r.q[c >> 1], selector = half_of(q & 0x77777777u, c & 1);
        uint32_t magnitudes = permute(0x03020100u, 0x0c080604u, selector);
        return signed_byte(magnitudes, i, (i & 1 ? q : q << 4) & 0x80808080u, 2 * (c & 1) + (i >> 1));
    }
    // 2^(e − 126), which is never a denormal: uploading makes e smaller by one where it is so large that this would not do.
    static __device__ __forceinline__ void whole(const Raw &r, float &scale, float &) { scale = __uint_as_float(r.e << 23); }
};

// Elements by themselves, a unit a block; K may cut the last, of which `left` values are there. WHOLE: none is cut, and all
// begin at multiples of 16 bytes.
template <int ElementBytes, int Unit> struct Elements : Shape<Unit, ElementBytes * Unit, 0, Unit, 1> {
    static const bool CODES = false;
    static const int ROWS = 4;
    static constexpr float BIAS = 0;
    static __device__ __forceinline__ constexpr uint32_t index(uint32_t, int c, int i) { return 4 * c + i; }
};

struct Block_f32 : Elements<4, 4> {
    struct Raw {
        uint32_t w[4];
    };
    template <bool WHOLE>
    static __device__ __forceinline__ void load(Raw &r, const uint8_t *row, const Place &unit, uint32_t, uint32_t left) {
        const uint8_t *p = row + unit.codes;
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
    template <bool WHOLE>
    static __device__ __forceinline__ void load(Raw &r, const uint8_t *row, const Place &unit, uint32_t, uint32_t left) {
        const uint8_t *p = row + unit.codes;
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

