"""Several processes that train one run together, one for each GPU, as torchrun starts them."""
