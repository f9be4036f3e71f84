"""How a study runs from the command line: options from its ``main``, and a user's mistake in one line.

The line and the exit status are those of ``dphyper``. Every other error keeps its traceback.
"""

import sys
from collections.abc import Callable

from jsonargparse import auto_cli

from dphyper.core.errors import UserError


def run_command(main: Callable[..., None]) -> None:
    """Call ``main`` with the options of the command line; exit with status 2 after a user's mistake."""
    try:
        auto_cli(main)
    except UserError as error:
        print(f"dphyper: {error}", file=sys.stderr)
        sys.exit(2)
