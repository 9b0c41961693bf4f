// A context of execution on a stack of its own: switching asks nothing of the operating system on x86-64.
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) && !defined(EMU_PORTABLE)

// Saves the registers that a callee must keep on the stack, gives its pointer out through `from`, and goes on at `to`.
extern "C" void emu_switch(void **from, void *to);
asm(R"(
.text
.p2align 4
.globl emu_switch
.hidden emu_switch
.type emu_switch, @function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch, .-emu_switch
)");

struct Context {
    void *sp = nullptr;

    // Makes a context that begins at `entry`, which never returns.
    void prepare(void *stack, size_t bytes, void (*entry)()) {
        auto top = (reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t(15);
        auto *slot = reinterpret_cast<void **>(top);
        *--slot = nullptr; // where `entry` would return to: leaves the stack as the calling convention wants it
        *--slot = reinterpret_cast<void *>(entry);
        for (int saved = 0; saved < 6; ++saved) *--slot = nullptr;
        sp = slot;
    }
    void go(Context &to) { emu_switch(&sp, to.sp); }
};

#else
#include <ucontext.h>

struct Context {
    ucontext_t at;

    void prepare(void *stack, size_t bytes, void (*entry)()) {
        getcontext(&at);
        at.uc_stack.ss_sp = stack;
        at.uc_stack.ss_size = bytes;
        at.uc_link = nullptr;
        makecontext(&at, entry, 0);
    }
    void go(Context &to) { swapcontext(&at, &to.at); }
};
#endif
