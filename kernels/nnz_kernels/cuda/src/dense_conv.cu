// Dense convolutions as one product without a copied matrix of columns, and depthwise ones.
//
// A block makes BM output channels of BN pixels. Steps of DEPTH columns are staged in
// shared memory: weights as they lie (column-major), pixels gathered through the table of
// offsets. Loads of the next step are in registers while this one is multiplied. With
// `parts` > 1 the columns are shared out over blockIdx.z and `conv_finish` adds the sums
// in order: small images alone do not fill a GPU.
#include "layer.cuh"

constexpr int DEPTH = 16;

struct Columns {
  const int* offsets;    // of each column of each group
  const float* weights;  // group, column, output channel of the group up to `pitch`
  int groups;
  int channels;  // outputs of a group
  int pitch;
  int columns;   // of a group
  int parts;
  int unused;
};

// Columns that part `part` adds: whole steps.
__device__ __forceinline__ int2 columns_of(const Columns& a, int part) {
  const int steps = (a.columns + DEPTH - 1) / DEPTH;
  const int share = (steps + a.parts - 1) / a.parts;
  return make_int2(min(part * share * DEPTH, a.columns),
                   min((part + 1) * share * DEPTH, a.columns));
}

template <int BM, int BN, int TM, int TN>
__global__ void __launch_bounds__((BM / TM) * (BN / TN), 2)
    conv_dense(Plane y, const int* __restrict__ base, Columns a, const float* __restrict__ x,
               Ending end, float* out, float* partial) {
  constexpr int THREADS = (BM / TM) * (BN / TN);
  constexpr int LOADS_A = BM * DEPTH / THREADS, LOADS_B = BN * DEPTH / THREADS;
  static_assert(THREADS % BM == 0 && THREADS % BN == 0, "a thread keeps its channel and pixel");
  __shared__ float weights[DEPTH][BM];
  __shared__ float pixels[DEPTH][BN];
  const int thread = threadIdx.x, group = blockIdx.z / a.parts, part = blockIdx.z % a.parts;
  const int tile_m = blockIdx.y * BM, tile_q = blockIdx.x * BN;
  const float* packed = a.weights + static_cast<i64>(group) * a.columns * a.pitch;
  const int* offsets = a.offsets + static_cast<i64>(group) * a.columns;
  const int2 range = columns_of(a, part);

  float sums[TM][TN] = {};
  float next_a[LOADS_A], next_b[LOADS_B];
  const int m_a = thread % BM, k_a = thread / BM, q_b = thread % BN, k_b = thread / BN;
  const bool has_a = tile_m + m_a < a.pitch, has_b = tile_q + q_b < y.pixels;
  const float* from = x + (has_b ? base[tile_q + q_b] : 0);
  const auto fetch = [&](int column) {
#pragma unroll
    for (int i = 0; i < LOADS_A; ++i) {
      const int k = column + k_a + i * (THREADS / BM);
      const bool inside = has_a && k < range.y;
      next_a[i] = inside ? packed[static_cast<i64>(k) * a.pitch + tile_m + m_a] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < LOADS_B; ++i) {
      const int k = column + k_b + i * (THREADS / BN);
      next_b[i] = has_b && k < range.y ? from[offsets[k]] : 0.0f;
    }
  };
  const int m0 = thread / (BN / TN) * TM, q0 = thread % (BN / TN);
  if (tile_q < y.pixels) {
    fetch(range.x);
    for (int column = range.x; column < range.y; column += DEPTH) {
#pragma unroll
      for (int i = 0; i < LOADS_A; ++i)
        weights[k_a + i * (THREADS / BM)][m_a] = next_a[i];
#pragma unroll
      for (int i = 0; i < LOADS_B; ++i)
        pixels[k_b + i * (THREADS / BN)][q_b] = next_b[i];
      __syncthreads();
      if (column + DEPTH < range.y) fetch(column + DEPTH);
#pragma unroll 4
      for (int k = 0; k < DEPTH; ++k) {
        float left[TM], right[TN];
#pragma unroll
        for (int i = 0; i < TM; ++i) left[i] = weights[k][m0 + i];
#pragma unroll
        for (int j = 0; j < TN; ++j) right[j] = pixels[k][q0 + j * (BN / TN)];
#pragma unroll
        for (int i = 0; i < TM; ++i)
#pragma unroll
          for (int j = 0; j < TN; ++j) sums[i][j] = fmaf(left[i], right[j], sums[i][j]);
      }
      __syncthreads();
    }
  }
#pragma unroll
  for (int i = 0; i < TM; ++i) {
    if (tile_m + m0 + i >= a.channels) break;
    const int channel = group * a.channels + tile_m + m0 + i;
#pragma unroll
    for (int j = 0; j < TN; ++j) {
      const int q = tile_q + q0 + j * (BN / TN);
      if (a.parts == 1) {
        finish(y, end, out, channel, q, sums[i][j]);
      } else if (q < y.pixels) {
        const i64 line = static_cast<i64>(part) * y.channels + channel;
        partial[line * y.pixels + q] = sums[i][j];
      }
    }
  }
  if (end.activation == IDENTITY || a.parts > 1) return;
#pragma unroll 1
  for (int i = 0; i < TM * TN; ++i) {
    const int channel = tile_m + m0 + i / TN;
    if (channel < a.channels)
      activate(y, end, out, group * a.channels + channel, tile_q + q0 + i % TN * (BN / TN));
  }
}

__global__ void __launch_bounds__(256)
    conv_finish(Plane y, int parts, const float* __restrict__ partial, Ending end, float* out) {
  const int q = blockIdx.x * blockDim.x + threadIdx.x;
  for (int channel = blockIdx.y; channel < y.channels; channel += gridDim.y) {
    float sum = 0.0f;
    if (q < y.pixels)
      for (int part = 0; part < parts; ++part)
        sum += partial[(static_cast<i64>(part) * y.channels + channel) * y.pixels + q];
    finish(y, end, out, channel, q, sum);
    if (end.activation != IDENTITY) activate(y, end, out, channel, q);
  }
}

// What follows a product of a library: sums lie in rows as the planes do, in float32.
template <typename T>
__global__ void __launch_bounds__(256)
    conv_ending(Plane y, const float* __restrict__ sums, Ending end, T* out) {
  const int q = blockIdx.x * blockDim.x + threadIdx.x;
  for (int channel = blockIdx.y; channel < y.channels; channel += gridDim.y) {
    const float sum = q < y.pixels ? sums[place(y, channel, q)] : 0.0f;
    finish(y, end, out, channel, q, sum);
    if (end.activation != IDENTITY) activate(y, end, out, channel, q);
  }
}

// One input channel for every output channel: a thread makes V pixels.
template <typename T, int V>
__global__ void __launch_bounds__(128)
    conv_depthwise(Plane y, const int* __restrict__ base, int taps,
                   const int* __restrict__ offsets, const float* __restrict__ weights,
                   i64 x_ld, int multiplier, const T* __restrict__ x, Ending end, T* out) {
  const int tile = blockIdx.x * (blockDim.x * V) + threadIdx.x;
  int from[V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const int q = tile + v * blockDim.x;
    from[v] = base[q < y.pixels ? q : 0];
  }
  for (int channel = blockIdx.y; channel < y.channels; channel += gridDim.y) {
    const T* plane = x + channel / multiplier * x_ld;
    const float* row = weights + static_cast<i64>(channel) * taps;
    float sums[V] = {};
    for (int tap = 0; tap < taps; ++tap) {
      const float weight = row[tap];
      const int offset = offsets[tap];
#pragma unroll
      for (int v = 0; v < V; ++v) sums[v] = fmaf(weight, widened(plane[from[v] + offset]), sums[v]);
    }
#pragma unroll
    for (int v = 0; v < V; ++v)
      finish(y, end, out, channel, tile + v * blockDim.x, sums[v]);
    if (end.activation != IDENTITY)
#pragma unroll 1
      for (int v = 0; v < V; ++v) activate(y, end, out, channel, tile + v * blockDim.x);
  }
}
