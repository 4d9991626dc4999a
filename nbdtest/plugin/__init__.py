"""The pytest plugin as pytest loads it: options and fixtures. Imports pytest and the standard library alone.

Everything else of nbdtest is imported when an option or a fixture of it is used.
"""
