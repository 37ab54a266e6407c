// Convolutions on tensor cores: blocks of 16, 8 or 4 output channels, or all of them dense;
// elements of 16 bits, sums in float32.
//
// A step is 16 columns: their pixels are gathered into shared memory, a row a column, and
// `ldmatrix` turns them into fragments. With 16 channels the weights are the 16 x 16
// operand; with 8 or 4 the pixels are, and the channels lie on the side of 8 (as in
// Castro et al., "Probing the efficacy of hardware-aware weight pruning", CLASP, 2022), so
// that half as much is padding. Weights were laid out as fragments when they were packed:
// a warp reads them in one piece.
//
// Bound: 2 * 64 bytes of pixels a column and warp from the first-level cache, for 64 B
// multiply-adds; the tensor cores are never the limit.
#include "layer.cuh"

constexpr int STEP = 16;  // columns of a fragment
constexpr int SPAN = 64;  // pixels of a warp
constexpr int ROW = SPAN + 8;  // of shared memory: eight rows lie in different banks
constexpr int WARPS = 4;

struct Fragments {
  const int* order;     // block rows, the longest first
  const int* channels;  // first output channel of a block row, and how many it has
  const int* indptr;    // in steps
  const int* offsets;   // STEP a step; -1 where there is no column
  const void* values;   // fragments
  int rows;
  int unused;
};

// Two registers of `from`, which holds the fragments of 8 or of 4 channels.
template <int B>
__device__ __forceinline__ void load_few(unsigned (&to)[2], const void* from, int step) {
  constexpr int LANES = 4 * B;
  const i64 at = static_cast<i64>(step) * LANES + threadIdx.x;
  const bool has = static_cast<int>(threadIdx.x) < LANES;
  const uint2 found = has ? static_cast<const uint2*>(from)[at] : make_uint2(0u, 0u);
  to[0] = found.x;
  to[1] = found.y;
}

__device__ __forceinline__ void load_many(unsigned (&to)[4], const void* from, int step) {
  const i64 at = static_cast<i64>(step) * 32 + threadIdx.x;
  const uint4 found = static_cast<const uint4*>(from)[at];
  to[0] = found.x;
  to[1] = found.y;
  to[2] = found.z;
  to[3] = found.w;
}

// Add one step to the sums of 16 channels: eight tiles of 8 pixels.
template <typename T>
__device__ __forceinline__ void multiply_many(float (&sums)[8][4], const T (*tile)[ROW],
                                              const unsigned (&weights)[4]) {
  const int lane = threadIdx.x;
#pragma unroll
  for (int n = 0; n < 8; n += 2) {
    unsigned both[4];
    load_transposed(both, &tile[lane % STEP][(n + lane / STEP) * 8]);
    const unsigned first[2] = {both[0], both[1]}, second[2] = {both[2], both[3]};
    mma<T>(sums[n], weights, first);
    mma<T>(sums[n + 1], weights, second);
  }
}

// The same for up to 8 channels: four tiles of 16 pixels.
template <typename T>
__device__ __forceinline__ void multiply_few(float (&sums)[4][4], const T (*tile)[ROW],
                                             const unsigned (&weights)[2]) {
  const int lane = threadIdx.x;
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    unsigned pixels[4];
    const int row = lane / 16 * 8 + lane % 8, column = m * 16 + lane / 8 % 2 * 8;
    load_transposed(pixels, &tile[row][column]);
    mma<T>(sums[m], pixels, weights);
  }
}

// Where sum i of tile `tile` of a lane belongs: its channel and its pixel in the warp.
template <int B>
__device__ __forceinline__ int2 owner_of(int tile, int i) {
  const int lane = threadIdx.x, high = i / 2, low = i % 2;
  if (B == 16) return make_int2(lane / 4 + 8 * high, tile * 8 + lane % 4 * 2 + low);
  return make_int2(lane % 4 * 2 + low, tile * 16 + lane / 4 + 8 * high);
}

template <typename T, int B, int TILES>
__device__ __forceinline__ void finish_all(const Plane& y, const Ending& end, T* out, int channel,
                                           int count, int q0, const float (&sums)[TILES][4]) {
#pragma unroll
  for (int tile = 0; tile < TILES; ++tile)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int2 at = owner_of<B>(tile, i);
      if (at.x < count) finish(y, end, out, channel + at.x, q0 + at.y, sums[tile][i]);
    }
  if (end.activation == IDENTITY) return;
#pragma unroll 1
  for (int i = 0; i < TILES * 4; ++i) {
    const int2 at = owner_of<B>(i / 4, i % 4);
    if (at.x < count) activate(y, end, out, channel + at.x, q0 + at.y);
  }
}

template <typename T, int B>
__global__ void __launch_bounds__(32 * WARPS)
    conv_mma(Plane y, const int* __restrict__ base, Fragments a, const T* __restrict__ x,
             Ending end, T* out) {
  constexpr int TILES = B == 16 ? 8 : 4;
  __shared__ __align__(16) T staged[WARPS][STEP][ROW];
  const int lane = threadIdx.x, line = blockIdx.y * WARPS + threadIdx.y;
  const int q0 = blockIdx.x * SPAN;
  if (line >= a.rows) return;
  const int row = a.order[line];
  T(*tile)[ROW] = staged[threadIdx.y];
  float sums[TILES][4] = {};
  if (q0 < y.pixels) {
    const int first = q0 + lane, second = first + 32;
    const int from[2] = {base[first < y.pixels ? first : 0], base[second < y.pixels ? second : 0]};
    // Pixels of the next step are on their way while this one is multiplied.
    T next[STEP][2];
    const auto fetch = [&](int step) {
#pragma unroll
      for (int k = 0; k < STEP; ++k) {
        const int offset = a.offsets[step * STEP + k];
#pragma unroll
        for (int i = 0; i < 2; ++i)
          next[k][i] = offset < 0 ? narrowed<T>(0.0f) : x[from[i] + offset];
      }
    };
    const int last = a.indptr[row + 1];
    int step = a.indptr[row];
    if (step < last) fetch(step);
    for (; step < last; ++step) {
      __syncwarp();
#pragma unroll
      for (int k = 0; k < STEP; ++k) {
        tile[k][lane] = next[k][0];
        tile[k][lane + 32] = next[k][1];
      }
      __syncwarp();
      if (step + 1 < last) fetch(step + 1);
      if constexpr (B == 16) {
        unsigned weights[4];
        load_many(weights, a.values, step);
        multiply_many<T>(sums, tile, weights);
      } else {
        unsigned weights[2];
        load_few<B>(weights, a.values, step);
        multiply_few<T>(sums, tile, weights);
      }
    }
  }
  finish_all<T, B>(y, end, out, a.channels[2 * row], a.channels[2 * row + 1], q0, sums);
}

// Dense: the warps of a block share the pixels of a step, each has 16 channels of its own.
// Loads of the next step are in registers while this one is multiplied. `weights_of` gives
// the fragment of a row and step.
constexpr int MANY = 8;

template <typename T, typename WeightsOf>
__device__ __forceinline__ void multiply_dense(const Plane& y, const int* __restrict__ base,
                                               const Fragments& a, int steps,
                                               const T* __restrict__ x, const Ending& end, T* out,
                                               T (*tile)[ROW], WeightsOf weights_of) {
  constexpr int EACH = STEP * SPAN / (32 * MANY);
  const int thread = threadIdx.y * 32 + threadIdx.x, q0 = blockIdx.x * SPAN;
  const int group = blockIdx.z, line = blockIdx.y * MANY + threadIdx.y;
  const int lines = a.rows, row = group * lines + line;
  const bool works = line < lines;
  const int q = q0 + thread % SPAN, k0 = thread / SPAN;
  const T* from = x + base[q < y.pixels ? q : 0];
  const int* offsets = a.offsets + static_cast<i64>(group) * steps * STEP;
  float sums[8][4] = {};
  if (q0 < y.pixels) {
    T next[EACH];
    for (int step = -1; step < steps; ++step) {
      __syncthreads();
      if (step >= 0)
        for (int i = 0; i < EACH; ++i) tile[k0 + i * (STEP / EACH)][thread % SPAN] = next[i];
      __syncthreads();
      if (step + 1 < steps)
        for (int i = 0; i < EACH; ++i) {
          const int offset = offsets[(step + 1) * STEP + k0 + i * (STEP / EACH)];
          next[i] = offset < 0 ? narrowed<T>(0.0f) : from[offset];
        }
      if (step < 0 || !works) continue;
      unsigned weights[4];
      weights_of(weights, row * steps + step);
      multiply_many<T>(sums, tile, weights);
    }
  }
  if (works)
    finish_all<T, 16>(y, end, out, a.channels[2 * row], a.channels[2 * row + 1], q0, sums);
}

template <typename T>
__global__ void __launch_bounds__(32 * MANY)
    conv_mma_dense(Plane y, const int* __restrict__ base, Fragments a, int steps,
                   const T* __restrict__ x, Ending end, T* out) {
  __shared__ __align__(16) T tile[STEP][ROW];
  multiply_dense(y, base, a, steps, x, end, out, tile,
                 [&](unsigned (&to)[4], int at) { load_many(to, a.values, at); });
}

// Zeros anywhere: a fragment is four masks of 8 x 8 bits and the weights that are not zero,
// in the order in which lanes hold them; indptr says where a fragment's weights begin. A
// lane finds its two by counting the bits before them (Fan et al., "SpInfer: leveraging
// low-level sparsity for efficient large language model inference on GPUs", EuroSys 2025).
// It multiplies as many as the dense kernel, and reads (1 + 16 d) / 16 of its bytes.
template <typename T>
__device__ __forceinline__ void decode(unsigned (&to)[4], const Fragments& a,
                                       const u64* __restrict__ masks, int at) {
  const unsigned short* values = static_cast<const unsigned short*>(a.values) + a.indptr[at];
  const int bit = 2 * threadIdx.x;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const u64 mask = masks[static_cast<i64>(at) * 4 + i];
    const int before = __popcll(mask & ((u64{1} << bit) - 1));
    const bool low = mask >> bit & 1, high = mask >> (bit + 1) & 1;
    const unsigned first = low ? values[before] : 0u;
    const unsigned second = high ? values[before + low] : 0u;
    to[i] = first | second << 16;
    values += __popcll(mask);
  }
}

template <typename T>
__global__ void __launch_bounds__(32 * MANY)
    conv_mma_bitmap(Plane y, const int* __restrict__ base, Fragments a,
                    const u64* __restrict__ masks, int steps, const T* __restrict__ x,
                    Ending end, T* out) {
  __shared__ __align__(16) T tile[STEP][ROW];
  multiply_dense(y, base, a, steps, x, end, out, tile,
                 [&](unsigned (&to)[4], int at) { decode<T>(to, a, masks, at); });
}
