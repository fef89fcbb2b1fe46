"""A Ray cluster of two nodes on one machine, a search on it, and the death of one node in its middle.

    python tests/two_nodes.py FOLDER

Prints ``nodes N`` (on which trials were finished) and ``touched N`` (files of finished trials that changed after the
death of a node), and exits as the search does.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from kill_search import finished, flags_of, start

from hebb.storage.folders import JOURNAL
from hebb.tuning import ray_session  # sets Ray's environment, which the nodes inherit

STORE = 100 << 20
PATIENCE = 300.0


def main(folder: Path) -> int:
    """Start the nodes, search on both, take one away."""
    from ray.cluster_utils import Cluster

    ray_session.token()
    node = {"num_cpus": 1, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        second = cluster.add_node(**node)
        cluster.wait_for_nodes()
        search = folder / "hebb" / "search" / "s"
        process = start(folder, *flags_of(10, ("--address", cluster.address)))
        deadline = time.monotonic() + PATIENCE
        while len(_nodes(search)) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        before = finished(search)
        cluster.remove_node(second, allow_graceful=False)
        out, _ = process.communicate()
        after = finished(search)
        print(out)
        print(f"nodes {len(_nodes(search))}")
        print(f"touched {sum(after.get(name) != digest for name, digest in before.items())}")
        print(f"finished {len(list(search.glob('trials/*/result.json')))}")
        return process.returncode
    finally:
        cluster.shutdown()


def _nodes(search: Path) -> set[str]:
    if not (search / JOURNAL).exists():
        return set()
    lines = (search / JOURNAL).read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines if line.endswith("}")]
    return {entry["node"] for entry in entries if entry["event"] == "finished"}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
