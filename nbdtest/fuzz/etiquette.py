"""Whether what a server says in the handshake is what the specification allows, one option at a time.

It is lenient where honest servers differ: which error a refusal carries, which exports exist, what is told about them.
"""

from __future__ import annotations

from nbdtest.conformance.negotiation import Answer
from nbdtest.errors import PeerViolation
from nbdtest.fuzz.problem import Kind, Problem
from nbdtest.wire import (
    InfoExport,
    InfoRequest,
    MetaContext,
    MetaContextRequest,
    Opt,
    Option,
    OptionReply,
    Rep,
    ServerExport,
    decode_option_data,
    decode_option_reply_data,
)
from nbdtest.wire.limits import MAXIMUM_STRING

__all__ = ["Etiquette", "export_of", "may_be_left"]

_PARTS = {
    Opt.LIST: Rep.SERVER,
    Opt.INFO: Rep.INFO,
    Opt.GO: Rep.INFO,
    Opt.LIST_META_CONTEXT: Rep.META_CONTEXT,
    Opt.SET_META_CONTEXT: Rep.META_CONTEXT,
}
"""The options whose answer has parts, and of which kind."""
_BASE = "base:"
_LONGEST_OPTION = 16 << 10
"""Above this a server may well take it for an attack."""


def may_be_left(option: Option) -> bool:
    """Whether a server may hang up when it gets this option: it breaks a rule of the specification. TERM-034"""
    try:
        decoded = decode_option_data(option)
    except PeerViolation:
        return True
    if len(option.data) > _LONGEST_OPTION:
        return True
    strings: tuple[str, ...] = ()
    if isinstance(decoded, InfoRequest | MetaContextRequest):
        strings = (decoded.name, *(decoded.queries if isinstance(decoded, MetaContextRequest) else ()))
    return any(_is_no_string(string) for string in strings)


def export_of(option: Option) -> str | None:
    """The export that an option is about, None if it is about none or malformed."""
    try:
        decoded = decode_option_data(option)
    except PeerViolation:
        return None
    return decoded.name if isinstance(decoded, InfoRequest | MetaContextRequest) else None


class Etiquette:
    """Judges the answers to the options of one handshake; `export` is the one under test and has `size` bytes.

    With `names_matter` the server has refused a name that it does not know.
    """

    def __init__(self, export: str, size: int, *, names_matter: bool) -> None:
        self._export = export
        self._size = size
        self._names_matter = names_matter

    def judge(self, answer: Answer) -> Problem | None:
        """Say what is wrong with `answer`, if anything."""
        wrong = self._form(answer) or self._sense(answer)
        if wrong is None:
            return None
        rule, requirement, detail = wrong
        about = str(answer.option.option) if answer.option.option.is_known else "an unknown option"
        return Problem(kind=Kind.WRONG_REPLY, rule=rule, about=about, requirement=requirement, detail=detail)

    @staticmethod
    def _form(answer: Answer) -> tuple[str, str, str] | None:
        asked = answer.option.option
        for reply in answer.replies:
            if reply.option != asked:
                return "an option reply names another option", "OPT-012", str(reply.option)
            try:
                decoded = decode_option_reply_data(reply)
            except PeerViolation as violation:
                return "an option reply is malformed", violation.requirement or "OPT-016", str(violation)
            if isinstance(decoded, ServerExport) and _size_of(decoded.name) > MAXIMUM_STRING:
                return "a name is longer than any string may be", "CONV-006", ""
            if reply.type.is_error and len(reply.data) > MAXIMUM_STRING:
                return "an error's text is longer than any string may be", "CONV-006", f"{len(reply.data)} bytes"
        for part in answer.parts:
            if part.type in _PARTS.values() and part.type != _PARTS.get(asked):
                return "a reply of another option's kind is among the answers", "OPT-016", str(part.type)
        return None

    def _sense(self, answer: Answer) -> tuple[str, str, str] | None:
        option = answer.option
        if not option.option.is_known:
            return ("it is accepted although it is unknown", "COMPAT-005", "") if answer.is_ack else None
        try:
            asked = decode_option_data(option)
        except PeerViolation:
            return None
        if isinstance(asked, InfoRequest):
            return self._info(asked, answer)
        if isinstance(asked, MetaContextRequest):
            return self._contexts(asked, answer)
        return None

    def _info(self, asked: InfoRequest, answer: Answer) -> tuple[str, str, str] | None:
        exports = [part for part in map(_decoded, answer.parts) if isinstance(part, InfoExport)]
        if not answer.is_ack:
            if asked.name == self._export and answer.final.type == Rep.ERR_UNKNOWN:
                return "the export that is served is unknown", "OPT-090", ""
            return None
        if not exports:
            return "it is accepted without saying the export's size", "REP-008", ""
        if "\0" in asked.name and self._names_matter:
            return "a name with a NUL in it is known", "CONV-004", ""
        if asked.name == self._export and (other := {part.size for part in exports} - {self._size}):
            return "the export has another size", "REP-014", f"{other.pop()}, {self._size} before"
        return None

    @staticmethod
    def _contexts(asked: MetaContextRequest, answer: Answer) -> tuple[str, str, str] | None:
        contexts = [part for part in map(_decoded, answer.parts) if isinstance(part, MetaContext)]
        for context in contexts:
            if context.name.startswith(_BASE) and context.name != "base:allocation":
                return "there is a context that nobody defined", "META-020", context.name
            if answer.option.option == Opt.SET_META_CONTEXT and context.name.startswith(_BASE):
                if context.name not in asked.queries:
                    return "a context is selected that was not asked for", "META-021", context.name
                if any(other.id == context.id and other.name != context.name for other in contexts):
                    return "two contexts have the same id", "META-080", str(context.id)
        return None


def _decoded(reply: OptionReply) -> object:
    return decode_option_reply_data(reply)


def _is_no_string(text: str) -> bool:
    """Whether the specification does not allow this as a string: it has a NUL, is too long, or was no UTF-8."""
    return "\0" in text or _size_of(text) > MAXIMUM_STRING or any("\ud800" <= each <= "\udfff" for each in text)


def _size_of(text: str) -> int:
    return len(text.encode(errors="surrogateescape"))
