// Incomplete factors, in place: a warp has a row and waits for the rows that it subtracts.
//
// No sum is shared, so no bit depends on a schedule. Bound: the longest chain of rows, each a
// round trip through the second-level cache. Four blocks a multiprocessor are asked for, since
// ptxas spills for more if it may choose.
#include "chain.cuh"

constexpr int WARPS = 8;

// The line of this warp, in the order of work.
__device__ __forceinline__ i64 next_line(const Chain& chain) {
  return next_block(chain) * WARPS + threadIdx.y;
}

// Where each row has its diagonal.
template <typename I>
__global__ void __launch_bounds__(256)
    diagonal_places(i64 n, const I* __restrict__ indptr, const I* __restrict__ indices,
                    i64* __restrict__ places) {
  const i64 row = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row < n)
    places[row] = place_of(indices, indptr[row], indptr[row + 1], static_cast<I>(row));
}

__device__ __forceinline__ bool is_finite(double x) { return x - x == 0.0; }

// L and U on the pattern of A, in place (Saad 2003, algorithm 10.4). A lane has an entry of
// the row that is subtracted. Rows multiply by the inverse of a pivot, which is made once.
template <typename I>
__global__ void __launch_bounds__(32 * WARPS, 4)
    factor_ilu0(i64 n, Chain chain, const I* __restrict__ indptr,
                const I* __restrict__ indices, const i64* __restrict__ places,
                double* inverse, double* data) {
  const i64 row = next_line(chain);
  if (row >= n) return;
  const int lane = threadIdx.x;
  const i64 end = indptr[row + 1], diagonal = places[row];
  for (i64 p = indptr[row]; p < diagonal; ++p) {
    const i64 k = indices[p];
    wait_for(chain, k);
    const double factor = multiplied(fresh(data + p), fresh(inverse + k));
    __syncwarp();
    if (lane == 0) data[p] = factor;
    const i64 stop = indptr[k + 1];
    for (i64 q = places[k] + 1 + lane; q < stop; q += 32) {
      const i64 at = place_of(indices, p + 1, end, indices[q]);
      if (at < end && indices[at] == indices[q])
        data[at] = added(fresh(data + at), -multiplied(factor, fresh(data + q)));
    }
    __syncwarp();
  }
  if (lane == 0) {
    const double pivot = fresh(data + diagonal);
    if (pivot == 0.0 || !is_finite(pivot)) atomicMin(chain.bad, static_cast<u64>(row));
    inverse[row] = 1.0 / pivot;
  }
  finish_row(chain, row);
}

// L with L L' = A on the pattern of the lower triangle, in place (Meijerink and van der
// Vorst 1977). Lanes share the entries of the row that is multiplied; sums are trees.
template <typename I>
__global__ void __launch_bounds__(32 * WARPS, 4)
    factor_ic0(i64 n, Chain chain, const I* __restrict__ indptr,
               const I* __restrict__ indices, double* inverse, double* data) {
  const i64 row = next_line(chain);
  if (row >= n) return;
  const int lane = threadIdx.x;
  const i64 begin = indptr[row], last = indptr[row + 1] - 1;
  double square = fresh(data + last);
  for (i64 p = begin; p < last; ++p) {
    const i64 k = indices[p], pivot = indptr[k + 1] - 1;
    wait_for(chain, k);
    double known = 0.0;
    for (i64 q = indptr[k] + lane; q < pivot; q += 32) {
      const i64 at = place_of(indices, begin, p, indices[q]);
      if (at < p && indices[at] == indices[q])
        known = added(known, multiplied(fresh(data + at), fresh(data + q)));
    }
    known = warp_sum(known);
    const double value = multiplied(added(fresh(data + p), -known), fresh(inverse + k));
    __syncwarp();
    if (lane == 0) data[p] = value;
    square = added(square, -multiplied(value, value));
    __syncwarp();
  }
  if (lane == 0) {
    if (!(square > 0.0 && is_finite(square))) atomicMin(chain.bad, static_cast<u64>(row));
    const double root = sqrt(square);
    data[last] = root;
    inverse[row] = 1.0 / root;
  }
  finish_row(chain, row);
}
