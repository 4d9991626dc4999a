"""`python -m nbdtest`: the same as the `nbdtest` command."""

import sys

from nbdtest.cli import main

if __name__ == "__main__":
    sys.exit(main())
