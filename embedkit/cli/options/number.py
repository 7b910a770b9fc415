"""Numbers in a range, as values of options."""

import math

import click

__all__ = ["SEED", "Number"]


class Number(click.FloatRange):
    """A float in a range; click's own lets nan pass, which no range has."""

    def convert(
        self, value: float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or end with a usage error."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


SEED = click.IntRange(0)
"""The root of random choices."""
