"""One deep perceptron in Flax Linen with and without batch norm and dropout.

    python -m examples.batch_norm --picture batch_norm.png

Ten ReLU layers, each kind of network from three initializers. Without norms nothing is
learned from N(0, 0.01), and from Glorot's law less in the same time than from He's: the
signal gets smaller in each layer. Batch norm gives every layer a signal of size one,
whatever the kernels are, and the gap nearly closes. Dropout alone does not bring the
signal back, and with both, in so few steps, the widest kernels learn slowest. So it
depends on these switches whether a scheme matters: `plain`, `normed`, `dropped` and
`both` are models to compare schemes on.

Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing
Internal Covariate Shift" (2015).
"""

import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import jaxinit.linen
from examples import training
from jaxinit import Rules, schemes

SCHEMES = {
    "normal(0.01)": Rules({"**/kernel": jaxinit.normal(0.01)}) | schemes.mlp("relu"),
    "glorot_uniform": (
        Rules({"**/kernel": jaxinit.glorot_uniform()}) | schemes.mlp("relu")
    ),
    "he_normal": schemes.mlp("relu"),
}


class Deep(nn.Module):
    """Rows (batch, ...) to logits (batch, classes), in layers of equal width."""

    norm: bool = False
    dropout: float = 0.0
    depth: int = 10
    width: int = 64
    classes: int = 10

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = x.reshape(len(x), -1)
        for _ in range(self.depth):
            x = nn.Dense(self.width)(x)
            if self.norm:
                x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
        return nn.Dense(self.classes)(x)


plain, normed, dropped = Deep(), Deep(norm=True), Deep(dropout=0.1)
both = Deep(norm=True, dropout=0.1)
MODELS = {
    "plain": plain,
    "batch norm": normed,
    "dropout": dropped,
    "batch norm, dropout": both,
}


def starts(model: Deep, key):
    """The variables by every scheme, stacked."""
    x = jnp.zeros((2, 8, 8, 1))
    roles = jaxinit.linen.roles(model, x)
    variables = [
        jaxinit.linen.init(model, key, x, scheme=scheme) for scheme in SCHEMES.values()
    ]
    for own, scheme in zip(variables, SCHEMES.values(), strict=True):
        training.checked(own["params"], scheme, roles)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables)


def learn(model: Deep, steps: int, key) -> tuple[np.ndarray, np.ndarray]:
    """Trains from all schemes at once, with the same batches and noise.

    Args:
        model: the network.
        steps: how many batches.
        key: of the kernels, the batches and dropout.

    Returns:
        Losses (schemes, steps), and the share of held-out digits told right (schemes,).
    """
    (x, y), (x_test, y_test) = training.digits()
    apply, infer = training.linen_calls(model, train=True)
    run = training.program(
        training.classifier(apply), training.batches_of(x, y, 64), steps=steps
    )

    @jax.jit
    @jax.vmap
    def all_at_once(variables):
        params, state = variables["params"], {**variables}
        del state["params"]
        params, state, losses = run(params, state, key)
        hits = jnp.argmax(infer(params, state, x_test), -1) == y_test
        return losses, jnp.mean(hits)

    return jax.device_get(all_at_once(starts(model, key)))


def main(arguments: Sequence[str] = ()) -> None:
    """Trains every model from every scheme, and prints held-out accuracies."""
    given = training.options(arguments, __doc__, steps=200)
    print(f"{'held-out accuracy':<21}" + "".join(f"{name:>16}" for name in SCHEMES))
    panels = []
    for name, model in MODELS.items():
        losses, accuracies = learn(model, given.steps, jax.random.key(given.seed))
        print(f"{name:<21}" + "".join(f"{x:>16.1%}" for x in accuracies))
        own = zip(SCHEMES, losses, strict=True)
        panels.append({f"{name}: {scheme}": curve for scheme, curve in own})
    if given.picture:
        training.curves(given.picture, *panels)


if __name__ == "__main__":
    main(sys.argv[1:])
