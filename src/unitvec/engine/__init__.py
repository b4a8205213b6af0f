"""Runs models."""

import os

# From its import on, onnxruntime reports to its makers that and how it is used. A server of other people's texts does
# not, unless it is told to: this must stand before the first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
