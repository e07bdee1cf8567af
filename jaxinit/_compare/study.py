"""A comparison from its arguments to its result: starts, training, judgement."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxinit._compare import losses, models, schemes
from jaxinit._compare.data import Data
from jaxinit._compare.result import Comparison, Interrupted
from jaxinit._compare.summary import Yardstick, summary
from jaxinit._compare.training import (
    Optimizer,
    Outcome,
    Progress,
    Run,
    Trainer,
    chunk_size,
    train,
)
from jaxinit.signal import Signal


class Study:
    """Schemes, seeds and learning rates, with what all of their runs have in common.

    Args:
        model: as in `jaxinit.compare.compare`, as `loss`, `optimizer`, `steps`,
            `threshold` and `options`.
        data: what it is trained on.
        named: the schemes by name.
        loss: the loss.
        optimizer: makes an optimizer of a learning rate.
        rates: the learning rates.
        steps: steps of training.
        keys: for each seed, keys of parameters, batches and noise.
        threshold: loss to which steps are counted.
        options: keyword arguments of the model's call.
    """

    def __init__(
        self,
        model: Any,
        data: Data,
        named: Mapping[str, Any],
        loss: Any,
        optimizer: Optimizer,
        rates: Sequence[float],
        steps: int,
        keys: Sequence[jax.Array],
        threshold: float | None,
        options: Mapping[str, Any],
    ):
        self.data, self.rates, self.keys = data, rates, keys
        x, y = jax.eval_shape(data.batch, data.arrays, keys[0][1])
        loss = losses.chosen(loss, y)
        self.model = models.opened(model, x, options)
        params, state = self.model.own(keys[0][0])
        outputs = self._outputs(params, state, x)
        for example in (data.example, data.held_y):
            losses.check_fit(loss, outputs, y, example)
        right = losses.counts_right(outputs, y)
        self.trainer = Trainer(self.model, data, loss, optimizer, steps, right)
        self.plans = schemes.plans(self.model, params, named)
        self.yardstick = Yardstick.of(data, loss, right, threshold)

    def _outputs(self, params: Any, state: Any, x: Any) -> Any:
        """The shapes of what the model returns for a batch.

        Raises:
            ValueError: if the model cannot be called on it.
        """
        try:
            call = jax.tree_util.Partial(self.model.call)
            return jax.eval_shape(
                lambda *given: call(*given, train=True)[0],
                params,
                state,
                models.as_inputs(x),
                self.keys[0][2],
            )
        except Exception as error:
            raise ValueError(
                f"the model cannot be called on a batch of x of "
                f"{losses.described(x)}: {error}"
            ) from error

    def run(self, memory: int, tell: Callable[[int, int], None]) -> Comparison:
        """The comparison.

        Raises:
            Interrupted: after Ctrl-C, if anything is finished.
        """
        signals = {name: self._signal(name) for name in self.plans}
        runs = len(self.plans) * self._each
        first = next(self._starts())
        size = chunk_size(runs, self.trainer.bytes_of(first), memory)
        progress = train(self.trainer, self._starts(), runs, size, tell)
        names, outcome, steps = self._finished(progress, runs, size)
        shape = len(names), len(self.keys), len(self.rates)
        outcome = Outcome(*(x.reshape(*shape, *x.shape[1:]) for x in outcome))
        signals = {name: signals[name] for name in names}
        left_out = [name for name in self.plans if name not in names]
        asked = self.trainer.steps
        result = summary(
            outcome, signals, self.rates, self.yardstick, steps, asked, left_out
        )
        if progress.runs < runs:
            raise Interrupted(result)
        return result

    @property
    def _each(self) -> int:
        """Runs of each scheme."""
        return len(self.keys) * len(self.rates)

    def _signal(self, name: str) -> Signal:
        params, state = self._start(name, self.keys[0])
        key = jax.random.fold_in(self.keys[0][1], 0)
        x, _ = jax.jit(self.data.batch)(self.data.arrays, key)
        return self.model.signal(params, state, models.as_inputs(x))

    def _start(self, name: str, keys: jax.Array) -> tuple[Any, Any]:
        own, state = self.model.own(keys[0])
        return schemes.drawn(self.plans[name], keys[0], own), state

    def _starts(self) -> Iterator[Run]:
        """All runs: those of a scheme one after the other, and in them of a seed."""
        for name in self.plans:
            for keys in self.keys:
                params, state = self._start(name, keys)
                for rate in self.rates:
                    yield Run(params, state, None, np.float32(rate), keys[1], keys[2])

    def _finished(
        self, progress: Progress, runs: int, size: int
    ) -> tuple[list[str], Outcome, int]:
        """The schemes that are finished, how their runs went, and after how many steps.

        If all runs were stopped together, all schemes, as they were then.

        Raises:
            KeyboardInterrupt: if there is nothing to show.
        """
        names, steps = list(self.plans), self.trainer.steps
        count = progress.runs // self._each
        if count:
            joined = Outcome(*map(np.concatenate, zip(*progress.outcomes, strict=True)))
            kept = Outcome(*(x[: count * self._each] for x in joined))
            return names[:count], kept, steps
        if progress.partial is None or size < runs:
            raise KeyboardInterrupt
        return names, progress.partial, progress.steps
