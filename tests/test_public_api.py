"""What other projects may rely on. A change here is a change of the public interface and belongs in CHANGELOG.md."""

import importlib

import pytest

PUBLIC = {
    "nbdtest.fuzz.strategies": """
        any_message message_classes messages numbers
    """,
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_these(module: str) -> None:
    assert sorted(importlib.import_module(module).__all__) == sorted(PUBLIC[module].split())


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_exists_and_says_what_it_is(module: str) -> None:
    namespace = importlib.import_module(module)
    for name in namespace.__all__:
        value = getattr(namespace, name)
        assert not callable(value) or value.__doc__, name
