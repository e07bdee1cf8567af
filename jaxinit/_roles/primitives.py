"""The primitives that are followed: whatever is not here makes a leaf unknown."""

# One number of the output for each number of the inputs.
ELEMENTWISE = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e
    cbrt ceil clamp conj cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor
    ge gt imag integer_pow is_finite le lgamma log log1p logistic lt max min mul
    ne neg nextafter not or pow real rem round rsqrt select_n sign sin sinh sqrt
    square sub tan tanh xor population_count shift_left shift_right_logical
    shift_right_arithmetic erf_inv complex igamma igammac polygamma
    """.split()
)

# The numbers as they are, in the same places.
COPIES = frozenset(
    """
    convert_element_type copy copy_p stop_gradient reduce_precision name
    optimization_barrier sharding_constraint layout_constraint condition to_edtype
    bitcast_convert_type mesh_cast reshard pvary pbroadcast
    """.split()
)

# The numbers as they are, elsewhere: each has a rule in `flow`.
MOVES = frozenset(
    """
    transpose reshape squeeze expand_dims broadcast_in_dim slice split rev concatenate
    pad unstack stack dynamic_slice gather each stacked carry branches tile
    """.split()
)

REDUCTIONS = frozenset(
    """
    reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax
    argmin reduce
    """.split()
)

CONTRACTIONS = frozenset({"dot_general", "conv_general_dilated", "ragged_dot_general"})

# What activations may go through, and no leaf may go into.
MIXING = frozenset(
    """
    sort top_k approx_top_k cumsum cumprod cummax cummin cumlogsumexp reduce_window
    reduce_window_sum reduce_window_max reduce_window_min select_and_gather_add
    select_and_scatter_add scatter scatter-add scatter_add scatter-mul scatter_mul scatter-min scatter_min
    scatter-max
    scatter_max scatter_sub dynamic_update_slice fft iota random_bits random_wrap
    random_unwrap random_seed random_fold_in random_split random_gamma threefry2x32
    rng_bit_generator rng_uniform clz
    """.split()
)

SUMS = frozenset({"add", "add_any", "sub"})
PRODUCTS = frozenset({"mul", "div"})
LISTED = ELEMENTWISE | COPIES | MOVES | REDUCTIONS | CONTRACTIONS | MIXING
