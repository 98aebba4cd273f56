"""Sales goals in a notebook: the cells of this script run one after the other, in Jupyter or as `python notebook.py`.

It makes the file `plan.duckdb` in the current folder. No service is needed: the functions are those that run behind the
queue.
"""

# %% Lines to work with: a table of yours, or a file, as `FROM 'lines.parquet'`.
from datetime import date
from decimal import Decimal

import teatree
from sales_goals import app

plan = teatree.open("plan.duckdb", app=app)
plan.connection.execute(
    """
    CREATE OR REPLACE TABLE lines AS
    SELECT ['Bonn', 'Jena', NULL][1 + n % 3] AS site, 'product ' || (n * 7 % 5) AS product,
        100 + n * 11 % 4 AS customer, 1 + n * 13 % 9 - 2 * (n % 17 = 0)::INTEGER AS quantity,
        0.99 + n * 31 % 70 AS unit_price, DATE '2025-01-01' + (n % 400)::INTEGER AS date
    FROM range(1000) AS lines(n)
    """
)
print(plan.sql("SELECT year(date), count(*), sum(quantity * unit_price) FROM lines GROUP BY ALL ORDER BY ALL"))

# %% Goals of 2026: ten percent more than in 2025, in Bonn a quarter more.
goals = plan.bind()
found = goals.set_goals(goal_period="2026", basis_period="2025", pct=Decimal(10), pct_by_site={"Bonn": Decimal(25)})
print(found)

# %% A page of them.
print(goals.goals_by(dimensions=["site", "product"]).to_polars())

# %% An edit keeps the site's goal: what is left is spread over its other leaves.
leaf = {"site": "Bonn", "product": "product 0", "customer": 100}
print(goals.edit_goal(goal_period="2026", amount=Decimal(1000), leaf=leaf))
print(goals.locked_goals(goal_period="2026").rows())

# %% An edit that is not possible is refused with the reason, and changes nothing.
try:
    goals.edit_goal(goal_period="2026", amount=Decimal(10**9), leaf={**leaf, "customer": 101})
except teatree.Refused as e:
    print(e)

# %% What was sold of it so far.
print(goals.progress_of(goal_period="2026", until=date(2026, 2, 1)).to_polars())

# %% Steps of another kind: the handle that the functions get, in one transaction.
with plan.transaction() as db:
    print(db.execute("UPDATE goals SET locked = true WHERE goal >= 3000"), "goals of 3,000 and more are locked")

# %% The file is an ordinary one.
plan.close()
