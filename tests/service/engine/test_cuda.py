"""Whole networks on an emulated GPU, in every precision, against ONNX Runtime."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx_graphs import difference, draw, graph, judge, node
from real_inputs import INPUTS
from service.engine.test_networks import bottlenecks, encoder

from nnz_service.engine import load
from nnz_service.errors import ImpossibleError

F = np.float32

#: Of each precision the largest difference of a network's answer, relative to its norm.
PRECISIONS = {"fp32": 5e-6, "fp16": 5e-3, "bf16": 4e-2}

NETWORKS = {"encoder": (encoder, (5, 20, 32)), "images": (bottlenecks, (3, 3, 45, 70))}

pytestmark = pytest.mark.usefixtures("emulated_cuda")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("network", NETWORKS)
class TestNetworks:
    def test_cuda_equals_onnxruntime(self, network: str, precision: str) -> None:
        """From the first step to the last nothing leaves the device."""
        make, shape = NETWORKS[network]
        file = make()
        model = load(file, backend="cuda", precision=precision, tuning_seconds=0)
        feeds = {"x": draw(F, shape, 3)}

        found = model.run(feeds)["y"]

        assert difference(found, judge(file, feeds)["y"]) < PRECISIONS[precision]
        assert not any(step.host for step in model.plan.steps)

    def test_cuda_bits_do_not_depend_on_company(
        self, network: str, precision: str
    ) -> None:
        make, shape = NETWORKS[network]
        model = load(make(), backend="cuda", precision=precision, tuning_seconds=0)
        x = draw(F, shape)

        joined = model.run({"x": x})["y"]

        alone = [model.run({"x": x[i : i + 1]})["y"] for i in range(len(x))]
        np.testing.assert_array_equal(joined, np.concatenate(alone))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_cuda_tensor_cores_take_fewer_bytes(precision: str) -> None:
    """Four weights of 16 bits and an offset, for four of 32 and an offset."""
    kept = np.random.default_rng(0).random((64, 512)) < 0.3
    weights = (draw(F, (256, 512)) * kept.repeat(4, axis=0)).T
    file = graph([node("MatMul", "x w")], {"x": (F, (7, 512))}, {"w": weights})
    wide = load(file, backend="cuda", tuning_seconds=0)

    model = load(file, backend="cuda", precision=precision, tuning_seconds=0)

    [row] = [row for row in model.explain() if row["op"] == "Linear"]
    assert row["kernel"] == "spmm_b4_mma"
    assert model.nbytes < 0.7 * wide.nbytes


def test_cuda_calls_from_several_threads() -> None:
    file = encoder()
    model = load(file, backend="cuda", tuning_seconds=0)
    feeds = [{"x": draw(F, (1, 20, 32), seed)} for seed in range(6)]
    expected = [model.run(one)["y"] for one in feeds]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: model.run(one)["y"], feeds))

    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_cuda_steps_of_the_host_get_their_arrays() -> None:
    """An operator that no kernel of the device has runs between two copies."""
    nodes = [
        node("Conv", "x w", "c"), node("Greater", "c zero", "m"),
        node("Where", "m c x", "s"), node("Conv", "s w"),
    ]  # fmt: skip
    constants = {"w": draw(F, (6, 6, 1, 1)), "zero": np.array(0, F)}
    file = graph(nodes, {"x": (F, (1, 6, 5, 4))}, constants)
    model = load(file, backend="cuda", tuning_seconds=0)
    feeds = {"x": draw(F, (1, 6, 5, 4))}

    found = model.run(feeds)["y"]

    assert difference(found, judge(file, feeds)["y"]) < PRECISIONS["fp32"]
    assert [step.op for step in model.plan.steps if step.host] == ["Greater", "Where"]


def test_precisions_of_the_host() -> None:
    with pytest.raises(ImpossibleError, match="'fp16' needs the back-end cuda"):
        load(encoder(), backend="cpu", precision="fp16")
    with pytest.raises(ImpossibleError, match="'int8': there are fp32, fp16, bf16"):
        load(encoder(), backend="cuda", precision="int8")


@pytest.mark.slow
@pytest.mark.parametrize("name", INPUTS)
def test_cuda_real_model(name: str, data_dir: Path) -> None:
    file = (data_dir / f"models/{name}.onnx").read_bytes()
    model = load(file, backend="cuda", tuning_seconds=0)
    feeds = {model.inputs[0].name: INPUTS[name](data_dir, 1)}

    ours, theirs = model.run(feeds), judge(file, feeds)

    assert max(difference(ours[out], theirs[out]) for out in theirs) < 1e-4
    assert not any(step.host for step in model.plan.steps)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_cuda_picture_is_recognised(precision: str, data_dir: Path) -> None:
    """The five likeliest of 1000 classes begin as in float32."""
    name = "mobilenet_v2_1.0_224_dequant_fp32"
    file = (data_dir / f"models/{name}.onnx").read_bytes()
    model = load(file, backend="cuda", precision=precision, tuning_seconds=0)
    feeds = {model.inputs[0].name: INPUTS[name](data_dir, 1)}

    [ours], [theirs] = model.run(feeds).values(), judge(file, feeds).values()

    assert ours.argmax() == theirs.argmax()
    assert len({*np.argsort(ours.ravel())[-5:], *np.argsort(theirs.ravel())[-5:]}) <= 6
