"""Published checkpoints to and from the parameters of this project."""
