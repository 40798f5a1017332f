"""Pure array maths over vectors: no model, no clock, no I/O. Shapes are in the docstrings."""

from __future__ import annotations
