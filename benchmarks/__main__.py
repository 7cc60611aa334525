"""Measure what ingestion, search, jobs and training cost: `make bench`.

Prints ratios against baselines that are measured in the same run: the embedder alone, and other systems that ingest
the same documents. Shared cores make absolute times differ from run to run; what counts: the machine is whatever it is,
and both sides of a ratio run on it one after the other. Rates are per second of processor time, threads and the reading
process included, so that a busy machine moves them less.

How good search is, is measured by `python -m benchmarks.retrieval`; a source of a million files by
`python -m benchmarks.scale`, which takes too long to be part of this.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import tempfile
from pathlib import Path

from benchmarks.ingestion import measure, measure_many
from benchmarks.jobs import measure_jobs
from benchmarks.memory import measure_memory
from benchmarks.peers.compare import compare
from benchmarks.training import measure_training

PARTS = ("ingestion", "many", "memory", "jobs", "training", "peers")


def main() -> int:
    """Print the tables of all parts, or of those that are named; the numbers of documents may be given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--documents", type=int, default=160, help="of the demo's, embedded by the default model")
    parser.add_argument("--many", type=int, default=10_000, help="small ones, embedded by hashing")
    parser.add_argument(
        "--few", type=int, default=5_000, help="small ones, for the memory of each step; then ten times"
    )
    parser.add_argument("--jobs", type=int, default=200, help="of one second each, in a real Airflow")
    parser.add_argument("--abstracts", type=int, default=5_183, help="that all systems ingest")
    parser.add_argument("--peers", type=Path, default=Path(sys.prefix) / "peers", help="the peers' environment")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: not known; choose among {', '.join(PARTS)}")
    wanted = options.parts or PARTS
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        os.environ["FMOPS_STORAGE_ROOT"] = (scratch / "storage").as_uri()
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; one task at a time")
        if "ingestion" in wanted:
            measure(scratch, options.documents)
        if "many" in wanted:
            measure_many(scratch, options.many)
        if "memory" in wanted:
            measure_memory(scratch, (options.few, 10 * options.few))
        if "jobs" in wanted:
            measure_jobs(scratch / "jobs", options.jobs)
        if "training" in wanted:
            measure_training(scratch / "training")
        if "peers" in wanted:
            compare(scratch / "peers", options.abstracts, options.peers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
