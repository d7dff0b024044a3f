"""relic-jax: RELIC (arXiv 2512.04040), the interactive video world model with long-horizon memory, in JAX."""
