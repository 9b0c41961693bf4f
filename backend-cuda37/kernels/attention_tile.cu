// Attention over pages of TYPE for many columns, in tiles: heads of up to HEAD values.
// Modules: TYPE=f32|f16|q8_0|q4_0 HEAD=64|128|256
#include "attention_tile.cuh"

#define PASTE(type, head) attention_##type##_tile_##head
#define NAMED(type, head) PASTE(type, head)
#define PAGE_NAMED(type) Page_##type
#define PAGE_OF(type) PAGE_NAMED(type)

KERNEL_BOUNDS(NAMED(TYPE, HEAD), AttentionArgs, TILE_THREADS, HEAD == 64 ? 8 : 3) { Tile<PAGE_OF(TYPE), HEAD>(a).run(); }
