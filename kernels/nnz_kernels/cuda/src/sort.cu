// Stable radix sort of 64-bit keys with 32-bit numbers, and exclusive sums.
#include "prims.cuh"

constexpr int THREADS = 256, ROUNDS = 8, TILE = THREADS * ROUNDS, DIGITS = 256;

// How often each digit occurs in each tile; counts lie digit by digit.
__global__ void __launch_bounds__(THREADS)
    sort_count(int n, int shift, const u64* __restrict__ keys, int* __restrict__ counts) {
  __shared__ int found[DIGITS];
  found[threadIdx.x] = 0;
  __syncthreads();
  for (int round = 0; round < ROUNDS; ++round) {
    const i64 i = static_cast<i64>(blockIdx.x) * TILE + round * THREADS + threadIdx.x;
    if (i < n) atomicAdd(&found[keys[i] >> shift & (DIGITS - 1)], 1);
  }
  __syncthreads();
  counts[static_cast<i64>(threadIdx.x) * gridDim.x + blockIdx.x] = found[threadIdx.x];
}

// Move every key to its place: where its digit's turn begins, plus how many came before.
__global__ void __launch_bounds__(THREADS)
    sort_move(int n, int shift, const u64* __restrict__ keys, const int* __restrict__ numbers,
              const int* __restrict__ starts, u64* __restrict__ keys_out,
              int* __restrict__ numbers_out) {
  constexpr int WARPS = THREADS / 32;
  __shared__ int next[DIGITS];
  __shared__ int counts[WARPS][DIGITS];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  next[threadIdx.x] = starts[static_cast<i64>(threadIdx.x) * gridDim.x + blockIdx.x];
  for (int round = 0; round < ROUNDS; ++round) {
    const i64 i = static_cast<i64>(blockIdx.x) * TILE + round * THREADS + threadIdx.x;
    const bool real = i < n;
    const u64 key = real ? keys[i] : 0;
    const int digit = static_cast<int>(key >> shift & (DIGITS - 1));
    for (int w = 0; w < WARPS; ++w) counts[w][threadIdx.x] = 0;
    __syncthreads();
    const u32 same = __match_any_sync(WARP, real ? digit : DIGITS);
    const int before = __popc(same & ((1u << lane) - 1));
    if (real && before == 0) counts[warp][digit] = __popc(same);
    __syncthreads();
    int base = next[threadIdx.x];
    for (int w = 0; w < WARPS; ++w) {
      const int count = counts[w][threadIdx.x];
      counts[w][threadIdx.x] = base;
      base += count;
    }
    next[threadIdx.x] = base;
    __syncthreads();
    if (real) {
      const int at = counts[warp][digit] + before;
      keys_out[at] = key;
      numbers_out[at] = numbers[i];
    }
    __syncthreads();
  }
}

// Sums of what comes before, within tiles; `totals` gets the sum of each tile.
constexpr int EACH = 4, SPAN = THREADS * EACH;

template <typename N>
__global__ void __launch_bounds__(THREADS)
    scan_tiles(i64 n, const N* x, N* y, N* __restrict__ totals) {
  __shared__ N sums[THREADS];
  const i64 start = static_cast<i64>(blockIdx.x) * SPAN + threadIdx.x * EACH;
  N values[EACH], sum = 0;
  for (int i = 0; i < EACH; ++i) {
    values[i] = start + i < n ? x[start + i] : 0;
    sum += values[i];
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  for (int reach = 1; reach < THREADS; reach *= 2) {
    const N left = static_cast<int>(threadIdx.x) >= reach ? sums[threadIdx.x - reach] : 0;
    __syncthreads();
    sums[threadIdx.x] += left;
    __syncthreads();
  }
  N before = sums[threadIdx.x] - sum;
  for (int i = 0; i < EACH; ++i) {
    if (start + i < n) y[start + i] = before;
    before += values[i];
  }
  if (threadIdx.x == THREADS - 1) totals[blockIdx.x] = before;
}

template <typename N>
__global__ void __launch_bounds__(THREADS) scan_add(i64 n, const N* __restrict__ starts, N* y) {
  const i64 start = static_cast<i64>(blockIdx.x) * SPAN + threadIdx.x * EACH;
  for (int i = 0; i < EACH; ++i)
    if (start + i < n) y[start + i] += starts[blockIdx.x];
}
