// Attention over pages of TYPE: for few columns in parts, for many in tiles.
#include "attention_part.cuh"
#include "attention_tile.cuh"

#define PASTE3(a, b, c) a##b##c
#define NAMED(type, what) PASTE3(attention_, type, what)
#define PAGE_OF(type) Page_##type
#define PAGE(type) PAGE_OF(type)

#define PART(width, heads)                                                                                             \
    KERNEL_BOUNDS(NAMED(TYPE, _part_##width##_##heads), AttentionArgs, PART_WARPS * WARP, 2) {                         \
        Part<PAGE(TYPE), width, heads>(a).run();                                                                       \
    }
#define TILE(width)                                                                                                    \
    KERNEL_BOUNDS(NAMED(TYPE, _tile_##width), AttentionArgs, TILE_THREADS, 2) { Tile<PAGE(TYPE), width>(a).run(); }
#define WIDTH(width) PART(width, 1) PART(width, 2) PART(width, 4) PART(width, 8) TILE(width)

WIDTH(64)
WIDTH(128)
WIDTH(256)

KERNEL(NAMED(TYPE, _join), AttentionArgs) { join_parts(a); }
