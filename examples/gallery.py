"""The pictures of all examples that train, made anew: `python -m examples.gallery`.

Takes about ten minutes on two cores; names, such as `mlp compare`, choose some.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

PICTURES = Path(__file__).parent / "pictures"
EXAMPLES = (
    *("mlp", "batch_norm", "resnet", "efficientnet", "vit", "transformer", "bert"),
    *("gpt2", "memory", "recommend", "dcgan", "stylegan"),
)
COMPARE = (
    *("examples.batch_norm:plain", "--data", "digits", "--steps", "300"),
    *("--schemes", "zeros,normal(0.01),glorot_normal,he_normal,orthogonal"),
)


def run(module: str, *arguments: str) -> None:
    """Runs a module as a program of its own."""
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


def compare(path: Path) -> None:
    """The curves of the README's comparison."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        run("jaxinit", "compare", *COMPARE, "--out", str(out))
        path.write_bytes((out / "loss.png").read_bytes())


def main(names: Sequence[str]) -> None:
    """Makes the pictures of some examples, or of all."""
    known = (*EXAMPLES, "compare")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    for name in names or known:
        path = PICTURES / f"{name}.png"
        if name == "compare":
            compare(path)
        else:
            run(f"examples.{name}", "--picture", str(path))
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
