"""Rule sets for whole models: by framework, by paper, by domain.

Each is a function that returns `jaxinit.Rules`, for `jaxinit.plan`. The plan raises an
error that names every leaf without a rule, and every part that the scheme needs and the
model does not have. Your own rules go first: `Rules({...}) | gpt2(layers=12)`.
"""

from jaxinit.schemes.adversarial import dcgan as dcgan
from jaxinit.schemes.adversarial import gan_discriminator as gan_discriminator
from jaxinit.schemes.adversarial import gan_generator as gan_generator
from jaxinit.schemes.adversarial import stylegan as stylegan
from jaxinit.schemes.auto import auto as auto
from jaxinit.schemes.domains import language as language
from jaxinit.schemes.domains import mlp as mlp
from jaxinit.schemes.domains import recommender as recommender
from jaxinit.schemes.domains import recurrent as recurrent
from jaxinit.schemes.domains import vision as vision
from jaxinit.schemes.frameworks import equinox as equinox
from jaxinit.schemes.frameworks import flax as flax
from jaxinit.schemes.frameworks import haiku as haiku
from jaxinit.schemes.frameworks import keras as keras
from jaxinit.schemes.frameworks import torch as torch
from jaxinit.schemes.mimetic import mimetic as mimetic
from jaxinit.schemes.residual import fixup as fixup
from jaxinit.schemes.residual import layer_scale as layer_scale
from jaxinit.schemes.residual import rezero as rezero
from jaxinit.schemes.residual import skip_init as skip_init
from jaxinit.schemes.residual import zero_gamma as zero_gamma
from jaxinit.schemes.stacks import deepnorm as deepnorm
from jaxinit.schemes.stacks import sub_ln as sub_ln
from jaxinit.schemes.stacks import t_fixup as t_fixup
from jaxinit.schemes.transformers import bert as bert
from jaxinit.schemes.transformers import gpt2 as gpt2
from jaxinit.schemes.transformers import mitchell as mitchell
from jaxinit.schemes.transformers import small_init as small_init
from jaxinit.schemes.transformers import vit as vit
from jaxinit.schemes.transformers import wang as wang
