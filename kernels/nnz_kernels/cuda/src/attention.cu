// What transformers do between their linear layers; tokens are pixels, features channels.
#include "planes.cuh"
#include "reduce.cuh"

// Normalise every token over its channels: 8 tokens a block, each by 128 threads, since there
// are few tokens and a thread should not wait for many channels. Mean and variance in two
// passes, around the mean, as the definition says.
constexpr int NORM_TOKENS = 8, NORM_LANES = 128, NORM_WARPS = NORM_TOKENS * NORM_LANES / 32;
constexpr int NORM_AHEAD = 4;

// The sum over the threads of a token.
__device__ __forceinline__ float over_lanes(float (&shared)[NORM_WARPS][NORM_TOKENS],
                                            float value) {
  for (int step = NORM_TOKENS; step < 32; step *= 2)
    value += __shfl_xor_sync(WARP, value, step);
  const int lanes = 32 / NORM_TOKENS;
  __syncthreads();
  if (threadIdx.y % lanes == 0) shared[threadIdx.y / lanes][threadIdx.x] = value;
  __syncthreads();
  float sum = 0.0f;
  for (int i = 0; i < NORM_WARPS; ++i) sum += shared[i][threadIdx.x];
  return sum;
}

template <typename T>
__global__ void __launch_bounds__(NORM_TOKENS * NORM_LANES)
    layer_norm_planes(Plane plane, float eps, const float* __restrict__ gamma,
                      const float* __restrict__ beta, const T* x, T* y) {
  __shared__ float shared[NORM_WARPS][NORM_TOKENS];
  const int q = blockIdx.x * NORM_TOKENS + threadIdx.x, channels = plane.channels;
  const bool is_token = q < plane.pixels;
  float mean = 0.0f, variance = 0.0f;
  if (is_token)
#pragma unroll 4
    for (int c = threadIdx.y; c < channels; c += NORM_LANES)
      mean += widened(x[place(plane, c, q)]);
  mean = over_lanes(shared, mean) / static_cast<float>(channels);
  if (is_token)
#pragma unroll 4
    for (int c = threadIdx.y; c < channels; c += NORM_LANES) {
      const float centred = widened(x[place(plane, c, q)]) - mean;
      variance = fmaf(centred, centred, variance);
    }
  variance = over_lanes(shared, variance) / static_cast<float>(channels);
  const float scale = 1.0f / sqrtf(variance + eps);
  // y may be x: some are read before any of them is written.
  for (int first = threadIdx.y; first < channels; first += NORM_AHEAD * NORM_LANES) {
    float some[NORM_AHEAD];
#pragma unroll
    for (int k = 0; k < NORM_AHEAD; ++k) {
      const int c = first + k * NORM_LANES;
      if (c < channels && is_token)
        some[k] = fmaf((widened(x[place(plane, c, q)]) - mean) * scale, gamma[c], beta[c]);
    }
#pragma unroll
    for (int k = 0; k < NORM_AHEAD; ++k) {
      const int c = first + k * NORM_LANES;
      if (c < channels && q < places_of(plane, c))
        y[place(plane, c, q)] = narrowed<T>(is_token ? some[k] : 0.0f);
    }
  }
}

// Attention in one pass over the keys: the sums of a query are scaled anew whenever a
// larger score comes (Milakov and Gimelshein, "Online normalizer calculation for softmax",
// 2018; Dao et al., "FlashAttention", 2022). A block has 32 queries of a head and up to VD
// features of its values.
constexpr int QUERIES = 32, KEYS = 32, SLICE = 32, GROUPS = 8;

struct Heads {
  i64 q_ld, k_ld, v_ld;
  int lead_q, lead_k, lead_v, queries, keys, heads, head_dim, value_dim;
  i64 mask_strides[4];  // in floats, 0 where the mask is broadcast
  float scale;
  int batch;
};

// scores[query][key] of a tile, for all head_dim features, in slices.
template <typename T>
__device__ __forceinline__ void score(const Heads& a, const T* q, const T* k, int query0,
                                      int key0, float (&left)[SLICE][QUERIES],
                                      float (&right)[SLICE][KEYS],
                                      float (&sums)[QUERIES / GROUPS]) {
  const int lane = threadIdx.x, group = threadIdx.y;
  for (int i = 0; i < QUERIES / GROUPS; ++i) sums[i] = 0.0f;
  for (int d0 = 0; d0 < a.head_dim; d0 += SLICE) {
    __syncthreads();
    for (int d = group; d < SLICE; d += GROUPS) {
      const bool real = d0 + d < a.head_dim;
      const bool has_q = real && query0 + lane < a.queries;
      const bool has_k = real && key0 + lane < a.keys;
      left[d][lane] = has_q ? widened(q[(d0 + d) * a.q_ld + query0 + lane]) : 0.0f;
      right[d][lane] = has_k ? widened(k[(d0 + d) * a.k_ld + key0 + lane]) : 0.0f;
    }
    __syncthreads();
    const int last = min(SLICE, a.head_dim - d0);
    for (int d = 0; d < last; ++d)
#pragma unroll
      for (int i = 0; i < QUERIES / GROUPS; ++i)
        sums[i] = fmaf(left[d][group + i * GROUPS], right[d][lane], sums[i]);
  }
}

template <typename T, int VD>
__global__ void __launch_bounds__(KEYS * GROUPS, 3)
    attention(Plane y, Heads a, const T* __restrict__ q, const T* __restrict__ k,
              const T* __restrict__ v, const float* __restrict__ mask, T* __restrict__ out) {
  __shared__ float left[SLICE][QUERIES], right[SLICE][KEYS];
  __shared__ float weights[KEYS][QUERIES + 1];
  __shared__ float values[KEYS][VD + 1];
  __shared__ float rescale[QUERIES], total[QUERIES];
  const int lane = threadIdx.x, group = threadIdx.y;
  const int query0 = blockIdx.x * QUERIES, v0 = blockIdx.y * VD;
  const int head = blockIdx.z % a.heads, item = blockIdx.z / a.heads;
  q += static_cast<i64>(head) * a.head_dim * a.q_ld + a.lead_q + static_cast<i64>(item) * a.queries;
  k += static_cast<i64>(head) * a.head_dim * a.k_ld + a.lead_k + static_cast<i64>(item) * a.keys;
  v += static_cast<i64>(head) * a.value_dim * a.v_ld + a.lead_v + static_cast<i64>(item) * a.keys;
  const int features = min(VD, a.value_dim - v0);

  float top[QUERIES / GROUPS], sum[QUERIES / GROUPS], mixed[VD / GROUPS];
  for (int i = 0; i < QUERIES / GROUPS; ++i) top[i] = -INF, sum[i] = 0.0f;
  for (int i = 0; i < VD / GROUPS; ++i) mixed[i] = 0.0f;

  for (int key0 = 0; key0 < a.keys; key0 += KEYS) {
    float scores[QUERIES / GROUPS];
    score(a, q, k, query0, key0, left, right, scores);
    for (int d = group; d < features; d += GROUPS)
      values[lane][d] =
          key0 + lane < a.keys ? widened(v[(v0 + d) * a.v_ld + key0 + lane]) : 0.0f;
#pragma unroll
    for (int i = 0; i < QUERIES / GROUPS; ++i) {
      const int query = query0 + group + i * GROUPS, key = key0 + lane;
      const bool real = query < a.queries && key < a.keys;
      float value = scores[i] * a.scale;
      if (mask != nullptr && real)
        value += mask[item * a.mask_strides[0] + head * a.mask_strides[1] +
                      query * a.mask_strides[2] + key * a.mask_strides[3]];
      if (key >= a.keys) value = -INF;
      // Of scores that are all minus infinity so far, the weights are zero, not NaN.
      const float highest = fmaxf(top[i], warp_max(value));
      const float shift = highest == -INF ? 0.0f : highest;
      const float weight = expf(value - shift);
      const float factor = top[i] == -INF ? 0.0f : expf(top[i] - shift);
      sum[i] = fmaf(sum[i], factor, warp_sum(weight));
      top[i] = highest;
      weights[lane][group + i * GROUPS] = weight;
      if (lane == 0) rescale[group + i * GROUPS] = factor;
    }
    __syncthreads();
    // From here a lane is a query and a group every 8th feature of the values.
    const int last = min(KEYS, a.keys - key0);
#pragma unroll
    for (int i = 0; i < VD / GROUPS; ++i) mixed[i] *= rescale[lane];
    for (int key = 0; key < last; ++key) {
      const float weight = weights[key][lane];
#pragma unroll
      for (int i = 0; i < VD / GROUPS; ++i)
        mixed[i] = fmaf(weight, values[key][group + i * GROUPS], mixed[i]);
    }
    __syncthreads();
  }
  for (int i = 0; i < QUERIES / GROUPS; ++i)
    if (lane == 0) total[group + i * GROUPS] = sum[i];
  __syncthreads();
  if (query0 + lane >= a.queries) return;
  const int at = item * a.queries + query0 + lane;
  for (int i = 0; i < VD / GROUPS; ++i) {
    const int feature = group + i * GROUPS;
    if (feature < features)
      out[place(y, head * a.value_dim + v0 + feature, at)] =
          narrowed<T>(mixed[i] / total[lane]);
  }
}
