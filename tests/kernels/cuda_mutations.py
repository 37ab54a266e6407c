"""Errors that are planted in real kernels: each must show in an answer, or crash."""

from __future__ import annotations

from cuda_emulator.planting import Change

#: What is broken in a real kernel, and how: module, text, what stands there instead.
MUTATIONS: dict[str, Change] = {
    "no barrier before sums of parts are read": Change(
        "sparse_conv",
        "    __syncthreads();\n    if (part < half)",
        "    if (part < half)",
    ),
    "no barrier before staged weights are read": Change(
        "sparse_conv",
        "    __syncwarp();\n#pragma unroll 4",
        "#pragma unroll 4",
    ),
    "a block row too many": Change(
        "sparse_conv",
        "line < a.rows;\n",
        "line <= a.rows;\n",
    ),
    "no barrier before a tile is multiplied": Change(
        "dense_conv",
        "      __syncthreads();\n      if (column + DEPTH < range.y)",
        "      if (column + DEPTH < range.y)",
    ),
    "columns of another part": Change(
        "dense_conv",
        "column = range.x; column < range.y;",
        "column = range.x; column <= range.y;",
    ),
    "no end of the channels of a depthwise layer": Change(
        "dense_conv",
        "blockIdx.y; channel < y.channels; channel += gridDim.y) {\n"
        "    const T* plane",
        "blockIdx.y; channel <= y.channels; channel += gridDim.y) {\n"
        "    const T* plane",
    ),
    "no end of the places of a pool": Change(
        "pool",
        "if (q >= places_of(y, channel)) continue;\n    float found",
        "float found",
    ),
    "half a warp in a mean": Change("pool", "WARP = 0xffffffffu", "WARP = 0xffffu"),
    "no barrier in a transposition": Change(
        "pointwise",
        "  __syncthreads();\n  for (int i = threadIdx.y; i < TILE; i += STEP) {\n"
        "    const int q = q0 + threadIdx.x",
        "  for (int i = threadIdx.y; i < TILE; i += STEP) {\n"
        "    const int q = q0 + threadIdx.x",
    ),
    "no barrier before the weights of keys are used": Change(
        "attention",
        "    __syncthreads();\n    // From here a lane is a query",
        "    // From here a lane is a query",
    ),
    "no barrier before shared pixels are overwritten": Change(
        "mma_conv",
        "      __syncthreads();\n      if (step >= 0)",
        "      if (step >= 0)",
    ),
    "a bit too far": Change("mma_conv", "(u64{1} << bit) - 1", "(u64{2} << bit) - 1"),
    "pixels of the last column where there is none": Change(
        "mma_conv",
        "next[k][i] = offset < 0 ?",
        "next[k][i] = offset < -1 ?",
    ),
    "keys that are not there": Change(
        "attention", "if (key >= a.keys) value = -INF;", ""
    ),
    "queries of the last slice for all": Change(
        "attention", "key0 == 0 || a.head_dim > SLICE", "key0 == 0"
    ),
    "a mean of the channels that are kept alone": Change(
        "attention",
        "c < channels; c += NORM_LANES) mean +=",
        "c < 0; c += NORM_LANES) mean +=",
    ),
    "channels that are not kept are not written": Change(
        "attention",
        "c < channels; c += NORM_LANES)\n    write(",
        "c < 0; c += NORM_LANES)\n    write(",
    ),
    "a row too many": Change(
        "tensor",
        "if (row >= rows) return;\n  x += row * size;\n  float value",
        "if (row > rows) return;\n  x += row * size;\n  float value",
    ),
    "no barrier between products and sums": Change(
        "products",
        "  __syncthreads();\n  // Rows row0",
        "  // Rows row0",
    ),
    "carries of a later tile alone": Change(
        "products",
        "y[row] = sum + y[row];",
        "y[row] = y[row];",
    ),
    "no barrier before digits are ranked": Change(
        "sort",
        "    __syncthreads();\n    int base = next[threadIdx.x];",
        "    int base = next[threadIdx.x];",
    ),
    "an unstable sort": Change(
        "sort",
        "counts[warp][digit] + before;",
        "counts[warp][digit] + __popc(same) - 1 - before;",
    ),
    "no barrier before staged products are added": Change(
        "saddle",
        "parts[p - start] = value(p);\n      __syncthreads();",
        "parts[p - start] = value(p);",
    ),
    "an entry of the next row": Change(
        "sparse",
        "place_of(a_indices, a_indptr[row], end, b_indices[q]);",
        "place_of(a_indices, a_indptr[row], end + 1, b_indices[q]);",
    ),
    "no end of the entries that are scaled": Change(
        "sparse",
        "if (p >= nnz) return;\n  T value",
        "if (p > nnz) return;\n  T value",
    ),
    "no barrier before a table is used": Change(
        "spgemm",
        "  if (member == 0) totals[group] = 0;\n  meet<GROUP>();",
        "  if (member == 0) totals[group] = 0;",
    ),
    "no barrier between the steps of a sort": Change(
        "spgemm",
        "      }\n      meet<GROUP>();",
        "      }",
    ),
    "sums that begin before all are empty": Change(
        "spgemm",
        "data[at] = add.start();\n  __syncwarp(mates);",
        "data[at] = add.start();",
    ),
    "a run that adds the next one": Change(
        "spgemm",
        "k < n && keys[k] == key;",
        "k < n && keys[k] <= key + 1;",
    ),
    "columns that a mask has not": Change(
        "semiring",
        "if (at == end || m_indices[at] != b_indices[q]) continue;",
        "if (at == end) continue;",
    ),
    "no barrier before masked products are added": Change(
        "semiring",
        "  __syncwarp(mates);\n  const i64 last",
        "  const i64 last",
    ),
    "dots without the last entry of a column": Change(
        "semiring",
        "q_end = t_indptr[column + 1];",
        "q_end = t_indptr[column + 1] - 1;",
    ),
    "places of entries that are not kept": Change(
        "semiring",
        "out[before[i]] = data[i];",
        "out[before[i + 1]] = data[i];",
    ),
    "a row that does not wait": Change("factor", "*flag == 0;", "*flag == 2;"),
    "a result that looks as if it were not there": Change(
        "triangle", "static_cast<volatile double*>(at) = is_clear(x) ? -x : x;",
        "static_cast<volatile double*>(at) = x;",
    ),
    "a count of parts that is not set back": Change(
        "dense", "    counts[blockIdx.y] = 0;\n", ""
    ),
    "a row of a thread that does not wait": Change(
        "triangle", "if (is_clear(known)) break;", ""
    ),
    "a row of a warp that does not wait": Change(
        "triangle", "is_clear(value); ++looks", "false; ++looks"
    ),
    "blocks that take rows by their number": Change(
        "triangle",
        "ticket = atomicAdd(chain.ticket, 1u);",
        "ticket = blockIdx.x;",
    ),
    "a factor that is written before all have read": Change(
        "factor",
        "fresh(inverse + k));\n    __syncwarp();\n"
        "    if (lane == 0) data[p] = factor;",
        "fresh(inverse + k));\n    if (lane == 0) data[p] = factor;",
    ),
    "columns in another order": Change(
        "transpose",
        "static_cast<I>(owner(indptr, rows, from))",
        "static_cast<I>(owner(indptr, rows, p))",
    ),
    "no test for the end of a batch": Change(
        "vectors",
        "if (i >= a.nnz_u + a.nnz_v) return;\n  const bool is_v",
        "const bool is_v",
    ),
}  # fmt: skip

#: One that is none: nothing may be caught.
HARMLESS: dict[str, Change] = {
    "a space": Change(
        "transpose", "owner(indptr, rows, from)", "owner(indptr, rows, from )"
    ),
}

#: Those that only a sanitizer sees: they read beyond an array and use nothing of it.
READS: dict[str, Change] = {
    "a load behind the last entry": Change(
        "products",
        "for (I p = begin + lane; p < end; p += step) {",
        "for (I p = begin + lane; p < end + 64; p += step) {\n"
        "    if (p >= end) {\n"
        "      asm volatile(\"\" ::\"r\"(static_cast<int>(data[p])));\n"
        "      continue;\n"
        "    }",
    ),
}  # fmt: skip
