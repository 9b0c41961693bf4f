// The engine of the emulation: fibers, rendezvous, shared memory, and blocks on several host threads.
#include "cuda_emu.h"
#include "context.h"
#include "pool.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>

namespace emu {

__thread Thread *cur;

namespace {

constexpr unsigned MOST_THREADS = 1024, WARP = 32;
constexpr unsigned MOST_DECLARED = 32;
constexpr size_t SHARED_BYTES = 48 << 10, BORDER = 64;
// Stacks lie apart by more than a power of two, lest the same place of all of them fall into one set of a cache.
constexpr size_t STACK = (64 << 10) + 320;
constexpr unsigned char BORDER_BYTE = 0xA5;
constexpr uint64_t CANARY = 0x57ac6e4d0f0e15e5;

enum class State : uint8_t { fresh, ready, at_barrier, in_exchange, done };

struct Fiber : Thread {
    Context context;
    unsigned number;
    State state;
    Exchange kind;
    unsigned mask, source;
    uint64_t value;
    Site site;
    char *stack;
};

struct Declared {
    const void *declaration;
    const char *name;
    size_t offset, bytes;
};

struct Launch {
    const Kernel *kernel;
    const void *args;
    Index grid, dim;
    unsigned threads, shared_bytes, seed;
    uint64_t blocks, first, step;
    std::atomic<uint64_t> next{0};
    std::atomic<bool> failed{false};
    std::mutex telling;
    std::string words;

    void fail(const std::string &what) {
        std::lock_guard<std::mutex> hold(telling);
        if (!failed.exchange(true)) words = std::string("kernel ") + kernel->name + ": " + what;
    }
};

// A host thread's share of the work: one block at a time.
class Worker {
  public:
    Worker();
    ~Worker() { munmap(memory, (MOST_THREADS + 1) * STACK); }
    void run(Launch &launch);
    void meet(Site site);
    uint64_t trade(Exchange kind, unsigned mask, uint64_t value, unsigned source, Site site);
    void *shared(const void *declaration, size_t bytes, size_t align, const char *name);
    void *dynamic() const { return arena.get() + declared[0].offset; }
    [[noreturn]] void abandon(const std::string &what);
    void enter();

  private:
    Fiber &self() { return *static_cast<Fiber *>(cur); }
    void begin_block(uint64_t number);
    void end_block();
    void reset_stacks();
    Fiber *pick();
    void resume_next(Context &from);
    void wait(State state);
    void make_ready(Fiber &f);
    bool is_with(const Fiber &f, unsigned lane) const;
    bool all_with(const Fiber &f) const;
    void complete(const Fiber &last);
    void lay_border(size_t from, size_t to) { memset(arena.get() + from, BORDER_BYTE, to - from); }
    std::string stuck() const;
    unsigned missing(const Fiber &f) const;
    bool is_gone(unsigned number) const;
    std::string whereabouts(unsigned number) const;
    uint64_t random();

    std::unique_ptr<Fiber[]> fibers{new Fiber[MOST_THREADS]};
    std::unique_ptr<char[], void (*)(void *)> arena{static_cast<char *>(aligned_alloc(64, SHARED_BYTES + (MOST_DECLARED + 1) * 2 * BORDER)), free};
    std::vector<unsigned> ready;
    std::vector<char *> free_stacks;
    std::vector<Declared> declared;
    size_t used = 0, asked = 0;
    void *memory; // of the stacks
    Context main;
    Block block{};
    Launch *launch = nullptr;
    unsigned waiting = 0, done = 0;
    uint32_t exchanging[MOST_THREADS / WARP]; // the lanes of each warp that are in an exchange
    uint64_t state = 1;
};

__thread Worker *worker __attribute__((tls_model("initial-exec")));

std::string place(const Site &s) { return std::string(s.what) + " (" + s.file + ":" + std::to_string(s.line) + ")"; }

std::string thread_name(unsigned number) { return "thread " + std::to_string(number); }

void enter_worker() { worker->enter(); }

Worker::Worker() {
    int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    memory = mmap(nullptr, (MOST_THREADS + 1) * STACK, PROT_READ | PROT_WRITE, kind, -1, 0);
    if (memory == MAP_FAILED) {
        perror("stacks of the emulation");
        abort();
    }
    reset_stacks();
}

void Worker::reset_stacks() {
    free_stacks.clear();
    for (unsigned i = MOST_THREADS; i-- > 0;) {
        free_stacks.push_back(static_cast<char *>(memory) + (i + 1) * STACK); // what overflows the first lies below it
        memcpy(free_stacks.back(), &CANARY, sizeof CANARY);
    }
}

uint64_t Worker::random() {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

void Worker::begin_block(uint64_t number) {
    const Launch &l = *launch;
    uint64_t at = (l.first + number * l.step) % l.blocks;
    block = {{unsigned(at % l.grid.x), unsigned(at / l.grid.x % l.grid.y), unsigned(at / l.grid.x / l.grid.y)},
             l.dim,
             l.grid};
    state = (at + 1) * 0x9E3779B97F4A7C15 ^ (uint64_t(l.seed) << 32 | 0x5bd1e995);
    ready.resize(l.threads);
    for (unsigned i = 0; i < l.threads; ++i) {
        Fiber &f = fibers[i];
        f.index = {i % l.dim.x, i / l.dim.x % l.dim.y, i / l.dim.x / l.dim.y};
        f.block = &block;
        f.number = i;
        f.state = State::fresh;
        ready[i] = i;
    }
    waiting = done = 0;
    memset(exchanging, 0, sizeof exchanging);
    declared.clear();
    asked = used = 0;
    lay_border(0, BORDER);
    shared(nullptr, l.shared_bytes, 16, "the dynamic shared memory");
}

void Worker::end_block() {
    auto is_whole = [&](size_t at) {
        for (size_t i = at; i < at + BORDER; ++i)
            if (static_cast<unsigned char>(arena[i]) != BORDER_BYTE) return false;
        return true;
    };
    for (const Declared &d : declared)
        if (!is_whole(d.offset - BORDER) || !is_whole(d.offset + d.bytes))
            launch->fail(std::string("memory beside ") + d.name + " was written: it has " + std::to_string(d.bytes) + " bytes");
}

void *Worker::shared(const void *declaration, size_t bytes, size_t align, const char *name) {
    for (const Declared &d : declared)
        if (d.declaration == declaration) return arena.get() + d.offset;
    asked = (asked + align - 1) / align * align + bytes;
    if (asked > SHARED_BYTES || declared.size() == MOST_DECLARED)
        abandon("a block has 48 KiB of shared memory in at most 32 arrays, and asks for " + std::to_string(asked) + " bytes");
    size_t offset = (used + BORDER + 15) / 16 * 16;
    used = offset + bytes;
    lay_border(offset - BORDER, offset);
    memset(arena.get() + offset, 0xFF, bytes);
    lay_border(used, used + BORDER);
    declared.push_back({declaration, name, offset, bytes});
    return arena.get() + offset;
}

Fiber *Worker::pick() {
    if (ready.empty()) return nullptr;
    unsigned &chosen = ready[size_t((random() >> 32) * ready.size() >> 32)];
    Fiber *f = &fibers[chosen];
    chosen = ready.back();
    ready.pop_back();
    return f;
}

// The entry of every stack: runs threads until one that waits elsewhere is chosen. A kernel that never waits stays on
// one stack.
void Worker::enter() {
    for (;;) {
        launch->kernel->run(launch->args);
        Fiber &f = self();
        f.state = State::done;
        ++done;
        if (memcmp(f.stack, &CANARY, sizeof CANARY) != 0) abandon(thread_name(f.number) + " used all of its stack");
        Fiber *next = pick();
        if (next && next->state == State::fresh) {
            next->stack = f.stack;
            cur = next;
            continue;
        }
        free_stacks.push_back(f.stack);
        cur = next;
        f.context.go(next ? next->context : main);
    }
}

void Worker::resume_next(Context &from) {
    Fiber *next = pick();
    cur = next;
    if (!next) return from.go(main);
    if (next->state == State::fresh) {
        next->stack = free_stacks.back();
        free_stacks.pop_back();
        next->context.prepare(next->stack, STACK - 320, enter_worker);
    }
    from.go(next->context);
}

void Worker::wait(State state) {
    Fiber &f = self();
    f.state = state;
    resume_next(f.context);
}

void Worker::make_ready(Fiber &f) {
    f.state = State::ready;
    ready.push_back(f.number);
}

void Worker::meet(Site site) {
    Fiber &f = self();
    f.site = site;
    if (++waiting < launch->threads) return wait(State::at_barrier);
    waiting = 0;
    for (unsigned i = 0; i < launch->threads; ++i) {
        Fiber &other = fibers[i];
        if (other.site.line != site.line)
            abandon(thread_name(f.number) + " is at " + place(site) + ", but " + whereabouts(i));
        if (&other != &f) make_ready(other);
    }
}

bool Worker::all_with(const Fiber &f) const {
    for (unsigned lane = 0; lane < WARP; ++lane)
        if (f.mask >> lane & 1 && !is_with(f, lane)) return false;
    return true;
}

bool Worker::is_with(const Fiber &f, unsigned lane) const {
    unsigned number = f.number / WARP * WARP + lane;
    if (number >= launch->threads) return false;
    const Fiber &other = fibers[number];
    return &other == &f || (other.state == State::in_exchange && other.mask == f.mask && other.site.line == f.site.line &&
                            other.kind == f.kind);
}

uint64_t Worker::trade(Exchange kind, unsigned mask, uint64_t value, unsigned source, Site site) {
    Fiber &f = self();
    f.kind = kind, f.mask = mask, f.value = value, f.source = source, f.site = site;
    if (!(mask >> f.number % WARP & 1)) abandon(thread_name(f.number) + " is not in the mask of " + place(site));
    if (kind == Exchange::shuffle && !(mask >> source & 1))
        abandon(thread_name(f.number) + " reads lane " + std::to_string(source) + ", which is not in the mask of " + place(site));
    uint32_t &arrived = exchanging[f.number / WARP];
    arrived |= 1u << f.number % WARP;
    if (mask & ~arrived || !all_with(f))
        wait(State::in_exchange);
    else
        complete(f);
    return f.value;
}

void Worker::complete(const Fiber &last) {
    Fiber *warp = &fibers[last.number / WARP * WARP];
    exchanging[last.number / WARP] &= ~last.mask;
    uint64_t values[WARP], ballot = 0;
    for (unsigned lane = 0; lane < WARP; ++lane)
        if (last.mask >> lane & 1) {
            values[lane] = warp[lane].value;
            ballot |= uint64_t(values[lane] != 0) << lane;
        }
    for (unsigned lane = 0; lane < WARP; ++lane)
        if (last.mask >> lane & 1) {
            warp[lane].value = last.kind == Exchange::ballot ? ballot : values[warp[lane].source];
            if (&warp[lane] != &last) make_ready(warp[lane]);
        }
}

std::string Worker::whereabouts(unsigned number) const {
    if (number >= launch->threads) return thread_name(number) + " does not exist";
    const Fiber &f = fibers[number];
    if (f.state == State::done) return thread_name(number) + " has exited";
    return thread_name(number) + " is at " + place(f.site);
}

// Who keeps a waiting thread waiting.
unsigned Worker::missing(const Fiber &f) const {
    if (f.state == State::in_exchange) {
        unsigned lane = 0;
        while (!(f.mask >> lane & 1) || is_with(f, lane)) ++lane;
        return f.number / WARP * WARP + lane;
    }
    unsigned other = 0;
    while (fibers[other].state == State::at_barrier) ++other;
    return other;
}

bool Worker::is_gone(unsigned number) const {
    return number >= launch->threads || fibers[number].state == State::done;
}

// Why nobody goes on: told of a thread that waits for one that will never come, if there is such.
std::string Worker::stuck() const {
    const Fiber *told = nullptr;
    for (unsigned i = 0; i < launch->threads; ++i) {
        const Fiber &f = fibers[i];
        if (f.state == State::done) continue;
        if (!told || is_gone(missing(f))) told = &f;
        if (is_gone(missing(f))) break;
    }
    return thread_name(told->number) + " waits for ever at " + place(told->site) + ": " + whereabouts(missing(*told));
}

void Worker::abandon(const std::string &what) {
    const Index &b = block.index;
    char where[64];
    snprintf(where, sizeof where, "block (%u, %u, %u): ", b.x, b.y, b.z);
    launch->fail(where + what);
    self().context.go(main);
    abort();
}

void Worker::run(Launch &l) {
    launch = &l;
    worker = this;
    for (;;) {
        uint64_t number = l.next++;
        if (number >= l.blocks || l.failed) return;
        begin_block(number);
        resume_next(main);
        if (done == l.threads) {
            end_block();
            continue;
        }
        if (!l.failed) l.fail(stuck());
        reset_stacks();
    }
}

Kernel *&kernels() {
    static Kernel *first = nullptr;
    return first;
}

const Kernel *find(const char *name) {
    for (const Kernel *k = kernels(); k; k = k->next)
        if (strcmp(k->name, name) == 0) return k;
    return nullptr;
}

unsigned mixed(unsigned seed) {
    seed = (seed ^ seed >> 16) * 0x7feb352d;
    seed = (seed ^ seed >> 15) * 0x846ca68b;
    return seed ^ seed >> 16;
}

void run_blocks(void *launch) {
    static thread_local Worker own;
    own.run(*static_cast<Launch *>(launch));
}

std::string misfit(const Kernel &k, const Launch &l, size_t args_bytes) {
    if (k.args_bytes != args_bytes)
        return "its arguments have " + std::to_string(k.args_bytes) + " bytes, not " + std::to_string(args_bytes);
    if (l.threads == 0 || l.threads > k.most_threads)
        return "a block has 1 to " + std::to_string(k.most_threads) + " threads, not " + std::to_string(l.threads);
    if (l.grid.y > 65535 || l.grid.z > 65535 || l.dim.z > 64) return "a grid has at most 65535 blocks along y and z";
    if (l.shared_bytes > SHARED_BYTES) return "a block has 48 KiB of shared memory";
    return "";
}

} // namespace

void barrier(Site site) { worker->meet(site); }

uint64_t exchange(Exchange kind, unsigned mask, uint64_t value, unsigned source, Site site) {
    return worker->trade(kind, mask, value, source, site);
}

void *shared(const void *declaration, size_t bytes, size_t align, const char *name) {
    return worker->shared(declaration, bytes, align, name);
}

void *dynamic_shared() { return worker->dynamic(); }

void fault(const char *format, ...) {
    char words[512];
    va_list rest;
    va_start(rest, format);
    vsnprintf(words, sizeof words, format, rest);
    va_end(rest);
    worker->abandon(thread_name(static_cast<Fiber *>(cur)->number) + ": " + words);
}

Kernel::Kernel(const char *name, size_t args_bytes, unsigned most_threads, void (*run)(const void *))
    : name(name), args_bytes(args_bytes), most_threads(most_threads), run(run), next(kernels()) {
    kernels() = this;
}

} // namespace emu

using namespace emu;

// The bytes of a kernel's arguments; 0 where there is no such kernel.
extern "C" size_t emu_args_bytes(const char *kernel) {
    const Kernel *found = find(kernel);
    return found ? found->args_bytes : 0;
}

// The name of the kernel at `index` in no particular order, or NULL after the last.
extern "C" const char *emu_kernel_name(size_t index) {
    const Kernel *k = kernels();
    while (k && index-- > 0) k = k->next;
    return k ? k->name : nullptr;
}

// Runs a kernel to its end. NULL, or the fault's words: they stay until this thread's next launch.
extern "C" const char *emu_launch(const char *kernel, const unsigned grid[3], const unsigned block[3],
                                  unsigned shared_bytes, const void *args, size_t args_bytes, unsigned seed) {
    static thread_local std::string words;
    const Kernel *found = find(kernel);
    if (!found) {
        words = std::string("there is no kernel ") + kernel;
        return words.c_str();
    }
    Launch l;
    l.kernel = found, l.args = args, l.seed = seed, l.shared_bytes = shared_bytes;
    l.grid = {grid[0], grid[1], grid[2]};
    l.dim = {block[0], block[1], block[2]};
    l.threads = block[0] * block[1] * block[2];
    l.blocks = uint64_t(grid[0]) * grid[1] * grid[2];
    std::string wrong = misfit(*found, l, args_bytes);
    if (!wrong.empty()) l.fail(wrong);
    if (wrong.empty() && l.blocks > 0) {
        l.first = mixed(seed) % l.blocks;
        l.step = mixed(seed + 1) % l.blocks;
        while (std::gcd(l.step, l.blocks) != 1) ++l.step;
        bool shared_out = l.blocks > 1 && l.blocks * l.threads >= 2048;
        Pool::of_process().run(shared_out, run_blocks, &l);
    }
    words = l.words;
    return l.failed ? words.c_str() : nullptr;
}

// What `-fsanitize=bounds` calls where an index is outside of its array.
struct OutOfBounds {
    const char *file;
    uint32_t line, column;
    struct {
        uint16_t kind, info;
        char name[1];
    } const *array, *index;
};
extern "C" void __ubsan_handle_out_of_bounds(OutOfBounds *at, uintptr_t index) {
    fault("index %lld is outside of %s (%s:%u)", (long long)index, at->array->name, at->file, at->line);
}
