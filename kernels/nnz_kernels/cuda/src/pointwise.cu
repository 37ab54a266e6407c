// Element by element ops on planes and flat arrays, and the way into and out of planes.
// Planes hold T; plain arrays are float32.
#include "numeric.cuh"
#include "planes.cuh"

template <typename T>
__global__ void __launch_bounds__(256)
    unary(int kind, float alpha, float beta, i64 n, const T* x, T* y) {
  const i64 step = static_cast<i64>(gridDim.x) * blockDim.x;
  for (i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step)
    y[i] = narrowed<T>(unary_value(kind, widened(x[i]), alpha, beta));
}

template <typename T>
__global__ void __launch_bounds__(256)
    add_planes(i64 n, float lo, float hi, const T* a, const T* b, T* y) {
  const i64 step = static_cast<i64>(gridDim.x) * blockDim.x;
  for (i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step)
    y[i] = narrowed<T>(clamped(widened(a[i]) + widened(b[i]), lo, hi));
}

template <typename T>
__global__ void __launch_bounds__(256)
    channel_affine(Plane plane, float lo, float hi, const float* __restrict__ scale,
                   const float* __restrict__ shift, const T* x, T* y) {
  const int q = blockIdx.x * blockDim.x + threadIdx.x;
  for (int channel = blockIdx.y; channel < plane.channels; channel += gridDim.y) {
    if (q >= places_of(plane, channel)) continue;
    const i64 at = place(plane, channel, q);
    const float value = fmaf(widened(x[at]), scale[channel], shift[channel]);
    y[at] = narrowed<T>(q < plane.pixels ? clamped(value, lo, hi) : 0.0f);
  }
}

template <typename T>
__global__ void __launch_bounds__(256)
    prelu(Plane plane, const float* __restrict__ slope, const T* x, T* y) {
  const int q = blockIdx.x * blockDim.x + threadIdx.x;
  for (int channel = blockIdx.y; channel < plane.channels; channel += gridDim.y) {
    if (q >= places_of(plane, channel)) continue;
    const i64 at = place(plane, channel, q);
    const float value = widened(x[at]);
    const float bent = value < 0.0f ? slope[channel] * value : value;
    y[at] = narrowed<T>(q < plane.pixels ? bent : 0.0f);
  }
}

template <typename T>
__global__ void __launch_bounds__(256) zero_border(Plane plane, T* y) {
  const int q = plane.pixels + blockIdx.x * blockDim.x + threadIdx.x;
  for (int channel = blockIdx.y; channel < plane.channels; channel += gridDim.y)
    if (q < places_of(plane, channel)) y[place(plane, channel, q)] = narrowed<T>(0.0f);
}

// Copy the pixels of one grid into another: base[q] is where pixel q lies in a row of x.
template <typename T>
__global__ void __launch_bounds__(256)
    copy_planes(Plane y, const int* __restrict__ base, i64 x_ld, const T* __restrict__ x,
                T* __restrict__ out) {
  const int q = blockIdx.x * blockDim.x + threadIdx.x;
  for (int channel = blockIdx.y; channel < y.channels; channel += gridDim.y)
    if (q < places_of(y, channel))
      out[place(y, channel, q)] = q < y.pixels ? x[channel * x_ld + base[q]] : narrowed<T>(0.0f);
}

// From and to [image, channel, pixel of the image].
template <typename T>
__global__ void __launch_bounds__(256)
    to_planes(Plane y, int size, const float* __restrict__ x, T* __restrict__ out) {
  const int q = blockIdx.x * blockDim.x + threadIdx.x;
  const i64 image = q / size;
  for (int channel = blockIdx.y; channel < y.channels; channel += gridDim.y) {
    if (q >= places_of(y, channel)) continue;
    const i64 from = (image * y.channels + channel) * size + q % size;
    out[place(y, channel, q)] = narrowed<T>(q < y.pixels ? x[from] : 0.0f);
  }
}

template <typename T>
__global__ void __launch_bounds__(256)
    from_planes(Plane plane, int size, const T* __restrict__ x, float* __restrict__ out) {
  const int q = blockIdx.x * blockDim.x + threadIdx.x;
  if (q >= plane.pixels) return;
  const i64 image = q / size;
  for (int channel = blockIdx.y; channel < plane.channels; channel += gridDim.y)
    out[(image * plane.channels + channel) * size + q % size] =
        widened(x[place(plane, channel, q)]);
}

// From and to [token, feature], through a tile, so that both sides are read in order.
constexpr int TILE = 32, STEP = 8;

template <typename T>
__global__ void __launch_bounds__(TILE * STEP)
    to_tokens(Plane y, const float* __restrict__ x, T* __restrict__ out) {
  __shared__ float tile[TILE][TILE + 1];
  const int q0 = blockIdx.x * TILE, c0 = blockIdx.y * TILE;
  for (int i = threadIdx.y; i < TILE; i += STEP) {
    const int q = q0 + i, channel = c0 + threadIdx.x;
    const bool inside = q < y.pixels && channel < y.channels;
    tile[i][threadIdx.x] = inside ? x[static_cast<i64>(q) * y.channels + channel] : 0.0f;
  }
  __syncthreads();
  for (int i = threadIdx.y; i < TILE; i += STEP) {
    const int q = q0 + threadIdx.x, channel = c0 + i;
    if (channel < y.channels && q < places_of(y, channel))
      out[place(y, channel, q)] = narrowed<T>(tile[threadIdx.x][i]);
  }
}

template <typename T>
__global__ void __launch_bounds__(TILE * STEP)
    from_tokens(Plane plane, const T* __restrict__ x, float* __restrict__ out) {
  __shared__ float tile[TILE][TILE + 1];
  const int q0 = blockIdx.x * TILE, c0 = blockIdx.y * TILE;
  for (int i = threadIdx.y; i < TILE; i += STEP) {
    const int q = q0 + threadIdx.x, channel = c0 + i;
    const bool inside = q < plane.pixels && channel < plane.channels;
    tile[i][threadIdx.x] = inside ? widened(x[place(plane, channel, q)]) : 0.0f;
  }
  __syncthreads();
  for (int i = threadIdx.y; i < TILE; i += STEP) {
    const int q = q0 + i, channel = c0 + threadIdx.x;
    if (q < plane.pixels && channel < plane.channels)
      out[static_cast<i64>(q) * plane.channels + channel] = tile[threadIdx.x][i];
  }
}
