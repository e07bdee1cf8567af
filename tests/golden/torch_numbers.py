"""Writes torch.json, what torch draws and makes, for tests that run without torch.

Needs torch and NumPy only, and overwrites the file beside this one:

    python tests/golden/torch_numbers.py

The file holds order statistics of what is random, drawn at fixed seeds, and all of what
is not. Arrays have torch's layout, (outputs, inputs, *window).
"""

# torch is imported where it is used: pytest looks for doctests here without it.

import json
from pathlib import Path

import numpy as np

SHAPE = (40, 20, 3)  # outputs, inputs, window
MATRICES = ("eye_", "sparse_", "orthogonal_")
SETTINGS = {"constant_": (0.3,), "sparse_": (0.9,)}
FIXED = ("ones_", "zeros_", "constant_", "eye_", "dirac_")
STEPS = 16  # between the order statistics
NONLINEARITIES = [
    ("linear", None),
    ("conv1d", None),
    ("conv2d", None),
    ("conv3d", None),
    ("conv_transpose1d", None),
    ("conv_transpose2d", None),
    ("conv_transpose3d", None),
    ("sigmoid", None),
    ("tanh", None),
    ("relu", None),
    ("relu", 0.3),
    ("leaky_relu", None),
    ("leaky_relu", 0.2),
    ("leaky_relu", 1),
    ("selu", None),
]
FANS = [(30, 20), (16, 8, 3), (16, 8, 3, 5), (8, 16, 2, 3, 4)]
HAAR, MATRIX_COUNT = 3, 600  # rows of a matrix, and how many are drawn


def drawn(x) -> dict:
    """Shape, moments and order statistics of an array, to float32's digits."""
    values = np.sort(np.asarray(x, np.float64), axis=None)
    ranks = np.rint(np.linspace(0, values.size - 1, STEPS + 1)).astype(int)
    return {
        "shape": list(np.shape(x)),
        "mean": float(values.mean()),
        "variance": float(values.var()),
        "ranks": (ranks + 1).tolist(),
        "values": [float(f"{value:.9g}") for value in values[ranks]],
    }


def fixed(x) -> dict:
    """An array as the entry that most have, and the places and values of all others."""
    values, counts = np.unique(x, return_counts=True)
    most = values[counts.argmax()]
    places = np.argwhere(x != most)
    return {
        "shape": list(x.shape),
        "most": float(f"{most:.9g}"),
        "places": places.tolist(),
        "values": [float(f"{value:.9g}") for value in x[tuple(places.T)]],
    }


def made(name, shape=None, settings=None):
    """What a function of torch.nn.init fills an array with."""
    import torch

    torch.manual_seed(3)
    shape = shape or (SHAPE[:2] if name in MATRICES else SHAPE)
    settings = SETTINGS.get(name, ()) if settings is None else settings
    return getattr(torch.nn.init, name)(torch.empty(*shape), *settings).numpy()


def functions() -> dict:
    """Every public function that fills an array, by name."""
    import torch

    return {
        name: fixed(made(name)) if name in FIXED else drawn(made(name))
        for name in sorted(dir(torch.nn.init))
        if name.endswith("_") and not name.startswith("_")
    }


def gains() -> list:
    """The table of calculate_gain."""
    from torch.nn.init import calculate_gain

    return [[*case, float(calculate_gain(*case))] for case in NONLINEARITIES]


def fans() -> list:
    """Shapes and their fans, in and out."""
    import torch

    of = torch.nn.init._calculate_fan_in_and_fan_out
    return [[list(shape), *map(int, of(torch.empty(*shape)))] for shape in FANS]


def haar() -> dict:
    """One entry each of many orthogonal matrices, and the greatest defect of all."""
    import torch

    torch.manual_seed(5)
    empty = torch.empty(HAAR, HAAR)
    x = np.stack(
        [torch.nn.init.orthogonal_(empty).numpy().copy() for _ in range(MATRIX_COUNT)]
    )
    wide = made("orthogonal_").T.astype(np.float64)
    return {
        "first": drawn(x[:, 0, 0]),
        "last": drawn(x[:, -1, -1]),
        "defect": float(abs(wide @ wide.T - np.eye(len(wide))).max()),
    }


def layers() -> dict:
    """Parameters of layers as torch makes them, by layer and name."""
    import torch

    nn = torch.nn
    table = {
        "Linear": lambda: nn.Linear(40, 80),
        "Conv1d": lambda: nn.Conv1d(40, 60, 3),
        "Conv2d": lambda: nn.Conv2d(20, 40, 3),
        "Conv3d": lambda: nn.Conv3d(10, 20, 3),
        "Embedding": lambda: nn.Embedding(80, 40),
        "EmbeddingBag": lambda: nn.EmbeddingBag(80, 40),
        "MultiheadAttention": lambda: nn.MultiheadAttention(40, 4),
        "RNN": lambda: nn.RNN(40, 80),
        "LSTM": lambda: nn.LSTM(40, 80),
        "GRU": lambda: nn.GRU(40, 80),
        "RNNCell": lambda: nn.RNNCell(40, 80),
        "LSTMCell": lambda: nn.LSTMCell(40, 80),
        "GRUCell": lambda: nn.GRUCell(40, 80),
        "LayerNorm": lambda: nn.LayerNorm(40),
        "GroupNorm": lambda: nn.GroupNorm(4, 40),
        "BatchNorm2d": lambda: nn.BatchNorm2d(40),
    }
    found = {}
    for name, make in table.items():
        torch.manual_seed(4)
        parameters = make().named_parameters()
        found[name] = {path: drawn(x.detach().numpy()) for path, x in parameters}
    return found


def main() -> None:
    import torch

    numbers = {
        "torch": torch.__version__.partition("+")[0],
        "calculate_gain": gains(),
        "fans": fans(),
        "functions": functions(),
        "zeros_of_a_column": (made("sparse_") == 0).sum(0).tolist(),
        "dirac_groups": {
            groups: fixed(made("dirac_", (8, 4, 3, 5), (groups,)))
            for groups in (1, 2, 4)
        },
        "dirac_even": fixed(made("dirac_", (4, 4, 4, 2))),
        "haar": haar(),
        "layers": layers(),
    }
    text = json.dumps(numbers, separators=(",", ":"))
    for part in (*numbers, *numbers["functions"], *numbers["layers"]):
        text = text.replace(f'"{part}":', f'\n"{part}":')
    Path(__file__).with_name("torch.json").write_text(text.strip() + "\n")


if __name__ == "__main__":
    main()
