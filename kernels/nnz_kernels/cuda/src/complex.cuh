// Entries of matrices in sparse algebra: real numbers, and pairs that are complex ones.
#pragma once
#include "reduce.cuh"

struct __align__(16) complex_t {
  double re, im;
};

__device__ __forceinline__ complex_t added(complex_t a, complex_t b) {
  return {added(a.re, b.re), added(a.im, b.im)};
}
__device__ __forceinline__ complex_t multiplied(complex_t a, complex_t b) {
  return {added(multiplied(a.re, b.re), -multiplied(a.im, b.im)),
          added(multiplied(a.re, b.im), multiplied(a.im, b.re))};
}

__device__ __forceinline__ float negated(float a) { return -a; }
__device__ __forceinline__ double negated(double a) { return -a; }
__device__ __forceinline__ complex_t negated(complex_t a) { return {-a.re, -a.im}; }

__device__ __forceinline__ float divided(float a, float b) { return a / b; }
__device__ __forceinline__ double divided(double a, double b) { return a / b; }
// By the larger part of the divisor, so that nothing overflows on the way (Smith 1962).
__device__ __forceinline__ complex_t divided(complex_t a, complex_t b) {
  if (fabs(b.re) >= fabs(b.im)) {
    const double ratio = b.im / b.re, scale = 1.0 / (b.re + b.im * ratio);
    return {(a.re + a.im * ratio) * scale, (a.im - a.re * ratio) * scale};
  }
  const double ratio = b.re / b.im, scale = 1.0 / (b.re * ratio + b.im);
  return {(a.re * ratio + a.im) * scale, (a.im * ratio - a.re) * scale};
}

__device__ __forceinline__ float conjugated(float a) { return a; }
__device__ __forceinline__ double conjugated(double a) { return a; }
__device__ __forceinline__ complex_t conjugated(complex_t a) { return {a.re, -a.im}; }

__device__ __forceinline__ double magnitude(float a) { return fabs(static_cast<double>(a)); }
__device__ __forceinline__ double magnitude(double a) { return fabs(a); }
__device__ __forceinline__ double magnitude(complex_t a) { return hypot(a.re, a.im); }

__device__ __forceinline__ bool is_zero(complex_t a) { return a.re == 0.0 && a.im == 0.0; }

// One, and what changes no number that is added to it, zeros of either sign included.
template <typename T>
__device__ __forceinline__ T one() {
  return T(1);
}
template <>
__device__ __forceinline__ complex_t one<complex_t>() {
  return {1.0, 0.0};
}
template <typename T>
__device__ __forceinline__ T nothing() {
  return negated(T{});
}

// Sums of rows are kept in double precision, and rounded once.
__device__ __forceinline__ double widely(float a) { return a; }
__device__ __forceinline__ double widely(double a) { return a; }
__device__ __forceinline__ complex_t widely(complex_t a) { return a; }
template <typename T>
struct Wide {
  typedef double type;
};
template <>
struct Wide<complex_t> {
  typedef complex_t type;
};
__device__ __forceinline__ void store(float* at, double sum) { *at = static_cast<float>(sum); }
__device__ __forceinline__ void store(double* at, double sum) { *at = sum; }
__device__ __forceinline__ void store(complex_t* at, complex_t sum) { *at = sum; }

// Reads of what another multiprocessor may have just written: never from the first cache.
template <typename T>
__device__ __forceinline__ T fresh(const T* at) {
  return __ldcg(at);
}
template <>
__device__ __forceinline__ complex_t fresh(const complex_t* at) {
  return {__ldcg(&at->re), __ldcg(&at->im)};
}

__device__ __forceinline__ complex_t of_partner(complex_t value, int step) {
  return {of_partner(value.re, step), of_partner(value.im, step)};
}
__device__ __forceinline__ complex_t warp_sum(complex_t value, int width = 32) {
  return {warp_sum(value.re, width), warp_sum(value.im, width)};
}

__device__ __forceinline__ complex_t streamed(const complex_t* at) {
  return {__ldcs(&at->re), __ldcs(&at->im)};
}
