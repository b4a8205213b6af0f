"""Runs models."""
