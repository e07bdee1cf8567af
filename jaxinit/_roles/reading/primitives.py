"""The primitives that are followed: whatever is not here makes a leaf unknown.

The problem: a leaf that goes through an operation of which nothing is known must not
be given a role by chance. `add` is listed, so a bias is found; `svd` is not, so what
goes through it is unknown, and the reason names it.
"""

ADDITIONS = frozenset({"add", "add_any"})
SUMS = ADDITIONS | {"sub"}
PRODUCTS = frozenset({"mul", "div"})

# One number of the output for each number of the inputs.
ELEMENTWISE = (
    SUMS
    | PRODUCTS
    | frozenset(
        {
            *("abs", "acos", "acosh", "and", "asin", "asinh", "atan", "atan2", "atanh"),
            *("bessel_i0e", "bessel_i1e", "cbrt", "ceil", "clamp", "complex", "conj"),
            *("cos", "cosh", "digamma", "eq", "erf", "erf_inv", "erfc", "exp", "exp2"),
            *("expm1", "floor", "ge", "gt", "igamma", "igammac", "imag", "integer_pow"),
            *("is_finite", "le", "le_to", "lgamma", "log", "log1p", "logistic", "lt"),
            *("lt_to", "max"),
            *("min", "ne", "neg", "nextafter", "not", "one_minus_square", "or"),
            *("polygamma", "pow"),
            *("population_count", "real", "rem", "round", "rsqrt", "select_n"),
            *("shift_left", "shift_right_arithmetic", "shift_right_logical", "sign"),
            *("sin", "sinh", "sqrt", "square", "tan", "tanh", "xor"),
        }
    )
)

# The numbers as they are, in the same places.
COPIES = frozenset(
    {
        *("bitcast_convert_type", "condition", "convert_element_type", "copy"),
        *("copy_p", "layout_constraint", "mesh_cast", "name", "optimization_barrier"),
        *("pbroadcast", "pvary", "reduce_precision", "reshard"),
        *("sharding_constraint", "stop_gradient", "to_edtype"),
    }
)

# All numbers of one input, in other places.
RELOCATIONS = frozenset(
    {
        *("broadcast_in_dim", "expand_dims", "pad", "reshape", "rev", "squeeze"),
        *("tile", "transpose"),
    }
)

# Each number of the output is of one number of each input, there or elsewhere.
POINTWISE = ELEMENTWISE | COPIES | RELOCATIONS

# Some numbers of one input.
PARTS = frozenset({"dynamic_slice", "gather", "slice", "split", "unstack"})

# The numbers as they are, elsewhere: each has a rule in `moves`.
MOVES = (
    RELOCATIONS
    | PARTS
    | frozenset({"branches", "carry", "concatenate", "each", "stack", "stacked"})
)

REDUCTIONS = frozenset(
    {
        *("argmax", "argmin", "reduce", "reduce_and", "reduce_max", "reduce_min"),
        *("reduce_or", "reduce_prod", "reduce_sum", "reduce_xor"),
    }
)

CONTRACTIONS = frozenset({"conv_general_dilated", "dot_general", "ragged_dot_general"})

# Sums of rows, as of the edges of a graph: the name differs between jax versions.
SCATTERS = frozenset({"scatter-add", "scatter_add"})

# Sums of several places, by no leaf.
SPREADS = frozenset({"cumsum", "fft", "reduce_window", "reduce_window_sum"})

# What activations may go through, and no leaf may go into.
MIXING = SCATTERS | frozenset(
    {
        *("approx_top_k", "clz", "cumlogsumexp", "cummax", "cummin", "cumprod"),
        *("cumsum", "dynamic_update_slice", "fft", "iota", "random_bits"),
        *("random_fold_in", "random_gamma", "random_seed", "random_split"),
        *("random_unwrap", "random_wrap", "reduce_window", "reduce_window_max"),
        *("reduce_window_min", "reduce_window_sum", "rng_bit_generator"),
        *("rng_uniform", "scatter", "scatter-max", "scatter-min", "scatter-mul"),
        *("scatter_max", "scatter_min", "scatter_mul", "scatter_sub"),
        *("select_and_gather_add", "select_and_scatter_add", "sort", "threefry2x32"),
        "top_k",
    }
)

LISTED = ELEMENTWISE | COPIES | MOVES | REDUCTIONS | CONTRACTIONS | MIXING
