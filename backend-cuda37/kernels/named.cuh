// Names of kernels that are compiled once a type of weights: TYPE is defined for the compiler.
#pragma once

#define PASTE(a, b, c) a##b##c
#define NAMED(before, type, after) PASTE(before, type, after)
#define BLOCK NAMED(Block_, TYPE, )
