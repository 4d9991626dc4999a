"""What a check may need a client command to do. How that is found out is in `client_gallery`."""

from __future__ import annotations

import enum

__all__ = ["Ability"]


class Ability(enum.Enum):
    """Something that a client does by itself and, as its value, the sentence that a skipped check says otherwise."""

    SUCCEEDS = "the command does not succeed on a correct server"
    NEGOTIATES = "the command sends no option"
    OPENS = "the command opens no export"
    GO = "the command does not send OPT_GO"
    INFO = "the command does not send OPT_INFO"
    LIST = "the command does not send OPT_LIST"
    ABORT = "the command does not send OPT_ABORT"
    STARTTLS = "the command does not send OPT_STARTTLS"
    STRUCTURED = "the command does not ask for structured replies"
    EXTENDED = "the command does not ask for extended headers"
    SET_META = "the command does not send OPT_SET_META_CONTEXT"
    LIST_META = "the command does not send OPT_LIST_META_CONTEXT"
    TRANSMITS = "the command sends no request"
    READ = "the command does not send CMD_READ"
    WRITE = "the command does not send CMD_WRITE"
    FLUSH = "the command does not send CMD_FLUSH"
    TRIM = "the command does not send CMD_TRIM"
    CACHE = "the command does not send CMD_CACHE"
    WRITE_ZEROES = "the command does not send CMD_WRITE_ZEROES"
    STATUS = "the command does not send CMD_BLOCK_STATUS"
    DISC = "the command does not send CMD_DISC"
    FALLS_BACK = "the command does not fall back to OPT_EXPORT_NAME"
    WORKS_SIMPLE = "the command does not succeed without structured replies"
    DOWNLOADS = "the command does not copy the export to {file}"
    UPLOADS = "the command does not copy {file} to the export"
    TELLS_REFUSAL = "the command's exit status does not tell that the export could not be opened"
    TELLS_READ_ERROR = "the command's exit status does not tell that a READ failed"
    TELLS_WRITE_ERROR = "the command's exit status does not tell that a WRITE failed"
    TELLS_STATUS_ERROR = "the command's exit status does not tell that a BLOCK_STATUS failed"
    URI = "the command does not take a whole {uri}"
    TLS = "the command has no {pki} or {psk}: it is not given credentials"

    @property
    def label(self) -> str:
        """The name in reports, such as "structured" or "tells-read-error"."""
        return self.name.lower().replace("_", "-")
