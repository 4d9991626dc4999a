"""Strategies for the handshake: options legal and illegal, and whole dialogues of them."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from nbdtest.fuzz.strategies.codec import messages, numbers
from nbdtest.wire import Info, InfoRequest, MetaContextRequest, Opt, Option

__all__ = ["legal_dialogues", "option_dialogues", "options"]

_WITHOUT_DATA = (Opt.LIST, Opt.STRUCTURED_REPLY)
_ABOUT_EXPORTS = (Opt.INFO, Opt.GO)
_ABOUT_CONTEXTS = (Opt.LIST_META_CONTEXT, Opt.SET_META_CONTEXT)
_QUERIES = ("base:allocation", "base:", "base:x", "qemu:", "qemu:dirty-bitmap:", "x-none:", "", ":", "allocation")


def options(names: Sequence[str] = ("",)) -> st.SearchStrategy[Option]:
    """Generate single options, legal or not: right data, damaged data, data of another option, unknown numbers.

    GO and EXPORT_NAME are among them, and end a handshake that accepts them; `names` are exports that exist.
    """
    honest = st.one_of(_honest(names), messages(Option, option=st.sampled_from([Opt.EXPORT_NAME, Opt.ABORT])))
    damaged = st.tuples(honest, st.integers(0, 40), st.binary(max_size=5)).map(
        lambda parts: Option(option=parts[0].option, data=parts[0].data[: parts[1]] + parts[2])
    )
    swapped = st.tuples(honest, numbers(4, Opt)).map(lambda parts: Option(option=Opt(parts[1]), data=parts[0].data))
    return st.one_of(honest, damaged, swapped, messages(Option))


def option_dialogues(names: Sequence[str] = ("",), *, most: int = 12) -> st.SearchStrategy[tuple[Option, ...]]:
    """Generate sequences of options as any client, also a confused one, might send them."""
    return st.lists(options(names), max_size=most).map(tuple)


def legal_dialogues(names: Sequence[str] = ("",), *, most: int = 8) -> st.SearchStrategy[tuple[Option, ...]]:
    """Generate sequences in which every option is well-formed and the last one is a GO for one of `names`.

    STRUCTURED_REPLY comes at most once, and before any SET_META_CONTEXT.
    """

    @st.composite
    def dialogue(draw: st.DrawFn) -> tuple[Option, ...]:
        middle = draw(st.lists(_honest(names), max_size=most))
        once = Option(option=Opt.STRUCTURED_REPLY)
        kept = [option for option in middle if option.option not in (Opt.STRUCTURED_REPLY, Opt.GO)]
        if once in middle or any(option.option == Opt.SET_META_CONTEXT for option in kept):
            kept.insert(0, once)
        last = draw(_info_request(names))
        return (*kept, Option(option=Opt.GO, data=last.encode()))

    return dialogue()


def _honest(names: Sequence[str]) -> st.SearchStrategy[Option]:
    return st.one_of(
        st.sampled_from(_WITHOUT_DATA).map(lambda number: Option(option=number)),
        st.builds(
            lambda number, request: Option(option=number, data=request.encode()),
            st.sampled_from(_ABOUT_EXPORTS),
            _info_request(names),
        ),
        st.builds(
            lambda number, name, queries: Option(
                option=number, data=MetaContextRequest(name=name, queries=tuple(queries)).encode()
            ),
            st.sampled_from(_ABOUT_CONTEXTS),
            st.sampled_from(list(names)),
            st.lists(st.sampled_from(_QUERIES), max_size=3),
        ),
    )


def _info_request(names: Sequence[str]) -> st.SearchStrategy[InfoRequest]:
    return st.builds(
        lambda name, infos: InfoRequest(name=name, infos=tuple(infos)),
        st.sampled_from(list(names)),
        st.lists(st.one_of(st.sampled_from(Info), numbers(2, Info).map(Info)), max_size=4),
    )
