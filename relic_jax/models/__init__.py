"""The networks: Wan's transformer and VAE, the umT5 encoder, and how parameters reach them."""
