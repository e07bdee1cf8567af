"""All runs as one program: stacked, vmapped, trained in a loop, and judged.

A run is a scheme, a seed and a learning rate. Runs differ in their numbers only, so
that one compiled program trains any number of them:

    chunks   runs that fit into memory together, all of one size; the last is padded
    pieces   steps between two returns to Python, to show progress and to be stopped

A seed gives three keys, the same for every scheme and learning rate: what the
parameters are drawn with, what the batches follow from, and the noise of dropout.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._compare import losses
from jaxinit._compare.data import Data
from jaxinit._compare.models import Trainable, as_inputs

try:
    import optax
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "jaxinit.compare trains with optax: pip install 'jaxinit[compare]'",
        name=error.name,
    ) from error

Optimizer = Callable[[Any], optax.GradientTransformation]
ADAMW: Optimizer = optax.adamw
_PIECES = 20


class Run(NamedTuple):
    """A run, or runs along a first axis.

    Attributes:
        params: its parameters.
        state: other state of the model.
        slots: state of its optimizer.
        rate: its learning rate.
        batches: key that its batches follow from.
        noise: key of dropout.
    """

    params: Any
    state: Any
    slots: Any
    rate: Any
    batches: Any
    noise: Any


class Outcome(NamedTuple):
    """How runs went: arrays in the host's memory, runs along the first axis.

    Attributes:
        losses: loss of each batch.
        accuracies: share of right labels in each batch.
        held_loss: loss on what is held out, at the end.
        held_accuracy: accuracy on it.
    """

    losses: np.ndarray
    accuracies: np.ndarray
    held_loss: np.ndarray
    held_accuracy: np.ndarray


@dataclass(frozen=True, eq=False)
class Trainer:
    """What is the same for all runs.

    Attributes:
        model: the model.
        data: what it is trained on.
        loss: the loss.
        optimizer: function of a learning rate that makes an optimizer.
        steps: steps of training.
        has_accuracy: whether outputs are logits for labels.
    """

    model: Trainable
    data: Data
    loss: losses.Loss
    optimizer: Optimizer
    steps: int
    has_accuracy: bool

    @property
    def piece(self) -> int:
        """Steps between two returns to Python."""
        return -(-self.steps // _PIECES)

    @functools.cached_property
    def begin(self) -> Callable[[Run], Run]:
        """Program that fills in the state of the optimizer."""
        return jax.jit(jax.vmap(self._begun))

    def _begun(self, run: Run) -> Run:
        return run._replace(slots=self._optimizer(run.rate).init(run.params))

    def _optimizer(self, rate: Any) -> optax.GradientTransformationExtraArgs:
        """The optimizer at a learning rate, which is traced: runs have one each."""
        try:
            return optax.with_extra_args_support(self.optimizer(rate))
        except jax.errors.ConcretizationTypeError as error:
            raise ValueError(
                "optimizer looks at the value of the learning rate, which differs from "
                "run to run and is traced. Let it only multiply, such as lambda rate: "
                "optax.chain(optax.adam(1.0), optax.scale_by_schedule(schedule), "
                "optax.scale(rate)), with a schedule from 0 to 1."
            ) from error

    @functools.cached_property
    def advance(self) -> Callable[..., tuple[Run, Outcome]]:
        """Program that trains from one step to before another, and may judge."""

        def advance(run, data, held, first, last, judge):
            def body(place, carry):
                run, found, right = carry
                run, loss, accuracy = self.step(run, data, first + place)
                found = found.at[place].set(loss)
                return run, found, right.at[place].set(accuracy)

            nothing = jnp.zeros(self.piece)
            carry = run, nothing, nothing
            run, found, right = jax.lax.fori_loop(0, last - first, body, carry)
            judged = jax.lax.cond(
                judge,
                lambda: self.judged(run, held),
                lambda: (jnp.float32(0), jnp.float32(0)),
            )
            return run, Outcome(found, right, *judged)

        return jax.jit(jax.vmap(advance, (0, None, None, None, None, None)))

    def step(self, run: Run, data: Any, place: Any) -> tuple[Run, Any, Any]:
        """One step of one run: the run after it, the loss and the accuracy."""
        x, y = self.data.batch(data, jax.random.fold_in(run.batches, place))

        def objective(params):
            key = jax.random.fold_in(run.noise, place)
            outputs, state = self.model.call(
                params, run.state, as_inputs(x), key, train=True
            )
            return self.loss(outputs, y), (state, self._accuracy(outputs, y))

        (loss, (state, right)), slope = jax.value_and_grad(objective, has_aux=True)(
            run.params
        )
        updates, slots = self._optimizer(run.rate).update(
            slope,
            run.slots,
            run.params,
            value=loss,  # for those that search along a line, or wait for a plateau
            grad=slope,
            value_fn=lambda params: objective(params)[0],
        )
        params = optax.apply_updates(run.params, updates)
        run = run._replace(params=params, state=state, slots=slots)
        return run, loss.astype(jnp.float32), right

    def judged(self, run: Run, held: Any) -> tuple[jax.Array, jax.Array]:
        """Loss and accuracy on what is held out, piece by piece."""

        def of_piece(pair):
            x, y = pair
            outputs, _ = self.model.call(
                run.params, run.state, as_inputs(x), run.noise, train=False
            )
            loss = self.loss(outputs, y).astype(jnp.float32)
            return loss, self._accuracy(outputs, y)

        found, right = jax.lax.map(of_piece, held)
        return jnp.mean(found), jnp.mean(right)

    def _accuracy(self, outputs: Any, y: Any) -> jax.Array:
        if not self.has_accuracy:
            return jnp.float32(0)
        return losses.accuracy(outputs, y).astype(jnp.float32)

    def bytes_of(self, run: Run) -> int:
        """Size of all arrays that a step of a run makes: an estimate from above."""
        shapes = jax.tree.map(_shape, run)
        shapes = jax.eval_shape(self._begun, shapes)
        data = jax.tree.map(_shape, self.data.arrays)
        place = jax.ShapeDtypeStruct((), "int32")
        traced = jax.make_jaxpr(self.step)(shapes, data, place)
        made = [out.aval for eqn in traced.eqns for out in eqn.outvars]
        return sum(_bytes(x) for x in (*made, *jax.tree.leaves(shapes)))


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _bytes(x: Any) -> int:
    size = getattr(x.dtype, "itemsize", 8)
    return int(np.prod(x.shape)) * size


@dataclass
class Progress:
    """How far the runs are.

    Attributes:
        outcomes: what is known of finished chunks, in order; the last may be padded.
        runs: number of runs in them, without padding.
        partial: the outcome of the chunk that was stopped, if it can be judged.
        steps: steps that this chunk was trained for.
    """

    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    runs: int = 0
    partial: Outcome | None = None
    steps: int = 0


def chunk_size(runs: int, bytes_of_run: int, memory: int) -> int:
    """Runs in a chunk, such that chunks are of one size and fit into memory."""
    most = max(1, memory // max(1, bytes_of_run))
    chunks = -(-runs // most)
    return -(-runs // chunks)


def stacked(runs: Sequence[Run]) -> Run:
    """Runs along a first axis."""
    return jax.tree.map(lambda *leaves: _stack(leaves), *runs)


def _stack(leaves: Sequence[Any]) -> Any:
    if jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
        return jnp.stack(leaves)
    return np.stack([np.asarray(leaf) for leaf in leaves])


def train(
    trainer: Trainer,
    starts: Iterator[Run],
    count: int,
    size: int,
    tell: Callable[[int, int], None],
) -> Progress:
    """Trains all runs, chunk by chunk.

    Args:
        trainer: what is the same for all of them.
        starts: the runs before their first step, in order.
        count: how many there are.
        size: how many are trained at once.
        tell: called with the steps that are done, and their number, over all chunks.

    Returns:
        What came of it. If it was interrupted, not all runs are in it.
    """
    progress = Progress()
    chunks = -(-count // size)
    try:
        for chunk in range(chunks):
            own = [next(starts) for _ in range(min(size, count - progress.runs))]
            padded = [*own, *[own[-1]] * (size - len(own))]
            done = chunk * trainer.steps
            outcome = _train_chunk(
                trainer,
                stacked(padded),
                progress,
                lambda steps, done=done: tell(done + steps, chunks * trainer.steps),
            )
            progress.outcomes.append(outcome)
            progress.runs += len(own)
            progress.partial = None
    except KeyboardInterrupt:
        if progress.partial is not None:
            progress.partial = _cut(progress.partial, count)
        return progress
    return progress


def _cut(outcome: Outcome, runs: int) -> Outcome:
    return Outcome(*(x[:runs] for x in outcome))


def _train_chunk(
    trainer: Trainer, run: Run, progress: Progress, tell: Callable[[int], None]
) -> Outcome:
    """Trains the runs of a chunk; if interrupted, judges them as they are."""
    run = trainer.begin(run)
    pieces: list[Outcome] = []
    done = 0

    def go(run, last, judge):
        arrays = trainer.data.arrays, trainer.data.held
        run, outcome = trainer.advance(run, *arrays, done, last, judge)
        return run, jax.device_get(outcome)

    try:
        while done < trainer.steps:
            last = min(done + trainer.piece, trainer.steps)
            run, outcome = go(run, last, last == trainer.steps)
            pieces.append(outcome)
            done = last
            tell(done)
    except KeyboardInterrupt:
        if pieces:
            pieces.append(go(run, done, True)[1])
            progress.partial, progress.steps = _joined(pieces, done), done
        raise
    return _joined(pieces, done)


def _joined(pieces: Sequence[Outcome], steps: int) -> Outcome:
    """The outcome of runs from what each piece of their steps gave."""

    def whole(arrays):
        return np.concatenate(list(arrays), 1)[:, :steps]

    return pieces[-1]._replace(
        losses=whole(piece.losses for piece in pieces),
        accuracies=whole(piece.accuracies for piece in pieces),
    )
