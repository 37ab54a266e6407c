"""Names of servables in a path, as the interface's description has them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

Name = Annotated[str, Path(description="A model's name or a matrix id.")]
Version = Annotated[str, Path(description="Digits.", examples=["1"])]
