// Names and small functions that all kernels share.
#pragma once
#include "ptx.cuh"

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

constexpr u32 WARP = 0xffffffffu;
#define INF __int_as_float(0x7f800000)

// Products and sums that round apart: the compiler may not make one FMA of them.
__device__ __forceinline__ float multiplied(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double multiplied(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ float added(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ double added(double a, double b) { return __dadd_rn(a, b); }

// Whether a number is zero, and no number that is flushed to zero.
__device__ __forceinline__ bool is_zero(float x) { return __float_as_uint(x) << 1 == 0; }
__device__ __forceinline__ bool is_zero(double x) { return x == 0.0; }

// Reads of what is used once: they should not push out what is used again.
template <typename T>
__device__ __forceinline__ T streamed(const T* at) {
  return __ldcs(at);
}
