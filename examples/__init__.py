"""Short programs that show one thing each; tests run them."""
