"""Sockets, clocks and processes: the only part of nbdtest that touches the operating system.

Everything above is handed a `Stream`, a `Deadline` or a `Process` from here. Nothing here knows a message of the
protocol.
"""
