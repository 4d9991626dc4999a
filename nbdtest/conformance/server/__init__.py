"""Checks for servers, one module per theme."""

THEMES = (
    "greeting",
    "oldstyle",
    "exportname",
    "options",
    "strings",
    "listing",
    "info",
    "starttls",
    "tls",
    "meta",
    "chunks",
    "reading",
    "writing",
    "zeroing",
    "hints",
    "status",
    "commands",
    "disconnect",
    "sizes",
)
"""The modules in the order of the suite."""
