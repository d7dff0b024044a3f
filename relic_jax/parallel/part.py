"""Which rows of a batch: several processes share in reading one."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Part:
    """Part `index` of `count` of equal size, in the order of the rows."""

    index: int = 0
    count: int = 1


WHOLE = Part()
