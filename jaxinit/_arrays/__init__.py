"""Arrays that have values: where their shards are, and statistics of them."""
