// Every instruction that CUDA C++ has no word for, once; the only file with PTX. Tests
// that run kernels on the host put another file in its place.
#pragma once

// Half precision and bfloat16 as bits: the headers of the toolkit would cost each
// compilation a multiple of what the kernels do.
struct half_t {
  unsigned short bits;
};
struct bf16_t {
  unsigned short bits;
};

__device__ __forceinline__ float widened(float x) { return x; }
__device__ __forceinline__ float widened(half_t x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
__device__ __forceinline__ float widened(bf16_t x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}

// Round to nearest, ties to even.
template <typename T>
__device__ __forceinline__ T narrowed(float x);
template <>
__device__ __forceinline__ float narrowed<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ half_t narrowed<half_t>(float x) {
  half_t y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
template <>
__device__ __forceinline__ bf16_t narrowed<bf16_t>(float x) {
  const unsigned bits = __float_as_uint(x);
  // A NaN must not be rounded into an infinity.
  if (x != x) return bf16_t{static_cast<unsigned short>(bits >> 16 | 0x40)};
  return bf16_t{static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

__device__ __forceinline__ unsigned shared_address(const void* at) {
  return static_cast<unsigned>(__cvta_generic_to_shared(at));
}

// Load 8 x 8 matrices of 16-bit elements from shared memory, transposed: lane i names row
// i % 8 of matrix i / 8 and gets the elements (2 (i % 4), i / 4) and the one below it.
__device__ __forceinline__ void load_transposed(unsigned (&to)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void load_transposed(unsigned (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}

// d += a b on tensor cores: a is 16 x 16, b 16 x 8, fragments as in the PTX manual under
// "Matrix fragments for mma.m16n8k16 with .f16/.bf16 type".
template <typename T>
__device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4],
                                    const unsigned (&b)[2]);
template <>
__device__ __forceinline__ void mma<half_t>(float (&d)[4], const unsigned (&a)[4],
                                            const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  for (int half = 0; half < 2; ++half)
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, "
        "{%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
#endif
}
template <>
__device__ __forceinline__ void mma<bf16_t>(float (&d)[4], const unsigned (&a)[4],
                                            const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  asm volatile("trap;");  // no such instruction: the host refuses bf16 before
#endif
}
