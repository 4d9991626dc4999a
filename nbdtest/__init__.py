"""Tools for testing NBD (Network Block Device) servers and clients.

The parts are `nbdtest.client`, `nbdtest.fakeserver`, `nbdtest.conformance`, `nbdtest.fixtures` and `nbdtest.fuzz`;
this module itself imports none of them.
"""

__version__ = "0.1.0"
