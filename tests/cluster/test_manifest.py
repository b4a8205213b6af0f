"""The manifest for KubeRay, as far as it can be checked without Kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unitvec.commands.serve import command

pytestmark = pytest.mark.ray

MANIFEST = Path(__file__).parents[2] / "deploy" / "rayservice.yaml"


@pytest.fixture(scope="module")
def documents() -> dict[str, Any]:
    """The manifest's parts, by kind."""
    import yaml

    return {document["kind"]: document for document in yaml.safe_load_all(MANIFEST.read_text())}


def test_its_variables_are_those_of_the_command(documents: dict[str, Any]) -> None:
    values = documents["ConfigMap"]["data"]
    known = {parameter.envvar: parameter for parameter in command.params}
    for variable in set(values) - {"UNITVEC_HOME", "RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness"}:
        assert variable in known
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in values.items():
            patch.setenv(variable, value)
        options = command.make_context("serve", []).params
    assert options["names"] == ("all-minilm",)
    assert options["min_replicas"] == 2
    assert options["memory"] == 4 << 30
    assert options["read_only"]


@pytest.mark.filterwarnings("ignore")  # Ray's own, on import
def test_its_application_is_one_that_serve_takes(documents: dict[str, Any]) -> None:
    import yaml
    from ray.serve.schema import ServeDeploySchema

    config = yaml.safe_load(documents["RayService"]["spec"]["serveConfigV2"])
    schema = ServeDeploySchema.model_validate(config)
    assert schema.applications[0].import_path == "unitvec.cluster:app"
