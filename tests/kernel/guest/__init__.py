"""Tests that need the kernel's NBD client; `tests/kernel/conftest.py` runs them in User Mode Linux."""
