// Transposes: entries are sorted by column, stably, so that rows of the result are sorted
// even where those of the matrix are not.
#include "rows.cuh"

// Key and number of every entry, before it is sorted ...
template <typename I>
__global__ void __launch_bounds__(256)
    transpose_keys(i64 nnz, const I* __restrict__ indices, u64* __restrict__ keys,
                   int* __restrict__ numbers) {
  const i64 p = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (p >= nnz) return;
  keys[p] = indices[p];
  numbers[p] = static_cast<int>(p);
}

// ... and the result after it: value and row of each entry, and where each column begins.
template <typename T, typename I>
__global__ void __launch_bounds__(256)
    transpose_fill(i64 rows, i64 columns, i64 nnz, int conjugate, const I* __restrict__ indptr,
                   const T* __restrict__ data, const u64* __restrict__ keys,
                   const int* __restrict__ numbers, I* __restrict__ indptr_t,
                   I* __restrict__ indices_t, T* __restrict__ data_t) {
  const i64 p = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (p < nnz) {
    const i64 from = numbers[p];
    indices_t[p] = static_cast<I>(owner(indptr, rows, from));
    data_t[p] = conjugate ? conjugated(data[from]) : data[from];
  }
  if (p <= columns)
    indptr_t[p] = static_cast<I>(place_of<u64>(keys, 0, nnz, static_cast<u64>(p)));
}
