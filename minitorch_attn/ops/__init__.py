"""Primitives: every operation with its gradient rules, one file per idea."""
