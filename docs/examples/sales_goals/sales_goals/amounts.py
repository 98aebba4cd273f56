"""Amounts and percentages: Decimals in requests, whole cents and integer factors in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from attrs import frozen

from teatree import Refused

CENTS = Decimal("0.01")
AMOUNT_MAX = Decimal(9 * 10**15)
PCT_MAX = Decimal(10**9)
PCT_SCALE = 6
"""Decimals of a percentage: with these limits a factor is a BIGINT, and a basis times a factor a HUGEINT."""


def to_cents(amount: Decimal, where: str = "amount") -> int:
    """Return an amount in cents; refuses one below zero, or with more than two decimals."""
    if not amount.is_finite() or not 0 <= amount < AMOUNT_MAX:
        raise Refused(f"The amount {amount} is not from 0 to below {AMOUNT_MAX:,}.", where=where)
    if amount != amount.quantize(CENTS):
        raise Refused(f"The amount {amount} has more than two decimals.", where=where)
    return int(amount * 100)


def to_amount(cents: int) -> Decimal:
    """Return cents as an amount, with two decimals."""
    return Decimal(cents).scaleb(-2)


@frozen
class Growth:
    """By what the basis of each site is multiplied, as SQL with parameters."""

    pct: Decimal
    pct_by_site: Mapping[str, Decimal]

    def __attrs_post_init__(self) -> None:
        for where, pct in {"pct": self.pct, **{f"pct_by_site.{k}": v for k, v in self.pct_by_site.items()}}.items():
            if not pct.is_finite() or abs(pct) >= PCT_MAX or pct != round(pct, PCT_SCALE):
                message = f"The percentage {pct} is not below {PCT_MAX:,} with at most {PCT_SCALE} decimals."
                raise Refused(message, where=where)

    @property
    def factor_max(self) -> float:
        """The largest factor, without its sign."""
        return max(abs(float(1 + pct / 100)) for pct in (self.pct, *self.pct_by_site.values()))

    @property
    def parameters(self) -> dict[str, object]:
        """The factors in millionths of a percent."""
        return {
            "factor": _factor(self.pct),
            "sites": list(self.pct_by_site),
            "factors": [_factor(pct) for pct in self.pct_by_site.values()],
        }

    def goal_of(self, basis: str, site: str) -> str:
        """Return a site's goal in cents, rounded half away from zero, as SQL."""
        factor = (
            f"coalesce(list_extract($factors::BIGINT[], list_position($sites::VARCHAR[], {site}::VARCHAR)), $factor)"
        )
        product = f"({basis})::HUGEINT * {factor}::HUGEINT"
        return f"sign({product}) * ((abs({product}) * 2 + {_UNIT}) // {2 * _UNIT})"


_UNIT = 100 * 10**PCT_SCALE
"""A factor of 1: 100 percent."""


def _factor(pct: Decimal) -> int:
    return int((100 + pct).scaleb(PCT_SCALE))
