"""Architectures: one file and one dataclass of numbers each."""
