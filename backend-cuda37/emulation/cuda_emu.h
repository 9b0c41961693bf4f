// Runs CUDA C kernels on the CPU: what a kernel sees. `cuda_emu.cc` is the engine.
//
// A CUDA thread is a fiber; barriers, shuffles and ballots are real rendezvous. Threads of a block run in an order drawn
// from a seed, so that a missing barrier shows. What hardware would hang on, or would do silently wrong, is a fault
// with words: a lane that is missing at a shuffle, barriers met at different places, an index outside of an array.
//
// Compile kernels and engine with `-std=c++17 -O2 -march=native -ffp-contract=off -fsanitize=bounds`: products are
// rounded where the source says so, and the engine defines the handler that the last flag calls (it needs no library).
#pragma once
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ _Pragma("GCC error \"declare shared memory with SHARED or DYNAMIC_SHARED\"")

namespace emu {

struct Index {
    unsigned x, y, z;
};

// What the threads of a block share.
struct Block {
    Index index, dim, grid;
};

// What a thread is.
struct Thread {
    Index index;
    const Block *block;
};

// The running thread. A fiber stays on its host thread.
extern __thread Thread *cur __attribute__((tls_model("initial-exec")));

// Where in the source a rendezvous stands.
struct Site {
    const char *what, *file;
    int line;
};

enum class Exchange { shuffle, ballot };

// Waits for all threads of the block.
void barrier(Site site);

// Waits for all lanes of `mask`, then gives the value of lane `source`, or one bit a lane whose value is not 0.
uint64_t exchange(Exchange kind, unsigned mask, uint64_t value, unsigned source, Site site);

// The block's memory of one declaration: filled with 0xFF when a block begins, with borders that are checked when it ends.
void *shared(const void *declaration, size_t bytes, size_t align, const char *name);

// The dynamic shared memory of the launch.
void *dynamic_shared();

// Ends the launch with words.
[[noreturn]] void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

// A kernel's entry in the table.
struct Kernel {
    const char *name;
    size_t args_bytes;
    unsigned most_threads;
    void (*run)(const void *args);
    Kernel *next;
    Kernel(const char *name, size_t args_bytes, unsigned most_threads, void (*run)(const void *));
};

template <class T> using Same = T;

inline unsigned lane() {
    const Index &t = cur->index, &d = cur->block->dim;
    return (t.x + d.x * (t.y + d.y * t.z)) & 31;
}

template <class T> T shuffled(unsigned mask, T value, unsigned source, Site site) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    bits = exchange(Exchange::shuffle, mask, bits, source, site);
    memcpy(&value, &bits, sizeof(T));
    return value;
}

} // namespace emu

#define EMU_SITE(what)                                                                                                 \
    emu::Site { what, file, line }
#define EMU_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

#define threadIdx (emu::cur->index)
#define blockIdx (emu::cur->block->index)
#define blockDim (emu::cur->block->dim)
#define gridDim (emu::cur->block->grid)

// Takes names that are macros themselves.
#define KERNEL_BOUNDS(name, Args, threads, blocks) EMU_KERNEL(name, Args, threads)
#define EMU_KERNEL(name, Args, threads)                                                                                \
    static void name(const Args &a);                                                                                   \
    static emu::Kernel emu_kernel_##name(#name, sizeof(Args), threads,                                                 \
                                         [](const void *a) { name(*static_cast<const Args *>(a)); });                  \
    static void name(const Args &a)

#define SHARED(name, ...)                                                                                              \
    static char name##_declaration;                                                                                    \
    auto &name = *static_cast<emu::Same<__VA_ARGS__> *>(                                                               \
        emu::shared(&name##_declaration, sizeof(emu::Same<__VA_ARGS__>), alignof(emu::Same<__VA_ARGS__>), #name))
#define DYNAMIC_SHARED(T, name) T *const name = static_cast<T *>(emu::dynamic_shared())

inline void __syncthreads(EMU_HERE) { emu::barrier(EMU_SITE("__syncthreads")); }

inline void __syncwarp(unsigned mask = ~0u, EMU_HERE) {
    emu::exchange(emu::Exchange::ballot, mask, 0, 0, EMU_SITE("__syncwarp"));
}

inline unsigned __ballot_sync(unsigned mask, int predicate, EMU_HERE) {
    return unsigned(emu::exchange(emu::Exchange::ballot, mask, predicate != 0, 0, EMU_SITE("__ballot_sync")));
}

inline int __any_sync(unsigned mask, int predicate, EMU_HERE) {
    return emu::exchange(emu::Exchange::ballot, mask, predicate != 0, 0, EMU_SITE("__any_sync")) != 0;
}

inline int __all_sync(unsigned mask, int predicate, EMU_HERE) {
    return emu::exchange(emu::Exchange::ballot, mask, predicate != 0, 0, EMU_SITE("__all_sync")) == mask;
}

template <class T> T __shfl_sync(unsigned mask, T v, int source, int width = 32, EMU_HERE) {
    return emu::shuffled(mask, v, (emu::lane() & ~(width - 1)) | (source & (width - 1)), EMU_SITE("__shfl_sync"));
}

template <class T> T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, EMU_HERE) {
    unsigned lane = emu::lane(), source = lane ^ bits, last = lane | (width - 1);
    return emu::shuffled(mask, v, source <= last ? source : lane, EMU_SITE("__shfl_xor_sync"));
}

template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, EMU_HERE) {
    unsigned lane = emu::lane(), source = lane + delta, last = lane | (width - 1);
    return emu::shuffled(mask, v, source <= last ? source : lane, EMU_SITE("__shfl_down_sync"));
}

template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, EMU_HERE) {
    unsigned lane = emu::lane(), first = lane & ~(width - 1);
    return emu::shuffled(mask, v, lane >= first + delta ? lane - delta : lane, EMU_SITE("__shfl_up_sync"));
}

#include "cuda_words.h"
