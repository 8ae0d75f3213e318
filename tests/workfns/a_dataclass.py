"""Makes a dataclass when it is imported, for which `typing` must be whole or not there."""

from dataclasses import dataclass


@dataclass
class Point:
    x: int
    y: "int"
