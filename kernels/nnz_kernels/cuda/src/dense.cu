// Dense float64 vectors of iterative methods: what is not a sum has NumPy's bits. Bound: what
// is read and written once, and for short vectors the launch.
#include "reduce.cuh"

// a x + b y, each rounded; a x alone where there is no y. `out` may be x or y.
__global__ void __launch_bounds__(256)
    dense_axpby(i64 n, double a, const double* x, double b, const double* y, double* out) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const double scaled = multiplied(a, x[i]);
  out[i] = y == nullptr ? scaled : added(scaled, multiplied(b, y[i]));
}

// x y, element by element.
__global__ void __launch_bounds__(256)
    dense_multiply(i64 n, const double* x, const double* y, double* out) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) out[i] = multiplied(x[i], y[i]);
}

// x / divisor.
__global__ void __launch_bounds__(256)
    dense_divide(i64 n, const double* x, double divisor, double* out) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) out[i] = x[i] / divisor;
}

// The sum of a block's numbers, in a tree; the first thread gets it.
__device__ __forceinline__ double block_sum(double mine) {
  __shared__ double found[8];
  mine = warp_sum(mine);
  __syncthreads();
  if (threadIdx.x % 32 == 0) found[threadIdx.x / 32] = mine;
  __syncthreads();
  if (threadIdx.x > 0) return 0.0;
  for (int warp = 1; warp < 8; ++warp) mine = added(mine, found[warp]);
  return mine;
}

// Row y of the grid: the product of that row of a basis, or of a lone vector, with w. The block
// of a row that is the last to be done adds up what all of them have left; how many there are
// depends on n alone, so no bit depends on the device. `counts` are zero, and are again.
__global__ void __launch_bounds__(256)
    dense_dots(i64 n, const double* __restrict__ basis, const double* __restrict__ w,
               double* parts, u32* counts, double* out) {
  __shared__ int is_last;
  const double* row = basis + static_cast<i64>(blockIdx.y) * n;
  double* mine = parts + static_cast<i64>(blockIdx.y) * gridDim.x;
  double sum = 0.0;
  for (i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; i < n;
       i += static_cast<i64>(gridDim.x) * blockDim.x)
    sum = fma(row[i], w[i], sum);
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    mine[blockIdx.x] = sum;
    __threadfence();
    is_last = atomicAdd(counts + blockIdx.y, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!is_last) return;
  sum = 0.0;
  for (u32 i = threadIdx.x; i < gridDim.x; i += blockDim.x) sum = added(sum, __ldcg(mine + i));
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    out[blockIdx.y] = sum;
    counts[blockIdx.y] = 0;
  }
}

// w minus what it has along the first rows of a basis.
__global__ void __launch_bounds__(256)
    dense_subtract(i64 n, int count, const double* __restrict__ basis,
                   const double* __restrict__ along, double* __restrict__ w) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  double rest = w[i];
  for (int k = 0; k < count; ++k) rest = fma(-along[k], basis[k * n + i], rest);
  w[i] = rest;
}
