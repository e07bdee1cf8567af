"""Laws: what this package calls the distribution of one entry of an array.

A law is a value. It knows its moments and its cumulative distribution function, and
draws nothing: `testing` and `stats` compare arrays with it.
"""

from jaxinit.laws.base import Law as Law
from jaxinit.laws.base import Moments as Moments
from jaxinit.laws.base import affine as affine
from jaxinit.laws.base import moments_of as moments_of
from jaxinit.laws.compound import Mixture as Mixture
from jaxinit.laws.compound import Quantile as Quantile
from jaxinit.laws.compound import Scaled as Scaled
from jaxinit.laws.compound import Shifted as Shifted
from jaxinit.laws.compound import Table as Table
from jaxinit.laws.compound import points as points
from jaxinit.laws.rounded import rounded_moments as rounded_moments
from jaxinit.laws.simple import ComplexNormal as ComplexNormal
from jaxinit.laws.simple import ComplexTruncatedNormal as ComplexTruncatedNormal
from jaxinit.laws.simple import Disk as Disk
from jaxinit.laws.simple import HaarEntry as HaarEntry
from jaxinit.laws.simple import Normal as Normal
from jaxinit.laws.simple import Uniform as Uniform
from jaxinit.laws.simple import Values as Values
from jaxinit.laws.truncated import NormalBetween as NormalBetween
from jaxinit.laws.truncated import TruncatedNormal as TruncatedNormal
