"""Small problems that together launch every kernel, each beside its right answer.

Sizes are such that no tile divides them; rows may be empty, values NaN.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from kernels import algebra_cases
from kernels.network_cases import convolve, planes, random_case
from kernels.vector_cases import ragged, random_vector

from nnz_kernels import reference
from nnz_kernels.api import AttentionSpec, ConvSpec, Kernels, PoolSpec
from nnz_kernels.api.pointwise import UNARY_KINDS
from nnz_kernels.api.tensor import BINARY_KINDS, REDUCE_KINDS
from nnz_kernels.arrays import HostArray
from nnz_kernels.convert import csr_from_dense
from nnz_kernels.cuda.bound_conv import DENSE, SPARSE
from nnz_kernels.formats import Csr
from nnz_kernels.planes import Grid, token_grid

#: What was found, and what is right.
Answers = Iterator[tuple[Any, Any]]
Case = Callable[[Kernels[Any]], Answers]

FLOATS, INDICES = (np.float32, np.float64), (np.int32, np.int64)

_SPEC = ConvSpec(pads=(1, 1, 1, 1), clamp=(-1.0, 2.0), activation="silu")


def _both(
    kernels: Kernels[Any], op: Callable[[Kernels[Any]], HostArray]
) -> tuple[HostArray, HostArray]:
    return op(kernels), op(reference)


def _written(
    kernels: Kernels[Any], floats: int, op: Callable[[Kernels[Any], HostArray], None]
) -> tuple[HostArray, HostArray]:
    results = []
    for one in (kernels, reference):
        y = np.full(floats, np.nan, np.float32)
        op(one, y)
        results.append(y)
    return results[0], results[1]


def _convolved(kernels: Kernels[Any], block: int | None, tiling: Any) -> Answers:
    """Two images, borders that do and do not hold the padding, groups, strides."""
    x, weights, bias = random_case(1, (2, 3, 7, 5), (37, 3, 3, 3), 0.4)
    residual = random_case(2, (2, 37, 7, 5), (1, 1, 1, 1), 1.0)[0]
    for borders in (((1, 1), (1, 2)), ((0, 0), (0, 0))):
        yield _both(
            kernels,
            lambda k, b=borders: convolve(
                k, x, weights, bias, _SPEC, block=block, tiling=tiling, borders=b,
                residual=residual,
            ),
        )  # fmt: skip
    grouped = replace(_SPEC, groups=3, strides=(2, 1), dilations=(1, 2))
    x, weights, bias = random_case(3, (1, 9, 9, 9), (15, 3, 3, 2), 0.5)
    yield _both(
        kernels,
        lambda k: convolve(k, x, weights, bias, grouped, block=block, tiling=tiling),
    )


def _sparse_conv(block: int) -> Case:
    def case(kernels: Kernels[Any]) -> Answers:
        for tiling in SPARSE:
            yield from _convolved(kernels, block, tiling)

    return case


def dense_conv(kernels: Kernels[Any]) -> Answers:
    for tiling in DENSE:
        yield from _convolved(kernels, None, tiling)
    x, weights, bias = random_case(5, (1, 300, 3, 3), (70, 300, 1, 1), 1.0)
    for tiling in (*DENSE, "library"):
        yield _both(
            kernels, lambda k, t=tiling: convolve(k, x, weights, bias, tiling=t)
        )
    x, weights, bias = random_case(6, (2, 20, 5, 4), (20, 20, 1, 1), 1.0)
    plain = replace(_SPEC, pads=(0, 0, 0, 0))
    for borders in (((1, 1), (1, 1)), ((0, 0), (1, 2))):
        yield _both(
            kernels,
            lambda k, b=borders: convolve(
                k, x, weights, bias, plain, tiling="library", borders=b, residual=x
            ),
        )
    yield _both(kernels, lambda k: _added_in_place(k, x, weights, plain))


def _added_in_place(
    kernels: Kernels[Any], x: HostArray, weights: HostArray, spec: ConvSpec
) -> HostArray:
    """Convolve into the residual itself."""
    grid = Grid(2, 5, 4, 1, 1)
    y, laid = planes(x, grid), planes(x, grid)
    conv = kernels.prepare_conv(weights, None, spec, block=None, tiling="library")
    bound = conv.bind(grid, grid)
    bound.run(laid, y, y, np.empty(bound.scratch, np.float32))
    return y


def staged(kernels: Kernels[Any]) -> Answers:
    """An input without a border is copied into one that has it."""
    x, weights, bias = random_case(1, (2, 3, 7, 5), (9, 3, 3, 3), 0.4)
    yield _both(kernels, lambda k: convolve(k, x, weights, bias, _SPEC, block=1))


def depthwise(kernels: Kernels[Any]) -> Answers:
    x, weights, bias = random_case(4, (2, 6, 7, 9), (12, 1, 3, 3), 1.0)
    spec = replace(_SPEC, groups=6)
    for tiling, borders in itertools.product(
        ("direct", "narrow"), (((1, 1), (1, 1)), ((0, 0), (0, 0)))
    ):
        yield _both(
            kernels,
            lambda k, t=tiling, b=borders: convolve(
                k, x, weights, bias, spec, tiling=t, borders=b
            ),
        )


def pools(kernels: Kernels[Any]) -> Answers:
    xg, yg, channels = Grid(2, 9, 7, 1, 1), Grid(2, 5, 4, 2, 2), 5
    image = np.random.default_rng(0).standard_normal((2, channels, 9, 7))
    image[0, 0, 0, 0] = np.nan
    x = planes(image, xg)
    spec = PoolSpec((3, 3), (2, 2), (1, 1, 1, 1))
    for op in ("max_pool", "average_pool"):
        yield _written(
            kernels,
            yg.size(channels),
            lambda k, y, op=op: getattr(k, op)(x, xg, y, yg, channels, spec, threads=1),
        )
    for means in (token_grid(2), Grid(2, 1, 1, 1, 1)):
        yield _written(
            kernels,
            means.size(channels),
            lambda k, y, g=means: k.global_average_pool(
                x, xg, y, g, channels, threads=1
            ),
        )


def pointwise(kernels: Kernels[Any]) -> Answers:
    grid, channels = Grid(2, 3, 5, 1, 2), 3
    image = np.random.default_rng(1).standard_normal((2, channels, 3, 5))
    image = image.astype(np.float32)
    x, size = planes(image, grid), grid.size(channels)
    vector = np.linspace(-1, 1, channels, dtype=np.float32)
    values = np.append(np.linspace(-4, 4, 300), np.nan).astype(np.float32)
    for kind in UNARY_KINDS:
        yield _written(
            kernels,
            values.size,
            lambda k, y, kind=kind: k.unary(kind, values, y, alpha=-0.5, beta=0.7),
        )
    yield _written(kernels, size, lambda k, y: k.add_planes(x, x, y, -1.0, 1.0))
    yield _written(
        kernels,
        size,
        lambda k, y: k.channel_affine(x, vector, vector, -0.5, 0.5, y, grid, channels),
    )
    yield _written(kernels, size, lambda k, y: k.prelu(x, vector, y, grid, channels))

    def zeroed(k: Kernels[Any], y: HostArray) -> None:
        y[...] = 7
        k.zero_border(y, grid, channels)

    yield _written(kernels, size, zeroed)
    yield _written(kernels, size, lambda k, y: k.to_planes(image, y, grid))
    yield _written(
        kernels,
        image.size,
        lambda k, y: k.from_planes(x, grid, channels, y.reshape(image.shape)),
    )


def tokens(kernels: Kernels[Any]) -> Answers:
    rows = np.random.default_rng(2).standard_normal((45, 70)).astype(np.float32)
    grid = token_grid(45)
    laid = np.empty(grid.size(70), np.float32)
    reference.to_tokens(rows, laid, grid)
    yield _written(kernels, laid.size, lambda k, y: k.to_tokens(rows, y, grid))
    yield _written(
        kernels,
        rows.size,
        lambda k, y: k.from_tokens(laid, grid, 70, y.reshape(45, 70)),
    )
    for count, channels in ((45, 70), (9, 1100)):
        asked = token_grid(count)
        x = np.random.default_rng(8).standard_normal(asked.size(channels))
        gamma = np.linspace(0.5, 1.5, channels, dtype=np.float32)
        given = x.astype(np.float32), gamma, gamma, 1e-5
        yield _written(
            kernels,
            x.size,
            lambda k, y, given=given, asked=asked, channels=channels: (
                k.layer_norm_planes(*given, y, asked, channels, threads=1)
            ),
        )


def attention(kernels: Kernels[Any]) -> Answers:
    rng = np.random.default_rng(3)
    for head_dim, value_dim, keys in ((40, 70, 67), (40, 20, 5), (70, 30, 35)):
        spec = AttentionSpec(2, 35, keys, 2, head_dim, value_dim, 0.3)
        asked, seen = token_grid(70), token_grid(2 * keys)
        q, k, v = (
            rng.standard_normal(g.size(2 * dim)).astype(np.float32)
            for g, dim in ((asked, head_dim), (seen, head_dim), (seen, value_dim))
        )
        mask = rng.standard_normal((2, 1, 35, keys)).astype(np.float32)
        mask[0, 0, 3] = -np.inf
        mask[1, 0, :, 1] = -np.inf
        for added in (mask, None):
            yield _written(
                kernels,
                asked.size(2 * value_dim),
                lambda one, y, a=(q, k, v, added), s=spec: one.attention_planes(
                    *a, y, s, threads=1
                ),
            )


def tensors(kernels: Kernels[Any]) -> Answers:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((3, 5, 41)).astype(np.float32)
    y = np.abs(rng.standard_normal((5, 1)).astype(np.float32)) + 0.1
    for kind in BINARY_KINDS:
        yield _both(kernels, lambda k, kind=kind: k.binary(kind, np.abs(x), y))
    for axis in (0, 2):
        yield _both(kernels, lambda k, a=axis: k.softmax(x, a))
        yield _both(kernels, lambda k, a=axis: k.log_softmax(x, a))
    for kind in REDUCE_KINDS:
        yield _both(
            kernels, lambda k, kind=kind: k.reduce(kind, np.abs(x), (0, 2), False)
        )
    gamma = np.linspace(0, 1, 41, dtype=np.float32)
    yield _both(kernels, lambda k: k.layer_norm(x, gamma, None, 1e-5))
    a = rng.standard_normal((2, 1, 67, 19)).astype(np.float32)
    b = rng.standard_normal((3, 19, 70)).astype(np.float32)
    yield _both(kernels, lambda k: k.matmul(a, b))
    for dtype in (np.uint8, np.float16, np.float32, np.float64):
        held = (rng.standard_normal((4, 3, 5)) * 9).astype(dtype)
        target = np.zeros((4, 3, 5), dtype)
        kernels.copy(held[:, :1], target)
        yield target, np.broadcast_to(held[:, :1], target.shape)
    filled = np.empty(300, np.float32)
    kernels.fill(filled, 2.5)
    yield filled, np.full(300, 2.5, np.float32)


def _matrix(rows: int, columns: int, dtype: Any, index: Any, lengths: Any) -> Any:
    rng = np.random.default_rng(5)
    dense = np.zeros((rows, columns))
    for row, length in enumerate(lengths):
        dense[row, rng.permutation(columns)[:length]] = rng.standard_normal(length)
    a = csr_from_dense(dense.astype(dtype))
    return Csr(a.indptr.astype(index), a.indices.astype(index), a.data, a.shape)


def products(kernels: Kernels[Any]) -> Answers:
    rng = np.random.default_rng(6)
    for dtype, index in itertools.product(FLOATS, INDICES):
        for mean in (1, 3, 7, 13, 25, 60):  # one for each number of lanes
            lengths = [0, *(mean + i % 3 - 1 for i in range(20))]
            a = _matrix(21, 130, dtype, index, lengths)
            x = rng.standard_normal(130).astype(dtype)
            yield _both(kernels, lambda k, a=a, x=x: k.spmv(a, x))
        for width in (2, 3, 7, 16, 33, 150):
            block = rng.standard_normal((130, width)).astype(dtype)
            yield _both(kernels, lambda k, a=a, b=block: k.spmm(a, b))
        y = rng.standard_normal(21).astype(dtype)
        yield _both(kernels, lambda k, a=a, y=y: k.spmv_t(a, y))


def shared_rows(kernels: Kernels[Any]) -> Answers:
    """Two matrices may share row pointers, and differ in what they hold."""
    for scale in (1.0, 2.0):
        a = _matrix(21, 130, np.float64, np.int32, [3] * 21)
        a = Csr(a.indptr, a.indices, scale * a.data, a.shape)
        y = np.arange(21.0)
        yield _both(kernels, lambda k, a=a, y=y: k.spmv_t(a, y))


def uneven(kernels: Kernels[Any]) -> Answers:
    """One row of nearly all entries, many of none: the merge, and rows in order."""
    rng = np.random.default_rng(7)
    for dtype, index in itertools.product(FLOATS, INDICES):
        lengths = [0, 3, 0, 2900, 1, *([0] * 1500), 2, 900]
        a = _matrix(len(lengths), 3000, dtype, index, lengths)
        x = rng.standard_normal((3000, 20)).astype(dtype)
        yield _both(kernels, lambda k, a=a, x=x: k.spmv(a, x[:, 0].copy()))
        yield _both(kernels, lambda k, a=a, x=x: k.spmm(a, x))


def vectors(kernels: Kernels[Any]) -> Answers:
    """Batches with duplicates and empty vectors, longer than a tile of the sort."""
    for dtype, index in itertools.product(FLOATS, INDICES):
        rng = np.random.default_rng(8)
        many = [random_vector(rng, 700, n, dtype, index) for n in (900, 0, 5, 1300)]
        more = [random_vector(rng, 700, n, dtype, index) for n in (300, 7, 0, 900)]
        us, vs = ragged(many), ragged(more)
        r = np.array([0.5, -1, 2, 3])
        for zeros, duplicates in (("keep", "sum"), ("drop_exact", "last")):
            sums: list[Any] = [
                k.axpy_many(us, r, vs, zeros=zeros, duplicates=duplicates)
                for k in (kernels, reference)
            ]
            for part in ("indptr", "indices", "values"):
                yield getattr(sums[0], part), getattr(sums[1], part)
        yield _both(kernels, lambda k, us=us, vs=vs: k.dot_many(us, vs))
        pair = [k.combine(many[0], r, vs) for k in (kernels, reference)]
        yield pair[0].indices, pair[1].indices
        yield pair[0].values, pair[1].values
        yield _both(kernels, lambda k, u=many[3]: k.scatter(u))
        dense = rng.standard_normal(700).astype(dtype)
        yield _both(kernels, lambda k, d=dense, u=many[0]: k.gather(d, u.indices))


#: By module of the kernels that a case is about.
CASES: dict[str, tuple[Case, ...]] = {
    "sparse_conv": tuple(_sparse_conv(block) for block in (1, 2, 4, 8, 16)),
    "dense_conv": (dense_conv, depthwise),
    "pool": (pools,),
    "pointwise": (pointwise, tokens, staged),
    "attention": (attention, tokens),
    "tensor": (tensors,),
    "products": (products, shared_rows, uneven),
    "sort": (vectors, uneven, algebra_cases.sums_of_many),
    "vectors": (vectors,),
    "transpose": (algebra_cases.transposes, shared_rows),
    "saddle": (algebra_cases.saddle,),
    "sparse": (algebra_cases.entries, algebra_cases.sorting),
    "spgemm": (
        algebra_cases.products,
        algebra_cases.sorting,
        algebra_cases.sorted_semirings,
    ),
    "semiring": (algebra_cases.semirings,),
    "triangle": (algebra_cases.triangles,),
    "factor": (algebra_cases.incomplete_factors,),
    "dense": (algebra_cases.dense_vectors,),
}


def compare(found: Any, right: Any) -> None:
    """Compare an answer with the right one; integers exactly.

    Raises:
        AssertionError: They differ.
    """
    found, right = np.asarray(found), np.asarray(right)
    assert found.shape == right.shape
    if found.dtype.kind in "iu":
        np.testing.assert_array_equal(found, right)
    else:
        tolerance = 1e-4 if found.dtype.itemsize <= 4 else 1e-10
        np.testing.assert_allclose(found, right, rtol=tolerance, atol=tolerance)
