"""The same GPT in four frameworks, each with its own layers and default initializers.

Blocks of LayerNorm, multi-head attention and a two-layer MLP, between embeddings and a
last LayerNorm. Every file has `methods(blocks)`: the ways to make the parameters, each
a function of no arguments that returns a pytree of arrays.
"""

WIDTH, HEADS = 768, 12
VOCABULARY, POSITIONS = 50257, 1024
