"""Wide & Deep, DeepFM and DCN v2 in Flax Linen, on a table and on a log of clicks.

    python examples/recommend.py --picture recommend.png
    python -m jaxinit init examples.recommend:deepfm

A row is one category for each field, and each field has a table of its own, of n rows
that are U(+-1 / sqrt(n)) at first; dense layers are He normal: the rules of
`jaxinit.schemes.recommender`.

The table is scikit-learn's breast cancer data, eight of its columns cut into
ten bins each.
The log is made from a key: whether an item is clicked depends on a user, of whom there
are a million and some come often, and on pairs of item and hour, item and device. What
the best model could reach, and the best without pairs, is known. The table of users is
drawn in place; jax's own uniform numbers take three times its bytes beside it.

Cheng et al., "Wide & deep learning for recommender systems" (2016); Guo et al.,
"DeepFM: a factorization-machine based neural network" (2017); Wang et al., "DCN V2"
(2021).
"""

import itertools
import math
import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import jaxinit
from examples import running, training
from jaxinit import schemes

BINS, HELD_OUT = 10, 169
USERS, ITEMS, HOURS, DEVICES = FIELDS = 1_000_000, 32, 24, 4


class Tables(nn.Module):
    """Categories (batch, fields) to embeddings (batch, fields, width)."""

    sizes: Sequence[int]
    width: int

    @nn.compact
    def __call__(self, rows):
        tables = [
            nn.Embed(size, self.width, name=f"field_{i}")
            for i, size in enumerate(self.sizes)
        ]
        return jnp.stack([table(rows[:, i]) for i, table in enumerate(tables)], axis=1)


class Deep(nn.Module):
    """Dense layers with rectifiers."""

    hidden: Sequence[int]

    @nn.compact
    def __call__(self, x):
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return x


class Linear(nn.Module):
    """A number for each category, summed over the fields: (batch,)."""

    sizes: Sequence[int]

    @nn.compact
    def __call__(self, rows):
        return Tables(self.sizes, 1, name="weights")(rows).sum((1, 2))


class Recommender(nn.Module):
    """Categories (batch, fields) to the logit of a click (batch,)."""

    sizes: Sequence[int]
    width: int = 10
    hidden: Sequence[int] = (400, 400, 400)

    def embedded(self, rows):
        return Tables(self.sizes, self.width, name="embedding")(rows)

    def deep(self, x):
        x = Deep(self.hidden, name="deep")(x.reshape(len(x), -1))
        return nn.Dense(1, name="head")(x)[:, 0]


class WideDeep(Recommender):
    """A linear model of categories and of pairs of them, beside a deep one."""

    pairs: Sequence[tuple[int, int]] = ()

    @nn.compact
    def __call__(self, rows):
        crossed = [rows[:, i] * self.sizes[j] + rows[:, j] for i, j in self.pairs]
        sizes = [self.sizes[i] * self.sizes[j] for i, j in self.pairs]
        wide = Linear([*self.sizes, *sizes], name="wide")
        rows = jnp.stack([*rows.T, *crossed], axis=1)
        return wide(rows) + self.deep(self.embedded(rows[:, : len(self.sizes)]))


class DeepFM(Recommender):
    """A factorization machine and a deep model that share their embeddings."""

    @nn.compact
    def __call__(self, rows):
        x = self.embedded(rows)
        total, squares = jnp.sum(x, 1), jnp.sum(x**2, 1)
        products = 0.5 * jnp.sum(total**2 - squares, -1)  # of all pairs of fields
        return Linear(self.sizes, name="linear")(rows) + products + self.deep(x)


class DCN(Recommender):
    """Cross layers, each of which raises the degree by one, and a deep model on top."""

    crosses: int = 2

    @nn.compact
    def __call__(self, rows):
        first = x = self.embedded(rows).reshape(len(rows), -1)
        for i in range(self.crosses):
            x = first * nn.Dense(x.shape[-1], name=f"cross_{i}")(x) + x
        return self.deep(x)


def init(model: Recommender, key: jax.Array):
    """The parameters of `model`, drawn from `key`."""
    rows = jax.ShapeDtypeStruct((2, len(model.sizes)), jnp.int32)
    rules = schemes.recommender()
    return jaxinit.linen.init(model, key, rows, scheme=rules)["params"]


def wide_deep(key):
    """Parameters of Wide & Deep for the log, as wide as in the papers: 11,339,157."""
    return init(WideDeep(FIELDS, pairs=((1, 2), (1, 3))), key)


def deepfm(key):
    """Parameters of DeepFM for the log, as wide as in the papers: 11,338,261."""
    return init(DeepFM(FIELDS), key)


def dcn(key):
    """Parameters of DCN v2 for the log, as wide as in the papers: 10,341,481."""
    return init(DCN(FIELDS), key)


def binned():
    """Breast cancer data: bins of eight columns (569, 8), and whether it is benign."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    columns = data.data[:, 20:28]  # the worst cell nuclei of each image
    edges = np.quantile(columns, np.linspace(0, 1, BINS + 1)[1:-1], axis=0)
    rows = (columns[:, None] > edges).sum(1)
    order = np.random.default_rng(0).permutation(len(rows))
    return rows[order].astype(np.int32), data.target[order].astype(np.int32)


def tastes():
    """What is true of clicks: logits by item and hour, by item and device, by user."""
    keys = jax.random.split(jax.random.key(3), 2)
    pairs = [
        2.0 * jax.random.rademacher(key, (ITEMS, size), jnp.float32)
        for key, size in zip(keys, (HOURS, DEVICES), strict=True)
    ]
    return *pairs, 1.0


def true_logits(rows):
    """The logit of a click for rows (batch, 4) of user, item, hour and device."""
    by_hour, by_device, by_user = tastes()
    user, item, hour, device = rows.T
    likes = jnp.where(user % 2 == 0, by_user, -by_user)
    return by_hour[item, hour] + by_device[item, device] + likes


def clicks(key, size: int = 4096):
    """Rows of the log (size, 4), and whether each was a click (size,)."""
    often, others, clicked = jax.random.split(key, 3)
    user = jnp.int32(USERS * jax.random.uniform(often, (size, 1)) ** 6)
    other = jax.random.randint(others, (size, 3), 0, jnp.array(FIELDS[1:]))
    rows = jnp.concatenate([user, other], axis=1)
    labels = jax.random.bernoulli(clicked, jax.nn.sigmoid(true_logits(rows)))
    return rows, labels.astype(jnp.int32)


def without_pairs(rows):
    """The best logit that looks at the user alone."""
    by_hour, by_device, by_user = tastes()
    pairs = by_hour[:, :, None] + by_device[:, None, :]
    share = jnp.stack(
        [jnp.mean(jax.nn.sigmoid(pairs + x)) for x in (by_user, -by_user)]
    )
    return jnp.log(share / (1 - share))[rows[:, 0] % 2]


def log_loss(logits, labels):
    """The mean loss of logits (batch,) for labels of 0 and 1, in nats."""
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, labels))


def learned(model: Recommender, batches, steps: int, rate: float, seed: int):
    """What `training.train` gives of a model that starts by the scheme."""
    rows = jax.ShapeDtypeStruct((2, len(model.sizes)), jnp.int32)
    start = running.linen_start(model, rows, scheme=schemes.recommender(), seed=seed)

    def loss(params, batch, key):
        return log_loss(model.apply({"params": params}, batch[0]), batch[1])

    optimizer = optax.adamw(rate, weight_decay=1e-5)
    return training.train(
        loss, start["params"], batches, steps=steps, optimizer=optimizer
    )


def on_table(steps: int, seed: int) -> dict[str, tuple[np.ndarray, float]]:
    """Losses, and the share of held-out rows told right, of the three models."""
    rows, labels = binned()
    sizes, small = (BINS,) * rows.shape[1], {"width": 4, "hidden": (16,)}
    pairs = tuple(itertools.combinations(range(3), 2))
    models = {
        "Wide & Deep": WideDeep(sizes, **small, pairs=pairs),
        "DeepFM": DeepFM(sizes, **small),
        "DCN v2": DCN(sizes, **small),
    }
    batches = training.batches_of(rows[HELD_OUT:], labels[HELD_OUT:], 64)
    found = {}
    for name, model in models.items():
        trained = learned(model, batches, steps, 3e-3, seed)
        logits = model.apply({"params": trained.params}, rows[:HELD_OUT])
        right = float(np.mean((logits > 0) == labels[:HELD_OUT]))
        found[name] = trained.losses, right
    return found


def on_clicks(steps: int, seed: int) -> tuple[np.ndarray, dict[str, float]]:
    """Losses of DeepFM, and held-out ones beside what is known of the log."""
    model = DeepFM(FIELDS, hidden=(32,))
    trained = learned(model, clicks, steps, 1e-2, seed)
    rows, labels = clicks(jax.random.key(2), 20_000)
    share = float(labels.mean())
    return trained.losses, {
        "the share of clicks": -share * math.log(share)
        - (1 - share) * math.log(1 - share),
        "the best without pairs": float(log_loss(without_pairs(rows), labels)),
        "DeepFM": float(
            log_loss(model.apply({"params": trained.params}, rows), labels)
        ),
        "the truth": float(log_loss(true_logits(rows), labels)),
    }


def extra_bytes(draw) -> int:
    """What a compiled draw of the table of users takes beside the table."""
    compiled = jax.jit(draw).lower(jax.random.key(0)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def memory() -> dict[str, int]:
    """Bytes beside the table of users, drawn by jax and here."""
    shape, bound = (USERS, 10), USERS**-0.5
    init = jaxinit.uniform(low=-bound, high=bound)

    def by_jax(key):
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    return {
        "jax.random": extra_bytes(by_jax),
        "jaxinit": extra_bytes(lambda key: init(key, shape)),
    }


def main(arguments: Sequence[str] = ()) -> None:
    """Trains, and prints what came out."""
    given = training.options(arguments, __doc__, steps=150)
    began = time.perf_counter()
    table = on_table(given.steps, given.seed)
    losses, log = on_clicks(given.steps, given.seed)
    running.table(
        {
            **{f"{x}, breast cancer": f"{y:.1%} right" for x, (_, y) in table.items()},
            **{f"clicks, loss of {x}": f"{y:.3f} nats" for x, y in log.items()},
            **{
                f"beside the table of users, {x}": f"{y / 1e6:.0f} MB"
                for x, y in memory().items()
            },
            "seconds": f"{time.perf_counter() - began:.0f}",
        }
    )
    if given.picture:
        curves = {name: losses for name, (losses, _) in table.items()}
        training.curves(given.picture, {**curves, "DeepFM, clicks": losses})


if __name__ == "__main__":
    main(sys.argv[1:])
