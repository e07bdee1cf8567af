"""A transformer's parameters by rules, each drawn where it belongs, on all devices.

    python examples/sharded.py

Runs on whatever devices there are; on a CPU it makes eight. The values do not depend on
how many there are, nor on how the arrays are cut: the fingerprint says so.
"""

import math
import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax
from jax.sharding import PartitionSpec as P

import jaxinit

RULES = {
    "**/norm/scale": jaxinit.ones,
    "**/bias": jaxinit.zeros,
    "**/embedding": jaxinit.normal(0.02),
    "blocks/**/attention/out/kernel": jaxinit.scaled(jaxinit.glorot_normal(), 0.5),
    "blocks/**/kernel": jaxinit.he_normal(),
}
SHARDINGS = {
    "**/embedding": P("model", "data"),
    "**/out/kernel": P("model", "data"),  # what comes in is cut as it went out
    "**/kernel": P("data", "model"),
    "**": P(),  # whole on every device
}


def shapes(depth: int = 3, width: int = 128) -> dict:
    """What `jax.eval_shape(model.init, key, x)` would give."""

    def dense(inputs, outputs):
        sizes = {"kernel": (inputs, outputs), "bias": (outputs,)}
        return {name: jax.ShapeDtypeStruct(s, "float32") for name, s in sizes.items()}

    def block():
        return {
            "norm": {"scale": jax.ShapeDtypeStruct((width,), "float32")},
            "attention": {"qkv": dense(width, 3 * width), "out": dense(width, width)},
            "mlp": {"up": dense(width, 4 * width), "out": dense(4 * width, width)},
        }

    embedding = jax.ShapeDtypeStruct((1024, width), "bfloat16")
    return {"blocks": [block() for _ in range(depth)], "embedding": embedding}


def main() -> None:
    """Plans, draws, and checks the values against those of one device."""
    key = jax.random.key(0)
    count = 2 ** int(math.log2(jax.device_count()))
    model = min(2, count)
    devices = jax.devices()[:count]
    mesh = jax.make_mesh((count // model, model), ("data", "model"), devices=devices)
    with jax.set_mesh(mesh):
        shardings = jaxinit.ShardingRules(SHARDINGS)
        plan = jaxinit.plan(shapes(), RULES, shardings=shardings)
    print(plan)

    params = plan.init(key)
    print(f"\nEach of {count} devices has:")
    for leaf, array in zip(plan, jax.tree.leaves(params), strict=True):
        part = array.addressable_shards[0].data
        print(f"  {leaf.path:<32} {part.shape!s:>12} of {array.shape}")

    alone = jaxinit.init_tree(key, shapes(), RULES)
    assert jaxinit.fingerprint(params) == jaxinit.fingerprint(alone)
    print(f"\nfingerprint {jaxinit.fingerprint(params)}, as on one device")


if __name__ == "__main__":
    main()
