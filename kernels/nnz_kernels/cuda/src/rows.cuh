// Rows of sparse matrices: whose an entry is, where a column stands, sums.
#pragma once
#include "complex.cuh"

// Which row entry p belongs to: the last that begins at or before it.
template <typename I>
__device__ __forceinline__ i64 owner(const I* __restrict__ indptr, i64 count, i64 p) {
  i64 low = 0, high = count;
  while (high - low > 1) {
    const i64 middle = (low + high) / 2;
    if (static_cast<i64>(indptr[middle]) <= p) low = middle;
    else high = middle;
  }
  return low;
}

// The first place from `low` on, below `high`, that is not less than `wanted`.
template <typename I>
__device__ __forceinline__ i64 place_of(const I* __restrict__ sorted, i64 low, i64 high,
                                        I wanted) {
  while (low < high) {
    const i64 middle = (low + high) / 2;
    if (sorted[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

// Call finish(row, sum of value(p) over the row's entries p) for every row; a block has
// ROWS of them. Neighbours that together fit are brought into shared memory, where a thread
// adds up its row in stored order (CSR-Stream of Greathouse and Daga, "Efficient sparse
// matrix-vector multiplication on GPUs using the CSR storage format", SC14). A row longer
// than STAGED is added by the whole block, in a tree of fixed shape; a thread has AHEAD
// entries under way, since neighbours of a long row are often long too and nobody else helps.
// `add` says what a sum is, and where it begins.
constexpr int ROWS = 128, STAGED = 1024, AHEAD = 4;

template <typename S>
struct Plus {
  __device__ __forceinline__ S start() const { return S{}; }
  __device__ __forceinline__ S operator()(S a, S b) const { return added(a, b); }
};

template <typename S, typename I, typename Value, typename Finish, typename Add = Plus<S>>
__device__ __forceinline__ void sum_rows(i64 rows, const I* __restrict__ indptr, Value value,
                                         Finish finish, Add add = Add{}) {
  __shared__ S parts[STAGED];
  const i64 first = static_cast<i64>(blockIdx.x) * ROWS, row = first + threadIdx.x;
  const i64 stop = first + ROWS < rows ? first + ROWS : rows;
  const bool real = row < stop;
  const i64 begin = real ? indptr[row] : 0, end = real ? indptr[row + 1] : 0;
  i64 from = first;
  while (from < stop) {
    const i64 start = indptr[from];
    const int whole = __syncthreads_count(real && row >= from && end - start <= STAGED);
    const i64 to = from + (whole > 0 ? whole : 1), last = indptr[to];
    S sum = add.start();
    if (whole > 0) {
      for (i64 p = start + threadIdx.x; p < last; p += ROWS) parts[p - start] = value(p);
      __syncthreads();
      if (row >= from && row < to)
        for (i64 p = begin; p < end; ++p) sum = add(sum, parts[p - start]);
    } else {
      for (i64 p = start + threadIdx.x; p < last; p += AHEAD * ROWS) {
        S some[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; ++k)
          if (p + k * ROWS < last) some[k] = value(p + k * ROWS);
#pragma unroll
        for (int k = 0; k < AHEAD; ++k)
          if (p + k * ROWS < last) sum = add(sum, some[k]);
      }
      for (int step = 16; step > 0; step /= 2) sum = add(sum, of_partner(sum, step));
      if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
      __syncthreads();
      sum = parts[0];
      for (int warp = 1; warp < ROWS / 32; ++warp) sum = add(sum, parts[warp]);
    }
    if (row >= from && row < to) finish(row, sum);
    from = to;
  }
}
