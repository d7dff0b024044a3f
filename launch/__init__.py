"""Programs that a person starts: `python -m launch.NAME --help`."""
