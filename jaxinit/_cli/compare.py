"""The command `jaxinit compare module:name`."""

import argparse
import contextlib
import functools
import inspect
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxinit._basics.names import unknown
from jaxinit._cli import arguments, completion
from jaxinit._cli.errors import (
    CommandError,
    UsageError,
    failing,
    fitted,
    installed,
    is_terminal,
    needed,
    writing,
)
from jaxinit._cli.target import in_a_row, load, one_line, uncalled
from jaxinit._tree.problems import PlanError

_DATA = ("digits", "breast_cancer", "wine", "xor", "copy", "adding")
_MOST = 7  # schemes in a picture
_EXAMPLES = """examples:
  jaxinit compare examples.batch_norm:plain --data digits \\
      --schemes he_normal,glorot_uniform,zeros
  jaxinit compare examples.batch_norm:Deep --arg width=32 --data wine \\
      --schemes 'own,orthogonal,normal(0.01),mlp("relu")' --lr 1e-3,1e-2 \\
      --out wine
"""


def add(commands: Any) -> None:
    """Adds the command to a parser."""
    parser = arguments.add_command(
        commands,
        "compare",
        "train a model from several starts, and say which is better",
        "Trains a Flax model from several starts, over several seeds and learning "
        "rates. Prints which starts learn, how well, and which differ beyond chance.",
        _EXAMPLES,
    )
    arguments.add_model(parser)
    data = parser.add_argument(
        "--data",
        required=True,
        help=f"{', '.join(_DATA)}; or module:name of a pair (x, y), of two pairs, for "
        "training and for testing, of a function without arguments that returns "
        "either, or of a function of a key that draws a batch (x, y)",
    )
    completion.complete(data, _completed_data)
    parser.add_argument(
        "--schemes",
        required=True,
        help="the starts, separated by commas: initializers and schemes of jaxinit by "
        "name or as a call in Python, module:name of rules of your own, or own, which "
        "is the model's own initialization",
    )
    arguments.add_keywords(parser)
    _add_training(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of a table"
    )
    parser.add_argument(
        "--out",
        type=arguments.new_path,
        metavar="DIR",
        help="write the table, the JSON object, and pictures of the loss and of the "
        "signal by depth, as .png and .svg, into this new folder",
    )
    parser.set_defaults(run=_run)


def _add_training(parser: argparse.ArgumentParser) -> None:
    number = arguments.positive
    for name, default, what in (
        ("--steps", 200, "steps of training"),
        ("--seeds", 5, "runs from each start, each with its own seed"),
        ("--batch", 128, "rows of a batch"),
    ):
        parser.add_argument(
            name,
            type=number,
            default=default,
            metavar="N",
            help=f"{what} (default: {default})",
        )
    parser.add_argument(
        "--lr",
        type=_rates,
        default=(1e-3,),
        help="learning rates, separated by commas; each start is judged by its best "
        "(default: 1e-3)",
    )
    parser.add_argument(
        "--optimizer",
        default="adamw",
        help="an optimizer of optax by name, or module:name of a function that takes a "
        "learning rate and returns one (default: adamw)",
    )
    loss = parser.add_argument(
        "--loss",
        help="cross_entropy, squared_error, or module:name of a function of the "
        "model's outputs and y (default: cross_entropy if y are integers, else "
        "squared_error)",
    )
    completion.complete(loss, _completed_loss)
    parser.add_argument(
        "--threshold",
        type=_number,
        help="the table counts the steps until the training loss is below this "
        "(default: half the loss of the best constant output)",
    )
    arguments.add_seed(parser)


def _completed_data(prefix: str, **_: Any) -> list[str]:
    return [*_DATA, *completion.targets(prefix)]


def _completed_loss(prefix: str, **_: Any) -> list[str]:
    return ["cross_entropy", "squared_error", *completion.targets(prefix)]


def _rates(text: str) -> tuple[float, ...]:
    return tuple(map(_number, text.split(",")))


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def _run(options: argparse.Namespace) -> None:
    module = needed("jaxinit.compare", "compare")
    needed("scipy.stats", "compare")
    plots = needed("jaxinit.plots", "plots") if options.out else None
    if shows_bar := is_terminal(sys.stderr):
        needed("rich.progress")
    # The target may print, and standard output is for the table.
    with contextlib.redirect_stdout(sys.stderr):
        schemes = _schemes(options.schemes)
        _check_number(len(schemes), options.out)
        optimizer = _optimizer(options.optimizer)
        loss = load(options.loss) if ":" in (options.loss or "") else options.loss
        with failing(f"training {options.target}"):
            model, keywords = uncalled(load(options.target), options.keywords)
            compare = functools.partial(
                module.compare,
                model,
                _data(options.data),
                schemes,
                loss=loss,
                optimizer=optimizer,
                learning_rates=options.lr,
                steps=options.steps,
                seeds=options.seeds,
                batch_size=options.batch,
                key=jax.random.key(options.seed),
                threshold=options.threshold,
                progress=shows_bar,
                **keywords,
            )
            result, stopped = _finished(compare, module.Interrupted)
    _show(result, options.json)
    if options.out:
        _write(result, plots, options.out, quiet=options.json)
    if stopped:
        raise KeyboardInterrupt


def _finished(
    compare: Callable[[], Any], interrupted: type[BaseException]
) -> tuple[Any, bool]:
    """The result, or what is finished of it, and whether it was interrupted."""
    try:
        return compare(), False
    except interrupted as stopped:
        return stopped.result, True  # pyright: ignore - its attribute
    except PlanError as error:
        raise UsageError(f"--schemes: {in_a_row(error)}") from error


def _schemes(text: str) -> dict[str, Any]:
    """The schemes that are named, by their text."""
    from jaxinit._compare.naming import parted, scheme

    names = parted(text)
    if len(set(names)) < len(names):
        [twice, *_] = [name for name in names if names.count(name) > 1]
        raise UsageError(f"--schemes names {twice!r} twice")
    found = {}
    for name in names:
        try:
            found[name] = load(name) if _is_target(name) else scheme(name)
        except (TypeError, ValueError) as error:
            raise UsageError(f"--schemes: {error}") from error
    return found


def _is_target(text: str) -> bool:
    return ":" in text and "(" not in text


def _check_number(schemes: int, out: Path | None) -> None:
    if out and schemes > _MOST:
        raise UsageError(
            f"--out draws up to {_MOST} schemes, as many as there are colours that "
            f"everyone can tell apart, but --schemes names {schemes}"
        )


def _optimizer(name: str) -> Any:
    if ":" in name:
        return load(name)
    optax = installed(lambda: __import__("optax"), "compare")
    known = [x for x in dir(optax) if "learning_rate" in _parameters(optax, x)]
    if name not in known:
        raise UsageError(f"--optimizer: {unknown('optimizer', name, known)}")
    return getattr(optax, name)


def _parameters(module: Any, name: str) -> tuple[str, ...]:
    """The first parameter of a function, if it can be called with that alone."""
    value = getattr(module, name)
    if not inspect.isfunction(value):
        return ()
    first, *others = inspect.signature(value).parameters.values() or (None,)
    needs = [x for x in others if x.default is x.empty and x.kind is not x.VAR_KEYWORD]
    return () if first is None or needs else (first.name,)


def _data(name: str) -> Any:
    from jaxinit._compare.datasets import named

    if ":" not in name:
        if name not in _DATA:
            raise UsageError(f"--data: {unknown('data', name, _DATA)}")
        return installed(lambda: named(name), "data")
    found = load(name)
    if callable(found) and _needs_nothing(found):
        return found()
    return found


def _needs_nothing(function: Any) -> bool:
    """Whether a function makes arrays as it is, and is not one of a key."""
    kinds = inspect.Parameter
    return all(
        x.default is not x.empty or x.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
        for x in inspect.signature(function).parameters.values()
    )


def _show(result: Any, as_json: bool) -> None:
    with writing():
        print(json.dumps(result.as_json()) if as_json else fitted(result))


def _write(result: Any, plots: Any, folder: Path, quiet: bool) -> None:
    """Writes a result into a new folder, and says which files."""
    try:
        folder.mkdir()
        (folder / "table.txt").write_text(f"{result}\n", encoding="utf-8")
        text = json.dumps(result.as_json(), indent=1)
        (folder / "result.json").write_text(f"{text}\n", encoding="utf-8")
        figures = {
            "loss": plots.compare(result),
            "signal": plots.depth(result.signals),
        }
        for name, figure in figures.items():
            plots.save(figure, folder / name)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise CommandError(f"could not write {folder}: {reason}") from error
    if not quiet:
        print("wrote", *sorted(folder.iterdir()))
