"""Nine real networks against ONNX Runtime, dense and pruned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_graphs import difference, draw, judge
from real_inputs import INPUTS

from nnz_service.engine import Model, load
from nnz_service.engine.pruning import prune
from nnz_service.errors import UnsupportedModelError

#: Norm of the difference over the norm that the project promises.
PROMISE = 1e-4


def _compare(model: Model, file: bytes, name: str, data: Path) -> float:
    """Largest difference on real inputs, batch 1 and, where it is free, 3."""
    [info] = model.inputs
    worst = 0.0
    for batch in (1, 3) if info.shape[0] is None else (1,):
        feeds = {info.name: INPUTS[name](data, batch)}
        ours, theirs = model.run(feeds), judge(file, feeds)
        assert set(ours) == set(theirs)
        worst = max(difference(ours[out], theirs[out]) for out in theirs)
    return worst


def _weight_bytes(model: Model) -> int:
    return sum(row["bytes"] or 0 for row in model.explain())


@pytest.mark.parametrize("name", INPUTS)
def test_equals_onnxruntime(name: str, data_dir: Path) -> None:
    file = (data_dir / f"models/{name}.onnx").read_bytes()

    worst = _compare(load(file), file, name, data_dir)

    assert worst < PROMISE


def test_two_inputs_and_two_outputs(data_dir: Path) -> None:
    """The second half of a speech enhancer: gates written out, two states."""
    file = (data_dir / "models/dtln_model_2.onnx").read_bytes()
    model = load(file)
    feeds = {i.name: draw(np.float32, [d or 1 for d in i.shape]) for i in model.inputs}

    ours, theirs = model.run(feeds), judge(file, feeds)

    assert set(ours) == set(theirs)
    assert all(difference(ours[name], theirs[name]) < PROMISE for name in theirs)


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize("name", INPUTS)
def test_pruned_equals_onnxruntime_and_is_smaller(
    name: str, block: int, data_dir: Path
) -> None:
    path = data_dir / f"models/{name}.onnx"
    file = prune(path, 0.8, block)[0].SerializeToString()

    model = load(file)
    worst = _compare(model, file, name, data_dir)

    sparse = [row for row in model.explain() if (row["density"] or 1.0) < 0.25]
    stored, dense = _weight_bytes(model), _weight_bytes(load(path))
    assert worst < PROMISE
    assert model.fallbacks == 0
    assert sparse
    for row in sparse:
        assert row["block"] is not None, row
        assert row["kernel"].startswith("spmm"), row
        # Small layers are mostly row pointers and padding to whole vectors.
        if row["dense_bytes"] > 1 << 14:
            assert row["bytes"] < 0.8 * row["dense_bytes"], row
    assert stored < 0.75 * dense


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v1_0.75_224",
        "mobilenet_v2_1.0_224_dequant_fp32",
        "squeezenet_v1.0_deepcompression_sparse",
    ],
)
def test_names_the_class_that_onnxruntime_names(name: str, data_dir: Path) -> None:
    file = (data_dir / f"models/{name}.onnx").read_bytes()
    model = load(file)
    [info] = model.inputs
    feeds = {info.name: INPUTS[name](data_dir, 64)}

    ours, theirs = model.run(feeds)["logits"], judge(file, feeds)["logits"]

    np.testing.assert_array_equal(ours.argmax(1), theirs.argmax(1))


def test_lists_every_unsupported_node(data_dir: Path) -> None:
    for name, count in (
        ("dtln_model_1", 2),
        ("silero_vad_op18_ifless", 1),
        ("mobilenet_v2_1.0_224_int8_qdq", 236),
    ):
        with pytest.raises(UnsupportedModelError) as refused:
            load(data_dir / f"models/{name}.onnx")

        assert len(refused.value.nodes) == count
        assert all(node in str(refused.value) for node in refused.value.nodes)
