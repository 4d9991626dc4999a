"""Checks for clients, one module per theme."""

THEMES: tuple[str, ...] = ()
"""The modules in the order of the suite."""
