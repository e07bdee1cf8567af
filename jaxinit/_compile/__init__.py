"""`jaxinit.jit`: a traced function, cut into programs that are compiled once each."""
