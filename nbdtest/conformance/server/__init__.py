"""Checks for servers, one module per theme."""

THEMES = ("greeting",)
"""The modules in the order of the suite."""
