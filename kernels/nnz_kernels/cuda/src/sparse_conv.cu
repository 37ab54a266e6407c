// Convolutions and linear layers whose weights are 1 x B blocks of output channels.
//
// y[c, q] = ending(sum over blocks k of row c / B: weights[k][c % B] * x[base[q] + offset[k]])
//
// A column of the weight matrix (input channel, tap) is one constant offset into the
// planes of x, whatever the stride, because base[q] is where pixel q's window begins.
//
// One warp makes one block row of 32 * V pixels: every lane holds B x V sums, so a pixel
// that is loaded is used B times and a weight V times. With `parts` > 1, that many warps
// share the blocks of a row and add their sums in a tree of fixed shape: small images have
// few pixels and long rows. Rows come in order of falling length, so that warps of one
// block finish together (Gale et al., "Sparse GPU kernels for deep learning", SC20).
//
// Bound: the first-level cache gives 32 floats a clock, V * (1 + (1 + B) / (32 V)) of them
// for B * V multiply-adds of 32 lanes; at B = 1 that is a quarter of the peak.
#include "layer.cuh"

constexpr int WARPS = 8;
constexpr int RUN = 32;  // blocks that a warp stages at a time

struct Blocks {
  const int* order;     // block rows, the longest first
  const int* channels;  // first output channel of a block row, and how many it has
  const int* indptr;
  const int* offsets;
  const void* values;   // B a block, elements as of the planes
  int rows;
  int parts;
};

template <typename T, int B, int V>
__device__ __forceinline__ void accumulate(float (&sums)[B][V], const int (&from)[V],
                                           const Blocks& a, const T* __restrict__ x,
                                           int begin, int end, int* taps, float* weights) {
  const T* values = static_cast<const T*>(a.values);
  const int lane = threadIdx.x;
  for (int start = begin; start < end; start += RUN) {
    const int count = min(RUN, end - start);
    __syncwarp();
    if (lane < count) taps[lane] = streamed(a.offsets + start + lane);
    for (int i = lane; i < count * B; i += 32)
      weights[i] = widened(values[static_cast<i64>(start) * B + i]);
    __syncwarp();
#pragma unroll 4
    for (int k = 0; k < count; ++k) {
      float pixels[V];
#pragma unroll
      for (int v = 0; v < V; ++v) pixels[v] = widened(x[from[v] + taps[k]]);
#pragma unroll
      for (int b = 0; b < B; ++b) {
        const float weight = weights[k * B + b];
#pragma unroll
        for (int v = 0; v < V; ++v) sums[b][v] = fmaf(weight, pixels[v], sums[b][v]);
      }
    }
  }
}

// Add the sums of all parts of a row into those of its part 0.
template <int B, int V>
__device__ __forceinline__ void gather_parts(float (&sums)[B][V], int row, int part,
                                             int parts, float* shared) {
  for (int half = parts / 2; half > 0; half /= 2) {
    float* slot = shared + (row * (parts / 2) + part % half) * (B * V * 32) + threadIdx.x;
    __syncthreads();
    if (part >= half && part < 2 * half)
      for (int b = 0; b < B; ++b)
        for (int v = 0; v < V; ++v) slot[(b * V + v) * 32] = sums[b][v];
    __syncthreads();
    if (part < half)
      for (int b = 0; b < B; ++b)
        for (int v = 0; v < V; ++v) sums[b][v] += slot[(b * V + v) * 32];
  }
}

template <typename T, int B, int V>
__global__ void __launch_bounds__(32 * WARPS, 2)
    conv_block(Plane y, const int* __restrict__ base, Blocks a, const T* __restrict__ x,
               Ending end, T* out) {
  __shared__ int taps[WARPS][RUN];
  __shared__ float weights[WARPS][RUN * B];
  __shared__ float shared[WARPS / 2 * B * V * 32];
  const int warp = threadIdx.y, part = warp % a.parts;
  // Rows and pixels share one axis of the grid: either alone may pass the limit of others.
  const int tiles = (y.domain + 32 * V - 1) / (32 * V);
  const int line = blockIdx.x / tiles * (WARPS / a.parts) + warp / a.parts;
  const int tile = blockIdx.x % tiles * (32 * V);
  const bool works = line < a.rows;
  const int row = works ? a.order[line] : 0;

  float sums[B][V] = {};
  if (works && tile < y.pixels) {
    int from[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int q = tile + 32 * v + threadIdx.x;
      from[v] = base[q < y.pixels ? q : 0];
    }
    const int first = a.indptr[row], blocks = a.indptr[row + 1] - first;
    const int share = (blocks + a.parts - 1) / a.parts;
    const int begin = first + min(part * share, blocks);
    const int stop = first + min((part + 1) * share, blocks);
    accumulate<T, B, V>(sums, from, a, x, begin, stop, taps[warp], weights[warp]);
  }
  gather_parts<B, V>(sums, warp / a.parts, part, a.parts, shared);
  if (!works || part != 0) return;
  const int channel = a.channels[2 * row], count = a.channels[2 * row + 1];
#pragma unroll
  for (int b = 0; b < B; ++b) {
    if (b >= count) break;
#pragma unroll
    for (int v = 0; v < V; ++v)
      finish(y, end, out, channel + b, tile + 32 * v + threadIdx.x, sums[b][v]);
  }
  if (end.activation == IDENTITY) return;
#pragma unroll 1
  for (int i = 0; i < count * V; ++i)
    activate(y, end, out, channel + i / V, tile + 32 * (i % V) + threadIdx.x);
}
