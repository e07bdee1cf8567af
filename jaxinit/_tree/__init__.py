"""Parameter trees: paths, rules, plans, shardings, and their problems."""
