"""Every kernel in every instantiation, for those who load, compile or emulate them."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

#: Types that planes may hold.
ELEMENTS = ("float", "half_t", "bf16_t")

#: Sizes of blocks for which there are sparse convolutions, each with the numbers of
#: pixels that a lane may have: B x V sums are at most 32 registers.
BLOCK_WIDTHS: dict[int, tuple[int, ...]] = {
    1: (1, 8), 2: (1, 8), 4: (1, 8), 8: (1, 4), 16: (1, 2),
}  # fmt: skip

#: Blocks that tensor cores multiply.
MMA_BLOCKS = (4, 8, 16)

#: Tiles of the dense convolution: channels, pixels, and those of a thread.
DENSE_TILES = ((64, 64, 4, 4), (128, 64, 8, 4), (32, 32, 4, 2))

#: Lanes that may share a row of a matrix.
ROW_LANES = (1, 2, 4, 8, 16, 32)

#: Columns of a narrow product, and columns of a lane in a wide one.
NARROW, WIDE = (2, 4, 8, 16), (1, 4)

#: Threads of a row of a sparse product, and cells of its hash table: few, some columns.
HASHES = ((32, 512), (256, 4096))

_PLANE, _WINDOW, _WALK = "s32", "s72", "s208"


@dataclass(frozen=True, slots=True)
class Kernel:
    """One compiled kernel.

    Args:
        module: Its file in ``src``, without the ending.
        name: Its name there.
        template: Arguments of its template, as written in C++.
        signature: A token a parameter: ``p`` for a pointer, ``i`` and ``l`` for 32 and
            64-bit integers, ``f`` and ``d`` for floats, ``s<n>`` for a struct of so
            many bytes.
    """

    module: str
    name: str
    template: tuple[str, ...]
    signature: tuple[str, ...]

    @property
    def expression(self) -> str:
        """Its name in C++, by which the compiler knows the instantiation."""
        arguments = f"<{', '.join(self.template)}>" if self.template else ""
        return f"{self.name}{arguments}"


def _kernel(module: str, name: str, signature: str, *template: str | int) -> Kernel:
    return Kernel(module, name, tuple(map(str, template)), tuple(signature.split()))


def _typed(
    module: str, name: str, signature: str, types: str, *rest: tuple[int, ...]
) -> list[Kernel]:
    """Return a kernel for each type of values (``T``), of entries, which may be complex
    (``E``), of indices (``I``), and more.
    """
    floats = ("float", "double")
    choices = {"T": floats, "E": (*floats, "complex_t"), "I": ("int", "long long")}
    options: list[tuple[str | int, ...]] = [choices[one] for one in types]
    return [
        _kernel(module, name, signature, *template)
        for template in itertools.product(*options, *rest)
    ]


def _convolutions() -> list[Kernel]:
    return [
        *(
            _kernel("sparse_conv", "conv_block", f"{_PLANE} p s48 p s32 p", t, b, v)
            for t in ELEMENTS
            for b, widths in BLOCK_WIDTHS.items()
            for v in widths
        ),
        *(
            _kernel("dense_conv", "conv_dense", f"{_PLANE} p s40 p s32 p p", *tile)
            for tile in DENSE_TILES
        ),
        _kernel("dense_conv", "conv_finish", f"{_PLANE} i p s32 p"),
        *(
            _kernel("dense_conv", "conv_ending", f"{_PLANE} p s32 p", t)
            for t in ELEMENTS
        ),
        *(
            _kernel("mma_conv", "conv_mma", f"{_PLANE} p s48 p s32 p", t, b)
            for t in ELEMENTS[1:]
            for b in MMA_BLOCKS
        ),
        *(
            _kernel("mma_conv", "conv_mma_dense", f"{_PLANE} p s48 i p s32 p", t)
            for t in ELEMENTS[1:]
        ),
        *(
            _kernel("mma_conv", "conv_mma_bitmap", f"{_PLANE} p s48 p i p s32 p", t)
            for t in ELEMENTS[1:]
        ),
        *(
            _kernel(
                "dense_conv", "conv_depthwise", f"{_PLANE} p i p p l i p s32 p", t, v
            )
            for t in ELEMENTS
            for v in (1, 4)
        ),
    ]


def _planes() -> list[Kernel]:
    pooled = f"{_PLANE} {_WINDOW} l p p"
    signatures = {
        ("pool", "max_pool"): pooled,
        ("pool", "average_pool"): pooled,
        ("pool", "global_average_pool"): f"{_PLANE} {_PLANE} p p",
        ("pointwise", "unary"): "i f f l p p",
        ("pointwise", "add_planes"): "l f f p p p",
        ("pointwise", "channel_affine"): f"{_PLANE} f f p p p p",
        ("pointwise", "prelu"): f"{_PLANE} p p p",
        ("pointwise", "zero_border"): f"{_PLANE} p",
        ("pointwise", "copy_planes"): f"{_PLANE} p l p p",
        ("pointwise", "to_planes"): f"{_PLANE} i p p",
        ("pointwise", "from_planes"): f"{_PLANE} i p p",
        ("pointwise", "to_tokens"): f"{_PLANE} p p",
        ("pointwise", "from_tokens"): f"{_PLANE} p p",
        ("attention", "layer_norm_planes"): f"{_PLANE} f p p p p",
    }
    return [
        *(
            _kernel(*name, signature, t)
            for name, signature in signatures.items()
            for t in ELEMENTS
        ),
        *(
            _kernel("attention", "attention", f"{_PLANE} s96 p p p p p", t, width)
            for t in ELEMENTS
            for width in (32, 64)
        ),
    ]


def _tensors() -> list[Kernel]:
    elements = ("unsigned char", "unsigned short", "unsigned int", "unsigned long long")
    return [
        _kernel("tensor", "binary", f"i {_WALK} p p p"),
        *(_kernel("tensor", "copy_strided", f"{_WALK} p p", one) for one in elements),
        _kernel("tensor", "fill", "l f p"),
        _kernel("tensor", "softmax", "i l l p p"),
        _kernel("tensor", "layer_norm", "f l l p p p p"),
        _kernel("tensor", "reduce", "i l l p p"),
        _kernel("tensor", "matmul", "i i i p p p p p"),
    ]


def _products() -> list[Kernel]:
    return [
        *_typed("products", "spmv_csr", "l p p p p p", "TI", ROW_LANES),
        *_typed("products", "spmv_merge", "l l p p p p p p p", "TI"),
        *_typed("products", "spmv_carry", "l l p p p", "T"),
        *_typed("products", "spmm_narrow", "l i p p p p p", "TI", NARROW),
        *_typed("products", "spmm_wide", "l i p p p p p p", "TI", WIDE),
        *_typed("products", "row_lengths", "l p p p p", "I"),
        *_typed("transpose", "transpose_keys", "l p p p", "I"),
        *_typed("transpose", "transpose_fill", "l l l i p p p p p p p", "EI"),
    ]


def _algebra() -> list[Kernel]:
    side = "s112 p l i"
    return [
        _kernel("dense", "dense_axpby", "l d p d p p"),
        _kernel("dense", "dense_multiply", "l p p p"),
        _kernel("dense", "dense_divide", "l p d p"),
        _kernel("dense", "dense_dots", "l p p p p p"),
        _kernel("dense", "dense_subtract", "l i p p p"),
        *_typed("saddle", "pdhg_primal", side, "I"),
        *_typed("saddle", "pdhg_dual", side, "I"),
        *_typed("triangle", "clear_all", "l p", "E"),
        *_typed("triangle", "solve_short_rows", "s24 s32 p p p p p p", "EI"),
        *_typed("triangle", "solve_rows", "s24 s32 p p p p p p", "EI"),
        *_typed("factor", "diagonal_places", "l p p p", "I"),
        *_typed("factor", "factor_ilu0", "l s32 p p p p p", "I"),
        *_typed("factor", "factor_ic0", "l s32 p p p p", "I"),
        *_sparse(),
        *_spgemm(),
        *_semirings(),
    ]


def _sparse() -> list[Kernel]:
    return [
        _kernel("sparse", "convert", "l p p", "int", "long long"),
        _kernel("sparse", "convert", "l p p", "long long", "int"),
        *_typed("sparse", "find_disorder", "l l p p p", "I"),
        *_typed("sparse", "scale_entries", "l l p p p p p p", "EI"),
        *_typed("sparse", "union_new", "l l p p p p p", "I"),
        *_typed("sparse", "union_fill", "l l l p p p p p p p p p p p", "EI"),
        *_typed("sparse", "taken_lengths", "l p p p", "I"),
        *_typed("sparse", "take_rows", "l l p p p p p p p", "EI"),
        *_typed("sparse", "sampled_dots", "l l l i p p p p p", "EI"),
        *_typed("sparse", "row_sums", "l p p p", "EI"),
        *_typed("sparse", "take_diagonal", "l p p p p", "EI"),
        *_typed("sparse", "take_magnitudes", "l p p", "E"),
        _kernel("sparse", "reduce_magnitudes", "l i d p p"),
    ]


def _spgemm() -> list[Kernel]:
    hashed = "l i l p p p p p p p p p"
    return [
        *_typed("spgemm", "entry_products", "l p p p", "I"),
        *_typed("spgemm", "row_bounds", "l l l l p p p p p p", "I"),
        _kernel("spgemm", "find_ways", "l p p"),
        _kernel("spgemm", "list_products", "l p p p"),
        *(
            _kernel("spgemm", "hash_columns", hashed, index, *sizes)
            for index in ("int", "long long")
            for sizes in HASHES
        ),
        *_typed("spgemm", "product_values", "l i i p p p p p p p p p p", "EI"),
        *_typed("spgemm", "expand_products", "i i i p p p p p p p p p p p p", "EI"),
        *_typed("spgemm", "entry_keys", "l l i p p p p", "I"),
        _kernel("spgemm", "find_runs", "l p p"),
        _kernel("spgemm", "count_runs", "l p p p p"),
        *_typed("spgemm", "fill_runs", "l i i p p p p p p p p p", "EI"),
    ]


def _semirings() -> list[Kernel]:
    masked = "p p p p p p p p p p"
    return [
        *_typed("semiring", "semiring_rows", "l i p p p p p", "EI"),
        *_typed("semiring", "dot_lengths", "l p p p", "I"),
        *_typed("semiring", "masked_rows", f"l i i {masked}", "EI"),
        *_typed("semiring", "masked_dots", f"l l i {masked}", "EI"),
        *_typed("semiring", "keep_found", "l l p p p p p p p", "EI"),
    ]


def _vectors() -> list[Kernel]:
    compact = "s32 p p p p p p p p p p p"
    return [
        _kernel("sort", "sort_count", "i i p p"),
        _kernel("sort", "sort_move", "i i p p p p p"),
        *_typed("sort", "scan_tiles", "l p p p", "I"),
        *_typed("sort", "scan_add", "l p p", "I"),
        *_typed("vectors", "vectors_pack", "s32 p p p p p p p", "I"),
        *_typed("vectors", "vectors_axpy", "s32 i i i p p p p p p p p p p", "TI"),
        *_typed("vectors", "vectors_compact", compact, "TI"),
        *_typed("vectors", "vectors_dot", "s32 p p p p p p", "T"),
        *_typed("vectors", "vectors_sum", "l p p p p", "I"),
        *_typed("vectors", "vectors_scatter", "l p p p p", "TI"),
        *_typed("vectors", "vectors_gather", "l l p p p p", "TI"),
    ]


#: Every kernel.
KERNELS: tuple[Kernel, ...] = (
    *_convolutions(), *_planes(), *_tensors(), *_products(), *_vectors(),
    *_algebra(),
)  # fmt: skip

#: Names of the files in ``src`` that are compiled each on its own.
MODULES: tuple[str, ...] = tuple(dict.fromkeys(kernel.module for kernel in KERNELS))


@functools.cache
def find(name: str, *template: str | int) -> Kernel:
    """Return a kernel by its name and the arguments of its template.

    Raises:
        LookupError: There is no such instantiation.
    """
    wanted = tuple(map(str, template))
    for kernel in KERNELS:
        if kernel.name == name and kernel.template == wanted:
            return kernel
    raise LookupError(f"no kernel {name}<{', '.join(wanted)}> is compiled")


def of_module(module: str) -> tuple[Kernel, ...]:
    """Return the kernels of one file."""
    return tuple(kernel for kernel in KERNELS if kernel.module == module)
