// Semirings by their numbers: how two entries are joined, and what is found added up.
#pragma once
#include "rows.cuh"

// In the order of nnz_kernels.api.semirings.SEMIRINGS.
enum Semiring { PLUS_TIMES, MIN_PLUS, OR_AND, MAX_TIMES };

// Only real numbers are compared; complex ones never get that far.
__device__ __forceinline__ bool is_less(float a, float b) { return a < b; }
__device__ __forceinline__ bool is_less(double a, double b) { return a < b; }
__device__ __forceinline__ bool is_less(complex_t a, complex_t b) { return a.re < b.re; }
__device__ __forceinline__ bool is_nan(float a) { return a != a; }
__device__ __forceinline__ bool is_nan(double a) { return a != a; }
__device__ __forceinline__ bool is_nan(complex_t a) { return a.re != a.re || a.im != a.im; }

template <typename T>
__device__ __forceinline__ T real(double x) {
  return static_cast<T>(x);
}
template <>
__device__ __forceinline__ complex_t real<complex_t>(double x) {
  return {x, 0.0};
}

template <typename T>
__device__ __forceinline__ T joined(int semiring, T a, T b) {
  if (semiring == MIN_PLUS) return added(a, b);
  if (semiring == OR_AND) return real<T>(!is_zero(a) && !is_zero(b));
  return multiplied(a, b);
}

// Sums of a semiring. What compares passes a NaN on.
template <typename T>
struct Fold {
  int semiring;

  // What changes nothing that is added to it, zeros of either sign included.
  __device__ __forceinline__ T start() const {
    if (semiring == PLUS_TIMES) return nothing<T>();
    return real<T>(semiring == MIN_PLUS ? INF : semiring == MAX_TIMES ? -INF : 0.0f);
  }
  // What a row without entries gives.
  __device__ __forceinline__ T none() const {
    return real<T>(semiring == MIN_PLUS ? INF : 0.0f);
  }
  __device__ __forceinline__ T operator()(T sum, T next) const {
    if (semiring == PLUS_TIMES) return added(sum, next);
    if (semiring == OR_AND) return real<T>(!is_zero(sum) || !is_zero(next));
    const bool better = semiring == MIN_PLUS ? is_less(next, sum) : is_less(sum, next);
    return better || is_nan(next) ? next : sum;
  }
};
