"""Notebooks: runs them in this process, and makes pages of them.

    python docs/notebooks.py    # after a change: runs all, and stores what they give

A cell gives what it prints and what its last line is worth, as in Jupyter.
"""

import ast
import base64
import contextlib
import io
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "pages/notebooks"
_HOW = """
To change and run it, [download the notebook]({name}), or open it in Colab:
*File > Upload notebook*.
"""


def read(path: Path) -> dict[str, Any]:
    """A notebook, as JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with what its cells give now."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells, number = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            number += 1
            outputs = _outputs("".join(cell["source"]), namespace, number)
            cell = {**cell, "execution_count": number, "outputs": outputs}
        cells.append(cell)
    return {**notebook, "cells": cells}


def _outputs(source: str, namespace: dict[str, Any], number: int) -> list[dict]:
    tree, value = ast.parse(source), None
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {number}", "exec"), namespace)
        if isinstance(last, ast.Expr):
            code = compile(ast.Expression(last.value), f"cell {number}", "eval")
            value = eval(code, namespace)
    found = []
    if text := printed.getvalue():
        found.append({"name": "stdout", "output_type": "stream", "text": _lines(text)})
    if value is not None:
        kind = {"output_type": "execute_result", "execution_count": number}
        found.append({**kind, "data": _shown(value), "metadata": {}})
    return found


def _shown(value: Any) -> dict[str, Any]:
    """A value in the forms that notebooks know: a picture, or text."""
    if hasattr(value, "_repr_png_"):
        picture = base64.b64encode(value._repr_png_()).decode()
        return {"image/png": picture, "text/plain": ["<a figure>"]}
    return {"text/plain": _lines(repr(value))}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def texts(notebook: dict[str, Any]) -> list[str]:
    """What each code cell gives as text; a picture is a word."""
    return [
        "".join(
            "".join(output.get("text") or output["data"]["text/plain"])
            for output in cell["outputs"]
        )
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def page(path: Path) -> tuple[str, dict[str, bytes]]:
    """The notebook as Markdown, and its pictures by the names that this gives them."""
    parts, pictures = [], {}
    for cell in read(path)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![Picture made by the code above]({name})")
            else:
                text = "".join(output.get("text") or data["text/plain"]).rstrip()
                parts.append(f"```text\n{text}\n```")
    parts.insert(1, _HOW.format(name=path.name).strip())
    return "\n\n".join(parts) + "\n", pictures


def main() -> None:
    """Runs every notebook and stores what it gives."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        text = json.dumps(executed(read(path)), indent=1, ensure_ascii=False)
        path.write_text(f"{text}\n", encoding="utf-8")
        print("wrote", path)


if __name__ == "__main__":
    main()
