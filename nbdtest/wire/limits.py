"""Sizes that the specification fixes or recommends, in bytes unless the name says otherwise."""

from typing import Final

__all__ = [
    "DEFAULT_MAXIMUM_PAYLOAD",
    "DEFAULT_PREFERRED_BLOCK",
    "DEFAULT_TCP_PORT",
    "MAXIMUM_MINIMUM_BLOCK",
    "MAXIMUM_OPTION_DATA",
    "MAXIMUM_STATUS_DESCRIPTORS",
    "MAXIMUM_STRING",
    "MINIMUM_PREFERRED_BLOCK",
    "OLDSTYLE_PADDING",
    "RECOMMENDED_STRING",
    "UNLIMITED_PAYLOAD",
]

DEFAULT_TCP_PORT: Final = 10809
MAXIMUM_STRING: Final = 4096
"""No string of the protocol is longer. Spec: proto.md "Conventions" (CONV-006)."""
RECOMMENDED_STRING: Final = 256
MAXIMUM_OPTION_DATA: Final = 32 << 20
"""What this package is willing to buffer of one option or option reply; the specification leaves the limit open."""
DEFAULT_MAXIMUM_PAYLOAD: Final = 32 << 20
"""Largest payload of a READ or WRITE when the server advertised no maximum. Spec: "Block size constraints"."""
DEFAULT_PREFERRED_BLOCK: Final = 4096
MINIMUM_PREFERRED_BLOCK: Final = 512
MAXIMUM_MINIMUM_BLOCK: Final = 65536
UNLIMITED_PAYLOAD: Final = 0xFFFF_FFFF
"""An advertised maximum payload that stands for "no limit"."""
MAXIMUM_STATUS_DESCRIPTORS: Final = 1 << 20
"""Recommended limit of extents in one block status chunk."""
OLDSTYLE_PADDING: Final = 124
"""Reserved zero bytes at the end of an oldstyle greeting and of the answer to OPT_EXPORT_NAME."""
