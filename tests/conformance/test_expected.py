"""The packaged lists of known deviations: they name checks and requirements that exist, with evidence."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any

import pytest

from nbdtest.conformance import each_check, requirement

LISTS = sorted(entry.name for entry in files("nbdtest.conformance").joinpath("expected").iterdir())


def deviations(name: str) -> list[dict[str, Any]]:
    text = files("nbdtest.conformance").joinpath("expected", name).read_text(encoding="utf-8")
    found: list[dict[str, Any]] = tomllib.loads(text)["deviation"]
    return found


SERVERS = ["nbd-server.toml", "nbdkit.toml", "qemu-nbd.toml"]
CLIENTS = ["nbdcopy.toml", "nbdinfo.toml", "qemu-io.toml"]


def test_there_is_a_list_for_each_reference_server_and_client() -> None:
    assert sorted(LISTS) == sorted(SERVERS + CLIENTS)


@pytest.mark.parametrize("name", LISTS)
def test_a_deviation_names_a_check_and_a_requirement_and_has_evidence(name: str) -> None:
    checks = {item.id for item in each_check("client" if name in CLIENTS else "server")}
    for row in deviations(name):
        assert row["check"] in checks
        assert requirement(row["requirement"])
        assert row["outcome"] in ("failed", "warned")
        assert row["evidence"].endswith(".")
        ours = name.removesuffix(".toml")
        assert all(glob.startswith(ours) for glob in (row.get("server", ours), *row.get("versions", ())[:1]))


@pytest.mark.parametrize("name", LISTS)
def test_a_deviation_is_listed_once(name: str) -> None:
    named = [(row["check"], row.get("server"), tuple(row.get("versions", ()))) for row in deviations(name)]
    assert len(set(named)) == len(named)
