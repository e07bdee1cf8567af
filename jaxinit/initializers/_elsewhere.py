"""Initializers of torch.nn.init and keras.initializers, by the names they have there.

Each gives the distribution and the defaults that it has there. Its settings may be
given by the names that they have there, or by those of this package.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxinit.initializers import basic, orthogonal_matrices, structured, tables
from jaxinit.initializers.base import Initializer
from jaxinit.initializers.gain import calculate_gain
from jaxinit.initializers.scaling import variance_scaling
from jaxinit.initializers.settings import choice, finite, nonnegative

Settings = dict[str, Any]
_SEEDS = ("seed", "generator")


@dataclass(frozen=True)
class Elsewhere:
    """What makes the initializer of another package.

    Attributes:
        make: what makes it here.
        defaults: settings that it has there, by the names they have here.
        renamed: names that settings have there, and here.
        translate: changes settings whose values mean something else there.
        others: settings that only `translate` knows.
        supplied: settings, by the names they have here, that `translate` adds.
    """

    make: Callable[..., Initializer]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    translate: Callable[[Settings], Settings] = dict
    others: tuple[str, ...] = ()
    supplied: tuple[str, ...] = ()

    def known(self) -> list[str]:
        """The names that settings may have."""
        own = inspect.signature(self.make).parameters
        return list(dict.fromkeys([*self.others, *self.renamed, *own, *_SEEDS]))

    def __call__(self, **settings: Any) -> Initializer:
        """The initializer, by settings of either name."""
        for seed in _SEEDS:
            if seed in settings:
                raise TypeError(
                    f"{seed} is no setting here: what is drawn follows from the key of "
                    "the call, init(jax.random.key(seed), shape)."
                )
        own: Settings = {}
        for name, value in settings.items():
            here = self.renamed.get(name, name)
            if here in own:
                raise TypeError(f"{name} is given twice, also by its other name.")
            own[here] = value
        return self.make(**self.translate({**self.defaults, **own}))


def _gain_to_scale(settings: Settings) -> Settings:
    """Torch multiplies the deviation by `gain`, so the variance by its square."""
    gain = nonnegative("gain", settings.pop("gain", 1.0))
    return {**settings, "scale": gain * gain * settings["scale"]}


_check_fan = choice("fan_in", "fan_out")


def _kaiming(settings: Settings) -> Settings:
    """Torch's variance is the square of its gain, over a fan."""
    slope = finite("a", settings.pop("a", 0.0))
    name = settings.pop("nonlinearity", "leaky_relu")
    _check_fan("mode", settings["mode"])
    gain = calculate_gain(name, slope)
    scale = {"relu": 2.0, "leaky_relu": 2 / (1 + slope * slope)}.get(name, gain * gain)
    return {"scale": scale, **settings}


def _unit_interval(settings: Settings) -> Settings:
    """Torch's uniform law is on `[0, 1)`, of which one end may be given."""
    if "low" in settings or "high" in settings:
        return {"low": 0.0, "high": 1.0, **settings}
    return {"scale": 1.0, **settings}


def _keras_scaling(settings: Settings) -> Settings:
    """Keras calls the law that is not truncated by another name."""
    theirs = {"normal": "truncated_normal", "untruncated_normal": "normal"}
    law = settings["distribution"]
    return {**settings, "distribution": theirs.get(str(law), law)}


def _keras_stft(settings: Settings) -> Settings:
    """Keras says None for no window, and for no scaling."""
    return {
        name: "none" if value is None and name in ("window", "scaling") else value
        for name, value in settings.items()
    }


def _scaling(scale: float, mode: str, distribution: str, **options: Any) -> Elsewhere:
    law = {"scale": scale, "mode": mode, "distribution": distribution}
    return Elsewhere(variance_scaling, law, **options)


def _xavier(distribution: str) -> Elsewhere:
    options = {"translate": _gain_to_scale, "others": ("gain",)}
    return _scaling(1.0, "fan_avg", distribution, **options)


def _he(distribution: str) -> Elsewhere:
    law = {"mode": "fan_in", "distribution": distribution}
    return Elsewhere(
        variance_scaling,
        law,
        translate=_kaiming,
        others=("a", "nonlinearity"),
        supplied=("scale",),
    )


_GAIN = {"gain": "scale"}
_STD = {"std": "stddev"}
_ENDS = {"a": "low", "b": "high"}
_CUT = {"stddev": 1.0, "low": -2.0, "high": 2.0}

ELSEWHERE: dict[str, Elsewhere] = {
    "uniform_": Elsewhere(basic.uniform, renamed=_ENDS, translate=_unit_interval),
    "normal_": Elsewhere(basic.normal, {"stddev": 1.0}, _STD),
    "trunc_normal_": Elsewhere(basic.truncated_normal, _CUT, _STD | _ENDS),
    "constant_": Elsewhere(basic.constant, renamed={"val": "value"}),
    "ones_": Elsewhere(basic.constant, {"value": 1.0}),
    "zeros_": Elsewhere(basic.constant, {"value": 0.0}),
    "eye_": Elsewhere(structured.identity),
    "dirac_": Elsewhere(structured.dirac),
    "xavier_uniform_": _xavier("uniform"),
    "xavier_normal_": _xavier("normal"),
    "kaiming_uniform_": _he("uniform"),
    "kaiming_normal_": _he("normal"),
    "orthogonal_": Elsewhere(orthogonal_matrices.orthogonal, renamed=_GAIN),
    "sparse_": Elsewhere(structured.sparse, {"axis": -1}, _STD),
    "Zeros": Elsewhere(basic.constant, {"value": 0.0}),
    "Ones": Elsewhere(basic.constant, {"value": 1.0}),
    "Constant": Elsewhere(basic.constant, {"value": 0.0}),
    "Identity": Elsewhere(structured.identity, renamed=_GAIN),
    "STFT": Elsewhere(tables.stft, translate=_keras_stft),
    "RandomNormal": Elsewhere(basic.normal, {"stddev": 0.05}),
    "RandomUniform": Elsewhere(
        basic.uniform,
        {"low": -0.05, "high": 0.05},
        {"minval": "low", "maxval": "high"},
    ),
    "TruncatedNormal": Elsewhere(basic.truncated_normal, {"stddev": 0.05}),
    "VarianceScaling": _scaling(
        1.0, "fan_in", "truncated_normal", translate=_keras_scaling
    ),
    "GlorotUniform": _scaling(1.0, "fan_avg", "uniform"),
    "GlorotNormal": _scaling(1.0, "fan_avg", "truncated_normal"),
    "LecunUniform": _scaling(1.0, "fan_in", "uniform"),
    "LecunNormal": _scaling(1.0, "fan_in", "truncated_normal"),
    "HeUniform": _scaling(2.0, "fan_in", "uniform"),
    "HeNormal": _scaling(2.0, "fan_in", "truncated_normal"),
    "Orthogonal": Elsewhere(orthogonal_matrices.orthogonal, renamed=_GAIN),
}
