"""Numbers as people read them in tables: a dash stands for what is not known."""

from __future__ import annotations

import math


def number(value: float) -> str:
    """A number in four significant digits."""
    return "-" if math.isnan(value) else f"{value:.4g}"


def short_number(value: float) -> str:
    """A number in four digits, with the zeros at its end: so they stand below each other in a narrow column."""
    return "-" if math.isnan(value) else f"{value:#.4g}".rstrip(".")


def iou(value: float) -> str:
    """An IoU in four decimals."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def with_iou(label: str, value: float) -> str:
    """A label with its IoU in three decimals; of a description, which has none, the label alone."""
    return label if math.isnan(value) else f"{label} {value:.3f}"


def share(value: float) -> str:
    """A share between 0 and 1 in three decimals."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def signed(value: float) -> str:
    """A change in three decimals, with its sign; nought has none."""
    return "-" if math.isnan(value) else f"{value:+.3f}" if abs(value) >= 0.0005 else "0.000"


def interval(low: float, high: float) -> str:
    """Both ends of an interval: ``0.121-0.183``."""
    return "-" if math.isnan(low) or math.isnan(high) else f"{low:.3f}-{high:.3f}"


def signed_interval(low: float, high: float) -> str:
    """Both ends of the interval of a change: ``-0.012 to +0.003``."""
    return "-" if math.isnan(low) or math.isnan(high) else f"{signed(low)} to {signed(high)}"


def chance(value: float) -> str:
    """A p or q in three decimals, ``<0.001`` for what rounds to less."""
    return "<0.001" if value < 0.001 else share(value)
