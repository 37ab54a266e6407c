"""What is an attention, however it is written, and what only looks like one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_graphs import Array, difference, draw, graph, judge, node, poisoned

from nnz_service.engine import load

F = np.float32
B, T, K, H, D = 2, 11, 7, 3, 4
X = {"x": (F, ("n", "t", H * D))}
SPLIT = np.array([0, 0, H, D])
JOIN = np.array([0, 0, H * D])
CONSTANTS: dict[str, Any] = {
    **{w: draw(F, (H * D, H * D), i) for i, w in enumerate("abc")},
    "wide": draw(F, (H * D, 3 * H * D), 3),
    "split": SPLIT,
    "join": JOIN,
    "root": F(np.sqrt(D)),
    "third": F(0.3),
    "pair": draw(F, (2,)),
    "parts": np.array([H * D] * 3),
    "five": np.array([0, 0, 3, H, D]),
    **{f"i{i}": np.array(i) for i in range(3)},
}


def layers(q: str = "x", k: str = "x", v: str = "x") -> list[Any]:
    return [
        node("MatMul", f"{q} a", "q"),
        node("MatMul", f"{k} b", "k"),
        node("MatMul", f"{v} c", "v"),
    ]


def heads(q: str = "q", k: str = "k", v: str = "v") -> list[Any]:
    """As torch exports them: one transpose for each operand."""
    return [
        node("Reshape", f"{q} split", "q4"),
        node("Reshape", f"{k} split", "k4"),
        node("Reshape", f"{v} split", "v4"),
        node("Transpose", "q4", "qh", perm=[0, 2, 1, 3]),
        node("Transpose", "k4", "kh", perm=[0, 2, 3, 1]),
        node("Transpose", "v4", "vh", perm=[0, 2, 1, 3]),
    ]


def core(scores: str = "s") -> list[Any]:
    """From the scores to the joined heads."""
    return [
        node("Softmax", scores, "p", axis=-1),
        node("MatMul", "p vh", "o"),
        node("Transpose", "o", "oj", perm=[0, 2, 1, 3]),
        node("Reshape", "oj join"),
    ]


SCALED = [node("MatMul", "qh kh", "s0"), node("Div", "s0 root", "s")]
PLAIN = [node("MatMul", "qh kh", "s")]


def ops(file: bytes, sizes: dict[str, int] | None = None) -> list[str]:
    """Steps of the plan, after a look at the answers of both back-ends."""
    sizes = {"n": B, "t": T, "u": K, **(sizes or {})}
    model = load(file)
    feeds = {
        info.name: draw(F, [sizes.get(d, d) for d in shape], seed)
        for seed, (info, shape) in enumerate(
            zip(model.inputs, _shapes(model), strict=True)
        )
    }
    expected = judge(file, feeds)
    for backend in (model, load(file, backend="reference")):
        for name, found in backend.run(feeds).items():
            assert difference(found, expected[name]) < 3e-6
    return [s.op for s in model.plan.steps]


def _shapes(model: Any) -> list[list[Any]]:
    """Shapes of the inputs with the names of free axes."""
    return [
        [d if d is not None else s for d, s in zip(i.shape, symbols, strict=True)]
        for i, symbols in zip(
            model.inputs, model._graph.free_axes.values(), strict=True
        )
    ]


ONE = ["Linear"] * 3 + ["Attention", "from_tokens"]


@pytest.mark.parametrize(
    "middle",
    [
        pytest.param(PLAIN, id="no scale"),
        pytest.param(SCALED, id="divided"),
        pytest.param(
            [node("MatMul", "qh kh", "s0"), node("Mul", "third s0", "s")],
            id="multiplied",
        ),
        pytest.param(
            [
                node("Mul", "qh third", "qs"),
                node("Div", "kh root", "ks"),
                node("MatMul", "qs ks", "s"),
            ],
            id="scaled before the product",
        ),
    ],
)
def test_scale(middle: list[Any]) -> None:
    file = graph([*layers(), *heads(), *middle, *core()], X, CONSTANTS)

    assert ops(file) == ONE
    model = load(file)
    assert model.max_batch > 1
    feeds = {"x": draw(F, model._main.shape("x"))}
    np.testing.assert_array_equal(poisoned(model, feeds)["y"], model.run(feeds)["y"])


def test_keys_turned_twice_and_dropout() -> None:
    nodes = [
        *layers(),
        *heads()[:4],
        node("Transpose", "k4", "kt", perm=[0, 2, 1, 3]),
        node("Transpose", "kt", "kh", perm=[0, 1, 3, 2]),
        *heads()[5:],
        *SCALED,
        node("Softmax", "s", "p0", axis=3),
        node("Dropout", "p0", "p"),
        *core()[1:],
    ]

    assert ops(graph(nodes, X, CONSTANTS)) == ONE


def test_one_head_without_moves() -> None:
    nodes = [
        *layers(),
        node("Transpose", "k", "kt", perm=[0, 2, 1]),
        node("MatMul", "q kt", "s"),
        node("Softmax", "s", "p", axis=-1),
        node("MatMul", "p v"),
    ]

    assert ops(graph(nodes, X, CONSTANTS)) == ONE


def test_heads_in_the_axis_of_the_batch() -> None:
    """As older exporters keep three axes."""
    shapes = {"flat": np.array([-1, T, D]), "back": np.array([-1, H, T, D])}
    nodes = [
        *layers(),
        *heads(),
        node("Reshape", "qh flat", "q3"),
        node("Transpose", "k4", "kt", perm=[0, 2, 1, 3]),
        node("Reshape", "kt flat", "k3"),
        node("Transpose", "k3", "k3t", perm=[0, 2, 1]),
        node("Reshape", "vh flat", "v3"),
        node("MatMul", "q3 k3t", "s"),
        node("Softmax", "s", "p", axis=-1),
        node("MatMul", "p v3", "o3"),
        node("Reshape", "o3 back", "o"),
        *core()[2:],
    ]
    inputs = {"x": (F, ("n", T, H * D))}

    assert ops(graph(nodes, inputs, CONSTANTS | shapes)) == ONE


def test_one_layer_that_is_split() -> None:
    nodes = [
        node("MatMul", "x wide", "qkv"),
        node("Split", "qkv parts", "q k v", axis=-1),
        *heads(),
        *SCALED,
        *core(),
    ]

    assert ops(graph(nodes, X, CONSTANTS)) == ["Linear", "Attention", "from_tokens"]


def test_one_layer_whose_parts_are_gathered() -> None:
    nodes = [
        node("MatMul", "x wide", "qkv"),
        node("Reshape", "qkv five", "q5"),
        node("Transpose", "q5", "t5", perm=[2, 0, 3, 1, 4]),
        *(
            node("Gather", f"t5 i{i}", f"{o}", axis=0)
            for i, o in enumerate(["qh", "g", "vh"])
        ),
        node("Transpose", "g", "kh", perm=[0, 1, 3, 2]),
        *SCALED,
        *core(),
    ]

    assert ops(graph(nodes, X, CONSTANTS)) == ["Linear", "Attention", "from_tokens"]


def test_shapes_computed_from_shapes() -> None:
    """The reshapes read their sizes from the input."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "n0"),
        node("Gather", "shape one", "t0"),
        node("Concat", "n0 t0 hd", "split", axis=0),
        node("Concat", "n0 t0 all", "join", axis=0),
        *layers(),
        *heads(),
        *SCALED,
        *core(),
    ]
    constants = {k: v for k, v in CONSTANTS.items() if k not in ("split", "join")}
    constants |= {
        "zero": np.array([0]),
        "one": np.array([1]),
        "hd": np.array([H, D]),
        "all": np.array([H * D]),
    }

    assert ops(graph(nodes, X, constants)) == ONE


def test_keys_of_another_length() -> None:
    inputs = {**X, "z": (F, ("n", "u", H * D))}
    nodes = [*layers(k="z", v="z"), *heads(), *SCALED, *core()]

    assert ops(graph(nodes, inputs, CONSTANTS)) == ONE


def test_values_of_another_size() -> None:
    constants = {
        "c": draw(F, (H * D, 2 * H)), "vsplit": np.array([0, 0, H, 2]),
        "join": np.array([0, 0, 2 * H]),
    }  # fmt: skip
    nodes = [
        *layers(),
        *heads()[:2],
        node("Reshape", "v vsplit", "v4"),
        *heads()[3:],
        *SCALED,
        *core(),
    ]

    assert ops(graph(nodes, X, CONSTANTS | constants)) == ONE


@pytest.mark.parametrize(
    "shape", [("n", 1, 1, "t"), (1, H, "t", "t"), ("t", "t"), (1,)], ids=str
)
@pytest.mark.parametrize("order", ["s m", "m s"])
def test_mask(shape: Any, order: str) -> None:
    nodes = [
        *layers(),
        *heads(),
        *SCALED,
        node("Add", order, "masked"),
        *core("masked"),
    ]
    file = graph(nodes, {**X, "m": (F, shape)}, CONSTANTS)

    assert ops(file) == ONE


def test_a_mask_of_the_batch_can_be_joined() -> None:
    nodes = [*layers(), *heads(), *SCALED, node("Add", "s m", "e"), *core("e")]

    own = graph(nodes, {**X, "m": (F, ("n", 1, 1, "t"))}, CONSTANTS)
    mixed = graph(nodes, {**X, "m": (F, ("n", "t"))}, CONSTANTS)

    assert load(own).max_batch > 1
    assert load(mixed).max_batch == 0


def test_constant_keys_stay_outside() -> None:
    nodes = [*heads("x", "k0", "k0"), *PLAIN, *core()]
    file = graph(nodes, X, CONSTANTS | {"k0": draw(F, (1, 5, H * D))})

    assert "Attention" not in ops(file)


def test_batches_that_may_differ() -> None:
    """One item's keys for all: allowed, so it has to be right."""
    inputs = {**X, "z": (F, ("m", "u", H * D))}
    nodes = [*layers(k="z", v="z"), *heads(), *PLAIN, *core()]

    assert "Attention" not in ops(graph(nodes, inputs, CONSTANTS), {"m": 1})


#: As many tokens as features: more products fit each other.
SQUARE = {"x": (F, (B, H * D, H * D))}


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        pytest.param(
            [*layers(), *heads(), *PLAIN, node("Softmax", "s", "p", axis=-2),
             *core()[1:]],
            {},
            id="softmax over queries",
        ),
        pytest.param(
            [*layers(), *heads(), *PLAIN, node("Mul", "s third", "e"),
             node("Add", "e third", "f"), node("Mul", "f third", "g"), *core("g")],
            {},
            id="scaled after the mask",
        ),
        pytest.param(
            [*layers(), *heads()[:3], node("Transpose", "q4", "qh", perm=[0, 3, 1, 2]),
             node("Transpose", "k4", "kh", perm=[0, 3, 2, 1]),
             node("Transpose", "v4", "vh", perm=[0, 3, 1, 2]), *PLAIN, *core()[:2],
             node("Transpose", "o", "oj", perm=[0, 2, 3, 1]), *core()[3:]],
            {"split": np.array([0, 0, D, H])},
            id="heads take turns in the features",
        ),
        pytest.param(
            [*layers(), *heads(), *PLAIN, *core()[:2],
             node("Transpose", "o", "oj", perm=[0, 2, 3, 1]), *core()[3:]],
            {},
            id="features of a head apart in the result",
        ),
        pytest.param(
            [*layers(), *heads(), *PLAIN, *core()[:2], node("Reshape", "o join2")],
            {"join2": np.array([B, H * D, H * D])},
            id="joined without a transpose",
        ),
        pytest.param(
            [*layers(), *heads(), *PLAIN, *core()[:3], node("Reshape", "oj join", "z"),
             node("ReduceMax", "p", "p1", axes=[1]),
             node("ReduceMax", "p1", "top", axes=[2], keepdims=0),
             node("Add", "z top")],
            {},
            id="weights that somebody else reads",
        ),
        pytest.param(
            [*layers(), *heads(), *PLAIN, node("Relu", "s", "e"), *core("e")],
            {},
            id="a function between",
        ),
        pytest.param(
            [*layers(), *heads(), node("Slice", "kh first one", "k1"),
             node("MatMul", "qh k1", "s"), *core()],
            {"first": np.array([0]), "one": np.array([1])},
            id="one item's keys for all",
        ),
        pytest.param(
            [*layers(), *heads()[:4], node("Transpose", "k4", "kh", perm=[0, 2, 1, 3]),
             *heads()[5:], *PLAIN, *core()],
            {"split": np.array([0, 0, 1, H * D])},
            id="keys that are not turned",
        ),
    ],
)  # fmt: skip
def test_what_is_something_else(nodes: Any, constants: dict[str, Array]) -> None:
    assert "Attention" not in ops(graph(nodes, SQUARE, CONSTANTS | constants))


def test_layer_norm_stays_in_planes() -> None:
    nodes = [
        node("MatMul", "x a", "q"),
        node("LayerNormalization", "q g b0", "z", axis=-1, epsilon=1e-6),
        node("MatMul", "z b"),
    ]
    constants = {"g": draw(F, (H * D,), 8), "b0": draw(F, (H * D,), 9)}

    assert ops(graph(nodes, X, CONSTANTS | constants)) == [
        "Linear",
        "LayerNormalization",
        "Linear",
        "from_tokens",
    ]


@pytest.mark.parametrize("axis", [-2, 1])
def test_layer_norm_over_tokens_too(axis: int) -> None:
    nodes = [
        node("MatMul", "x a", "q"),
        node("LayerNormalization", "q g", "z", axis=axis),
        node("MatMul", "z b"),
    ]
    file = graph(
        nodes, {"x": (F, (B, T, H * D))}, CONSTANTS | {"g": draw(F, (T, H * D), 8)}
    )

    assert "from_tokens" in ops(file)[:-1]
