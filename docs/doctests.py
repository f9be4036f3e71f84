"""An extension of griffe: doctests of our docstrings stand in fences, so that the site shows them as code."""

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"(?m)^>>> .*(?:\n(?!\n|\w+:\n).*)*")


class Doctests(griffe.Extension):
    """Puts every doctest of every docstring into a fence."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called once for each object that is loaded."""
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
