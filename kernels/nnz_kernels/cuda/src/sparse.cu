// Ops on the entries of sparse matrices, a thread an entry; rows are sorted.
#include "rows.cuh"

// Entries that a group of lanes takes one after the other.
constexpr int DOTS = 4;

// The type of numbers: row pointers of 32 bits become those of 64, or the other way.
template <typename From, typename To>
__global__ void __launch_bounds__(256)
    convert(i64 n, const From* __restrict__ x, To* __restrict__ y) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) y[i] = static_cast<To>(x[i]);
}

// Whether some row is not sorted, or stores a column twice.
template <typename I>
__global__ void __launch_bounds__(256)
    find_disorder(i64 rows, i64 nnz, const I* __restrict__ indptr, const I* __restrict__ indices,
                  int* __restrict__ found) {
  const i64 p = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (p + 1 >= nnz || indices[p] < indices[p + 1]) return;
  if (static_cast<i64>(indptr[owner(indptr, rows, p + 1)]) != p + 1) atomicMax(found, 1);
}

// diag(left) a diag(right); a missing side changes nothing.
template <typename T, typename I>
__global__ void __launch_bounds__(256)
    scale_entries(i64 rows, i64 nnz, const I* __restrict__ indptr,
                  const I* __restrict__ indices, const T* __restrict__ data,
                  const T* __restrict__ left, const T* __restrict__ right,
                  T* __restrict__ out) {
  const i64 p = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (p >= nnz) return;
  T value = data[p];
  if (left != nullptr) value = multiplied(value, left[owner(indptr, rows, p)]);
  if (right != nullptr) value = multiplied(value, right[indices[p]]);
  out[p] = value;
}

// Which entries of b have no partner in a: with their running sums every entry of a + b
// knows its place, whatever the lengths of rows.
template <typename I>
__global__ void __launch_bounds__(256)
    union_new(i64 rows, i64 nnz, const I* __restrict__ a_indptr,
              const I* __restrict__ a_indices, const I* __restrict__ b_indptr,
              const I* __restrict__ b_indices, int* __restrict__ fresh) {
  const i64 q = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (q > nnz) return;
  int is_new = 0;
  if (q < nnz) {
    const i64 row = owner(b_indptr, rows, q), end = a_indptr[row + 1];
    const i64 p = place_of(a_indices, a_indptr[row], end, b_indices[q]);
    is_new = p == end || a_indices[p] != b_indices[q];
  }
  fresh[q] = is_new;
}

// factors[0] a + factors[1] b; `before` are the sums of what `union_new` found.
template <typename T, typename I>
__global__ void __launch_bounds__(256)
    union_fill(i64 rows, i64 nnz_a, i64 nnz_b, const T* __restrict__ factors,
               const I* __restrict__ a_indptr, const I* __restrict__ a_indices,
               const T* __restrict__ a_data, const I* __restrict__ b_indptr,
               const I* __restrict__ b_indices, const T* __restrict__ b_data,
               const int* __restrict__ before, I* __restrict__ indptr,
               I* __restrict__ indices, T* __restrict__ data) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i <= rows) indptr[i] = static_cast<I>(a_indptr[i] + before[b_indptr[i]]);
  if (i < nnz_a) {
    const i64 row = owner(a_indptr, rows, i), end = b_indptr[row + 1];
    const I column = a_indices[i];
    const i64 q = place_of(b_indices, b_indptr[row], end, column), at = i + before[q];
    T value = multiplied(factors[0], a_data[i]);
    if (q < end && b_indices[q] == column)
      value = added(value, multiplied(factors[1], b_data[q]));
    indices[at] = column;
    data[at] = value;
  } else if (i < nnz_a + nnz_b) {
    const i64 q = i - nnz_a;
    if (before[q + 1] == before[q]) return;
    const i64 row = owner(b_indptr, rows, q);
    const i64 at = place_of(a_indices, a_indptr[row], a_indptr[row + 1], b_indices[q]) + before[q];
    indices[at] = b_indices[q];
    data[at] = multiplied(factors[1], b_data[q]);
  }
}

// Lengths of the rows that `numbers` names; one more is zero, for running sums.
template <typename I>
__global__ void __launch_bounds__(256)
    taken_lengths(i64 count, const i64* __restrict__ numbers, const I* __restrict__ indptr,
                  i64* __restrict__ lengths) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i > count) return;
  lengths[i] = i < count ? static_cast<i64>(indptr[numbers[i] + 1]) - indptr[numbers[i]] : 0;
}

// Those rows, one below the other.
template <typename T, typename I>
__global__ void __launch_bounds__(256)
    take_rows(i64 count, i64 nnz, const i64* __restrict__ numbers, const i64* __restrict__ ends,
              const I* __restrict__ indptr, const I* __restrict__ indices,
              const T* __restrict__ data, I* __restrict__ out_indices, T* __restrict__ out) {
  const i64 p = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (p >= nnz) return;
  const i64 row = owner(ends, count, p);
  const i64 from = static_cast<i64>(indptr[numbers[row]]) + (p - ends[row]);
  out_indices[p] = indices[from];
  out[p] = data[from];
}

// x[i] . y[j] at each entry (i, j): `lanes` threads an entry, sums in a tree. A block has
// entries that follow each other, so that it looks for the rows of two and each for its own
// between these.
template <typename T, typename I>
__global__ void __launch_bounds__(256, 4)
    sampled_dots(i64 rows, i64 nnz, i64 width, int lanes, const I* __restrict__ indptr,
                 const I* __restrict__ indices, const T* __restrict__ x,
                 const T* __restrict__ y, T* __restrict__ out) {
  __shared__ i64 corner[2];
  const int groups = blockDim.x / lanes, lane = threadIdx.x % lanes;
  const i64 start = static_cast<i64>(blockIdx.x) * groups * DOTS;
  const i64 stop = start + groups * DOTS < nnz ? start + groups * DOTS : nnz;
  if (threadIdx.x < 2)
    corner[threadIdx.x] = owner(indptr, rows, threadIdx.x == 0 ? start : stop - 1);
  __syncthreads();
  const i64 row0 = corner[0], count = corner[1] - row0 + 1;
  for (i64 p = start + threadIdx.x / lanes; p - threadIdx.x / lanes < stop; p += groups) {
    T sum = T{};
    if (p < stop) {
      const T* left = x + (row0 + owner(indptr + row0, count, p)) * width;
      const T* right = y + static_cast<i64>(indices[p]) * width;
      for (i64 k = lane; k < width; k += lanes) sum = added(sum, multiplied(left[k], right[k]));
    }
    sum = warp_sum(sum, lanes);
    if (p < stop && lane == 0) out[p] = sum;
  }
}

// Sums of rows, in double precision.
template <typename T, typename I>
__global__ void __launch_bounds__(ROWS)
    row_sums(i64 rows, const I* __restrict__ indptr, const T* __restrict__ data,
             T* __restrict__ out) {
  sum_rows<typename Wide<T>::type>(
      rows, indptr, [&](i64 p) { return widely(streamed(data + p)); },
      [&](i64 row, typename Wide<T>::type sum) { store(out + row, sum); });
}

// Entries (i, i), zero where there is none.
template <typename T, typename I>
__global__ void __launch_bounds__(256)
    take_diagonal(i64 count, const I* __restrict__ indptr, const I* __restrict__ indices,
                  const T* __restrict__ data, T* __restrict__ out) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const i64 end = indptr[i + 1], p = place_of(indices, indptr[i], end, static_cast<I>(i));
  out[i] = p < end && static_cast<i64>(indices[p]) == i ? data[p] : T{};
}

template <typename T>
__global__ void __launch_bounds__(256)
    take_magnitudes(i64 n, const T* __restrict__ x, double* __restrict__ out) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) out[i] = magnitude(x[i]);
}

// Of each block's share the largest number, or the sum of squares of all times `scale`.
// How many blocks there are depends on n alone, so no bit depends on the device.
__device__ __forceinline__ double joined(int squares, double a, double b) {
  return squares ? added(a, b) : (a > b || a != a ? a : b);
}

__global__ void __launch_bounds__(256)
    reduce_magnitudes(i64 n, int squares, double scale, const double* __restrict__ x,
                      double* __restrict__ parts) {
  __shared__ double found[8];
  double mine = 0.0;
  for (i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; i < n;
       i += static_cast<i64>(gridDim.x) * blockDim.x) {
    const double value = multiplied(x[i], scale);
    mine = joined(squares, mine, squares ? multiplied(value, value) : value);
  }
  for (int step = 16; step > 0; step /= 2)
    mine = joined(squares, mine, __shfl_xor_sync(WARP, mine, step));
  if (threadIdx.x % 32 == 0) found[threadIdx.x / 32] = mine;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int warp = 1; warp < 8; ++warp) mine = joined(squares, mine, found[warp]);
  parts[blockIdx.x] = mine;
}
