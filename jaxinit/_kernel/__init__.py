"""The fused kernel: jax's random numbers in one pass, and how it is compiled."""
