"""Measures an embedding server over HTTP: throughput, latency, and whether a lone query stays fast under bulk."""
