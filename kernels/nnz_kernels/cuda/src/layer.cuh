// What every layer does with a sum: bias, residual, clamp, activation.
#pragma once
#include "numeric.cuh"
#include "planes.cuh"

// The nearest number that T holds, for what an activation follows: silu of minus infinity
// is not a number, of -65504 it is zero.
template <typename T>
__device__ __forceinline__ float bounded(float x) {
  return x;
}
template <>
__device__ __forceinline__ float bounded<half_t>(float x) {
  return clamped(x, -65504.0f, 65504.0f);
}

struct Ending {
  const float* bias;
  const void* residual;  // elements as of the output; may be null, or the output itself
  float lo, hi;
  int activation;
  int unused;
};

// Write one place of a layer's output, before its activation: a pixel, or the zero of a
// border.
template <typename T>
__device__ __forceinline__ void finish(const Plane& y, const Ending& end, T* out,
                                       int channel, int q, float sum) {
  if (q >= places_of(y, channel)) return;
  const i64 at = place(y, channel, q);
  if (q >= y.pixels) {
    out[at] = narrowed<T>(0.0f);
    return;
  }
  sum += end.bias[channel];
  if (end.residual != nullptr) sum += widened(static_cast<const T*>(end.residual)[at]);
  sum = clamped(sum, end.lo, end.hi);
  out[at] = narrowed<T>(end.activation == IDENTITY ? sum : bounded<T>(sum));
}

// Apply the activation to a place that this thread has written. Apart from `finish`, so
// that its code is there once and not for each of a thread's sums.
template <typename T>
__device__ __forceinline__ void activate(const Plane& y, const Ending& end, T* out,
                                         int channel, int q) {
  if (q >= y.pixels) return;
  const i64 at = place(y, channel, q);
  out[at] = narrowed<T>(activated(end.activation, widened(out[at])));
}
