"""Writes one small table as other programs write it.

    python make.py            (pyarrow 26, pandas 3, polars 2)
"""

from pathlib import Path

import pandas
import polars
import pyarrow
from pyarrow import parquet

here = Path(__file__).parent
columns = {
    "picture": [b"\xff\xd8" * 40, b"", b"no picture"],
    "split": ["train", "test", "train"],
    "input": ["in/a.png", "in/b.png", "in/c.png"],
    "target": ["out/a.png", "out/b.png", None],
    "score": [0.5, None, 2.0],
    "tags": [["x", "y"], [], ["z"]],
}
pandas.DataFrame(columns).to_parquet(here / "pandas.parquet")
polars.DataFrame(columns).write_parquet(here / "polars.parquet", compression="zstd")
table = pyarrow.table(columns)
for name, compression, more in [
    ("plain", "none", {"use_dictionary": False, "row_group_size": 2}),
    ("gzip", "gzip", {"data_page_version": "2.0", "version": "1.0"}),
]:
    parquet.write_table(table, here / f"{name}.parquet", compression=compression, **more)
bytes_as_text = table.set_column(2, "input", table["input"].cast(pyarrow.binary()))
parquet.write_table(bytes_as_text, here / "binary.parquet")
for name, values in [("numbers", [1, 2, 3]), ("groups", [{"bytes": b"1", "path": "a"}] * 3)]:
    parquet.write_table(pyarrow.table({"input": values}), here / f"{name}.parquet")
parquet.write_table(table, here / "brotli.parquet", compression="brotli")
parquet.write_table(table.drop(["input"]), here / "no_input.parquet")
parquet.write_table(table.slice(0, 0), here / "empty.parquet")
