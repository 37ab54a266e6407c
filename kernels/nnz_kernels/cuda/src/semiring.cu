// Products over semirings with vectors, and those entries of a product that a mask wants.
//
// What is wanted is found in one of two ways: by rows as Gustavson does, where a column that
// the mask has not is passed over; or by dots of rows of A with columns of B. Both add in the
// order of A's columns, so that neither bits nor which entries there are depend on the way.
#include "semiring.cuh"

// A row without entries gives the semiring's zero. Told nothing of blocks, the compiler
// would rather spill than take a 33rd register.
template <typename T, typename I>
__global__ void __launch_bounds__(ROWS, 4)
    semiring_rows(i64 rows, int semiring, const I* __restrict__ indptr,
                  const I* __restrict__ indices, const T* __restrict__ data,
                  const T* __restrict__ x, T* __restrict__ y) {
  const Fold<T> add{semiring};
  sum_rows<T>(
      rows, indptr,
      [&](i64 p) { return joined(semiring, streamed(data + p), x[streamed(indices + p)]); },
      [&](i64 row, T sum) { y[row] = indptr[row] == indptr[row + 1] ? add.none() : sum; }, add);
}

// What dots take at most, by rows of the mask: one more is zero, for running sums.
template <typename I>
__global__ void __launch_bounds__(256)
    dot_lengths(i64 rows, const I* __restrict__ a_indptr, const I* __restrict__ m_indptr,
                i64* __restrict__ work) {
  const i64 row = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row > rows) return;
  i64 found = 0;
  if (row < rows)
    found = (static_cast<i64>(a_indptr[row + 1]) - a_indptr[row]) *
            (static_cast<i64>(m_indptr[row + 1]) - m_indptr[row]);
  work[row] = found;
}

// By rows, `lanes` threads each: within a row of B no column comes twice, so no two lanes
// meet. `found`, all zero at first, says whether anything was added.
template <typename T, typename I>
__global__ void __launch_bounds__(256)
    masked_rows(i64 rows, int lanes, int semiring, const I* __restrict__ a_indptr,
                const I* __restrict__ a_indices, const T* __restrict__ a_data,
                const I* __restrict__ b_indptr, const I* __restrict__ b_indices,
                const T* __restrict__ b_data, const I* __restrict__ m_indptr,
                const I* __restrict__ m_indices, T* data, int* found) {
  const i64 row = static_cast<i64>(blockIdx.x) * (blockDim.x / lanes) + threadIdx.x / lanes;
  const int lane = threadIdx.x % lanes, first = threadIdx.x % 32 / lanes * lanes;
  if (row >= rows) return;
  const u32 mates = (lanes == 32 ? WARP : (1u << lanes) - 1) << first;
  const i64 begin = m_indptr[row], end = m_indptr[row + 1];
  if (begin == end) return;
  const Fold<T> add{semiring};
  for (i64 at = begin + lane; at < end; at += lanes) data[at] = add.start();
  __syncwarp(mates);
  const i64 last = a_indptr[row + 1];
  for (i64 p = a_indptr[row]; p < last; ++p) {
    const T factor = a_data[p];
    const i64 j = a_indices[p], stop = b_indptr[j + 1];
    for (i64 q = b_indptr[j] + lane; q < stop; q += lanes) {
      const i64 at = place_of(m_indices, begin, end, b_indices[q]);
      if (at == end || m_indices[at] != b_indices[q]) continue;
      data[at] = add(data[at], joined(semiring, factor, b_data[q]));
      found[at] = 1;
    }
    __syncwarp(mates);
  }
}

// By dots, a thread an entry of the mask: B comes transposed, and whichever of the two rows
// is shorter is looked up in the other one.
template <typename T, typename I>
__global__ void __launch_bounds__(256)
    masked_dots(i64 rows, i64 nnz, int semiring, const I* __restrict__ a_indptr,
                const I* __restrict__ a_indices, const T* __restrict__ a_data,
                const I* __restrict__ t_indptr, const I* __restrict__ t_indices,
                const T* __restrict__ t_data, const I* __restrict__ m_indptr,
                const I* __restrict__ m_indices, T* __restrict__ data, int* __restrict__ found) {
  const i64 at = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= nnz) return;
  const i64 row = owner(m_indptr, rows, at), column = m_indices[at];
  i64 p = a_indptr[row], q = t_indptr[column];
  const i64 p_end = a_indptr[row + 1], q_end = t_indptr[column + 1];
  const bool by_a = p_end - p <= q_end - q;
  const Fold<T> add{semiring};
  T sum = add.start();
  int any = 0;
  while (p < p_end && q < q_end) {
    if (by_a) q = place_of(t_indices, q, q_end, a_indices[p]);
    else p = place_of(a_indices, p, p_end, t_indices[q]);
    if (p < p_end && q < q_end && a_indices[p] == t_indices[q]) {
      sum = add(sum, joined(semiring, a_data[p], t_data[q]));
      any = 1;
    }
    if (by_a) ++p;
    else ++q;
  }
  data[at] = sum;
  found[at] = any;
}

// The entries that were found; `before` are running sums of what `found` says.
template <typename T, typename I>
__global__ void __launch_bounds__(256)
    keep_found(i64 rows, i64 nnz, const I* __restrict__ m_indptr, const I* __restrict__ m_indices,
               const T* __restrict__ data, const int* __restrict__ before,
               I* __restrict__ indptr, I* __restrict__ indices, T* __restrict__ out) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i <= rows) indptr[i] = static_cast<I>(before[m_indptr[i]]);
  if (i >= nnz || before[i + 1] == before[i]) return;
  indices[before[i]] = m_indices[i];
  out[before[i]] = data[i];
}
