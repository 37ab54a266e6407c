"""Places in the arena, views, and what a plan leaves out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_graphs import draw, graph, node

from nnz_service.engine import load
from nnz_service.engine.plan import ALIGNMENT, PlanBuilder, Storage, place

F = np.float32

lives = st.tuples(st.integers(0, 500), st.integers(0, 12), st.integers(0, 12))


@given(st.lists(lives, max_size=30))
def test_storages_in_use_together_do_not_overlap(
    found: list[tuple[int, int, int]],
) -> None:
    storages = [Storage(n, None, min(a, b), max(a, b)) for n, a, b in found]

    total = place(storages)

    for i, one in enumerate(storages):
        assert one.offset % ALIGNMENT == 0
        assert one.offset + one.nbytes <= total
        for other in storages[:i]:
            together = one.first <= other.last and other.first <= one.last
            apart = (
                one.offset + one.nbytes <= other.offset
                or other.offset + other.nbytes <= one.offset
            )
            assert apart or not together or not one.nbytes or not other.nbytes


def test_memory_is_used_again() -> None:
    storages = [Storage(1000, None, i, i + 1) for i in range(10)]

    assert place(storages) == 2 * 1024


class TestView:
    def test_knows_where_a_slice_begins(self) -> None:
        build = PlanBuilder()
        slot = build.allocate(np.dtype(F), (4, 6))

        cut = build.view(slot, lambda a: a[1:, ::-2].T)

        assert cut.offset == (6 + 5) * 4
        assert cut.shape == (3, 3)
        assert cut.strides == (-8, 24)

    def test_refuses_to_copy(self) -> None:
        build = PlanBuilder()
        turned = build.view(build.allocate(np.dtype(F), (4, 6)), lambda a: a.T)

        with pytest.raises(ValueError, match="copy"):
            build.view(turned, lambda a: a.reshape(24, copy=False))


class TestSteps:
    def test_data_movement_takes_no_step(self) -> None:
        """Head split of an attention: only the products and conversions remain."""
        file = graph(
            [
                node("Reshape", "x s", "r"),
                node("Transpose", "r", "q", perm=[0, 2, 1, 3]),
                node("Unsqueeze", "q a", "u"),
                node("Squeeze", "u a", "v"),
                node("Relu", "v"),
            ],
            {"x": (F, (1, 5, 8))},
            {"s": np.array([0, 0, 2, 4]), "a": np.array([0])},
        )

        steps = [step.op for step in load(file, backend="reference").plan.steps]

        assert steps == ["copy", "Relu"]

    def test_convolutions_of_one_size_share_a_grid(self) -> None:
        """A whole residual block: no conversion between the layers."""
        file = graph(
            [
                node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
                node("Relu", "a", "b"),
                node("Conv", "b w", "c", pads=[1, 1, 1, 1]),
                node("Add", "c x", "d"),
                node("Relu", "d", "e"),
                node("Conv", "e v", "f"),
                node("Concat", "f e", "g", axis=1),
                node("GlobalAveragePool", "g", "h"),
                node("Flatten", "h", "i"),
                node("Gemm", "i u"),
            ],
            {"x": (F, ("n", 8, 14, 14))},
            {
                "w": draw(F, (8, 8, 3, 3)),
                "v": draw(F, (4, 8, 1, 1)),
                "u": draw(F, (12, 3)),
            },
        )

        plan = load(file, backend="reference").plan

        assert [step.op for step in plan.steps] == [
            "Conv",
            "Conv",
            "Conv",
            "Concat",
            "GlobalAveragePool",
            "Linear",
            "from_tokens",
        ]
        assert [name for name, _, _ in plan.loads] == ["x"]
