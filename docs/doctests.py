"""Doctests in docstrings are shown as code, as Markdown would take `>>>` for quotes."""

import re

import griffe

DOCTEST = re.compile(r"^>>> .*?(?=\n\n|\Z)", re.S | re.M)


class Doctests(griffe.Extension):
    """Puts fences around the doctests of every docstring."""

    def on_instance(self, *, obj: griffe.Object, **_):
        """Called for each object, once its docstring is there."""
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub(
                lambda found: f"```pycon\n{found[0].rstrip()}\n```", obj.docstring.value
            )
