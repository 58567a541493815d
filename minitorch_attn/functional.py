"""The flat public list of operations, under the names PyTorch gives them."""
