"""Layers: modules that hold parameters and compute with functional operations."""
