"""The parts stand on each other as ARCHITECTURE.md says, and the core needs nothing but Python."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LOADED = """
import sys
import {module}
foreign = {{name.partition(".")[0] for name in sys.modules}} - set(sys.stdlib_module_names) - {{"nbdtest", "__main__"}}
print(" ".join(sorted(name for name in foreign if not name.startswith("__editable__"))))
"""


@pytest.mark.parametrize(
    "module", ["nbdtest", "nbdtest.errors", "nbdtest.wire", "nbdtest.net", "nbdtest.client", "nbdtest.fakeserver"]
)
def test_the_core_loads_only_the_standard_library(module: str) -> None:
    # -S: an installed package may start itself from a .pth file; that is not this module's doing.
    done = subprocess.run(
        [sys.executable, "-S", "-c", LOADED.format(module=module)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.strip() == ""


def test_imports_go_strictly_downward() -> None:
    importlinter = pytest.importorskip(
        "importlinter.cli", reason="import-linter is installed in the environment `layers`"
    )
    assert importlinter.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0
