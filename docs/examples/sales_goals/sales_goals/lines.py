"""The table `lines`: which columns the data has, what a line's amount is, and whether all amounts can be computed."""

from __future__ import annotations

from attrs import frozen

from sales_goals.dimensions import Dimensions
from sales_goals.periods import Period
from teatree import Dtype, Read, Refused, Schema
from teatree.contracts.types.dtypes import Date, Decimal, Float, Integer, Timestamp

LINES = "lines"
FACTOR_MAX = 1e15
"""Quantities and prices are smaller than this, without their signs."""
TOTAL_MAX = 9e15
"""The amounts of a period add up to less than this, without their signs, and so do goals: in cents they have 18 digits,
and the product of a goal and a basis, from which a share is computed, 36; a HUGEINT has 38."""
PRICE_SCALE = 20
"""Decimals of a price that is a DOUBLE. Its shortest text has up to 17 digits: 20 decimals hold each from 0.0001 on."""
QUANTITY_SCALE = 6
"""Decimals of a quantity that is a DOUBLE."""
DECIMAL_DIGITS = 38


@frozen
class Lines:
    """What SQL needs to know about the table `lines`."""

    dimensions: Dimensions
    date: str
    """The moment of a line, as SQL."""
    amount: str
    """A line's amount as SQL: quantity x unit price, exact, rounded to cents half away from zero: a DECIMAL(18, 2)."""
    amount_max: float
    """What a line's amount must be below, without its sign: the product of its factors has 38 digits."""
    too_fine: str
    """Whether a line's quantity or price has more decimals than we compute with, as SQL."""

    @classmethod
    def of(cls, schema: Schema) -> Lines:
        """Return those with these columns; refuses ones from which no goal can be computed."""
        quantity, price = _factor(schema, "quantity", QUANTITY_SCALE), _factor(schema, "unit_price", PRICE_SCALE)
        scale = quantity.scale + price.scale
        if scale > DECIMAL_DIGITS - 4:
            raise Refused(f"The product of quantity and unit price has {scale} decimals, too many.", where=LINES)
        return cls(
            Dimensions.of(schema, LINES),
            date=_date(schema),
            amount=f"round({quantity.exact} * {price.exact}, 2)::DECIMAL(18, 2)",
            amount_max=min(TOTAL_MAX, 9 * 10.0 ** (DECIMAL_DIGITS - 1 - scale)),
            too_fine=f"({quantity.too_fine} OR {price.too_fine})",
        )

    def within(self, period: Period) -> str:
        """Return whether a line lies in a period, as SQL."""
        return f"{self.date} >= DATE '{period.start}' AND {self.date} < DATE '{period.end}'"

    def check(self, db: Read, period: Period, factor_max: float = 1.0) -> int:
        """Return the number of a period's lines; refuses those whose amounts, times `factor_max`, are not exact."""
        (found,) = db.sql(
            f"""
            SELECT count(*) AS lines,
                count(*) FILTER (q IS NULL OR p IS NULL OR NOT isfinite(q) OR NOT isfinite(p)) AS absent,
                count(*) FILTER (abs(q) >= {FACTOR_MAX} OR abs(p) >= {FACTOR_MAX} OR abs(q * p) >= {self.amount_max})
                    AS too_large,
                count(*) FILTER (too_fine) AS too_fine,
                coalesce(sum(abs(q * p)) FILTER (abs(q) < {FACTOR_MAX} AND abs(p) < {FACTOR_MAX}), 0) AS total
            FROM (
                SELECT quantity::DOUBLE AS q, unit_price::DOUBLE AS p, {self.too_fine} AS too_fine
                FROM {LINES} WHERE {self.within(period)}
            )
            """
        ).rows()
        lines = f"of the {found['lines']:,} lines from {period.start} to before {period.end}"
        if found["absent"]:
            raise Refused(f"{found['absent']:,} {lines} have no quantity or no unit price.", where=LINES)
        if found["too_large"]:
            message = f"{found['too_large']:,} {lines} are too large: their amounts must be below {self.amount_max:g},"
            raise Refused(f"{message} quantities and prices below {FACTOR_MAX:g}.", where=LINES)
        if found["too_fine"]:
            message = (
                f"{found['too_fine']:,} {lines} have a quantity of more than {QUANTITY_SCALE} decimals, or a price"
            )
            raise Refused(f"{message} of more than {PRICE_SCALE}.", where=LINES, hint="Round them, or use DECIMAL.")
        if found["total"] * max(factor_max, 1.0) >= TOTAL_MAX:
            message = f"The amounts {lines} are too large: they, or the goals, add up to more than {TOTAL_MAX:g}."
            raise Refused(message, where=LINES)
        return int(found["lines"])


def find_lines(db: Read) -> Lines:
    """Return what the table `lines` holds; refuses one from which no goal can be computed."""
    if LINES not in db.tables():
        raise Refused("There are no lines yet.", where=LINES, hint="Load them into the table `lines`.")
    return Lines.of(db.schema(LINES))


@frozen
class _Factor:
    """A quantity or a price."""

    exact: str
    """Its value as a DECIMAL, as SQL."""
    scale: int
    too_fine: str


def _factor(schema: Schema, name: str, scale: int) -> _Factor:
    dtype = _dtype(schema, name)
    # With all 38 digits: DuckDB multiplies two DECIMALs of up to 18 digits into one of 18, in which they may overflow.
    if isinstance(dtype, Integer):
        return _Factor(f"{name}::DECIMAL(38, 0)", 0, "false")
    if isinstance(dtype, Decimal):
        return _Factor(f"{name}::DECIMAL(38, {dtype.scale})", dtype.scale, "false")
    if not isinstance(dtype, Float):
        raise Refused(f"The column {name} of the lines is {dtype}, not a number.", where=LINES)
    # The text of a DOUBLE is the shortest one that reads as it: 0.1, not 0.1000000000000000055511151231257827.
    text = f"{name}::VARCHAR"
    # A price of many decimals below 0.0001 matters only where it is multiplied by much; 0.001 is 0.00 beyond doubt.
    may_be = "abs(unit_price) < 1e-4 AND abs(quantity::DOUBLE * unit_price) >= 1e-3"
    if name == "quantity":
        may_be = "quantity <> trunc(quantity)"
    too_fine = f"CASE WHEN {may_be} THEN {_decimals(text)} > {scale} ELSE false END"
    return _Factor(f"{text}::DECIMAL(38, {scale})", scale, too_fine)


def _decimals(text: str) -> str:
    """Return how many decimals the text of a DOUBLE has, as SQL: of `1.5e-07`, 8."""
    mantissa, exponent = f"split_part({text}, 'e', 1)", f"split_part({text}, 'e', 2)"
    return f"(length(split_part({mantissa}, '.', 2)) - coalesce(TRY_CAST({exponent} AS INTEGER), 0))"


def _dtype(schema: Schema, name: str) -> Dtype:
    found = schema.get(name)
    if found is None:
        raise Refused(f"The lines have no column {name!r}.", where=LINES)
    return found.dtype


def _date(schema: Schema) -> str:
    """Return the moment of a line: the column `date`, or else the only one that is a date or a timestamp."""
    named = schema.get("date")
    moments = [field for field in schema if isinstance(field.dtype, Date | Timestamp)]
    found = moments if named is None else [field for field in moments if field is named]
    if len(found) != 1:
        what = "no column" if not found else f"{len(found)} columns"
        what = f"{what} with a date" if named is None else f"a column 'date' that is a {named.dtype}"
        hint = "Name the one that counts `date`; it is a DATE or a TIMESTAMP."
        raise Refused(f"The lines have {what}.", where=LINES, hint=hint)
    (field,) = found
    name = '"' + field.name.replace('"', '""') + '"'
    in_utc = isinstance(field.dtype, Timestamp) and field.dtype.tz
    return f"({name} AT TIME ZONE 'UTC')" if in_utc else name
