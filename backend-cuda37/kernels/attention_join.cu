// Joins what the parts of attention gave, of whatever cache.
#include "attention_part.cuh"

KERNEL(attention_join, AttentionArgs) { join_parts(a); }
