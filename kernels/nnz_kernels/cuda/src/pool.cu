// Pooling of planes: a thread a place of the result, a warp for the mean of an image.
#include "planes.cuh"
#include "reduce.cuh"

struct Window {
  int kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
  int top, left, bottom, right;
  int h, w;          // of the input
  int out_h, out_w;  // of the result
  int lead, pitch, rows;
  int count_padding;
};

// Walk over the window of pixel q: visit(value) for each pixel in it. Returns the number of
// places in the padded image.
template <typename T, typename Visit>
__device__ __forceinline__ int over_window(const Window& at, const T* plane, int q,
                                           Visit visit) {
  const int image = q / (at.out_h * at.out_w), rest = q % (at.out_h * at.out_w);
  const int y0 = rest / at.out_w * at.stride_h - at.top;
  const int x0 = rest % at.out_w * at.stride_w - at.left;
  int places = 0;
  for (int i = 0; i < at.kernel_h; ++i) {
    const int y = y0 + i * at.dilation_h;
    if (y >= at.h + at.bottom) break;
    const T* row = plane + at.lead + (static_cast<i64>(image) * at.rows + y) * at.pitch;
    for (int j = 0; j < at.kernel_w; ++j) {
      const int x = x0 + j * at.dilation_w;
      if (x >= at.w + at.right) break;
      ++places;
      if (y >= 0 && y < at.h && x >= 0 && x < at.w) visit(widened(row[x]));
    }
  }
  return places;
}

template <typename T>
__global__ void __launch_bounds__(256)
    max_pool(Plane y, Window at, i64 x_ld, const T* __restrict__ x, T* __restrict__ out) {
  const int q = blockIdx.x * blockDim.x + threadIdx.x;
  for (int channel = blockIdx.y; channel < y.channels; channel += gridDim.y) {
    if (q >= places_of(y, channel)) continue;
    float found = 0.0f;
    if (q < y.pixels) {
      found = -INF;
      over_window(at, x + channel * x_ld, q, [&](float v) { found = larger(v, found); });
    }
    out[place(y, channel, q)] = narrowed<T>(found);
  }
}

template <typename T>
__global__ void __launch_bounds__(256)
    average_pool(Plane y, Window at, i64 x_ld, const T* __restrict__ x,
                 T* __restrict__ out) {
  const int q = blockIdx.x * blockDim.x + threadIdx.x;
  for (int channel = blockIdx.y; channel < y.channels; channel += gridDim.y) {
    if (q >= places_of(y, channel)) continue;
    float mean = 0.0f;
    if (q < y.pixels) {
      float sum = 0.0f;
      int inside = 0;
      const int places = over_window(at, x + channel * x_ld, q, [&](float v) {
        sum += v;
        ++inside;
      });
      mean = sum / static_cast<float>(at.count_padding ? places : inside);
    }
    out[place(y, channel, q)] = narrowed<T>(mean);
  }
}

// Pixel q of the result is the mean of image q of x: one warp each, four a block.
template <typename T>
__global__ void __launch_bounds__(128)
    global_average_pool(Plane y, Plane from, const T* __restrict__ x,
                        T* __restrict__ out) {
  const int q = blockIdx.x * blockDim.y + threadIdx.y, size = from.pixels / y.pixels;
  for (int channel = blockIdx.y; channel < y.channels; channel += gridDim.y) {
    if (q >= places_of(y, channel)) continue;
    float sum = 0.0f;
    if (q < y.pixels)
      for (int i = threadIdx.x; i < size; i += 32)
        sum += widened(x[place(from, channel, q * size + i)]);
    sum = warp_sum(sum) / static_cast<float>(size);
    if (threadIdx.x == 0) out[place(y, channel, q)] = narrowed<T>(q < y.pixels ? sum : 0.0f);
  }
}
