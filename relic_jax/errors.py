"""Bad input, said once and clearly."""


class InputError(ValueError):
    """Input that can't be used: one sentence naming the file or field, what was expected and what came.

    The launch programs print the sentence and exit with code 2.
    """
