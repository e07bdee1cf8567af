"""`jaxinit.check`: the bits and the speed that are promised, on the device at hand."""
