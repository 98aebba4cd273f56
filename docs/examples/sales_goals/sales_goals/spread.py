"""Spreading goals over leaves: in proportion to basis, by the largest remainder, to the cent.

Amounts are whole cents here: DuckDB divides integers exactly, and DECIMALs as DOUBLE.
"""

from __future__ import annotations

from sales_goals.dimensions import Dimensions


def spread_sql(dimensions: Dimensions) -> str:
    """Return the common table expressions that end with `spread(<dimensions>, basis, goal)`.

    They follow `leaf(site, <dimensions>, basis)`, materialized, and `target(site, goal)`, what a site's leaves of
    positive basis get together. Each gets its share rounded down; the cents left over go one each to the largest
    remainders, of equal ones to the smallest leaf. All other leaves get 0, and those of a site whose goal is not
    positive.
    """
    return f"""
        pool AS MATERIALIZED (
            SELECT target.site AS pool_site, any_value(target.goal)::HUGEINT AS goal, sum(basis)::HUGEINT AS positive
            FROM leaf JOIN target ON leaf.site IS NOT DISTINCT FROM target.site
            WHERE basis > 0 AND target.goal > 0
            GROUP BY target.site
        ),
        left_over AS MATERIALIZED (
            SELECT pool_site, any_value(goal) - sum(goal * basis // positive) AS cents
            FROM leaf JOIN pool ON site IS NOT DISTINCT FROM pool_site
            WHERE basis > 0
            GROUP BY pool_site
        ),
        floored AS (
            SELECT leaf.*, goal * basis AS exact, positive, goal * basis // positive AS share
            FROM leaf LEFT JOIN pool ON site IS NOT DISTINCT FROM pool_site AND basis > 0
        ),
        ranked AS (
            SELECT {dimensions.with_site}, basis, share, row_number() OVER (
                PARTITION BY site ORDER BY exact - share * positive DESC NULLS LAST, {dimensions.order}
            ) AS place
            FROM floored
        ),
        spread AS (
            SELECT {dimensions.names}, basis, coalesce(share + (place <= cents)::INTEGER, 0)::BIGINT AS goal
            FROM ranked LEFT JOIN left_over ON site IS NOT DISTINCT FROM pool_site
        )
    """
