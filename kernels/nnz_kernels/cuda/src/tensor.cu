// Ops on plain row-major arrays of any rank.
#include "reduce.cuh"

// Walk of two operands over one shape, the last axis fastest; strides in elements.
constexpr int RANK = 8;
struct Walk {
  i64 shape[RANK], a[RANK], b[RANK];
  i64 size;
  int rank;
  int unused;
};

__device__ __forceinline__ void locate(const Walk& walk, i64 i, i64& a, i64& b) {
  a = b = 0;
  for (int axis = walk.rank - 1; axis >= 0; --axis) {
    const i64 rest = i / walk.shape[axis], at = i - rest * walk.shape[axis];
    a += at * walk.a[axis];
    b += at * walk.b[axis];
    i = rest;
  }
}

// In the order of nnz_kernels.api.tensor.BINARY_KINDS.
enum Binary { ADD, SUB, MUL, DIV, POW, MIN, MAX };

__device__ __forceinline__ float binary_value(int kind, float a, float b) {
  switch (kind) {
    case ADD: return a + b;
    case SUB: return a - b;
    case MUL: return a * b;
    case DIV: return a / b;
    case POW: return powf(a, b);
    case MIN: return smaller(a, b);
    default: return larger(a, b);
  }
}

__global__ void __launch_bounds__(256)
    binary(int kind, Walk walk, const float* __restrict__ x, const float* __restrict__ y,
           float* __restrict__ out) {
  const i64 step = static_cast<i64>(gridDim.x) * blockDim.x;
  for (i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; i < walk.size; i += step) {
    i64 a, b;
    locate(walk, i, a, b);
    out[i] = binary_value(kind, x[a], y[b]);
  }
}

// Copy between layouts; T is any type of the size of an element.
template <typename T>
__global__ void __launch_bounds__(256)
    copy_strided(Walk walk, const T* __restrict__ from, T* __restrict__ to) {
  const i64 step = static_cast<i64>(gridDim.x) * blockDim.x;
  for (i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; i < walk.size; i += step) {
    i64 a, b;
    locate(walk, i, a, b);
    to[b] = from[a];
  }
}

__global__ void __launch_bounds__(256) fill(i64 n, float value, float* y) {
  const i64 step = static_cast<i64>(gridDim.x) * blockDim.x;
  for (i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step)
    y[i] = value;
}

// The ops below take rows: a warp makes one, blockDim.y are in a block.
__device__ __forceinline__ i64 row_of_warp() {
  return static_cast<i64>(blockIdx.x) * blockDim.y + threadIdx.y;
}

__global__ void __launch_bounds__(256)
    softmax(int log, i64 rows, i64 size, const float* __restrict__ x, float* __restrict__ y) {
  const i64 row = row_of_warp();
  if (row >= rows) return;
  x += row * size;
  y += row * size;
  float top = -INF, sum = 0.0f;
  for (i64 i = threadIdx.x; i < size; i += 32) top = larger(top, x[i]);
  top = warp_max(top);
  // Minus infinity everywhere, or an infinity: the plain formula's NaN must come.
  for (i64 i = threadIdx.x; i < size; i += 32) sum += expf(x[i] - top);
  sum = warp_sum(sum);
  const float logarithm = logf(sum);
  for (i64 i = threadIdx.x; i < size; i += 32)
    y[i] = log ? x[i] - top - logarithm : expf(x[i] - top) / sum;
}

__global__ void __launch_bounds__(256)
    layer_norm(float eps, i64 rows, i64 size, const float* __restrict__ x,
               const float* __restrict__ gamma, const float* __restrict__ beta,
               float* __restrict__ y) {
  const i64 row = row_of_warp();
  if (row >= rows) return;
  x += row * size;
  y += row * size;
  float mean = 0.0f, variance = 0.0f;
  for (i64 i = threadIdx.x; i < size; i += 32) mean += x[i];
  mean = warp_sum(mean) / static_cast<float>(size);
  for (i64 i = threadIdx.x; i < size; i += 32)
    variance = fmaf(x[i] - mean, x[i] - mean, variance);
  variance = warp_sum(variance) / static_cast<float>(size);
  const float scale = 1.0f / sqrtf(variance + eps);
  for (i64 i = threadIdx.x; i < size; i += 32) {
    const float shift = beta == nullptr ? 0.0f : beta[i];
    y[i] = fmaf((x[i] - mean) * scale, gamma[i], shift);
  }
}

// In the order of nnz_kernels.api.tensor.REDUCE_KINDS.
enum Reduce { SUM, MEAN, MAX_OF, MIN_OF, PROD, L1, L2, SUM_SQUARE, LOG_SUM, LOG_SUM_EXP };

__device__ __forceinline__ float reduced(int kind, const float* __restrict__ x, i64 size) {
  float value = kind == PROD ? 1.0f : kind == MIN_OF ? INF : 0.0f;
  if (kind == MAX_OF || kind == LOG_SUM_EXP) value = -INF;
  for (i64 i = threadIdx.x; i < size; i += 32) {
    switch (kind) {
      case MAX_OF:
      case LOG_SUM_EXP: value = larger(value, x[i]); break;
      case MIN_OF: value = smaller(value, x[i]); break;
      case PROD: value *= x[i]; break;
      case L1: value += fabsf(x[i]); break;
      case L2:
      case SUM_SQUARE: value = fmaf(x[i], x[i], value); break;
      default: value += x[i];
    }
  }
  if (kind == MIN_OF) return warp_min(value);
  if (kind == PROD) return warp_product(value);
  if (kind == MAX_OF || kind == LOG_SUM_EXP) return warp_max(value);
  return warp_sum(value);
}

__global__ void __launch_bounds__(256)
    reduce(int kind, i64 rows, i64 size, const float* __restrict__ x, float* __restrict__ y) {
  const i64 row = row_of_warp();
  if (row >= rows) return;
  x += row * size;
  float value = reduced(kind, x, size);
  if (kind == LOG_SUM_EXP) {
    // Infinity minus infinity would be NaN.
    const float shift = fabsf(value) < INF ? value : 0.0f;
    float sum = 0.0f;
    for (i64 i = threadIdx.x; i < size; i += 32) sum += expf(x[i] - shift);
    value = logf(warp_sum(sum)) + shift;
  }
  if (kind == MEAN) value /= static_cast<float>(size);
  if (kind == L2) value = sqrtf(value);
  if (kind == LOG_SUM) value = logf(value);
  if (threadIdx.x == 0) y[row] = value;
}

// Products of many row-major matrices: item i multiplies those at the offsets a[i], b[i].
constexpr int SIDE = 64, DEPTH = 16, EACH = 4;

__global__ void __launch_bounds__((SIDE / EACH) * (SIDE / EACH))
    matmul(int m, int n, int depth, const i64* __restrict__ a_at, const i64* __restrict__ b_at,
           const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c) {
  __shared__ float left[DEPTH][SIDE + 1], right[DEPTH][SIDE];
  constexpr int THREADS = (SIDE / EACH) * (SIDE / EACH), ACROSS = SIDE / EACH;
  const int thread = threadIdx.x, row0 = blockIdx.y * SIDE, column0 = blockIdx.x * SIDE;
  a += a_at[blockIdx.z];
  b += b_at[blockIdx.z];
  float sums[EACH][EACH] = {};
  for (int k0 = 0; k0 < depth; k0 += DEPTH) {
    for (int at = thread; at < SIDE * DEPTH; at += THREADS) {
      const int row = row0 + at / DEPTH, k = k0 + at % DEPTH;
      const bool inside = row < m && k < depth;
      left[at % DEPTH][at / DEPTH] = inside ? a[static_cast<i64>(row) * depth + k] : 0.0f;
    }
    for (int at = thread; at < SIDE * DEPTH; at += THREADS) {
      const int k = k0 + at / SIDE, column = column0 + at % SIDE;
      const bool inside = k < depth && column < n;
      right[at / SIDE][at % SIDE] = inside ? b[static_cast<i64>(k) * n + column] : 0.0f;
    }
    __syncthreads();
    const int last = min(DEPTH, depth - k0);
    for (int k = 0; k < last; ++k)
#pragma unroll
      for (int i = 0; i < EACH; ++i)
#pragma unroll
        for (int j = 0; j < EACH; ++j)
          sums[i][j] = fmaf(left[k][thread / ACROSS + i * ACROSS],
                            right[k][thread % ACROSS + j * ACROSS], sums[i][j]);
    __syncthreads();
  }
  c += static_cast<i64>(blockIdx.z) * m * n;
  for (int i = 0; i < EACH; ++i)
    for (int j = 0; j < EACH; ++j) {
      const int row = row0 + thread / ACROSS + i * ACROSS;
      const int column = column0 + thread % ACROSS + j * ACROSS;
      if (row < m && column < n) c[static_cast<i64>(row) * n + column] = sums[i][j];
    }
}
