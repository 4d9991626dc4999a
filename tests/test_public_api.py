"""What other projects may rely on. A change here is a change of the public interface and belongs in CHANGELOG.md."""

import importlib

import pytest

PUBLIC = {
    "nbdtest.fuzz.strategies": """
        Command Fault Misbehaviour Reply actions any_message block_sizes commands error_replies exports
        faulty_read_replies interleaved legal_commands legal_dialogues message_classes messages misbehaviours numbers
        option_dialogues options pattern read_replies sessions
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
