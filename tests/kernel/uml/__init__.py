"""Runs a command of this machine inside a throw-away Linux kernel: User Mode Linux with the host's tree as its root.

`package` finds or fetches the kernel, `guest` starts it and reports, `init` is process 1 inside.
"""
