// One stack a CUDA thread, switched by hand.
#pragma once
#include <cstddef>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#error "the emulator switches stacks in x86-64 instructions"
#endif

namespace emulator {

constexpr std::size_t STACK = 128 * 1024;

// Push what a function must preserve, change stacks, pop it there (System V ABI).
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
.text
.weak emulator_switch
.type emulator_switch,@function
emulator_switch:
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
.size emulator_switch,.-emulator_switch
)");

struct Fiber {
  char* stack = static_cast<char*>(std::aligned_alloc(64, STACK));
  void* pointer = nullptr;
  void* shadow = nullptr;  // AddressSanitizer's own stack

  Fiber() = default;
  Fiber(const Fiber&) = delete;
  ~Fiber() { std::free(stack); }

  void begin(void (*entry)()) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stack, STACK);  // what the thread before left there
#endif
    void** top = reinterpret_cast<void**>(stack + STACK - 64);
    *--top = nullptr;  // keeps the stack aligned as after a call
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    pointer = top;
    shadow = nullptr;
  }
};

// The stack that schedules, and switches between it and a fiber.
struct Home {
  void* pointer = nullptr;
  const void* bottom = nullptr;
  std::size_t size = 0;

  void enter(Fiber& fiber) {
#if defined(__SANITIZE_ADDRESS__)
    void* shadow = nullptr;
    __sanitizer_start_switch_fiber(&shadow, fiber.stack, STACK);
#endif
    emulator_switch(&pointer, fiber.pointer);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(shadow, nullptr, nullptr);
#endif
  }

  void leave(Fiber& fiber, bool for_good) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fiber.shadow, bottom, size);
#endif
    emulator_switch(&fiber.pointer, pointer);
    arrived(fiber);
  }

  void arrived(Fiber& fiber) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fiber.shadow, &bottom, &size);
#endif
  }
};

}  // namespace emulator
