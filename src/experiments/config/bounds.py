"""Bounds and choices that several constructors share; `config/signatures.py` reads them where they are named."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt

Positive = Annotated[int, Ge(1)]
NotNegative = Annotated[int, Ge(0)]
AboveZero = Annotated[float, Gt(0)]
OnBadImage = Literal["error", "skip"]
Precision = Literal["float32", "int8", "binary"]
