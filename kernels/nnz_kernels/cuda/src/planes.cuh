// Channel-major planes: see nnz_kernels/planes.py for the layout.
//
// A kernel walks over the *domain* of a plane: first its pixels, in the order image, row,
// column; then the floats of a channel's row that are no pixels, which stay zero; last,
// for the last channel alone, the floats behind the last row. `places` says where each of
// them lies in the row, so that no thread divides.
#pragma once
#include "prims.cuh"

struct Plane {
  const int* places;
  i64 ld;      // floats from one channel to the next
  int pixels;  // places of pixels
  int row;     // places that every channel has
  int domain;  // places that the last channel has
  int channels;
};

__device__ __forceinline__ int places_of(const Plane& plane, int channel) {
  return channel + 1 == plane.channels ? plane.domain : plane.row;
}

__device__ __forceinline__ i64 place(const Plane& plane, int channel, int q) {
  return channel * plane.ld + plane.places[q];
}
