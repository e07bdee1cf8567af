"""One set of parameters on several processes, as on several hosts.

    python examples/multihost.py --processes 2
    python examples/multihost.py --processes 4 --odd-one-out 3

starts the processes on this machine, with two CPU devices each, and waits for them. On
real hosts the same `main` runs once on each, and `jax.distributed.initialize()` finds
the others by itself.

Every process plans the whole tree and draws what its own devices hold; nothing is sent.
All must start from the same seed and rules: `check_processes` compares them, and the
second line shows what happens when one has another seed.
"""

import argparse
import socket
import subprocess
import sys
import time

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxinit

DEVICES = 2  # of each process
RULES = {
    "**/norm": jaxinit.ones,
    "**/embedding": jaxinit.normal(0.02),
    "**/out": jaxinit.orthogonal(),
    "**/qkv": jaxinit.split(jaxinit.glorot_normal(), 3),
}


def shapes(depth: int = 2, width: int = 96) -> dict:
    """The parameters of layers of attention."""
    sizes = {"norm": (width,), "qkv": (width, 3 * width), "out": (width, width)}
    block = {
        name: jax.ShapeDtypeStruct(size, "float32") for name, size in sizes.items()
    }
    embedding = jax.ShapeDtypeStruct((384, width), "bfloat16")
    return {"embedding": embedding, "blocks": [block] * depth}


def main(seed: int) -> None:
    """What every process does."""
    key = jax.random.key(seed)
    mesh = jax.make_mesh((jax.process_count(), DEVICES), ("data", "model"))
    shardings = jaxinit.ShardingRules(
        {
            "**/norm": NamedSharding(mesh, P()),
            "**": NamedSharding(mesh, P("data", "model")),
        }
    )
    plan = jaxinit.plan(shapes(), RULES, shardings=shardings)
    jaxinit.check_processes(plan, key)
    params = plan.init(key)

    held = 0
    for leaf in jax.tree.leaves(params):
        shards = [shard.data for shard in leaf.addressable_shards]
        assert len(shards) == DEVICES
        assert {x.shape for x in shards} == {leaf.sharding.shard_shape(leaf.shape)}
        held += sum(x.nbytes for x in shards)
    fingerprint = jaxinit.fingerprint(params)
    say(
        f"process {jax.process_index()} of {jax.process_count()} holds {held:,} of "
        f"{plan.bytes:,} bytes of parameters with the fingerprint {fingerprint}"
    )
    if jax.process_index() == 0:
        alone = jaxinit.init_tree(key, shapes(), RULES)
        assert jaxinit.fingerprint(alone) == fingerprint
        say("which is that of one device alone")


def say(line: str) -> None:
    """Prints a line at once, so that those of several processes do not mix."""
    print(f"{line}\n", end="", flush=True)


def start(processes: int, seed: int, odd_one_out: int | None) -> int:
    """Runs `main` in new processes until all are done or one fails."""
    with socket.socket() as held:  # so that nobody else takes the port meanwhile
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        common = [sys.executable, __file__, "--processes", str(processes)]
        common += ["--coordinator", f"127.0.0.1:{held.getsockname()[1]}", "--seed"]
        children = [
            subprocess.Popen(
                [*common, str(seed + (i == odd_one_out)), "--process", str(i)]
            )
            for i in range(processes)
        ]
        try:
            while None in (codes := [child.poll() for child in children]):
                if any(codes):
                    break
                time.sleep(0.05)
            time.sleep(1 if any(codes) else 0)  # the others may have to say something
            return int(any(codes))
        finally:
            for child in children:
                child.kill()


def connect(coordinator: str, processes: int, process: int) -> None:
    """Makes this process one of several, with some CPU devices."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(coordinator, processes, process)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--odd-one-out", type=int, help="process with another seed")
    parser.add_argument("--coordinator", help=argparse.SUPPRESS)
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process is None:
        sys.exit(start(options.processes, options.seed, options.odd_one_out))
    connect(options.coordinator, options.processes, options.process)
    main(options.seed)
