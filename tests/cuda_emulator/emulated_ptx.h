// What ptx.cuh says in PTX, on the host: the same names, the results that the PTX manual
// describes.
#pragma once
#include "cuda_words.h"

struct half_t {
  unsigned short bits;
};
struct bf16_t {
  unsigned short bits;
};

inline float widened(float x) { return x; }
inline float widened(half_t x) {
  _Float16 y;
  std::memcpy(&y, &x, 2);
  return static_cast<float>(y);
}
inline float widened(bf16_t x) { return __int_as_float(static_cast<int>(x.bits) << 16); }

template <typename T>
T narrowed(float x) {
  if constexpr (std::is_same_v<T, float>) return x;
  if constexpr (std::is_same_v<T, half_t>) {
    const _Float16 y = static_cast<_Float16>(x);
    half_t out;
    std::memcpy(&out, &y, 2);
    return out;
  }
  if constexpr (std::is_same_v<T, bf16_t>) {
    unsigned bits;
    std::memcpy(&bits, &x, 4);
    if (x != x) return bf16_t{static_cast<unsigned short>(bits >> 16 | 0x40)};
    return bf16_t{static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
  }
}

template <int N>
void load_transposed(unsigned (&to)[N], const void* row, CALLED_AT) {
  struct Registers {
    unsigned of[N];
  };
  const auto compute = [](emulator::Meeting& m) {
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < N; ++i) {
        unsigned short pair[2];
        for (int e = 0; e < 2; ++e) {
          // Lane 8 i + r named row r of matrix i.
          const char* at = emulator::in<const char*>(m, 8 * i + lane % 4 * 2 + e);
          if (reinterpret_cast<uintptr_t>(at) % 16)
            emulator::fail("a row of ldmatrix is not aligned to 16 bytes");
          std::memcpy(&pair[e], at + 2 * (lane / 4), 2);
        }
        std::memcpy(&emulator::out<Registers>(m, lane).of[i], pair, 4);
      }
  };
  const auto found = emulator::meet<const void*, Registers>(~0u, "ldmatrix", row, compute, file, line);
  std::memcpy(to, found.of, sizeof found.of);
}

template <typename T>
void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], CALLED_AT) {
  struct Given {
    unsigned a[4], b[2];
    float d[4];
  } mine;
  struct Sums {
    float d[4];
  };
  std::memcpy(mine.a, a, sizeof mine.a);
  std::memcpy(mine.b, b, sizeof mine.b);
  std::memcpy(mine.d, d, sizeof mine.d);
  const auto compute = [](emulator::Meeting& m) {
    float left[16][16], right[16][8];
    for (int lane = 0; lane < 32; ++lane) {
      const Given& given = emulator::in<Given>(m, lane);
      const int group = lane / 4, pair = lane % 4 * 2;
      T halves[2];
      for (int i = 0; i < 4; ++i) {
        std::memcpy(halves, &given.a[i], 4);
        for (int e = 0; e < 2; ++e)
          left[group + i % 2 * 8][pair + i / 2 * 8 + e] = widened(halves[e]);
      }
      for (int i = 0; i < 2; ++i) {
        std::memcpy(halves, &given.b[i], 4);
        for (int e = 0; e < 2; ++e) right[pair + i * 8 + e][group] = widened(halves[e]);
      }
    }
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        float sum = emulator::in<Given>(m, lane).d[i];
        for (int k = 0; k < 16; ++k) sum += left[row][k] * right[k][column];
        emulator::out<Sums>(m, lane).d[i] = sum;
      }
  };
  const Sums found = emulator::meet<Given, Sums>(~0u, "mma", mine, compute, file, line);
  std::memcpy(d, found.d, sizeof found.d);
}
