// Reflected Halpern iterations of the primal-dual hybrid gradient method, a pass a side: a
// row is multiplied, stepped, projected, reflected and averaged before it is left, so that
// no product is written and read again. Bound: 12 bytes an entry (float64, int32).
#include "rows.cuh"

// One side of the problem: columns with A' for x, rows with A for y.
struct Side {
  const void *indptr, *indices;
  const double* data;
  const double* from;           // what is multiplied: y, or the reflected x
  const double *lower, *upper;  // bounds of x, or of A x
  const double *costs, *anchor;
  double *z, *point, *change;   // x, xh, dx, or y, yh, dy
  double *reduced, *reflected;  // of x alone
  i64 rows;
};

// What differs from iteration to iteration: the steps, and k before the first.
struct Steps {
  double tau, sigma, done;
};

// NaN stays what it is.
__device__ __forceinline__ double between(double x, double low, double high) {
  return x < low ? low : (x > high ? high : x);
}

__device__ __forceinline__ double averaged(const Steps* __restrict__ steps, i64 number, double x,
                                           double anchor) {
  const double k = steps->done + static_cast<double>(number);
  return added(multiplied((k + 1.0) / (k + 2.0), x), multiplied(1.0 / (k + 2.0), anchor));
}

template <typename I>
__global__ void __launch_bounds__(ROWS, 8)
    pdhg_primal(Side s, const Steps* __restrict__ steps, i64 number, int last) {
  const I* indices = static_cast<const I*>(s.indices);
  sum_rows<double>(
      s.rows, static_cast<const I*>(s.indptr),
      [&](i64 p) { return multiplied(streamed(s.data + p), s.from[streamed(indices + p)]); },
      [&](i64 j, double total) {
        const double x = s.z[j], tau = steps->tau;
        const double t = added(x, -multiplied(tau, added(s.costs[j], -total)));
        const double h = between(t, s.lower[j], s.upper[j]), b = added(2.0 * h, -x);
        s.reflected[j] = b;
        if (last) {
          s.point[j] = h;
          s.reduced[j] = added(h, -t) / tau;
          s.change[j] = added(x, -b);
        }
        s.z[j] = averaged(steps, number, b, s.anchor[j]);
      });
}

template <typename I>
__global__ void __launch_bounds__(ROWS, 8)
    pdhg_dual(Side s, const Steps* __restrict__ steps, i64 number, int last) {
  const I* indices = static_cast<const I*>(s.indices);
  sum_rows<double>(
      s.rows, static_cast<const I*>(s.indptr),
      [&](i64 p) { return multiplied(streamed(s.data + p), s.from[streamed(indices + p)]); },
      [&](i64 i, double total) {
        const double y = s.z[i], sigma = steps->sigma;
        const double q = added(y / sigma, -total);
        const double h = multiplied(sigma, added(q, -between(q, -s.upper[i], -s.lower[i])));
        const double b = added(2.0 * h, -y);
        if (last) {
          s.point[i] = h;
          s.change[i] = added(y, -b);
        }
        s.z[i] = averaged(steps, number, b, s.anchor[i]);
      });
}
