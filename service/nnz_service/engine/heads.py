"""The sizes of an Attention: one node for what `passes.attention` has found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnz_kernels.api.attention import AttentionSpec
from nnz_service.engine.graph import Node, Shape
from nnz_service.engine.moves import SettingError


def attention_spec(node: Node, shapes: Sequence[Shape]) -> AttentionSpec:
    """Work out the sizes of an Attention.

    Args:
        node: Its attributes are heads, head_dim, value_dim, scale, and features, how
            many queries, keys and values have.
        shapes: Of queries, keys, values, and the mask if there is one.

    Raises:
        SettingError: They do not fit each other.
    """
    (batch, queries, _), (_, keys, _) = shapes[:2]
    tokens = (queries, keys, keys)
    wanted = [
        (batch, count, features)
        for count, features in zip(tokens, node.attrs["features"], strict=True)
    ]
    if list(shapes[:3]) != wanted:
        raise SettingError(
            f"queries, keys and values {list(shapes[:3])} must be {wanted}"
        )
    sizes = {name: node.attrs[name] for name in ("heads", "head_dim", "value_dim")}
    spec = AttentionSpec(batch, queries, keys, scale=node.attrs["scale"], **sizes)
    for mask in shapes[3:]:
        if np.broadcast_shapes(mask, spec.scores) != spec.scores:
            raise SettingError(
                f"mask {list(mask)} does not fit scores {list(spec.scores)}"
            )
    return spec
