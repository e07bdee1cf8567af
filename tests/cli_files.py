"""Modules for the command line, written to a folder."""

import contextlib
import sys

MODULE = """
import functools
import signal
import jax
import jax.numpy as jnp
from flax import linen as nn, nnx

def blocks(key):
    keys = jax.random.split(key, 3)
    return {f"block_{i}": {"kernel": jax.random.normal(k, (4, 8))}
            for i, k in enumerate(keys)}

def mixed(key):
    return {"key": key, "step": jnp.arange(3), "w": jnp.full(2, 1e6),
            "list": [jnp.ones(2), jnp.zeros(2)]}

def scaled(key, x):
    return {"w": jax.random.normal(key, (x.shape[-1], 2))}

def narrow(key):
    return {"w": jnp.ones(2, jnp.bfloat16)}

def three(a, b, c):
    return a

def broken(key):
    return undefined_name

def outer(key):
    return broken(key)

def at_length(key):
    raise ValueError("x" * 5000)

def text(key):
    return "text"

def leaves(key):
    raise SystemExit(0)

def interrupted(key):
    signal.raise_signal(signal.SIGINT)

def layered(key, x, layers, name="w"):
    keys = jax.random.split(key, layers)
    return {f"{name}{i}": jax.random.normal(k, x.shape) for i, k in enumerate(keys)}

def not_finite(key):
    nan = jnp.array([[jnp.nan, 1, 0, 0]])
    blocks = {f"b{i}": {"w": nan if i == 1 else jnp.ones((1, 4))} for i in range(3)}
    return blocks | {"infinite": jnp.array([1, -jnp.inf]), "count": jnp.arange(2)}

def finite(key):
    mask = jnp.array([0, -jnp.inf])
    return {"params": {"w": jnp.ones(2), "none": jnp.ones((0, 2))}, "cache": mask}

def not_finite_state(key):
    cache = {f"c{i}": jnp.full(i + 1, jnp.nan) for i in range(9)}
    return {"params": {}, "cache": cache}

def empty(key):
    return {}

class Net(nn.Module):
    features: int = 3

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=False)(nn.Dense(self.features)(x))
        return nn.Dense(2)(x)

class Sized(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x, y):
        return nn.Dense(self.features)(x) + y

class Switched(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x, train: bool, act="relu"):
        width = self.features if train else 2 * self.features
        return getattr(nn, act)(nn.Dense(width)(x))

class Refusing(nn.Module):
    def __post_init__(self):
        super().__post_init__()
        raise ValueError("never")

switched = Switched(3)
net = Net()
sized = Sized(3)

class Model(nnx.Module):
    def __init__(self, rngs, features=3):
        self.layers = nnx.List([nnx.Linear(2, 2, rngs=rngs) for _ in range(2)])
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

class SizedModel(nnx.Module):
    def __init__(self, features, rngs):
        self.linear = nnx.Linear(2, features, rngs=rngs)

def make(rngs: nnx.Rngs):
    return SizedModel(3, rngs)

def makes_nothing(rngs):
    return 3

model = Model(nnx.Rngs(0))

def __getattr__(name):
    if name == "lazy":
        raise RuntimeError("not now")
    raise AttributeError(name)

number = 3

import jaxinit

rules = {"**/kernel": jaxinit.normal(1.0)}
wrong_rules = jaxinit.Rules({"**/kernel": jaxinit.normal(0.1)})
unused_rules = {"**/kernel": jaxinit.he_normal(), "**/bias": jaxinit.zeros}
unfit_rules = {"**/kernel": jaxinit.split(jaxinit.ones, 3)}
no_rules = {"**/kernel": 3}
"""


MODULES = {
    "fake": MODULE,
    "syntax": "def f(:",
    "needs": "import no_such_module",
    "raises": "raise RuntimeError('one\\ntwo')",
    "exits": "import sys\nsys.exit(3)",
    "talks": "from fake import blocks\nprint('hello')",
}


@contextlib.contextmanager
def written(folder, monkeypatch):
    """In a folder with these modules, none of them imported before or after."""
    for name, source in MODULES.items():
        (folder / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
    (folder / "old.safetensors").touch()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    sys.modules.pop("fake", None)
