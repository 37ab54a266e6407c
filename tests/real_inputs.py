"""Inputs for the real models, prepared as each of them was trained with."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from onnx_graphs import Array
from PIL import Image


def imagenet(data: Path, count: int, crop: int) -> Array:
    """Pictures 0..255 RGB, ``(count, 3, crop, crop)``: the centre of each."""
    paths = sorted((data / "datasets/imagenet_samples/img").iterdir())
    step = len(paths) // count
    return np.stack([_centre(Image.open(p), crop) for p in paths[::step][:count]])


def _centre(picture: Image.Image, crop: int) -> Array:
    pixels = np.asarray(picture.convert("RGB"), np.float32)
    top, left = ((size - crop) // 2 for size in pixels.shape[:2])
    return pixels[top : top + crop, left : left + crop].transpose(2, 0, 1)


def _cifar(data: Path, count: int) -> Array:
    def pictures() -> Iterator[Array]:
        with tarfile.open(data / "datasets/cifar10/cifar10_test_jpg.tar.gz") as archive:
            for member in archive:
                held = archive.extractfile(member) if member.isfile() else None
                if held is not None and member.name.lower().endswith((".jpg", ".png")):
                    picture = Image.open(io.BytesIO(held.read())).convert("RGB")
                    yield np.asarray(picture, np.float32).transpose(2, 0, 1)

    return np.stack(list(islice(pictures(), count)))


def _mnist(data: Path, count: int) -> Array:
    path = data / "datasets/mnist/t10k-images-idx3-ubyte.gz"
    with gzip.open(path) as file:
        raw = file.read(16 + count * 784)[16:]
    return np.frombuffer(raw, np.uint8).reshape(count, 1, 28, 28).astype(np.float32)


def _grey(data: Path, count: int) -> Array:
    paths = sorted((data / "datasets/sr/Set14").iterdir())
    found = [np.asarray(Image.open(p).convert("L"), np.float32) for p in paths[:count]]
    return np.stack([pixels[:90, :76] for pixels in found])[:, None] / 255


def _face(data: Path, count: int) -> Array:
    paths = sorted((data / "datasets/imagenet_samples/img").iterdir())[:count]
    found = [Image.open(p).convert("RGB").resize((320, 240)) for p in paths]
    pixels = np.stack([np.asarray(p, np.float32).transpose(2, 0, 1) for p in found])
    return (pixels - 127) / 128


def _mfcc(data: Path, count: int) -> Array:
    return np.random.default_rng(0).standard_normal((count, 98, 40), np.float32) * 10


def _mobilenet(data: Path, count: int) -> Array:
    return imagenet(data, count, 224) / 127.5 - 1


def _squeezenet(data: Path, count: int) -> Array:
    mean = np.array([104, 117, 123], np.float32)[:, None, None]
    return imagenet(data, count, 227)[:, ::-1] - mean


def _resnet20(data: Path, count: int) -> Array:
    mean = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
    deviation = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
    return (_cifar(data, count) / 255 - mean) / deviation


#: For each model file how its inputs are made.
INPUTS: dict[str, Callable[[Path, int], Array]] = {
    "mnist-8": _mnist,
    "resnet20_cifar10": _resnet20,
    "mlperf_tiny_ic_resnet8_fp32": _cifar,
    "super_resolution_espcn_x3": _grey,
    "kwt1_mfcc": _mfcc,
    "squeezenet_v1.0_deepcompression_sparse": _squeezenet,
    "mobilenet_v2_1.0_224_dequant_fp32": _mobilenet,
    "mobilenet_v1_0.75_224": _mobilenet,
    "ultraface_RFB-320_simplified": _face,
}
