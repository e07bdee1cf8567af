"""The command line: `python -m benchmarks [name ...]`."""

import argparse
import importlib
import inspect

from benchmarks.harness import record, save

NAMES = (
    "arrays",
    "kernel",
    "precision",
    "calibration",
    "models",
    "cold",
    "depth",
    "onepass",
    "scale",
    "leaves",
    "topology",
    "imports",
    "roles",
    "auto",
    "auto_signal",
    "audit",
)
_OPTIONS = {
    "rounds": "how often each method is measured, or keys of an audit",
    "size": "side of the arrays",
    "blocks": "depth of the models",
    "draws": "number of simulated arrays",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="|".join((*NAMES, "readme")))
    for option, help_ in _OPTIONS.items():
        parser.add_argument(f"--{option}", type=int, help=f"{help_}; saves nothing")
    arguments = vars(parser.parse_args())
    names = arguments.pop("names") or NAMES
    if unknown := {*names} - {*NAMES, "readme"}:
        parser.error(f"no benchmark named {', '.join(unknown)}")
    given = {name: value for name, value in arguments.items() if value is not None}
    for name in names:
        if name == "readme":
            summary = importlib.import_module("benchmarks.summary")
            print(f"wrote {summary.write()}")
        else:
            _run(name, given)


def _run(name: str, given: dict[str, int]) -> None:
    benchmark = importlib.import_module(f"benchmarks.{name}")
    taken = inspect.signature(benchmark.run).parameters
    rows = benchmark.run(**{k: v for k, v in given.items() if k in taken})
    if not rows:  # it said why
        return
    result = record(name, rows)
    print(f"{result['device']}; {result['processor']}")
    print(", ".join(" ".join(pair) for pair in result["versions"].items()), "\n")
    for table in benchmark.tables(rows):
        print(table)
    if not given:  # what other settings give is not comparable with the last results
        print(f"wrote {save(result)}\n")


if __name__ == "__main__":
    main()
