"""Initializers: everything that draws one array, and what a new one is made of.

A new initializer derives from `Initializer`, or from `FromShape` or `FromUniform`.
"""

from jaxinit.initializers.activation import Recommendation as Recommendation
from jaxinit.initializers.activation import for_activation as for_activation
from jaxinit.initializers.base import Initializer as Initializer
from jaxinit.initializers.bases import FromShape as FromShape
from jaxinit.initializers.bases import FromUniform as FromUniform
from jaxinit.initializers.basic import constant as constant
from jaxinit.initializers.basic import normal as normal
from jaxinit.initializers.basic import ones as ones
from jaxinit.initializers.basic import ones_init as ones_init
from jaxinit.initializers.basic import truncated_normal as truncated_normal
from jaxinit.initializers.basic import uniform as uniform
from jaxinit.initializers.basic import zeros as zeros
from jaxinit.initializers.basic import zeros_init as zeros_init
from jaxinit.initializers.explaining import explain as explain
from jaxinit.initializers.fans import Fans as Fans
from jaxinit.initializers.fans import einsum_axes as einsum_axes
from jaxinit.initializers.heads import log_frequencies as log_frequencies
from jaxinit.initializers.heads import log_odds as log_odds
from jaxinit.initializers.heads import lora as lora
from jaxinit.initializers.implicit import fourier_features as fourier_features
from jaxinit.initializers.implicit import siren_first as siren_first
from jaxinit.initializers.implicit import siren_hidden as siren_hidden
from jaxinit.initializers.orthogonal_matrices import (
    delta_orthogonal as delta_orthogonal,
)
from jaxinit.initializers.orthogonal_matrices import orthogonal as orthogonal
from jaxinit.initializers.scaling import glorot_normal as glorot_normal
from jaxinit.initializers.scaling import glorot_uniform as glorot_uniform
from jaxinit.initializers.scaling import he_normal as he_normal
from jaxinit.initializers.scaling import he_uniform as he_uniform
from jaxinit.initializers.scaling import kaiming_normal as kaiming_normal
from jaxinit.initializers.scaling import kaiming_uniform as kaiming_uniform
from jaxinit.initializers.scaling import lecun_normal as lecun_normal
from jaxinit.initializers.scaling import lecun_uniform as lecun_uniform
from jaxinit.initializers.scaling import variance_scaling as variance_scaling
from jaxinit.initializers.scaling import xavier_normal as xavier_normal
from jaxinit.initializers.scaling import xavier_uniform as xavier_uniform
from jaxinit.initializers.sections import grouped as grouped
from jaxinit.initializers.sections import split as split
from jaxinit.initializers.sections import stacked as stacked
from jaxinit.initializers.sequence import chrono as chrono
from jaxinit.initializers.sequence import forget_gate_bias as forget_gate_bias
from jaxinit.initializers.sequence import log_steps as log_steps
from jaxinit.initializers.sequence import log_uniform as log_uniform
from jaxinit.initializers.sequence import softplus_inverse as softplus_inverse
from jaxinit.initializers.state_space import hippo as hippo
from jaxinit.initializers.state_space import log_arange as log_arange
from jaxinit.initializers.state_space import lru_gamma as lru_gamma
from jaxinit.initializers.state_space import lru_nu as lru_nu
from jaxinit.initializers.state_space import lru_theta as lru_theta
from jaxinit.initializers.state_space import s4d_frequencies as s4d_frequencies
from jaxinit.initializers.structured import bilinear as bilinear
from jaxinit.initializers.structured import dirac as dirac
from jaxinit.initializers.structured import hadamard as hadamard
from jaxinit.initializers.structured import identity as identity
from jaxinit.initializers.structured import looks_linear as looks_linear
from jaxinit.initializers.structured import sparse as sparse
from jaxinit.initializers.structured import zero_init as zero_init
from jaxinit.initializers.tables import sinusoidal as sinusoidal
from jaxinit.initializers.tables import stft as stft
from jaxinit.initializers.wrappers import center_tap as center_tap
from jaxinit.initializers.wrappers import mirrored as mirrored
from jaxinit.initializers.wrappers import scaled as scaled
from jaxinit.initializers.wrappers import unit_scaled as unit_scaled
