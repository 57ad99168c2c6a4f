"""The words that a caller chooses from; the command line offers the same, and importing them costs nothing."""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal["auto", "float16", "bfloat16", "dynamic", "static", "weight-only"]
METHODS: tuple[Method, ...] = get_args(Method)
Observer = Literal["minmax", "percentile", "entropy", "mse"]
OBSERVERS: tuple[Observer, ...] = get_args(Observer)
Bits = Literal[8, 4]
BITS: tuple[Bits, ...] = get_args(Bits)
