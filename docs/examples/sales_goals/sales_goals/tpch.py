"""Sales lines made of TPC-H: `python -m sales_goals.tpch FOLDER OUT.parquet`.

FOLDER has the tables as `tpchgen-cli parquet -s 1 --output-dir=FOLDER` writes them. A line's site is the nation of its
customer, its product the part, its salesperson the clerk of its order, its price the part's retail price.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import duckdb

_LINES = """
    SELECT n_name AS site, l_partkey AS product, o_custkey AS customer, o_clerk AS salesperson,
        l_quantity AS quantity, p_retailprice AS unit_price, o_orderdate AS date
    FROM '{folder}/lineitem.parquet'
    JOIN '{folder}/orders.parquet' ON o_orderkey = l_orderkey
    JOIN '{folder}/customer.parquet' ON c_custkey = o_custkey
    JOIN '{folder}/nation.parquet' ON n_nationkey = c_nationkey
    JOIN '{folder}/part.parquet' ON p_partkey = l_partkey
"""


def write_lines(folder: Path, out: Path) -> int:
    """Write the lines of TPC-H's tables into a Parquet file; return their number."""
    sql = _LINES.format(folder=str(folder).replace("'", "''"))
    with duckdb.connect() as con:
        con.execute("SET enable_progress_bar = false")  # what is printed is the number of lines
        found = con.execute(f"COPY ({sql}) TO ? (FORMAT parquet)", [str(out)]).fetchone()
    return int(found[0]) if found else 0


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    print(f"{write_lines(options.folder, options.out)} lines")


if __name__ == "__main__":
    main()
