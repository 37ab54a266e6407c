// Sparse vectors: entries of both operands are sorted by (vector, index), stably, so that
// those which meet lie side by side, in their order. Each run then makes one entry of the
// result, whose place is where its first entry came. No bit depends on a schedule.
#include "rows.cuh"

enum Duplicates { ADD_UP, TAKE_LAST };
enum Mode { AXPY, COMBINE };

struct Pairs {
  i64 count;       // vectors
  i64 nnz_u, nnz_v;
  int bits;        // of an index
  int one_u;       // COMBINE: u is one vector, and so is the result
};

// Key and number of every entry. Numbers follow the order of the result: by vector, and in
// each what u has before what v has. Bit 31 of `source` tells v's entries from u's.
template <typename I>
__global__ void __launch_bounds__(256)
    vectors_pack(Pairs a, const I* __restrict__ u_indptr, const I* __restrict__ u_indices,
                 const I* __restrict__ v_indptr, const I* __restrict__ v_indices,
                 u64* __restrict__ keys, int* __restrict__ numbers, u32* __restrict__ source) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= a.nnz_u + a.nnz_v) return;
  const bool is_v = i >= a.nnz_u;
  const i64 p = is_v ? i - a.nnz_u : i;
  i64 vector = 0, at = i;
  if (!a.one_u) {
    vector = owner(is_v ? v_indptr : u_indptr, a.count, p);
    at = is_v ? u_indptr[vector + 1] + p : v_indptr[vector] + p;
  }
  const u64 index = is_v ? v_indices[p] : u_indices[p];
  keys[at] = static_cast<u64>(vector) << a.bits | index;
  numbers[at] = static_cast<int>(at);
  source[at] = static_cast<u32>(p) | (is_v ? 0x80000000u : 0u);
}

// One value for each run of equal keys, kept at the number of its first entry.
// `repeated` gets the least number of an entry that repeats one of its operand.
template <typename T, typename I>
__global__ void __launch_bounds__(256)
    vectors_axpy(Pairs a, int mode, int duplicates, int drop, const I* __restrict__ v_indptr,
                 const T* __restrict__ factors, const T* __restrict__ u, const T* __restrict__ v,
                 const u64* __restrict__ keys, const int* __restrict__ numbers,
                 const u32* __restrict__ source, T* __restrict__ sums, int* __restrict__ kept,
                 int* __restrict__ repeated) {
  const i64 n = a.nnz_u + a.nnz_v;
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const int first = numbers[i];
  const u64 key = keys[i];
  if (i > 0 && keys[i - 1] == key) {
    kept[first] = 0;
    if (source[first] >> 31 == source[numbers[i - 1]] >> 31) atomicMin(repeated, first);
    return;
  }
  const T factor = mode == AXPY ? factors[key >> a.bits] : T(0);
  T left = 0, right = 0;
  bool has_left = false, has_right = false;
  for (i64 j = i; j < n && keys[j] == key; ++j) {
    const u32 from = source[numbers[j]];
    const T value = from >> 31 ? v[from & 0x7fffffffu] : u[from];
    if (mode == COMBINE) {
      T part = value;
      if (from >> 31) part = multiplied(factors[owner(v_indptr, a.count, from & 0x7fffffffu)], value);
      left = has_left ? added(left, part) : part;
      has_left = true;
    } else if (from >> 31) {
      right = has_right && duplicates == ADD_UP ? added(right, value) : value;
      has_right = true;
    } else {
      left = has_left && duplicates == ADD_UP ? added(left, value) : value;
      has_left = true;
    }
  }
  if (has_right) {
    right = multiplied(factor, right);
    left = has_left ? added(left, right) : right;
  }
  sums[first] = left;
  kept[first] = drop && is_zero(left) ? 0 : 1;
}

// Bring what is kept together; `places` are exclusive sums of `kept`.
template <typename T, typename I>
__global__ void __launch_bounds__(256)
    vectors_compact(Pairs a, const I* __restrict__ u_indptr, const I* __restrict__ v_indptr,
                    const I* __restrict__ u_indices, const I* __restrict__ v_indices,
                    const u32* __restrict__ source, const T* __restrict__ sums,
                    const int* __restrict__ kept, const int* __restrict__ places,
                    I* __restrict__ indptr, I* __restrict__ indices, T* __restrict__ values) {
  const i64 n = a.nnz_u + a.nnz_v;
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n && kept[i]) {
    const u32 from = source[i];
    indices[places[i]] = from >> 31 ? v_indices[from & 0x7fffffffu] : u_indices[from];
    values[places[i]] = sums[i];
  }
  if (!a.one_u && i <= a.count) {
    const i64 begin = static_cast<i64>(u_indptr[i]) + static_cast<i64>(v_indptr[i]);
    indptr[i] = static_cast<I>(begin < n ? places[begin] : places[n - 1] + kept[n - 1]);
  }
}

// The product of what u and v have at an index, in float64, where a run begins; else 0.
template <typename T>
__global__ void __launch_bounds__(256)
    vectors_dot(Pairs a, const T* __restrict__ u, const T* __restrict__ v,
                const u64* __restrict__ keys, const int* __restrict__ numbers,
                const u32* __restrict__ source, double* __restrict__ products) {
  const i64 n = a.nnz_u + a.nnz_v;
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const u64 key = keys[i];
  double left = 0.0, right = 0.0;
  bool has_left = false, has_right = false;
  if (i == 0 || keys[i - 1] != key)
    for (i64 j = i; j < n && keys[j] == key; ++j) {
      const u32 from = source[numbers[j]];
      if (from >> 31) {
        right += static_cast<double>(v[from & 0x7fffffffu]);
        has_right = true;
      } else {
        left += static_cast<double>(u[from]);
        has_left = true;
      }
    }
  products[i] = has_left && has_right ? left * right : 0.0;
}

// Sum the products of each vector: a block a vector, in a tree of fixed shape.
template <typename I>
__global__ void __launch_bounds__(256)
    vectors_sum(i64 count, const I* __restrict__ u_indptr, const I* __restrict__ v_indptr,
                const double* __restrict__ products, double* __restrict__ out) {
  __shared__ double sums[8];
  for (i64 vector = blockIdx.x; vector < count; vector += gridDim.x) {
    const i64 begin = static_cast<i64>(u_indptr[vector]) + static_cast<i64>(v_indptr[vector]);
    const i64 end = static_cast<i64>(u_indptr[vector + 1]) + static_cast<i64>(v_indptr[vector + 1]);
    double sum = 0.0;
    for (i64 i = begin + threadIdx.x; i < end; i += blockDim.x) sum += products[i];
    sum = warp_sum(sum);
    __syncthreads();
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int i = 1; i < 8; ++i) sum += sums[i];
      out[vector] = sum;
    }
  }
}

// Entries of a vector to their places in a dense one.
template <typename T, typename I>
__global__ void __launch_bounds__(256)
    vectors_scatter(i64 n, const I* __restrict__ indices, const T* __restrict__ sums,
                    const int* __restrict__ kept, T* __restrict__ out) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n && kept[i]) out[indices[i]] = sums[i];
}

// x[indices]; `wrong` gets the least place of an index outside of x.
template <typename T, typename I>
__global__ void __launch_bounds__(256)
    vectors_gather(i64 n, i64 size, const T* __restrict__ x, const I* __restrict__ indices,
                   T* __restrict__ out, int* __restrict__ wrong) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const I index = indices[i];
  if (index < 0 || index >= size) atomicMin(wrong, static_cast<int>(i));
  else out[i] = x[index];
}
