// The words of CUDA C++ that the kernels use, on the host. Included before every kernel.
#pragma once
#include <cmath>
#include <cstdio>
#include <type_traits>
#include <utility>

#include "grid.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(bytes) __attribute__((aligned(bytes)))

struct int2 {
  int x, y;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }

#define threadIdx (emulator::grid().current->index)
#define blockIdx (emulator::grid().block)
#define blockDim (emulator::grid().size)
#define gridDim (emulator::grid().blocks)

// Where a call stands, without a word of it in the kernels.
#define CALLED_AT const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(CALLED_AT) { emulator::barrier(false, file, line); }

inline int __syncthreads_count(int predicate, CALLED_AT) {
  return emulator::barrier(predicate != 0, file, line);
}

inline void __syncwarp(unsigned mask = ~0u, CALLED_AT) {
  emulator::meet<int, int>(mask, "__syncwarp", 0, [](emulator::Meeting&) {}, file, line);
}

namespace emulator {
inline int lane() { return static_cast<int>(grid().current->number % 32); }

template <typename T>
T shuffled(unsigned mask, T value, int from, const char* what, const char* file, int line) {
  struct Sent {
    T value;
    int from;
  };
  const auto compute = [mask](Meeting& m) {
    for (int i = 0; i < 32; ++i) {
      if (!(mask >> i & 1)) continue;
      const int source = in<Sent>(m, i).from;
      if (!(mask >> source & 1)) fail("a shuffle reads a lane that its mask does not name");
      out<T>(m, i) = in<Sent>(m, source).value;
    }
  };
  return meet<Sent, T>(mask, what, Sent{value, from}, compute, file, line);
}
}  // namespace emulator

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32, CALLED_AT) {
  const int lane = emulator::lane(), other = lane ^ with;
  const int from = other / width <= lane / width ? other : lane;
  return emulator::shuffled(mask, value, from, "__shfl_xor_sync", file, line);
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CALLED_AT) {
  const int from = emulator::lane() / width * width + source % width;
  return emulator::shuffled(mask, value, from, "__shfl_sync", file, line);
}

template <typename T>
unsigned __match_any_sync(unsigned mask, T value, CALLED_AT) {
  const auto compute = [mask](emulator::Meeting& m) {
    for (int i = 0; i < 32; ++i) {
      unsigned same = 0;
      for (int j = 0; j < 32; ++j)
        if (mask >> j & 1 && emulator::in<T>(m, i) == emulator::in<T>(m, j)) same |= 1u << j;
      emulator::out<unsigned>(m, i) = same;
    }
  };
  return emulator::meet<T, unsigned>(mask, "__match_any_sync", value, compute, file, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CALLED_AT) {
  const auto compute = [mask](emulator::Meeting& m) {
    unsigned found = 0;
    for (int i = 0; i < 32; ++i)
      if (mask >> i & 1 && emulator::in<int>(m, i)) found |= 1u << i;
    for (int i = 0; i < 32; ++i) emulator::out<unsigned>(m, i) = found;
  };
  return emulator::meet<int, unsigned>(mask, "__ballot_sync", predicate, compute, file, line);
}

template <typename T>
T atomicAdd(T* at, T value) {
  return std::exchange(*at, *at + value);
}
template <typename T>
T atomicMin(T* at, T value) {
  return std::exchange(*at, std::min(*at, value));
}
template <typename T>
T atomicMax(T* at, T value) {
  return std::exchange(*at, std::max(*at, value));
}
template <typename T>
T atomicCAS(T* at, T wanted, T value) {
  return *at == wanted ? std::exchange(*at, value) : *at;
}

// Memory is the same for all at once; who waits for others lets them run.
inline void __threadfence() {}
inline void __nanosleep(unsigned, CALLED_AT) { emulator::sleep(file, line); }

template <typename T>
T __ldcs(const T* at) {
  return *at;
}
template <typename T>
T __ldcg(const T* at) {
  return *at;
}
inline float __int_as_float(int bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline long long __double_as_longlong(double value) {
  long long bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline double __longlong_as_double(long long bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline double __dadd_rn(double a, double b) { return a + b; }
using std::fma;
using std::max;
using std::min;

namespace emulator {

// A letter a parameter, as the registry writes them.
template <typename P>
std::string token() {
  using T = std::remove_cv_t<P>;
  if constexpr (std::is_pointer_v<T>) return "p";
  else if constexpr (std::is_class_v<T>) return "s" + std::to_string(sizeof(T));
  else if constexpr (std::is_same_v<T, float>) return "f";
  else if constexpr (std::is_same_v<T, double>) return "d";
  else return sizeof(T) == 8 ? "l" : "i";
}

template <typename... P>
std::string signature(void (*)(P...)) {
  std::string found;
  ((found += (found.empty() ? "" : " ") + token<P>()), ...);
  return found;
}

template <typename... P, std::size_t... I>
void call(void (*kernel)(P...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_cv_t<P>*>(arguments[I])...);
}

template <typename... P>
void call(void (*kernel)(P...), void** arguments) {
  call(kernel, arguments, std::index_sequence_for<P...>{});
}

inline const char* launch(void (*body)(void**), const unsigned* blocks, const unsigned* size,
                          int order, void** arguments) {
  Grid& g = grid();
  g.blocks = {blocks[0], blocks[1], blocks[2]};
  g.size = {size[0], size[1], size[2]};
  g.order = static_cast<Order>(order);
  g.body = body;
  g.arguments = arguments;
  g.error.clear();
  for (unsigned i : sequence(blocks[0] * blocks[1] * blocks[2])) {
    g.block = {i % blocks[0], i / blocks[0] % blocks[1], i / blocks[0] / blocks[1]};
    run_block();
    if (!g.error.empty()) {
      g.threads.clear();
      return g.error.c_str();
    }
  }
  return nullptr;
}

}  // namespace emulator

// Make `launch_N` and `signature_N` of a kernel, for the host to find.
#define EXPORT_KERNEL(number, ...)                                                          \
  extern "C" const char* launch_##number(const unsigned* blocks, const unsigned* size,     \
                                         int order, void** arguments) {                    \
    return emulator::launch([](void** given) { emulator::call(&__VA_ARGS__, given); },     \
                            blocks, size, order, arguments);                               \
  }                                                                                        \
  extern "C" const char* signature_##number() {                                            \
    static const std::string found = emulator::signature(&__VA_ARGS__);                    \
    return found.c_str();                                                                  \
  }
