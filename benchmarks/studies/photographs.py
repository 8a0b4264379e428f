"""All photographs of five splits of the photographs world, embedded once by three networks.

    python benchmarks/studies/photographs.py OUT [--data-dir FOLDER]

The other studies read OUT: ``world-0`` … ``world-4``, and a feature store for each network (``lite0``, ``lite1``,
``lite2``) at its own resolution.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow as pa

import likemind
from likemind.triplets import read_table, write_table
from likemind.worlds.photos import build_photos_world
from likemind.worlds.pretrained import pretrained

SEEDS = range(5)
SIZES = {"lite0": 224, "lite1": 240, "lite2": 260}


def main() -> None:
    """Build the worlds, gather their photographs, embed them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data-dir", type=Path)
    asked = parser.parse_args()
    pictures: dict[str, bytes] = {}
    for seed in SEEDS:
        world = build_photos_world(asked.out / f"world-{seed}", data_dir=asked.data_dir, seed=seed)
        taught = set(world.judgements("train").used_items)
        for name in ("images.parquet", "training.parquet"):
            for row in read_table(world.path / name).to_pylist():
                if name == "images.parquet" or row["id"] in taught:
                    pictures[row["id"]] = row["image"]
    table = pa.table({"id": sorted(pictures), "image": [pictures[name] for name in sorted(pictures)]})
    write_table(asked.out / "pictures.parquet", table)
    for net, size in SIZES.items():
        backbone = pretrained(net, asked.out / f"{net}-backbone", size=size)
        likemind.embed(asked.out / "pictures.parquet", backbone, out=asked.out / net)


if __name__ == "__main__":
    main()
