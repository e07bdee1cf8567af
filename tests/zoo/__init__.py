"""Models whose roles are known: the truths were written by hand, before any run.

`MODELS` has a function without arguments for each; its `Model` has only shapes.
"""

from zoo import agents as agents
from zoo import attention as attention
from zoo import autoencoders as autoencoders
from zoo import cells as cells
from zoo import control_flow as control_flow
from zoo import decoders as decoders
from zoo import densities as densities
from zoo import depth as depth
from zoo import equinox_models as equinox_models
from zoo import experts as experts
from zoo import framework_nets as framework_nets
from zoo import fused as fused
from zoo import haiku_models as haiku_models
from zoo import image_models as image_models
from zoo import language as language
from zoo import linear_time as linear_time
from zoo import linen_attention as linen_attention
from zoo import linen_basics as linen_basics
from zoo import linen_images as linen_images
from zoo import linen_language as linen_language
from zoo import linen_ported as linen_ported
from zoo import linen_vision as linen_vision
from zoo import long_sequences as long_sequences
from zoo import loops as loops
from zoo import made_weights as made_weights
from zoo import memories as memories
from zoo import mixers as mixers
from zoo import mixing as mixing
from zoo import mlps as mlps
from zoo import mobile_images as mobile_images
from zoo import molecules as molecules
from zoo import nnx_models as nnx_models
from zoo import others as others
from zoo import patch_mlps as patch_mlps
from zoo import sequence_blocks as sequence_blocks
from zoo import sequences as sequences
from zoo import sets_graphs as sets_graphs
from zoo import tables as tables
from zoo import training as training
from zoo import weights as weights
from zoo import windows as windows
from zoo.truths import ANY as ANY
from zoo.truths import FIELDS as FIELDS
from zoo.truths import MODELS as MODELS
from zoo.truths import UNNAMED as UNNAMED
from zoo.truths import WRITES as WRITES
from zoo.truths import Model as Model
from zoo.truths import Use as Use
from zoo.truths import differences as differences
