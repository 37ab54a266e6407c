// Products of a CSR matrix with dense vectors and row-major blocks of vectors.
#include "reduce.cuh"

template <typename T, typename I>
__device__ __forceinline__ T dot_of_row(const I* __restrict__ indices, const T* __restrict__ data,
                                        const T* __restrict__ x, I begin, I end, int lane,
                                        int step) {
  T sum = 0;
  for (I p = begin + lane; p < end; p += step) {
    const T value = streamed(data + p);
    sum = fma(value, x[streamed(indices + p)], sum);
  }
  return sum;
}

// LANES threads a row: for rows of about equal length (Bell and Garland, "Implementing
// sparse matrix-vector multiplication on throughput-oriented processors", SC09).
// Bound: 8 bytes an entry (float32, int32), read once.
template <typename T, typename I, int LANES>
__global__ void __launch_bounds__(256)
    spmv_csr(i64 rows, const I* __restrict__ indptr, const I* __restrict__ indices,
             const T* __restrict__ data, const T* __restrict__ x, T* __restrict__ y) {
  const i64 thread = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  const i64 row = thread / LANES;
  const int lane = thread % LANES;
  T sum = 0;
  if (row < rows)
    sum = dot_of_row(indices, data, x, indptr[row], indptr[row + 1], lane, LANES);
  sum = warp_sum(sum, LANES);
  if (row < rows && lane == 0) y[row] = sum;
}

// Row ends and entries are merged into one sequence that is cut into equal tiles, so that
// neither long nor empty rows unbalance anything (Merrill and Garland, "Merge-based
// parallel sparse matrix-vector multiplication", SC16). A block takes one tile; what it has
// of a row that ends in a later tile goes to `carry`, which `spmv_carry` adds.
constexpr int ITEMS = 1024;

// How many rows end before the diagonal of the merge: a binary search.
template <typename I>
__device__ __forceinline__ i64 rows_before(const I* __restrict__ indptr, i64 rows, i64 nnz,
                                           i64 diagonal) {
  i64 low = diagonal > nnz ? diagonal - nnz : 0;
  i64 high = diagonal < rows ? diagonal : rows;
  while (low < high) {
    const i64 middle = (low + high) / 2;
    if (indptr[middle + 1] <= diagonal - middle - 1) low = middle + 1;
    else high = middle;
  }
  return low;
}

template <typename T, typename I>
__global__ void __launch_bounds__(256)
    spmv_merge(i64 rows, i64 nnz, const I* __restrict__ indptr, const I* __restrict__ indices,
               const T* __restrict__ data, const T* __restrict__ x, T* __restrict__ y,
               i64* __restrict__ carry_row, T* __restrict__ carry) {
  __shared__ T products[ITEMS];
  __shared__ i64 corner[2];
  const i64 tile = blockIdx.x, start = tile * ITEMS;
  const i64 stop = start + ITEMS < rows + nnz ? start + ITEMS : rows + nnz;
  if (threadIdx.x < 2)
    corner[threadIdx.x] = rows_before(indptr, rows, nnz, threadIdx.x == 0 ? start : stop);
  __syncthreads();
  const i64 row0 = corner[0], row1 = corner[1];
  const i64 entry0 = start - row0, entry1 = stop - row1;
  for (i64 p = entry0 + threadIdx.x; p < entry1; p += blockDim.x)
    products[p - entry0] = streamed(data + p) * x[streamed(indices + p)];
  __syncthreads();
  // Rows row0 .. row1 - 1 end here; of row1 there may be a beginning. As many lanes work
  // on a row as the rows leave.
  int lanes = 32;
  while (lanes > 1 && (row1 - row0 + 1) * lanes > 2 * static_cast<i64>(blockDim.x)) lanes /= 2;
  const int lane = threadIdx.x % lanes, groups = blockDim.x / lanes;
  const i64 rounds = (row1 - row0 + groups) / groups;
  for (i64 round = 0; round < rounds; ++round) {
    const i64 row = row0 + round * groups + threadIdx.x / lanes;
    const bool real = row <= row1;
    const i64 from = real && row > row0 ? indptr[row] : entry0;
    const i64 to = real && row < row1 ? indptr[row + 1] : entry1;
    T sum = 0;
    if (real)
      for (i64 p = from + lane; p < to; p += lanes) sum += products[p - entry0];
    for (int step = lanes / 2; step > 0; step /= 2)
      sum += __shfl_xor_sync(WARP, sum, step);
    if (real && lane == 0) {
      if (row < row1) {
        y[row] = sum;
      } else {
        carry_row[tile] = row;
        carry[tile] = sum;
      }
    }
  }
}

// Add what earlier tiles left of a row, in order: one thread a row that has any.
template <typename T>
__global__ void __launch_bounds__(256)
    spmv_carry(i64 rows, i64 tiles, const i64* __restrict__ carry_row,
               const T* __restrict__ carry, T* __restrict__ y) {
  const i64 tile = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (tile >= tiles) return;
  const i64 row = carry_row[tile];
  if (row >= rows || (tile > 0 && carry_row[tile - 1] == row)) return;
  T sum = 0;
  for (i64 i = tile; i < tiles && carry_row[i] == row; ++i) sum += carry[i];
  y[row] = sum + y[row];
}

// Few columns: 32 / K groups of lanes share the entries of a row, K lanes its columns.
template <typename T, typename I, int K>
__global__ void __launch_bounds__(256)
    spmm_narrow(i64 rows, int k, const I* __restrict__ indptr, const I* __restrict__ indices,
                const T* __restrict__ data, const T* __restrict__ x, T* __restrict__ y) {
  const i64 row = static_cast<i64>(blockIdx.x) * blockDim.y + threadIdx.y;
  const int column = threadIdx.x % K, group = threadIdx.x / K;
  const bool real = column < k;
  if (row >= rows) return;
  T sum = 0;
  const I end = indptr[row + 1];
  for (I p = indptr[row] + group; p < end; p += 32 / K) {
    const T value = data[p];
    const i64 from = static_cast<i64>(indices[p]) * k + column;
    sum = fma(value, real ? x[from] : T(0), sum);
  }
  for (int step = K; step < 32; step *= 2) sum += __shfl_xor_sync(WARP, sum, step);
  if (real && group == 0) y[row * k + column] = sum;
}

// Many columns: a warp makes 32 V of one row. Entries are staged 32 at a time, rows come in
// the order of `order`, the longest first (Gale et al., "Sparse GPU kernels for deep
// learning", SC20).
constexpr int WARPS = 4, RUN = 32;

template <typename T, typename I, int V>
__global__ void __launch_bounds__(32 * WARPS)
    spmm_wide(i64 rows, int k, const int* __restrict__ order, const I* __restrict__ indptr,
              const I* __restrict__ indices, const T* __restrict__ data,
              const T* __restrict__ x, T* __restrict__ y) {
  __shared__ I columns[WARPS][RUN];
  __shared__ T values[WARPS][RUN];
  const i64 line = static_cast<i64>(blockIdx.x) * WARPS + threadIdx.y;
  if (line >= rows) return;
  const i64 row = order == nullptr ? line : order[line];
  const int first = blockIdx.y * 32 * V + threadIdx.x, warp = threadIdx.y;
  T sums[V] = {};
  const I end = indptr[row + 1];
  for (I start = indptr[row]; start < end; start += RUN) {
    const int count = end - start < RUN ? static_cast<int>(end - start) : RUN;
    __syncwarp();
    if (static_cast<int>(threadIdx.x) < count) {
      columns[warp][threadIdx.x] = streamed(indices + start + threadIdx.x);
      values[warp][threadIdx.x] = streamed(data + start + threadIdx.x);
    }
    __syncwarp();
#pragma unroll 4
    for (int i = 0; i < count; ++i) {
      const T* from = x + static_cast<i64>(columns[warp][i]) * k;
      const T value = values[warp][i];
#pragma unroll
      for (int v = 0; v < V; ++v)
        if (first + 32 * v < k) sums[v] = fma(value, from[first + 32 * v], sums[v]);
    }
  }
#pragma unroll
  for (int v = 0; v < V; ++v)
    if (first + 32 * v < k) y[row * k + first + 32 * v] = sums[v];
}

// Length of the longest row, and the length of every row for sorting.
template <typename I>
__global__ void __launch_bounds__(256)
    row_lengths(i64 rows, const I* __restrict__ indptr, u64* __restrict__ keys,
                int* __restrict__ numbers, u64* __restrict__ longest) {
  const i64 row = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  const u64 length = indptr[row + 1] - indptr[row];
  keys[row] = 0xffffffffULL - (length < 0xffffffffULL ? length : 0xffffffffULL);
  numbers[row] = static_cast<int>(row);
  atomicMax(longest, length);
}
