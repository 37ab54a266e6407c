// What transformers do between their linear layers; tokens are pixels, features channels.
#include "planes.cuh"
#include "reduce.cuh"

// Normalise every token over its channels: 8 tokens a block, each by 128 threads, since there
// are few tokens and a thread should not wait for many channels. Mean and variance in two
// passes, around the mean, as the definition says. A thread keeps its first channels, which
// are all of them up to 1024, and reads the others again in each pass.
constexpr int NORM_TOKENS = 8, NORM_LANES = 128, NORM_WARPS = NORM_TOKENS * NORM_LANES / 32;
constexpr int NORM_KEPT = 8;

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
  const i64 at = q < plane.domain ? plane.places[q] : 0;
  const int more = threadIdx.y + NORM_KEPT * NORM_LANES;
  float kept[NORM_KEPT], mean = 0.0f, variance = 0.0f;
#pragma unroll
  for (int k = 0; k < NORM_KEPT; ++k) {
    const int c = threadIdx.y + k * NORM_LANES;
    kept[k] = is_token && c < channels ? widened(x[c * plane.ld + at]) : 0.0f;
  }
#pragma unroll
  for (int k = 0; k < NORM_KEPT; ++k) mean += kept[k];
  if (is_token)
    for (int c = more; c < channels; c += NORM_LANES) mean += widened(x[c * plane.ld + at]);
  mean = over_lanes(shared, mean) / static_cast<float>(channels);
#pragma unroll
  for (int k = 0; k < NORM_KEPT; ++k) {
    const float centred = kept[k] - mean;
    if (threadIdx.y + k * NORM_LANES < channels) variance = fmaf(centred, centred, variance);
  }
  if (is_token)
    for (int c = more; c < channels; c += NORM_LANES) {
      const float centred = widened(x[c * plane.ld + at]) - mean;
      variance = fmaf(centred, centred, variance);
    }
  variance = over_lanes(shared, variance) / static_cast<float>(channels);
  const float scale = 1.0f / sqrtf(variance + eps);
  const auto write = [&](int c, float value) {
    if (q >= places_of(plane, c)) return;
    const float normal = fmaf((value - mean) * scale, gamma[c], beta[c]);
    y[c * plane.ld + at] = narrowed<T>(is_token ? normal : 0.0f);
  };
#pragma unroll
  for (int k = 0; k < NORM_KEPT; ++k) {
    const int c = threadIdx.y + k * NORM_LANES;
    if (c < channels) write(c, kept[k]);
  }
  // y may be x: who reads a value again is who writes it.
  for (int c = more; c < channels; c += NORM_LANES)
    write(c, is_token ? widened(x[c * plane.ld + at]) : 0.0f);
}

// Attention in one pass over the keys: the sums of a query are scaled anew whenever a
// larger score comes (Milakov and Gimelshein, "Online normalizer calculation for softmax",
// 2018; Dao et al., "FlashAttention", 2022). A block has 32 queries of a head and up to VD
// features of its values.
// A warp has QUERIES / GROUPS queries that follow each other, and later VD / GROUPS
// features: what a lane wants of them is one wide read that all lanes share.
constexpr int QUERIES = 32, KEYS = 32, SLICE = 64, GROUPS = 8;

struct Heads {
  i64 q_ld, k_ld, v_ld;
  int lead_q, lead_k, lead_v, queries, keys, heads, head_dim, value_dim;
  i64 mask_strides[4];  // in floats, 0 where the mask is broadcast
  float scale;
  int batch;
};

// scores[query][key] of a tile, for all head_dim features, in slices. The queries of a
// single slice stay from tile to tile.
template <typename T>
__device__ __forceinline__ void score(const Heads& a, const T* q, const T* k, int query0,
                                      int key0, float (&left)[SLICE][QUERIES],
                                      float (&right)[SLICE][KEYS],
                                      float (&sums)[QUERIES / GROUPS]) {
  const int lane = threadIdx.x, group = threadIdx.y;
  const bool is_new = key0 == 0 || a.head_dim > SLICE;
  for (int i = 0; i < QUERIES / GROUPS; ++i) sums[i] = 0.0f;
  for (int d0 = 0; d0 < a.head_dim; d0 += SLICE) {
    const int last = min(SLICE, a.head_dim - d0);
    __syncthreads();
#pragma unroll 4
    for (int d = group; d < last; d += GROUPS) {
      const bool has_q = query0 + lane < a.queries, has_k = key0 + lane < a.keys;
      if (is_new) left[d][lane] = has_q ? widened(q[(d0 + d) * a.q_ld + query0 + lane]) : 0.0f;
      right[d][lane] = has_k ? widened(k[(d0 + d) * a.k_ld + key0 + lane]) : 0.0f;
    }
    __syncthreads();
#pragma unroll 4
    for (int d = 0; d < last; ++d) {
      const float4 some = *reinterpret_cast<const float4*>(&left[d][group * 4]);
      const float key = right[d][lane];
      sums[0] = fmaf(some.x, key, sums[0]);
      sums[1] = fmaf(some.y, key, sums[1]);
      sums[2] = fmaf(some.z, key, sums[2]);
      sums[3] = fmaf(some.w, key, sums[3]);
    }
  }
}

template <typename T, int VD>
__global__ void __launch_bounds__(KEYS * GROUPS, 3)
    attention(Plane y, Heads a, const T* __restrict__ q, const T* __restrict__ k,
              const T* __restrict__ v, const float* __restrict__ mask, T* __restrict__ out) {
  static_assert(QUERIES / GROUPS == 4 && KEYS % 4 == 0, "reads are four wide");
  __shared__ __align__(16) float left[SLICE][QUERIES], right[SLICE][KEYS];
  __shared__ float weights[KEYS][QUERIES + 1];
  __shared__ __align__(16) float values[VD][KEYS];
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
#pragma unroll
    for (int d = group; d < VD; d += GROUPS)
      values[d][lane] = d < features && key0 + lane < a.keys
                            ? widened(v[(v0 + d) * a.v_ld + key0 + lane])
                            : 0.0f;
#pragma unroll
    for (int i = 0; i < QUERIES / GROUPS; ++i) {
      const int query = query0 + group * 4 + i, key = key0 + lane;
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
      weights[lane][group * 4 + i] = weight;
      if (lane == 0) rescale[group * 4 + i] = factor;
    }
    __syncthreads();
    // From here a lane is a query and a group every 8th feature of the values.
    const int last = min(KEYS, a.keys - key0);
#pragma unroll
    for (int i = 0; i < VD / GROUPS; ++i) mixed[i] *= rescale[lane];
    for (int key = 0; key < last; key += 4) {
      // Of keys that are not there the weight is zero, and so is the value.
      float four[4];
      for (int j = 0; j < 4; ++j) four[j] = weights[key + j][lane];
#pragma unroll
      for (int i = 0; i < VD / GROUPS; ++i) {
        const float4 some = *reinterpret_cast<const float4*>(&values[group + i * GROUPS][key]);
        mixed[i] = fmaf(four[0], some.x, mixed[i]);
        mixed[i] = fmaf(four[1], some.y, mixed[i]);
        mixed[i] = fmaf(four[2], some.z, mixed[i]);
        mixed[i] = fmaf(four[3], some.w, mixed[i]);
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < QUERIES / GROUPS; ++i)
    if (lane == 0) total[group * 4 + i] = sum[i];
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
