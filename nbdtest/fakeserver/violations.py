"""What a client may not do, recognised from what it sent. Pure functions of a message and the state of its session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nbdtest.wire import ClientFlag, Cmd, CmdFlag, Opt, Option, TransmissionFlag
from nbdtest.wire.limits import MAXIMUM_STRING, RECOMMENDED_STRING

__all__ = ["RANGED", "Violation", "of_client_flags", "of_option", "of_request", "of_strings", "of_tls_end"]


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule of the specification that a client broke. `binding` is False for what it merely SHOULD have done."""

    requirement: str
    text: str
    binding: bool = True

    def __str__(self) -> str:
        return f"{self.requirement}{'' if self.binding else ' (SHOULD)'}: {self.text}"


_DATALESS = {
    Opt.LIST: "OPT-053",
    Opt.STARTTLS: "OPT-060",
    Opt.STRUCTURED_REPLY: "OPT-110",
    Opt.EXTENDED_HEADERS: "EXT-036",
}
_NEEDS_FLAG = {
    Cmd.FLUSH: (TransmissionFlag.SEND_FLUSH, "CMD-061"),
    Cmd.TRIM: (TransmissionFlag.SEND_TRIM, "CMD-087"),
    Cmd.WRITE_ZEROES: (TransmissionFlag.SEND_WRITE_ZEROES, "CMD-105"),
    Cmd.RESIZE: (TransmissionFlag.SEND_RESIZE, "RSZ-005"),
}
_ZERO_LENGTH = {
    Cmd.READ: "CMD-003",
    Cmd.WRITE: "CMD-058",
    Cmd.TRIM: "CMD-084",
    Cmd.WRITE_ZEROES: "CMD-101",
    Cmd.BLOCK_STATUS: "CMD-141",
}
_OFFERED_BY = {
    CmdFlag.FUA: (TransmissionFlag.SEND_FUA, "FLAG-004"),
    CmdFlag.DF: (TransmissionFlag.SEND_DF, "FLAG-050"),
    CmdFlag.FAST_ZERO: (TransmissionFlag.SEND_FAST_ZERO, "FLAG-054"),
}
_BELONGS_TO = {
    CmdFlag.NO_HOLE: {Cmd.WRITE_ZEROES},
    CmdFlag.DF: {Cmd.READ},
    CmdFlag.REQ_ONE: {Cmd.BLOCK_STATUS},
    CmdFlag.FAST_ZERO: {Cmd.WRITE_ZEROES},
}
_WRITING = {Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES}
RANGED = {Cmd.READ, Cmd.WRITE, Cmd.TRIM, Cmd.CACHE, Cmd.WRITE_ZEROES, Cmd.BLOCK_STATUS}
"""The commands that are about a range of the export."""
_KNOWN_FLAGS = CmdFlag.FUA | CmdFlag.NO_HOLE | CmdFlag.DF | CmdFlag.REQ_ONE | CmdFlag.FAST_ZERO | CmdFlag.PAYLOAD_LEN


def of_client_flags(flags: ClientFlag, *, offered: ClientFlag) -> Iterator[Violation]:
    """Judge the client's flags; `offered` are those that answer the greeting's."""
    if ClientFlag.NO_ZEROES in flags and ClientFlag.NO_ZEROES not in offered:
        yield Violation("HS-035", "C_NO_ZEROES was sent although NO_ZEROES was not offered")
    if others := flags.beyond(offered | ClientFlag.NO_ZEROES):
        yield Violation("HS-036", f"client flags {others} were sent although nothing like them was offered")
    if ClientFlag.FIXED_NEWSTYLE in offered and ClientFlag.FIXED_NEWSTYLE not in flags:
        yield Violation("HS-021", "C_FIXED_NEWSTYLE was not sent in answer to FIXED_NEWSTYLE", binding=False)


def of_strings(*strings: str) -> Iterator[Violation]:
    """Judge names and queries."""
    for text in strings:
        encoded = text.encode("utf-8", "surrogateescape")
        shown = ascii(text[:40])
        if "\0" in text:
            yield Violation("CONV-004", f"the string {shown} holds a NUL")
        if any("\udc80" <= character <= "\udcff" for character in text):
            yield Violation("CONV-002", f"the string {shown} is not UTF-8")
        if len(encoded) > MAXIMUM_STRING:
            yield Violation("CONV-006", f"the string {shown}… has {len(encoded)} bytes, 4096 are allowed")
        elif len(encoded) > RECOMMENDED_STRING:
            yield Violation("CONV-005", f"the string {shown}… has {len(encoded)} bytes", binding=False)


def of_tls_end(*, aborted: bool) -> Violation:
    """Judge that the client ended the connection without closing TLS; `aborted` if it had sent ABORT."""
    if aborted:
        return Violation("TERM-002", "the client ended the connection after OPT_ABORT without closing TLS")
    return Violation("TERM-033", "the client ended the connection without closing TLS", binding=False)


def of_option(
    option: Option, *, fixed: bool, structured: bool, extended: bool, in_tls: bool, pipelined: bool
) -> Iterator[Violation]:
    """Judge that this option was sent now; what its data say is judged where they are read."""
    if not fixed and option.option != Opt.EXPORT_NAME:
        yield Violation("HS-013", f"{option.option} was sent without fixed newstyle: only OPT_EXPORT_NAME may be")
        if option.option == Opt.STARTTLS:
            yield Violation("TLS-052", "OPT_STARTTLS was sent although fixed newstyle was not agreed")
    if option.data and option.option in _DATALESS:
        yield Violation(_DATALESS[option.option], f"{option.option} carries {len(option.data)} bytes, none are allowed")
    if option.data and option.option == Opt.ABORT:
        yield Violation("OPT-041", f"OPT_ABORT carries {len(option.data)} bytes", binding=False)
    if pipelined:
        yield Violation("OPT-017", f"bytes came after {option.option} before it was answered")
    if option.option == Opt.STARTTLS and in_tls:
        yield Violation("TLS-053", "OPT_STARTTLS was sent inside TLS")
    if option.option == Opt.EXPORT_NAME and extended:
        yield Violation("EXT-021", "OPT_EXPORT_NAME was sent after OPT_EXTENDED_HEADERS was accepted")
    if not structured and not extended:
        if option.option == Opt.SET_META_CONTEXT:
            yield Violation("META-073", "OPT_SET_META_CONTEXT was sent before OPT_STRUCTURED_REPLY was accepted")
        if option.option == Opt.LIST_META_CONTEXT:
            yield Violation(
                "META-051", "OPT_LIST_META_CONTEXT was sent before OPT_STRUCTURED_REPLY was accepted", binding=False
            )


def of_request(
    command: Cmd,
    flags: CmdFlag,
    offset: int,
    length: int,
    *,
    offered: TransmissionFlag,
    size: int,
    minimum: int,
    maximum: int,
    structured: bool,
    extended: bool,
    contexts: bool,
) -> Iterator[Violation]:
    """Judge a request by itself.

    `minimum` is the block size that this client promised to honour (1 if it did not), `maximum` the largest payload,
    `contexts` whether any are selected for this export. `length` is the effect's, or the payload's of a WRITE.
    """
    where = f"{command} at {offset}, length {length}"
    if not command.is_known:
        yield Violation("COMPAT-013", f"{command} was sent although it was not negotiated")
    needed, requirement = _NEEDS_FLAG.get(command, (TransmissionFlag(0), ""))
    if needed and needed not in offered:
        yield Violation(requirement, f"{command} was sent although {needed} is not set")
    if command == Cmd.CACHE and flags and TransmissionFlag.SEND_CACHE not in offered:
        yield Violation("CMD-094", f"CMD_CACHE was sent with flags {flags} although SEND_CACHE is not set")
    yield from _of_flags(command, flags, offered, extended)
    if command in (Cmd.FLUSH, Cmd.DISC) and (offset or length):
        requirement = "CMD-079" if command == Cmd.FLUSH else "CMD-075"
        yield Violation(requirement, f"{where}: both have to be 0")
    if command == Cmd.BLOCK_STATUS and not contexts:
        yield Violation("META-007", "CMD_BLOCK_STATUS was sent although no context is selected for this export")
    if command in RANGED:
        if offset + length > size:
            yield Violation("SIZE-038", f"{where} reaches past the end of the export at {size}")
        if minimum > 1 and (offset % minimum or length % minimum):
            yield Violation("SIZE-036", f"{where} is not aligned to the minimum block size {minimum}")
        if length > maximum and (command == Cmd.WRITE or (command == Cmd.READ and not structured and not extended)):
            yield Violation("SIZE-030", f"{where} is larger than the maximum payload of {maximum}")
        if length == 0 and command in _ZERO_LENGTH:
            yield Violation(_ZERO_LENGTH[command], f"{where} is empty", binding=False)


def _of_flags(command: Cmd, flags: CmdFlag, offered: TransmissionFlag, extended: bool) -> Iterator[Violation]:
    if unknown := flags.beyond(_KNOWN_FLAGS):
        yield Violation("FLAG-041", f"{command} was sent with unknown flags {unknown}")
    for flag, (needed, requirement) in _OFFERED_BY.items():
        if flag in flags and needed not in offered:
            yield Violation(requirement, f"{command} was sent with {flag} although {needed} is not set")
    for flag, commands in _BELONGS_TO.items():
        if flag in flags and command not in commands:
            yield Violation("FLAG-041", f"{command} was sent with {flag}, which is not documented for it")
    if CmdFlag.FUA in flags and command not in _WRITING:
        yield Violation("FLAG-043", f"{command} was sent with FUA", binding=False)
    if CmdFlag.PAYLOAD_LEN in flags:
        if not extended:
            yield Violation("EXT-003", f"{command} was sent with PAYLOAD_LEN in a compact request")
        elif command == Cmd.BLOCK_STATUS:
            if TransmissionFlag.BLOCK_STATUS_PAYLOAD not in offered:
                yield Violation(
                    "EXT-020", "CMD_BLOCK_STATUS has a payload although that was not offered", binding=False
                )
        elif command != Cmd.WRITE:
            yield Violation("FLAG-041", f"{command} was sent with PAYLOAD_LEN, which is not documented for it")
    elif extended and command == Cmd.WRITE:
        yield Violation("EXT-005", "CMD_WRITE was sent without PAYLOAD_LEN")
