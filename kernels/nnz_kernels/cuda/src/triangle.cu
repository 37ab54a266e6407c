// What goes row by row, each row after others: triangular solves and incomplete factors.
//
// A warp has a row. It looks at the flags of the rows that it needs until they are done,
// so nothing is analysed ahead and one launch is enough (Liu, Li, Hogg, Duff, Vinter,
// "A synchronization-free algorithm for parallel sparse triangular solves", Euro-Par 2016,
// by rows instead of columns: no sum is shared, so no bit depends on a schedule). Blocks
// take their rows by a ticket: what a row waits for was taken before it, and is running.
// Bound: the longest chain of rows, each a round trip through the second-level cache.
// Four blocks a multiprocessor are asked for, since ptxas spills for more if it may choose.
#include "rows.cuh"

constexpr int WARPS = 8;

// Flags and the like. `done` has a flag a row, all zero at first.
struct Chain {
  int* done;
  u32* ticket;   // zero at first
  u64* bad;      // least number, in the order of work, of a row without a pivot
  int* stopped;  // 1 where somebody has waited too long
};

// Looks at one flag before the launch is given up: seconds, where rows take microseconds.
constexpr int PATIENCE = 1 << 28;

// The line of this warp, in the order of work.
__device__ __forceinline__ i64 next_line(const Chain& chain) {
  __shared__ u32 ticket;
  if (threadIdx.x == 0 && threadIdx.y == 0) ticket = atomicAdd(chain.ticket, 1u);
  __syncthreads();
  return static_cast<i64>(ticket) * WARPS + threadIdx.y;
}

__device__ __forceinline__ void wait_for(const Chain& chain, i64 row) {
  const volatile int* flag = chain.done + row;
  volatile int* stopped = chain.stopped;
  for (int looks = 0; *flag == 0; ++looks) {
    if (looks == PATIENCE || *stopped != 0) {
      *stopped = 1;
      break;
    }
    __nanosleep(32);
  }
  __threadfence();
}

// All lanes have written what belongs to the row.
__device__ __forceinline__ void finish_row(const Chain& chain, i64 row) {
  __threadfence();
  __syncwarp();
  if (threadIdx.x == 0) *static_cast<volatile int*>(chain.done + row) = 1;
}

// Which entries of a matrix make up the triangle.
struct Triangle {
  i64 n, width;    // rows, right-hand sides
  int lower;       // left of the diagonal, else right of it
  int unit;        // the diagonal is one
};

// Entries begin .. begin + 31 of a row, one a lane: those of the triangle are awaited and
// staged. Returns which they are; `pivot` gets the diagonal's, if it is there.
template <typename T, typename I>
__device__ __forceinline__ u32 stage_entries(const Triangle& t, const Chain& chain, i64 row,
                                             const I* __restrict__ indices,
                                             const T* __restrict__ data, i64 p, i64 end,
                                             i64* column, T* value, T* pivot) {
  bool mine = false;
  if (p < end) {
    const i64 j = indices[p];
    mine = t.lower ? j < row : j > row;
    if (mine) {
      wait_for(chain, j);
      *column = j;
      *value = data[p];
    } else if (j == row && pivot != nullptr) {
      *pivot = data[p];
    }
  }
  const u32 found = __ballot_sync(WARP, mine);
  __syncwarp();
  return found;
}

// x of T x = b for all columns of b, n x width. A sum runs in stored order, whatever the
// width: with one column lanes multiply and one adds, with more each lane has a column.
// The diagonal is given beside the matrix, or an entry of it.
template <typename T, typename I>
__global__ void __launch_bounds__(32 * WARPS, 4)
    solve_rows(Triangle t, Chain chain, const I* __restrict__ indptr,
               const I* __restrict__ indices, const T* __restrict__ data,
               const T* __restrict__ diagonal, const T* __restrict__ b, T* x) {
  __shared__ i64 columns[WARPS][32];
  __shared__ T values[WARPS][32];
  __shared__ T pivots[WARPS];
  const i64 line = next_line(chain);
  if (line >= t.n) return;
  const i64 row = t.lower ? line : t.n - 1 - line;
  const int lane = threadIdx.x, warp = threadIdx.y;
  T* pivot = t.unit || diagonal != nullptr ? nullptr : &pivots[warp];
  if (lane == 0) pivots[warp] = t.unit ? one<T>() : diagonal == nullptr ? T{} : diagonal[row];
  __syncwarp();
  const i64 begin = indptr[row], end = indptr[row + 1];
  for (i64 first = 0; first == 0 || first < t.width; first += 32) {
    const bool real = first + lane < t.width;
    T sum = real ? b[row * t.width + first + lane] : T{};
    for (i64 start = begin; start < end; start += 32) {
      u32 left = stage_entries(t, chain, row, indices, data, start + lane, end,
                               &columns[warp][lane], &values[warp][lane], pivot);
      if (t.width == 1) {
        if (left >> lane & 1)
          values[warp][lane] = multiplied(values[warp][lane], fresh(x + columns[warp][lane]));
        __syncwarp();
        if (lane == 0)
          for (; left != 0; left &= left - 1)
            sum = added(sum, negated(values[warp][__ffs(left) - 1]));
      } else if (real) {
        for (; left != 0; left &= left - 1) {
          const int at = __ffs(left) - 1;
          const T* from = x + columns[warp][at] * t.width + first + lane;
          sum = added(sum, negated(multiplied(values[warp][at], fresh(from))));
        }
      }
      __syncwarp();
    }
    if (real) x[row * t.width + first + lane] = sum;
  }
  // A loop of its own: divisions are calls, which should find few registers in use.
  for (i64 c = lane; c < t.width; c += 32)
    x[row * t.width + c] = divided(x[row * t.width + c], pivots[warp]);
  if (lane == 0 && is_zero(pivots[warp])) atomicMin(chain.bad, static_cast<u64>(line));
  finish_row(chain, row);
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
