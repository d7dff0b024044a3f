"""Flow matching: paths between data and noise, and how to walk them."""
