"""Parameter trees: paths, rules, plans, shardings, and what is wrong with them."""
