// What every layer does with a sum: bias, residual, clamp, activation.
#pragma once
#include "numeric.cuh"
#include "planes.cuh"

struct Ending {
  const float* bias;
  const float* residual;  // may be null, or the output itself
  float lo, hi;
  int activation;
  int unused;
};

// Write one place of a layer's output, before its activation: a pixel, or the zero of a
// border.
__device__ __forceinline__ void finish(const Plane& y, const Ending& end, float* out,
                                       int channel, int q, float sum) {
  if (q >= places_of(y, channel)) return;
  const i64 at = place(y, channel, q);
  if (q >= y.pixels) {
    out[at] = 0.0f;
    return;
  }
  sum += end.bias[channel];
  if (end.residual != nullptr) sum += end.residual[at];
  out[at] = clamped(sum, end.lo, end.hi);
}

// Apply the activation to a place that this thread has written. Apart from `finish`, so
// that its code is there once and not for each of a thread's sums.
__device__ __forceinline__ void activate(const Plane& y, const Ending& end, float* out,
                                         int channel, int q) {
  if (q >= y.pixels) return;
  const i64 at = place(y, channel, q);
  out[at] = activated(end.activation, out[at]);
}
