"""Published checkpoints to and from the parameters of this project: `python -m weights_convert --help`.

tables/    one table a model: (published name, our path, transform), for each layout it is published in
table      what a table is, and the check that it is a bijection with a source and with our parameters
source     published files, opened without being read     store    our Orbax checkpoint, a layer at a time
to_relic   the way in                                      to_torch   the way back
partial    unfinished folders: interrupted, full disk      download   from huggingface.co
"""
