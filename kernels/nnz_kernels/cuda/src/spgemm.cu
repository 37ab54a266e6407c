// Products of two sparse matrices, row by row (Gustavson 1978), in two phases: the columns
// of each row, then their values.
//
// A row of few products finds its columns in a hash table in shared memory, which is then
// sorted there (Nagasaka, Nukada, Matsuoka, "High-performance and memory-saving sparse
// general matrix-matrix multiplication for NVIDIA Pascal GPU", ICPP 2017). Its values are
// added by a few lanes that go through the entries of A in order: within one row of B no
// column comes twice, so no two lanes meet and each sum keeps the order of its products.
// A longer row is expanded in global memory, sorted by column, stably, and added up run by
// run (Dalton, Olson, Bell, "Optimizing sparse matrix-matrix multiplication for the GPU",
// 2015), which keeps that order, too. No bit depends on a schedule or on which way was taken.
#include "semiring.cuh"

// Products of each entry of A; one more is zero, for running sums.
template <typename I>
__global__ void __launch_bounds__(256)
    entry_products(i64 nnz, const I* __restrict__ a_indices, const I* __restrict__ b_indptr,
                   i64* __restrict__ lengths) {
  const i64 p = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (p > nnz) return;
  i64 length = 0;
  if (p < nnz) {
    const i64 j = a_indices[p];
    length = static_cast<i64>(b_indptr[j + 1]) - b_indptr[j];
  }
  lengths[p] = length;
}

// How many columns a row can have, and by which way it goes: 0 without any, 1 and 2 up to
// `few` and `some` columns, 3 beyond. One more bound is zero.
template <typename I>
__global__ void __launch_bounds__(256)
    row_bounds(i64 rows, i64 columns, i64 few, i64 some, const I* __restrict__ a_indptr,
               const i64* __restrict__ before, i64* __restrict__ products,
               i64* __restrict__ bounds, u64* __restrict__ keys, int* __restrict__ numbers) {
  const i64 row = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row > rows) return;
  if (row == rows) {
    bounds[row] = 0;
    return;
  }
  const i64 found = before[a_indptr[row + 1]] - before[a_indptr[row]];
  const i64 bound = found < columns ? found : columns;
  products[row] = found;
  bounds[row] = bound;
  keys[row] = bound == 0 ? 0 : bound <= few ? 1 : bound <= some ? 2 : 3;
  numbers[row] = static_cast<int>(row);
}

// Where each of the ways begins in the sorted list of rows.
__global__ void __launch_bounds__(32)
    find_ways(i64 rows, const u64* __restrict__ keys, i64* __restrict__ starts) {
  if (threadIdx.x < 5) starts[threadIdx.x] = place_of<u64>(keys, 0, rows, threadIdx.x);
}

// Products of the listed rows; one more is zero, for running sums.
__global__ void __launch_bounds__(256)
    list_products(i64 count, const int* __restrict__ list, const i64* __restrict__ products,
                  i64* __restrict__ out) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i <= count) out[i] = i < count ? products[list[i]] : 0;
}

// -- few columns: a table ------------------------------------------------------------------

// A free cell; as an unsigned number it is the largest, and sorts last.
constexpr int FREE = -1;

__device__ __forceinline__ int claim(int* cell, int column) {
  return atomicCAS(cell, FREE, column);
}
__device__ __forceinline__ i64 claim(i64* cell, i64 column) {
  return static_cast<i64>(atomicCAS(reinterpret_cast<u64*>(cell), static_cast<u64>(i64{FREE}),
                                    static_cast<u64>(column)));
}
__device__ __forceinline__ bool is_after(int a, int b) {
  return static_cast<u32>(a) > static_cast<u32>(b);
}
__device__ __forceinline__ bool is_after(i64 a, i64 b) {
  return static_cast<u64>(a) > static_cast<u64>(b);
}

template <int GROUP>
__device__ __forceinline__ void meet() {
  if constexpr (GROUP == 32) __syncwarp();
  else __syncthreads();
}

// Put a column into a table of `mask` + 1 cells; 1 if it is new. The factor is random, so
// that nobody can choose columns that collide.
template <typename I>
__device__ __forceinline__ int insert(I* table, u32 mask, u64 factor, I column) {
  u32 at = static_cast<u32>(static_cast<u64>(column) * factor >> 32) & mask;
  while (true) {
    const I seen = claim(table + at, column);
    if (seen == FREE) return 1;
    if (seen == column) return 0;
    at = (at + 1) & mask;
  }
}

// A bitonic network over a power of two of cells.
template <typename I, int GROUP>
__device__ __forceinline__ void sort_cells(I* table, int cells, int member) {
  for (int span = 2; span <= cells; span *= 2)
    for (int reach = span / 2; reach > 0; reach /= 2) {
      for (int i = member; i < cells / 2; i += GROUP) {
        const int low = 2 * i - (i & (reach - 1)), high = low + reach;
        const I a = table[low], b = table[high];
        if (is_after(a, b) == ((low & span) == 0)) {
          table[low] = b;
          table[high] = a;
        }
      }
      meet<GROUP>();
    }
}

// The columns of the listed rows, GROUP threads a row, `lanes` of them an entry of A. At
// first only their numbers are wanted: `out` is null.
template <typename I, int GROUP, int CELLS>
__global__ void __launch_bounds__(256)
    hash_columns(i64 count, int lanes, u64 factor, const int* __restrict__ list,
                 const i64* __restrict__ bounds, const I* __restrict__ a_indptr,
                 const I* __restrict__ a_indices, const I* __restrict__ b_indptr,
                 const I* __restrict__ b_indices, i64* __restrict__ counts,
                 const i64* __restrict__ indptr, I* __restrict__ out) {
  constexpr int GROUPS = 256 / GROUP;
  __shared__ I tables[GROUPS][CELLS];
  __shared__ int totals[GROUPS];
  const int member = threadIdx.x % GROUP, group = threadIdx.x / GROUP;
  const i64 line = static_cast<i64>(blockIdx.x) * GROUPS + group;
  if (line >= count) return;
  const i64 row = list[line];
  I* table = tables[group];
  int cells = 32;  // at most half of them will be taken
  while (cells < CELLS && cells < 2 * bounds[row]) cells *= 2;
  for (int i = member; i < cells; i += GROUP) table[i] = FREE;
  if (member == 0) totals[group] = 0;
  meet<GROUP>();
  int found = 0;
  const i64 end = a_indptr[row + 1];
  for (i64 p = a_indptr[row] + member / lanes; p < end; p += GROUP / lanes) {
    const i64 j = a_indices[p], stop = b_indptr[j + 1];
    for (i64 q = b_indptr[j] + member % lanes; q < stop; q += lanes)
      found += insert(table, cells - 1, factor, b_indices[q]);
  }
  atomicAdd(&totals[group], found);
  meet<GROUP>();
  const int total = totals[group];
  if (out == nullptr) {
    if (member == 0) counts[row] = total;
    return;
  }
  sort_cells<I, GROUP>(table, cells, member);
  for (int i = member; i < total; i += GROUP) out[indptr[row] + i] = table[i];
}

// The values of the listed rows, whose columns are known; `lanes` threads a row.
template <typename T, typename I>
__global__ void __launch_bounds__(256)
    product_values(i64 count, int lanes, int semiring, const int* __restrict__ list,
                   const I* __restrict__ a_indptr, const I* __restrict__ a_indices,
                   const T* __restrict__ a_data, const I* __restrict__ b_indptr,
                   const I* __restrict__ b_indices, const T* __restrict__ b_data,
                   const i64* __restrict__ indptr, const I* __restrict__ indices, T* data) {
  const i64 line = static_cast<i64>(blockIdx.x) * (blockDim.x / lanes) + threadIdx.x / lanes;
  const int lane = threadIdx.x % lanes, first = threadIdx.x % 32 / lanes * lanes;
  if (line >= count) return;
  const u32 mates = (lanes == 32 ? WARP : (1u << lanes) - 1) << first;
  const i64 row = list[line], begin = indptr[row], end = indptr[row + 1];
  const Fold<T> add{semiring};
  for (i64 at = begin + lane; at < end; at += lanes) data[at] = add.start();
  __syncwarp(mates);
  const i64 last = a_indptr[row + 1];
  for (i64 p = a_indptr[row]; p < last; ++p) {
    const T factor = a_data[p];
    const i64 j = a_indices[p], stop = b_indptr[j + 1];
    for (i64 q = b_indptr[j] + lane; q < stop; q += lanes) {
      const i64 at = place_of(indices, begin, end, b_indices[q]);
      data[at] = add(data[at], joined(semiring, factor, b_data[q]));
    }
    __syncwarp(mates);
  }
}

// -- many columns: sorted runs -------------------------------------------------------------

// Key, number and value of every product of the listed rows, a block a row; the products of
// row i of the list begin at starts[i], in their order.
template <typename T, typename I>
__global__ void __launch_bounds__(256)
    expand_products(int bits, int lanes, int semiring, const int* __restrict__ list,
                    const i64* __restrict__ starts, const i64* __restrict__ before,
                    const I* __restrict__ a_indptr, const I* __restrict__ a_indices,
                    const T* __restrict__ a_data, const I* __restrict__ b_indptr,
                    const I* __restrict__ b_indices, const T* __restrict__ b_data,
                    u64* __restrict__ keys, int* __restrict__ numbers, T* __restrict__ values) {
  const i64 line = blockIdx.x, row = list[line];
  const i64 begin = a_indptr[row], end = a_indptr[row + 1];
  const int lane = threadIdx.x % lanes;
  for (i64 p = begin + threadIdx.x / lanes; p < end; p += blockDim.x / lanes) {
    const i64 j = a_indices[p], from = b_indptr[j], stop = b_indptr[j + 1];
    const i64 put = starts[line] + before[p] - before[begin] - from;
    for (i64 q = from + lane; q < stop; q += lanes) {
      keys[put + q] = static_cast<u64>(line) << bits | static_cast<u64>(b_indices[q]);
      numbers[put + q] = static_cast<int>(put + q);
      values[put + q] = joined(semiring, a_data[p], b_data[q]);
    }
  }
}

// Of a whole matrix, whose rows need not be sorted: key and number of every entry.
template <typename I>
__global__ void __launch_bounds__(256)
    entry_keys(i64 rows, i64 nnz, int bits, const I* __restrict__ indptr,
               const I* __restrict__ indices, u64* __restrict__ keys,
               int* __restrict__ numbers) {
  const i64 p = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (p >= nnz) return;
  keys[p] = static_cast<u64>(owner(indptr, rows, p)) << bits | static_cast<u64>(indices[p]);
  numbers[p] = static_cast<int>(p);
}

// Where runs of equal keys begin; one more is zero, for running sums.
__global__ void __launch_bounds__(256)
    find_runs(i64 n, const u64* __restrict__ keys, int* __restrict__ first) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i <= n) first[i] = i < n && (i == 0 || keys[i] != keys[i - 1]);
}

// How many runs each row has; `places` are the running sums of what `find_runs` found. Row i
// of the list has the keys from starts[i] on; without a list it is row i.
__global__ void __launch_bounds__(256)
    count_runs(i64 count, const int* __restrict__ list, const i64* __restrict__ starts,
               const int* __restrict__ places, i64* __restrict__ counts) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) counts[list == nullptr ? i : list[i]] = places[starts[i + 1]] - places[starts[i]];
}

// Column and sum of each run, added in the order of the numbers, to its row of the result.
template <typename T, typename I>
__global__ void __launch_bounds__(256)
    fill_runs(i64 n, int bits, int semiring, const int* __restrict__ list, const i64* __restrict__ starts,
              const int* __restrict__ places, const u64* __restrict__ keys,
              const int* __restrict__ numbers, const T* __restrict__ values,
              const i64* __restrict__ indptr, I* __restrict__ indices, T* __restrict__ data) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n || places[i + 1] == places[i]) return;
  const u64 key = keys[i];
  const i64 line = static_cast<i64>(key >> bits), row = list == nullptr ? line : list[line];
  const i64 at = indptr[row] + places[i] - places[starts[line]];
  T sum = values[numbers[i]];
  const Fold<T> add{semiring};
  for (i64 k = i + 1; k < n && keys[k] == key; ++k) sum = add(sum, values[numbers[k]]);
  if (indices != nullptr) indices[at] = static_cast<I>(key & ((u64{1} << bits) - 1));
  data[at] = sum;
}
