"""Arrays that are there already: where their parts are, and what is in them."""
