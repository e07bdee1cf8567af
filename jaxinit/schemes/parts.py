"""Parts of models: which leaf is what, by the names that libraries use."""

import dataclasses
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

import jax

from jaxinit._roles.role import Role
from jaxinit._tree.leaf import Leaf

# The kind of a leaf, by the last segment of its path; the segment before it names the
# module.
_KINDS = {
    **dict.fromkeys(("kernel", "weight", "weights", "w"), "kernel"),
    **dict.fromkeys(("scale", "gamma"), "scale"),
    **dict.fromkeys(("bias", "b", "beta", "offset", "bias_n"), "bias"),
    **dict.fromkeys(("embedding", "embeddings"), "embedding"),
}
_KERNEL_NAMES = [name for name, kind in _KINDS.items() if kind == "kernel"]
_CELL_KERNELS = {"weight_ih", "weight_hh", "w_i", "w_h", "recurrent_kernel"}
_TORCH_LAYOUT = ("weight", "weight_ih", "weight_hh")  # (outputs, inputs, window)


@dataclass(frozen=True)
class Part:
    """The leaves that play one part in a model: a pattern of rules.

    Attributes:
        words: what they are, for errors.
        kinds: kinds of leaf, separated by spaces: kernel, scale, bias, embedding, or
            array for any other.
        names: names of the module, or of the array itself if its kind is array,
            separated by spaces. A number at the end, as in Flax's `Dense_0`, is
            ignored. None means any name.
        inside: substrings, separated by spaces; the path of the modules around must
            have one of them.
        ndim: the fewest axes of such an array.
        by_role: whether a role is that of such a leaf. It decides if the plan has
            roles; the names above only if not, or if this is None.
    """

    words: str
    kinds: str
    names: str = ""
    inside: str = ""
    ndim: int = 0
    by_role: Callable[[Role], bool] | None = None

    def __call__(self, leaf: Leaf) -> bool:
        """Whether a leaf is one of these."""
        if leaf.role is not None and self.by_role is not None:
            return self.by_role(leaf.role)
        kind, owner, around = described(leaf)
        if kind not in _words(self.kinds) or len(leaf.shape) < self.ndim:
            return False
        names = _words(self.names)
        is_named = not names or owner in names or _NUMBER.sub("", owner) in names
        return is_named and (
            not self.inside or any(x in around for x in _words(self.inside))
        )

    def could_be(self, leaf: Leaf) -> bool:
        """Whether a leaf is of the right kind, whatever its name."""
        kind, *_ = described(leaf)
        return kind in _words(self.kinds) and len(leaf.shape) >= self.ndim

    def __repr__(self):
        names = f" ({', '.join(self.names.split())})" if self.names else ""
        inside = f" inside {' or '.join(self.inside.split())}" if self.inside else ""
        return f"<{self.words}{names}{inside}>"


# Kept, because every rule asks for every leaf of a tree.
@functools.lru_cache(256)
def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_NUMBER = re.compile(r"_\d+$")


def described(leaf: Leaf) -> tuple[str, str, str]:
    """Kind of a leaf, name of its module (or its own if bare), path around that."""
    *around, last = leaf.path.lower().split("/")
    if last in _CELL_KERNELS:
        return "kernel", last, "/".join(around)
    if last not in _KINDS:
        return "array", last, "/".join(around)
    owner = around.pop() if around else ""
    kind = _KINDS[last]
    if last == "weight" and (len(leaf.shape) < 2 or _is_affine(leaf)):
        kind = "scale"
    elif last == "weight" and len(leaf.shape) == 2 and re.search("emb|wte|wpe", owner):
        kind = "embedding"
    return kind, owner, "/".join(around)


def _is_affine(leaf: Leaf) -> bool:
    """Whether it has a bias of its own shape, as in a norm over several axes."""
    bias = bias_beside(leaf)
    return bias is not None and bias.shape == leaf.shape


@dataclass(frozen=True)
class _is:  # noqa: N801 - used, and therefore spelled, as a function
    """Whether a role is of one of some kinds."""

    kinds: tuple[str, ...]

    def __call__(self, role: Role) -> bool:
        return role.kind in self.kinds


@dataclass(frozen=True)
class _plays:  # noqa: N801 - as above
    """Whether a kernel plays one of some parts."""

    parts: tuple[str, ...]

    def __call__(self, role: Role) -> bool:
        return any(use.part in self.parts for use in role.kernels)


def _is_table(role: Role) -> bool:
    return role.kind == "embedding" and not _is_token(role)


def _is_first(role: Role) -> bool:
    """Behind no other kernel, and no query or the like of tokens that come embedded."""
    return any(u.first and u.part is None and not u.sections for u in role.kernels)


def _is_token(role: Role) -> bool:
    return any(use.kind == "embedding" and use.part for use in role.uses)


def _is_head(role: Role) -> bool:
    return any(use.head for use in role.kernels) and not role.tied


def _is_fused(role: Role) -> bool:
    return any(
        len({"query", "key", "value"} & {section.part for section in use.sections}) > 1
        for use in role.kernels
    )


def _enters_feed_forward(role: Role) -> bool:
    return any(
        (use.function or "identity") != "identity" or use.part in ("gate", "up")
        for use in role.kernels
    )


def _leaves_feed_forward(role: Role) -> bool:
    return any(use.residual and use.part != "attention output" for use in role.kernels)


_is_kernel = _is(
    (
        "kernel",
        "convolution",
    )
)
KERNEL = Part("kernel", "kernel", by_role=_is_kernel)
CONVOLUTION = Part("convolution", "kernel", ndim=4, by_role=_is(("convolution",)))
SCALE = Part("scale of a norm", "scale", by_role=_is(("scale",)))
BIAS = Part("bias", "bias", by_role=_is(("bias",)))
EMBEDDING = Part(
    "embedding",
    "embedding",
    by_role=_is_table,
)
POSITION = Part(
    "position embedding",
    "embedding array",
    "wpe pos_embedding pos_embed pos_embeddings position_embedding "
    "position_embeddings positional_embedding posembed",
    by_role=_is(("position",)),
)
TOKEN = Part(
    "learned token", "array", "cls cls_token mask_token dist_token", by_role=_is_token
)
PATCHES = Part(
    "patch embedding",
    "kernel",
    "patch_embed patch_embedding embedding patches",
    by_role=_is_first,
)
HEAD = Part(
    "head", "kernel", "head lm_head classifier logits readout fc", by_role=_is_head
)
QUERY = Part(
    "query", "kernel", "query q q_proj query_proj wq", by_role=_plays(("query",))
)
KEY = Part("key", "kernel", "key k k_proj key_proj wk", by_role=_plays(("key",)))
QUERY_KEY = Part(
    "query or key",
    "kernel",
    f"{QUERY.names} {KEY.names}",
    by_role=_plays(
        (
            "query",
            "key",
            "query, key",
        )
    ),
)
VALUE = Part(
    "value", "kernel", "value v v_proj value_proj wv", by_role=_plays(("value",))
)
FUSED = Part(
    "fused query, key and value",
    "kernel",
    "qkv qkv_proj c_attn in_proj",
    by_role=_is_fused,
)
ATTENTION_OUT = Part(
    "attention output",
    "kernel",
    "out o proj c_proj out_proj o_proj output_proj attention_output wo linear",
    inside="att",
    by_role=_plays(("attention output",)),
)
MLP_IN = Part(
    "feed-forward input",
    "kernel",
    "fc1 fc c_fc linear1 lin1 w1 w3 wi wi_0 wi_1 up_proj gate_proj dense_0",
    inside="mlp ffn feed block layer",
    by_role=_enters_feed_forward,
)
MLP_OUT = Part(
    "feed-forward output",
    "kernel",
    "fc2 proj c_proj linear2 lin2 w2 wo down_proj dense_1",
    inside="mlp ffn feed block layer",
    by_role=_leaves_feed_forward,
)
GATE = Part(
    "residual gate",
    "array scale",
    "gate gain alpha resweight rezero skip_gain skipinit_gain layer_scale layerscale "
    "ls1 ls2 gamma_1 gamma_2 lambda_1 lambda_2",
    by_role=_is(("gate",)),
)


SLOPE = Part("slope of a PReLU", "array", "negative_slope")


def axes(leaf: Leaf) -> dict[str, int | tuple[int, ...]]:
    """`in_axis` and `out_axis` of a kernel, by the layout of its library.

    Kernels named `weight` have torch's and Equinox's order, outputs first; others have
    Flax's, outputs last. Flax's attention has three axes: (inputs, heads, size), and
    (heads, size, outputs) at its output. The bias of a layer has the shape of its
    outputs: these can be several axes, as in Flax's `DenseGeneral`, or the last but
    one, as in transposed convolutions of Haiku and Keras. Of a leaf whose role is
    known, the axes are those of its first contraction, and `batch_axis` is among them.
    """
    if leaf.role is not None and leaf.role.kernels:
        use = leaf.role.kernels[0]
        batch = tuple(sorted((*use.batch_axis, *use.stack_axis)))
        return {"in_axis": use.in_axis, "out_axis": use.out_axis, "batch_axis": batch}
    if outputs_first(leaf):
        return {"in_axis": 1, "out_axis": 0}
    if len(leaf.shape) == 3 and (QUERY_KEY(leaf) or VALUE(leaf)):
        return {"in_axis": 0, "out_axis": (1, 2)}
    if len(leaf.shape) == 3 and ATTENTION_OUT(leaf):
        return {"in_axis": (0, 1), "out_axis": 2}
    return _axes_by_bias(leaf) or {"in_axis": -2, "out_axis": -1}


def _axes_by_bias(leaf: Leaf) -> dict[str, int | tuple[int, ...]] | None:
    bias, ndim = bias_beside(leaf), len(leaf.shape)
    if bias is None or ndim < 3:
        return None
    if leaf.shape[-1:] != bias.shape == leaf.shape[-2:-1]:
        return {"in_axis": -1, "out_axis": -2}
    for outputs in range(len(bias.shape), 1, -1):
        batch = len(bias.shape) - outputs  # axes that inputs and outputs share
        expected = leaf.shape[:batch] + leaf.shape[ndim - outputs :]
        if expected == bias.shape and len(bias.shape) < ndim:
            first = ndim - outputs
            return {"in_axis": _axis(0, first), "out_axis": _axis(first, ndim)}
    return None


def _axis(start: int, stop: int) -> int | tuple[int, ...]:
    return start if stop == start + 1 else tuple(range(start, stop))


def outputs_first(leaf: Leaf) -> bool:
    """Whether a kernel has torch's and Equinox's layout."""
    return leaf.path.rpartition("/")[2] in _TORCH_LAYOUT


def bias_beside(leaf: Leaf) -> jax.ShapeDtypeStruct | None:
    """The bias of the layer that a kernel belongs to."""
    biases = (leaf.siblings[name] for name in ("bias", "b") if name in leaf.siblings)
    return next(biases, None)


def kernel_beside(leaf: Leaf) -> Leaf | None:
    """The kernel of the layer that a bias belongs to; None for the bias of a norm."""
    names = [name for name in _KERNEL_NAMES if name in leaf.siblings]
    if len(names) > 1:  # the first in the module
        names = [name for name in leaf.siblings if name in names]
    for name in names:
        sibling = at(leaf, beside(leaf.path, name))
        if described(sibling)[0] == "kernel" and len(sibling.shape) > 1:
            return sibling
    return None


def beside(path: str, name: str) -> str:
    """The path of a leaf in the same module."""
    return f"{path.rpartition('/')[0]}/{name}".removeprefix("/")


def at(leaf: Leaf, path: str) -> Leaf:
    """Another leaf of the same tree, with only the siblings that `_KINDS` names."""
    other = leaf.leaves[path]
    names = {name: beside(path, name) for name in (path.rpartition("/")[2], *_KINDS)}
    return dataclasses.replace(
        leaf,
        path=path,
        shape=tuple(other.shape),
        dtype=other.dtype,
        siblings={x: leaf.leaves[y] for x, y in names.items() if y in leaf.leaves},
    )


def stack(leaf: Leaf) -> str | None:
    """Which of "encoder" and "decoder" a leaf is in; None if its path does not tell.

    The first segment that has one of the words, and not both, decides: in a decoder,
    `encoder_attention` belongs to the decoder.
    """
    for segment in leaf.path.split("/"):
        words = (
            x.lower() for x in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", segment)
        )
        stacks = {m[1] for x in words if (m := re.fullmatch(_STACK, x))}
        if len(stacks) == 1:
            return stacks.pop()
    return None


_STACK = r"(encoder|decoder)(?:s|blocks?|layers?)?"


def place_in_block(leaf: Leaf) -> tuple[int, int] | None:
    """Position of a layer among the like layers of its block, from 0, and their number.

    Layers are alike if their names differ only in a number at the end, such as `bn1`
    and `bn2`, or `Conv_0` and `Conv_1`. A block is a module with a number of its own.
    None for a leaf outside any block.
    """
    match = re.fullmatch(r"((?:.*/)?[^/]*\d/[^/]*?)(\d+)(/[^/]+)", leaf.path)
    if not match:
        return None
    stem, number, last = match[1], int(match[2]), match[3]
    first = end = number
    while f"{stem}{first - 1}{last}" in leaf.leaves:
        first -= 1
    while f"{stem}{end + 1}{last}" in leaf.leaves:
        end += 1
    return number - first, end - first + 1
