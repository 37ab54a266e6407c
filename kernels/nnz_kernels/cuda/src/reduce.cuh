// Sums and maxima over the lanes of a warp, in a tree of fixed shape; all lanes get them.
#pragma once
#include "numeric.cuh"

// What the lane has whose number differs in one bit.
template <typename T>
__device__ __forceinline__ T of_partner(T value, int step) {
  return __shfl_xor_sync(WARP, value, step);
}

template <typename T>
__device__ __forceinline__ T warp_sum(T value, int width = 32) {
  for (int step = width / 2; step > 0; step /= 2)
    value += __shfl_xor_sync(WARP, value, step, width);
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
  for (int step = 16; step > 0; step /= 2)
    value = larger(value, __shfl_xor_sync(WARP, value, step));
  return value;
}

__device__ __forceinline__ float warp_min(float value) {
  for (int step = 16; step > 0; step /= 2)
    value = smaller(value, __shfl_xor_sync(WARP, value, step));
  return value;
}

__device__ __forceinline__ float warp_product(float value) {
  for (int step = 16; step > 0; step /= 2) value *= __shfl_xor_sync(WARP, value, step);
  return value;
}
