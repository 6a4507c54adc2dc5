"""What runs a list of recorded kernels in C, on one thread or a team of them."""
