// Attention over pages of TYPE for few columns, in parts: heads of up to HEAD values, of which up to SHARE share rows of the cache.
// Modules: TYPE=f32|f16|q8_0|q4_0 HEAD=64|128|256 SHARE=2|4|8
#include "attention_part.cuh"

#define PASTE(type, head, share) attention_##type##_part_##head##_##share
#define NAMED(type, head, share) PASTE(type, head, share)
#define PAGE_NAMED(type) Page_##type
#define PAGE_OF(type) PAGE_NAMED(type)

KERNEL_BOUNDS(NAMED(TYPE, HEAD, SHARE), AttentionArgs, PART_WARPS * WARP, 4) { Part<PAGE_OF(TYPE), HEAD, SHARE>(a).run(); }
