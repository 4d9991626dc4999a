"""What a check may need its target to be able to do. How that is found out is in `facts`."""

from __future__ import annotations

import enum

__all__ = ["Capability"]


class Capability(enum.Enum):
    """A capability and, as its value, the sentence that a skipped check says when it is missing."""

    NEWSTYLE = "the server greets oldstyle"
    OLDSTYLE = "the server greets newstyle"
    FIXED_NEWSTYLE = "the server does not offer fixed newstyle"
    NO_ZEROES = "the server does not offer NO_ZEROES"
    WITHOUT_NO_ZEROES = "the server offers NO_ZEROES"
    EXPORT = "the export cannot be opened, or is smaller than 512 bytes"
    EXPORT_NAME = "the export cannot be opened with OPT_EXPORT_NAME"
    INFO = "the server does not serve OPT_INFO"
    GO = "the server does not serve OPT_GO"
    LIST = "the server does not list its exports"
    NAMES_MATTER = "the server accepts every export name"
    SECOND_EXPORT = "the server lists no second export"
    CLEAR = "the server insists on TLS"
    NOTLS = "the server offers TLS"
    TLS = "the server does not offer TLS"
    FORCED_TLS = "the server does not insist on TLS"
    SELECTIVE_TLS = "the server does not offer TLS beside clear service"
    TLS_LAYER = "no TLS credentials for this server are known"
    STRUCTURED = "the server does not do structured replies"
    META = "the server does not do metadata contexts"
    BASE_ALLOCATION = "the server does not offer base:allocation"
    OTHER_CONTEXT = "the server offers no context besides base:allocation"
    EXTENDED = "the server does not do extended headers"
    RESIZE = "the export does not offer RESIZE"
    STATUS_PAYLOAD = "the export does not offer BLOCK_STATUS_PAYLOAD"
    MAY_WRITE = "the run may not write to this server"
    WRITABLE = "the export is read-only, or the run may not write to it"
    READ_ONLY = "the export is not read-only"
    FLUSH = "the export does not offer FLUSH"
    FUA = "the export does not offer FUA"
    TRIM = "the export does not offer TRIM"
    WRITE_ZEROES = "the export does not offer WRITE_ZEROES"
    FAST_ZERO = "the export does not offer FAST_ZERO"
    WITHOUT_FAST_ZERO = "the export offers FAST_ZERO"
    DF = "the export does not offer DF"
    CACHE = "the export does not offer CACHE"
    MULTI_CONN = "the export does not offer CAN_MULTI_CONN"
    BLOCK_SIZE = "the server advertises no block size"
    WITHOUT_BLOCK_SIZE = "the server advertises a block size"
    MINIMUM_BLOCK = "the export has no minimum block size above 1"
    BYTE_ACCESS = "the export has a minimum block size above 1"
    SIZE_64K = "the export is smaller than 64 KiB"
    SIZE_1M = "the export is smaller than 1 MiB"
    SIZE_33M = "the export is smaller than 33 MiB"
    SIZE_OVER_4G = "the export is not larger than 4 GiB"
    SECOND_CONNECTION = "the server serves one connection only"
    BAD_RANGE = "no range of the export is known to fail when it is read"
    OWN_PROCESS = "the server's process was not started here"
    TCP = "the server is not reached over TCP"

    @property
    def label(self) -> str:
        """The name in reports, such as "structured" or "base-allocation"."""
        return self.name.lower().replace("_", "-")
