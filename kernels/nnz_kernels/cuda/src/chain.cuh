// Rows that need the results of other rows of the same launch, which look until they are
// there: nothing is analysed ahead and one launch is enough (Liu, Li, Hogg, Duff, Vinter, "A
// synchronization-free algorithm for parallel sparse triangular solves", Euro-Par 2016).
// Blocks take their rows by a ticket: what a row waits for was taken before, and is running.
#pragma once
#include "rows.cuh"

struct Chain {
  int* done;     // a flag a row, all zero at first; null where results tell by themselves
  u32* ticket;   // zero at first
  u64* bad;      // least number, in the order of work, of a row without a pivot
  int* stopped;  // 1 where somebody has waited too long
};

// Looks at one place before the launch is given up: seconds, where rows take microseconds.
constexpr int PATIENCE = 1 << 24;

// The number of this block, in the order of work.
__device__ __forceinline__ i64 next_block(const Chain& chain) {
  __shared__ u32 ticket;
  if (threadIdx.x == 0 && threadIdx.y == 0) ticket = atomicAdd(chain.ticket, 1u);
  __syncthreads();
  return ticket;
}

// Whether to look again, after so many times; others run meanwhile, the longer the more often
// that was in vain.
__device__ __forceinline__ bool is_patient(const Chain& chain, int looks) {
  volatile int* stopped = chain.stopped;
  if (looks == PATIENCE || *stopped != 0) {
    *stopped = 1;
    return false;
  }
  if (looks > 4) __nanosleep(looks < 64 ? 8 * looks : 512);
  return true;
}

__device__ __forceinline__ void wait_for(const Chain& chain, i64 row) {
  const volatile int* flag = chain.done + row;
  for (int looks = 0; *flag == 0; ++looks)
    if (!is_patient(chain, looks)) break;
  __threadfence();
}

// All lanes have written what belongs to the row.
__device__ __forceinline__ void finish_row(const Chain& chain, i64 row) {
  __threadfence();
  __syncwarp();
  if (threadIdx.x == 0) *static_cast<volatile int*>(chain.done + row) = 1;
}

// A NaN that no arithmetic makes stands where no result has been written yet, so that one
// look finds out whether there is one and what it is.
__device__ __forceinline__ void clear(float* at) { *at = __int_as_float(0x7fc5a5a5); }
__device__ __forceinline__ void clear(double* at) {
  *at = __longlong_as_double(0x7ff8a5a5a5a5a5a5LL);
}
__device__ __forceinline__ void clear(complex_t* at) {
  clear(&at->re);
  clear(&at->im);
}

__device__ __forceinline__ bool is_clear(float x) { return __float_as_uint(x) == 0x7fc5a5a5u; }
__device__ __forceinline__ bool is_clear(double x) {
  return __double_as_longlong(x) == 0x7ff8a5a5a5a5a5a5LL;
}
__device__ __forceinline__ bool is_clear(complex_t x) { return is_clear(x.re) || is_clear(x.im); }

// What another thread may write at this moment, each number at once.
__device__ __forceinline__ float latest(const float* at) {
  return *static_cast<const volatile float*>(at);
}
__device__ __forceinline__ double latest(const double* at) {
  return *static_cast<const volatile double*>(at);
}
__device__ __forceinline__ complex_t latest(const complex_t* at) {
  return {latest(&at->re), latest(&at->im)};
}

// Write a result where others wait for it; that NaN, if a number given was one, as another.
__device__ __forceinline__ void tell(float* at, float x) {
  *static_cast<volatile float*>(at) = is_clear(x) ? -x : x;
}
__device__ __forceinline__ void tell(double* at, double x) {
  *static_cast<volatile double*>(at) = is_clear(x) ? -x : x;
}
__device__ __forceinline__ void tell(complex_t* at, complex_t x) {
  tell(&at->re, x.re);
  tell(&at->im, x.im);
}

template <typename T>
__device__ __forceinline__ T awaited(const Chain& chain, const T* at) {
  T value = latest(at);
  for (int looks = 0; is_clear(value); ++looks) {
    if (!is_patient(chain, looks)) break;
    value = latest(at);
  }
  return value;
}
