"""The manifests in ``cluster/`` say what their programs understand, and what the project and its versions are now.

Without it a renamed flag, or another version of Ray, shows only on somebody's cluster.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import ROOT

from hebb.cli import search

MANIFEST = ROOT / "cluster" / "kuberay.yaml"
CRD = os.environ.get("HEBB_KUBERAY_CRD")
"""KubeRay's definition of a RayJob: ``helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml`` of its repository."""


def manifest() -> Any:
    return yaml.safe_load(MANIFEST.read_text())


def pods() -> list[Any]:
    cluster = manifest()["spec"]["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def closed(schema: Any) -> Any:
    """Return a schema that refuses unknown keys, as ``kubectl create`` does."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema


@pytest.mark.skipif(CRD is None, reason="HEBB_KUBERAY_CRD names no definition of a RayJob")
def test_the_rayjob_keeps_the_schema_of_kuberay() -> None:
    """Against the whole schema, where it is at hand; misspelt keys and wrong types are seen."""
    versions = yaml.safe_load(Path(CRD or "").read_text())["spec"]["versions"]
    schema = next(version["schema"]["openAPIV3Schema"] for version in versions if version["name"] == "v1")
    schema["properties"]["spec"] = closed(schema["properties"]["spec"])
    check = jsonschema.Draft202012Validator(schema)
    assert not [error.message for error in check.iter_errors(manifest())]
    wrong = manifest()
    wrong["spec"]["backofLimit"] = wrong["spec"].pop("backoffLimit")
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] = "four"
    assert len(list(check.iter_errors(wrong))) == 2


def test_the_rayjob_has_what_a_rayjob_needs() -> None:
    """What the schema requires, and what it cannot say: names that refer to one another."""
    job = manifest()
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}  # which our sessions demand
    for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for pod in pods():
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert set(mounts) <= volumes
            homes = [variable["value"] for variable in container["env"] if variable["name"] == "HEBB_HOME"]
            assert homes == list(mounts.values()), "the search lies in the volume"


def test_the_rayjob_runs_our_ray_and_our_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Its version is the one that is tested, its command is understood, and a trial fits on a worker."""
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert manifest()["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]
    assert f"rayproject/ray:{pinned[1]}-" in MANIFEST.read_text()
    shell, flag, script = shlex.split(manifest()["spec"]["entrypoint"])
    assert (shell, flag) == ("sh", "-c")
    begun, restored = re.search(r"else exec hebb (.*); fi", script), re.search(r"then exec hebb (.*?);\s", script)
    assert begun is not None
    assert restored is not None
    words = shlex.split(begun[1])
    name = words[words.index("--folder-name") + 1]
    assert f"$HEBB_HOME/hebb/search/{name}/search.json" in script
    assert restored[1].endswith(f"--restore {name}")
    assert search.main([*words[1:], "--dry-run"]) == 0
    assert "trials" in capsys.readouterr().out
    cores = [int(container["resources"]["limits"]["cpu"]) for pod in pods()[1:] for container in pod["containers"]]
    assert min(cores) >= int(words[words.index("--threads") + 1])
