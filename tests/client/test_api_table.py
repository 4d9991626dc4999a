"""Every call and constant of libnbd 1.24 is there, as libnbd has it."""

from __future__ import annotations

import csv
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from nbdtest import client
from nbdtest.client import NBD, Error
from nbdtest.client.handle.call import Call, call_of, calls_of
from nbdtest.client.states import ALL_STATES, CLOSED, DEAD, NEGOTIATING, READY, START, Group, State

HERE = Path(__file__).parent


def rows(name: str) -> list[dict[str, str]]:
    with open(HERE / name, newline="") as table:
        return list(csv.DictReader(table))


CALLS = rows("libnbd_api.csv")
CONSTANTS = rows("libnbd_constants.csv")


def call(name: str) -> Call:
    found = call_of(getattr(NBD, name))
    assert found is not None, f"{name} is no API call"
    return found


@pytest.mark.parametrize("row", CALLS, ids=lambda row: row["name"])
def test_signature_is_libnbds(row: dict[str, str]) -> None:
    parameters = list(inspect.signature(getattr(NBD, row["name"])).parameters.values())[1:]
    shown = [
        p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters if p.kind != p.KEYWORD_ONLY
    ]
    assert shown == row["parameters"].split()


@pytest.mark.parametrize("row", CALLS, ids=lambda row: row["name"])
def test_call_is_what_libnbd_documents(row: dict[str, str]) -> None:
    found = call(row["name"])
    wanted = Group.ANY if row["permitted"] == "any" else Group(0)
    for word in row["permitted"].split():
        wanted |= Group[word.upper()]
    assert found.permitted == wanted
    assert found.since == row["since"]
    if row["name"] != "close":
        assert (found.can_fail, found.locked) == (row["can_fail"] == "yes", row["locked"] == "yes")


@pytest.mark.parametrize("name", sorted(calls_of(NBD)))
def test_call_is_an_annotated_function_of_its_name(name: str) -> None:
    function = getattr(NBD, name)
    assert function.__code__.co_name == name  # tracebacks name the call
    assert function.__doc__
    hints = function.__annotations__
    assert set(hints) == {*inspect.signature(function).parameters, "return"} - {"self"}


def test_every_call_refuses_a_wrong_state() -> None:
    refusing = {name: found for name, found in calls_of(NBD).items() if found.permitted != Group.ANY}
    for found in refusing.values():
        for state in ALL_STATES:
            refusal = found.refusal(state)
            assert (refusal is None) == bool(state.bit & found.permitted)


@pytest.mark.parametrize("row", CONSTANTS, ids=lambda row: row["name"])
def test_constant_is_libnbds(row: dict[str, str]) -> None:
    value = getattr(client, row["name"])
    wanted: object = int(row["value"]) if row["value"].isdecimal() else row["value"]
    assert value == wanted
    assert f"{value}" == f"{wanted}"
    assert row["name"] in client.__all__


@pytest.mark.parametrize("row", [row for row in CONSTANTS if row["value"].isdecimal()], ids=lambda row: row["name"])
def test_constant_behaves_as_an_integer(row: dict[str, str]) -> None:
    value, wanted = getattr(client, row["name"]), int(row["value"])
    assert ~value == ~wanted
    assert value + 1 == wanted + 1
    assert 0xFFFF & ~value == 0xFFFF & ~wanted
    assert f"{value:#x}" == f"{wanted:#x}"


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        (START, "START: Handle after being initially created"),
        (NEGOTIATING, "NEGOTIATING: Connection is ready to negotiate an NBD option"),
        (READY, "READY: Connection is ready to process NBD commands"),
        (CLOSED, "CLOSED: Connection is closed"),
        (DEAD, "DEAD: Connection is in an unrecoverable error state, can only be closed"),
    ],
)
def test_state_is_shown_as_libnbd_shows_it(state: State, shown: str) -> None:
    assert str(state) == shown


def test_wrong_state_is_reported_in_libnbds_words(handle: NBD) -> None:
    with pytest.raises(Error) as caught:
        handle.get_size()
    assert caught.value.string == (
        "nbd_get_size: invalid state: START: the handle must be negotiating, or connected with the server, "
        "or shut down: Transport endpoint is not connected"
    )
    assert caught.value.errno == "ENOTCONN"


def test_importing_the_client_loads_only_the_standard_library() -> None:
    program = "import sys, nbdtest.client; print(*{name.partition('.')[0] for name in sys.modules})"
    found = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    # Editable installations bring hooks of their own.
    loaded = {name for name in found.stdout.split() if not name.startswith(("_", "editable"))}
    assert loaded - set(sys.stdlib_module_names) <= {"nbdtest", "sitecustomize"}  # Debian's Python has one
