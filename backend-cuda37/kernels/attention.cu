// Attention over pages of TYPE, for heads of up to HEAD values: for few columns in parts, for many in tiles.
// Modules: TYPE=f32|f16|q8_0|q4_0 HEAD=64|128|256
#include "attention_part.cuh"
#include "attention_tile.cuh"

#define PASTE(a, b, c, d, e) a##b##c##d##e
#define NAMED(type, what, width, heads) PASTE(attention_, type, what, width, heads)
#define PAGE_NAMED(type) Page_##type
#define PAGE_OF(type) PAGE_NAMED(type)

#define PART(heads)                                                                                                    \
    KERNEL_BOUNDS(NAMED(TYPE, _part_, HEAD, _##heads), AttentionArgs, PART_WARPS * WARP, 2) {                         \
        Part<PAGE_OF(TYPE), HEAD, heads>(a).run();                                                                    \
    }

PART(2)
PART(4)
PART(8)

KERNEL(NAMED(TYPE, _join_, HEAD, ), AttentionArgs) { join_parts(a); }

KERNEL_BOUNDS(NAMED(TYPE, _tile_, HEAD, ), AttentionArgs, TILE_THREADS, 2) { Tile<PAGE_OF(TYPE), HEAD>(a).run(); }
