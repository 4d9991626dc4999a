"""What a client sends in the handshake, judged on every session with a correct server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client_target import ClientTarget, Seen
from nbdtest.conformance.declare import Check, check
from nbdtest.conformance.talk import Talk
from nbdtest.conformance.verdict import Complaint, NotApplicable
from nbdtest.errors import PeerViolation
from nbdtest.wire import ClientFlag, Info, InfoRequest, MetaContextRequest, Opt


def never(id: str, doc: str, *requirements: str, needs: Sequence[Ability] = (), also: Sequence[str] = ()) -> Check:
    """The fake server has seen no breach of these rules in any session; `also` are rules that follow from them.

    `needs` is what a client has to do for the rule to be of any concern; a breach is one all the same.
    """

    @check(id, proves=(*requirements, *also), legal=True, role="client", doc=doc)
    def run(t: ClientTarget) -> None:
        for name, seen in t.gallery:
            for noted in seen.violations:
                if noted.violation.requirement in requirements:
                    t.transcript = seen.transcript
                    raise Complaint(
                        f"on the server {name!r} {noted.violation.text}", requirement=noted.violation.requirement
                    )
        for need in needs:
            if not t.has(need):
                raise NotApplicable(need.value)

    return run


NEGOTIATES = (Ability.NEGOTIATES,)
SETS_META = (Ability.SET_META,)
LISTS_META = (Ability.LIST_META,)

RULES = (
    never(
        "client-handshake.only-offered-flags",
        "The client takes NO_ZEROES only if it was offered.",
        "HS-035",
        needs=NEGOTIATES,
    ),
    never(
        "client-handshake.no-unknown-flags",
        "The client sets no flags but C_FIXED_NEWSTYLE and C_NO_ZEROES, in 32 bits.",
        "HS-036",
        needs=NEGOTIATES,
        also=["HS-010"],
    ),
    never(
        "client-handshake.takes-fixed-newstyle",
        "The client answers FIXED_NEWSTYLE with C_FIXED_NEWSTYLE.",
        "HS-021",
        needs=NEGOTIATES,
    ),
    never(
        "client-handshake.no-options-without-fixed",
        "Without fixed newstyle the client sends EXPORT_NAME and nothing else.",
        "HS-013",
        "TLS-052",
        needs=NEGOTIATES,
    ),
    never(
        "client-option.begins-with-magic",
        "Every option begins with IHAVEOPT, where the one before it has ended.",
        "OPT-001",
        needs=NEGOTIATES,
        also=["OPT-002", "OPT-003", "OPT-004", "CONV-001"],
    ),
    never(
        "client-option.one-at-a-time",
        "The client waits for the final reply to an option before it sends the next.",
        "OPT-017",
        needs=NEGOTIATES,
    ),
    never("client-option.list-without-data", "LIST carries no data.", "OPT-053", needs=[Ability.LIST]),
    never("client-option.starttls-without-data", "STARTTLS carries no data.", "OPT-060", needs=[Ability.STARTTLS]),
    never("client-option.no-starttls-in-tls", "STARTTLS is not sent inside TLS.", "TLS-053", needs=[Ability.STARTTLS]),
    never(
        "client-option.structured-reply-without-data",
        "STRUCTURED_REPLY carries no data.",
        "OPT-110",
        needs=[Ability.STRUCTURED],
    ),
    never(
        "client-option.extended-headers-without-data",
        "EXTENDED_HEADERS carries no data.",
        "EXT-036",
        needs=[Ability.EXTENDED],
    ),
    never("client-option.abort-without-data", "ABORT carries no data.", "OPT-041", needs=NEGOTIATES),
    never(
        "client-option.info-is-well-formed",
        "INFO and GO hold a name with its length and a list of information types with its count, and no more.",
        "OPT-075",
        needs=[Ability.GO],
        also=["OPT-074", "OPT-076"],
    ),
    never("client-option.no-info-twice", "INFO and GO ask for no information twice.", "OPT-079", needs=[Ability.GO]),
    never(
        "client-option.meta-after-structured",
        "SET_META_CONTEXT follows structured replies or extended headers.",
        "META-073",
        needs=SETS_META,
        also=["META-010", "EXT-016", "EXT-032"],
    ),
    never(
        "client-option.list-meta-after-structured",
        "LIST_META_CONTEXT follows structured replies or extended headers.",
        "META-051",
        needs=LISTS_META,
    ),
    never(
        "client-option.set-meta-is-well-formed",
        "SET_META_CONTEXT holds a name and queries with their lengths and their count, and no more.",
        "META-075",
        needs=SETS_META,
    ),
    never(
        "client-option.list-meta-is-well-formed",
        "LIST_META_CONTEXT holds a name and queries with their lengths and their count, and no more.",
        "META-053",
        needs=LISTS_META,
    ),
    never(
        "client-option.queries-have-a-namespace",
        "Every query begins with a namespace and a colon.",
        "META-076",
        "META-054",
        needs=NEGOTIATES,
        also=["META-011"],
    ),
    never(
        "client-option.no-export-name-after-extended",
        "EXPORT_NAME is not used after extended headers were agreed on.",
        "EXT-021",
        needs=[Ability.EXTENDED],
    ),
    never(
        "client-option.none-after-go",
        "After a successful GO the next bytes are a request.",
        "OPT-107",
        needs=[Ability.GO],
    ),
    never(
        "client-option.none-after-abort",
        "After ABORT the client sends nothing.",
        "TERM-003",
        needs=[Ability.ABORT],
    ),
    never("client-string.is-utf-8", "Names and queries are UTF-8.", "CONV-002", needs=NEGOTIATES),
    never(
        "client-string.has-no-nul", "Names and queries hold no NUL.", "CONV-004", needs=NEGOTIATES, also=["CONV-003"]
    ),
    never("client-string.is-short", "Names and queries have 256 bytes at most.", "CONV-005", needs=NEGOTIATES),
    never("client-string.is-not-too-long", "Names and queries have 4096 bytes at most.", "CONV-006", needs=NEGOTIATES),
    never(
        "client-handshake.is-not-dropped",
        "A client that gives up in the handshake says so with ABORT.",
        "TERM-010",
        needs=NEGOTIATES,
        also=["TERM-012"],
    ),
)


def _talks(t: ClientTarget) -> Iterator[tuple[str, Seen, Talk]]:
    for name, seen in t.gallery:
        for talk in seen.talks:
            yield name, seen, talk


@check("client-option.prefers-go", proves=["OPT-036", "SIZE-002"], needs=[Ability.OPENS], legal=True, role="client")
def prefers_go(t: ClientTarget) -> None:
    """A client that can use GO does so where it is supported; EXPORT_NAME is for servers that have no better."""
    if not (t.has(Ability.GO) or t.has(Ability.FALLS_BACK)):
        raise NotApplicable(Ability.GO.value)
    seen = t.gallery.seen("full")
    t.transcript = seen.transcript
    if any(talk.sent(Opt.EXPORT_NAME) for talk in seen.talks):
        raise Complaint("the client sends OPT_EXPORT_NAME to a server that supports GO", "OPT_GO")


@check(
    "client-option.asks-for-block-sizes",
    proves=["SIZE-001", "COMPAT-016"],
    needs=[Ability.GO],
    legal=True,
    role="client",
)
def asks_for_block_sizes(t: ClientTarget) -> None:
    """GO asks for the block sizes, which says that the client will honour them."""
    for _, seen, talk in _talks(t):
        for option in talk.options:
            if option.option == Opt.GO and (asked := _decoded(option.data)) is not None:
                if Info.BLOCK_SIZE not in asked.infos:
                    t.transcript = seen.transcript
                    raise Complaint(
                        f"OPT_GO asks for {', '.join(map(str, asked.infos)) or 'nothing'}", "INFO_BLOCK_SIZE"
                    )
                return


@check("client-option.no-state-twice", proves=["OPT-019"], needs=[Ability.NEGOTIATES], legal=True, role="client")
def no_state_twice(t: ClientTarget) -> None:
    """Options that change the state of the session are not repeated."""
    for name, seen, talk in _talks(t):
        numbers = [option.option for option in talk.options]
        begin = numbers.index(Opt.STARTTLS) if Opt.STARTTLS in numbers else 0  # OPT-117: TLS begins anew
        counted = Counter(numbers[begin:])
        for option in (Opt.STRUCTURED_REPLY, Opt.EXTENDED_HEADERS, Opt.STARTTLS):
            if counted[option] > 1:
                t.transcript = seen.transcript
                raise Complaint(f"on the server {name!r} {option} is sent {counted[option]} times", "once")


@check("client-option.no-withdrawn-one", proves=["OPT-055"], needs=[Ability.NEGOTIATES], legal=True, role="client")
def no_withdrawn_one(t: ClientTarget) -> None:
    """PEEK_EXPORT, which was withdrawn, is not sent."""
    for _, seen, talk in _talks(t):
        if talk.sent(Opt.PEEK_EXPORT):
            t.transcript = seen.transcript
            raise Complaint("OPT_PEEK_EXPORT is sent", "nothing of the kind")


@check(
    "client-option.known-numbers",
    proves=["OPT-121", "OPT-122", "OPT-030", "OPT-120"],
    needs=[Ability.NEGOTIATES],
    legal=True,
    role="client",
)
def known_numbers(t: ClientTarget) -> None:
    """Options have the numbers that the specification gives them."""
    for _, seen, talk in _talks(t):
        for option in talk.options:
            if not option.option.is_known:
                t.transcript = seen.transcript
                raise Complaint(f"an option {option.option} is sent", "one of the specification's")


@check(
    "client-option.contexts-for-the-same-export",
    proves=["META-074"],
    needs=[Ability.SET_META, Ability.GO],
    legal=True,
    role="client",
)
def contexts_for_the_same_export(t: ClientTarget) -> None:
    """A client that uses contexts has selected them for the export that it opens."""
    for name, seen, talk in _talks(t):
        selected: list[str] = []
        for option in talk.options:
            try:
                if option.option == Opt.SET_META_CONTEXT:
                    selected.append(MetaContextRequest.decode(option.data).name)
                elif option.option == Opt.GO and selected:
                    opened = InfoRequest.decode(option.data).name
                    if talk.requests and opened != selected[-1]:
                        t.transcript = seen.transcript
                        raise Complaint(
                            f"on the server {name!r} contexts are chosen for {selected[-1]!r} and {opened!r} is opened"
                        )
            except PeerViolation:
                continue  # malformed: another check's business


@check(
    "client-handshake.flags-answer-the-greeting",
    proves=["COMPAT-003"],
    needs=[Ability.NEGOTIATES],
    legal=True,
    role="client",
)
def flags_answer_the_greeting(t: ClientTarget) -> None:
    """A client of today speaks fixed newstyle."""
    for _, seen, talk in _talks(t):
        if talk.flags is not None and talk.sent(Opt.GO) and ClientFlag.FIXED_NEWSTYLE not in talk.flags:
            t.transcript = seen.transcript
            raise Complaint(f"OPT_GO is sent after client flags {talk.flags}", "C_FIXED_NEWSTYLE")


def _decoded(data: bytes) -> InfoRequest | None:
    try:
        return InfoRequest.decode(data)
    except PeerViolation:
        return None
