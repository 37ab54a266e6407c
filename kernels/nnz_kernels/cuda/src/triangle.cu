// Triangular solves, each row after those that it needs, by rows: no sum is shared, so no bit
// depends on a schedule. Entries are added in stored order, whatever the width. Bound: the
// longest chain of rows, each a round trip through the second-level cache.
#include "chain.cuh"

constexpr int WARPS = 8, THREADS = 256;

// Which entries of a matrix make up the triangle.
struct Triangle {
  i64 n, width;    // rows, right-hand sides
  int lower;       // left of the diagonal, else right of it
  int unit;        // the diagonal is one
};

__device__ __forceinline__ bool is_inside(const Triangle& t, i64 row, i64 column) {
  return t.lower ? column < row : column > row;
}

// No result is there yet.
template <typename T>
__global__ void __launch_bounds__(256) clear_all(i64 n, T* __restrict__ x) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) clear(x + i);
}

// A thread has a row, or a number of it, and takes in what others have written until it is
// done. Rows of one warp wait for each other: a lane that has its number writes it before any
// lane looks again (thread-level synchronization-free solves: Su et al., "CapelliniSpTRSV",
// ICPP 2020). `step` says how far it came.
enum Came { NOWHERE, FURTHER, TO_THE_END };

template <typename Step>
__device__ __forceinline__ void go_on(const Chain& chain, bool open, Step step) {
  for (int looks = 0; __ballot_sync(WARP, open) != 0;) {
    const Came came = open ? step() : NOWHERE;
    if (came == TO_THE_END) open = false;
    looks = __ballot_sync(WARP, came != NOWHERE) != 0 ? 0 : looks + 1;
    // All lanes leave together, whichever of them saw that somebody has given up.
    const bool tired = looks > 0 && !is_patient(chain, looks);
    if (__ballot_sync(WARP, tired) != 0) break;
  }
}

// Short rows: a thread has a number of x. Rows come as they are numbered: by their levels
// neighbours need not wait for each other, but reads are scattered, and a mesh takes longer.
template <typename T, typename I>
__global__ void __launch_bounds__(THREADS, 4)
    solve_short_rows(Triangle t, Chain chain, const I* __restrict__ indptr,
                     const I* __restrict__ indices, const T* __restrict__ data,
                     const T* __restrict__ diagonal, const T* __restrict__ b, T* x) {
  const i64 number = next_block(chain) * THREADS + threadIdx.x;
  const i64 line = number / t.width, c = number - line * t.width;
  const bool open = line < t.n;
  T sum = T{}, pivot = t.unit ? one<T>() : T{};
  i64 row = 0, p = 0, end = 0;
  if (open) {
    row = t.lower ? line : t.n - 1 - line;
    sum = b[row * t.width + c];
    if (!t.unit && diagonal != nullptr) pivot = diagonal[row];
    p = indptr[row];
    end = indptr[row + 1];
  }
  go_on(chain, open, [&] {
    Came came = NOWHERE;
    for (; p < end; ++p) {
      const i64 j = indices[p];
      if (is_inside(t, row, j)) {
        const T known = latest(x + j * t.width + c);
        if (is_clear(known)) return came;
        sum = added(sum, negated(multiplied(data[p], known)));
      } else if (j == row && !t.unit && diagonal == nullptr) {
        pivot = data[p];
      }
      came = FURTHER;
    }
    tell(x + row * t.width + c, divided(sum, pivot));
    if (is_zero(pivot)) atomicMin(chain.bad, static_cast<u64>(line));
    return TO_THE_END;
  });
}

// Entries begin .. begin + 31 of a row, one a lane: those of the triangle are staged.
// Returns which they are; `pivot` gets the diagonal's, if it is there.
template <typename T, typename I>
__device__ __forceinline__ u32 stage_entries(const Triangle& t, i64 row,
                                             const I* __restrict__ indices,
                                             const T* __restrict__ data, i64 p, i64 end,
                                             i64* column, T* value, T* pivot) {
  bool mine = false;
  if (p < end) {
    const i64 j = indices[p];
    mine = is_inside(t, row, j);
    if (mine) {
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

// Long rows: a warp has one. With one column lanes multiply and one adds, with more each lane
// has a column. The diagonal is given beside the matrix, or an entry of it.
template <typename T, typename I>
__global__ void __launch_bounds__(32 * WARPS, 4)
    solve_rows(Triangle t, Chain chain, const I* __restrict__ indptr,
               const I* __restrict__ indices, const T* __restrict__ data,
               const T* __restrict__ diagonal, const T* __restrict__ b, T* x) {
  __shared__ i64 columns[WARPS][32];
  __shared__ T values[WARPS][32];
  __shared__ T pivots[WARPS];
  const i64 line = next_block(chain) * WARPS + threadIdx.y;
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
      u32 left = stage_entries(t, row, indices, data, start + lane, end,
                               &columns[warp][lane], &values[warp][lane], pivot);
      if (t.width == 1) {
        if (left >> lane & 1)
          values[warp][lane] =
              multiplied(values[warp][lane], awaited(chain, x + columns[warp][lane]));
        __syncwarp();
        if (lane == 0)
          for (; left != 0; left &= left - 1)
            sum = added(sum, negated(values[warp][__ffs(left) - 1]));
      } else if (real) {
        for (; left != 0; left &= left - 1) {
          const int at = __ffs(left) - 1;
          const T* from = x + columns[warp][at] * t.width + first + lane;
          sum = added(sum, negated(multiplied(values[warp][at], awaited(chain, from))));
        }
      }
      __syncwarp();
    }
    if (real) tell(x + row * t.width + first + lane, divided(sum, pivots[warp]));
  }
  if (lane == 0 && is_zero(pivots[warp])) atomicMin(chain.bad, static_cast<u64>(line));
}
