"""Reads weights and settings from files."""
