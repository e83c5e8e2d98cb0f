"""The manifests of `deploy/` fit their schemas, and keep to secure defaults."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compose_spec
import kubernetes_validate
import pytest
import yaml

from thirtytwo.cli.serve import serve_options
from thirtytwo.machine import package_version

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
KUBERNETES = "1.32"
"""The oldest version of Kubernetes that the manifests are for."""


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def ray_service() -> dict[str, Any]:
    spec: dict[str, Any] = documents("rayservice.yaml")[0]["spec"]
    return spec


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """The templates of all pods."""
    for document in documents("kubernetes.yaml"):
        if document["kind"] == "Deployment":
            yield "kubernetes", document["spec"]["template"]
    cluster = ray_service()["rayClusterConfig"]
    yield "ray-head", cluster["headGroupSpec"]["template"]
    for group in cluster["workerGroupSpecs"]:
        yield f"ray-{group['groupName']}", group["template"]


PODS = dict(pods())


@pytest.mark.parametrize("name", ["kubernetes.yaml", "rayservice.yaml"])
def test_kubernetes_objects_fit_their_schema(name: str) -> None:
    checked = [document for document in documents(name) if document["apiVersion"] != "ray.io/v1"]
    assert checked
    for document in checked:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", PODS)
def test_pods_fit_their_schema_and_are_restricted(name: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": PODS[name]["spec"]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    context = PODS[name]["spec"]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in PODS[name]["spec"]["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}
        assert {"readinessProbe", "livenessProbe"} <= set(container)
        assert "THIRTYTWO_API_KEY" in {entry["name"] for entry in container["env"]}


def test_probes_are_the_service_s_own() -> None:
    (container,) = PODS["kubernetes"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    (port,) = container["ports"]
    assert {probe["httpGet"]["port"] for name, probe in container.items() if name.endswith("Probe")} == {port["name"]}
    wait = PODS["kubernetes"]["spec"]["terminationGracePeriodSeconds"]
    defaults = {option.name: option.default for option in serve_options()}
    assert (defaults["port"], wait > defaults["timeout"] + 5) == (port["containerPort"], True)


def test_pods_without_a_proxy_of_ray_serve_get_no_requests() -> None:
    """KubeRay sends requests to every worker pod that is ready, and checks the proxy only where there is no probe."""
    port = yaml.safe_load(ray_service()["serveConfigV2"])["http_options"]["port"]
    (container,) = PODS["ray-workers"]["spec"]["containers"]
    python, option, program = container["readinessProbe"]["exec"]["command"]
    assert (python, option) == ("python", "-c")
    assert f"http://127.0.0.1:{port}/-/healthz" in program
    assert container["readinessProbe"]["failureThreshold"] == 1
    assert "/-/healthz" not in container["livenessProbe"]["exec"]["command"][-1], "a worker may have no replica"


@pytest.mark.parametrize("name", ["ray-head", "ray-workers"])
def test_probes_of_ray_pods_fail_where_nothing_runs(name: str) -> None:
    (container,) = PODS[name]["spec"]["containers"]
    for probe in ("readinessProbe", "livenessProbe"):
        _, *program = container[probe]["exec"]["command"]
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", program[-1])[0])
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"Ray runs on this machine, at the probe's port {port}")
        ended = subprocess.run([sys.executable, *program], capture_output=True, text=True, check=False, timeout=60)
        assert ended.returncode == 1
        assert "URLError" in ended.stderr, "it was run, and found nothing there"


def test_compose_file_fits_the_specification() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    service = compose_spec.PyCompose.from_yaml(text).get_service("thirtytwo")
    assert service is not None
    plain = yaml.safe_load(text)["services"]["thirtytwo"]
    assert plain["ports"] == ["127.0.0.1:8032:8032"], "not reachable from other machines"
    assert plain["read_only"] is True
    assert plain["cap_drop"] == ["ALL"]
    assert {"mem_limit", "cpus", "pids_limit", "healthcheck"} <= set(plain)


def test_compose_specification_refuses_mistakes() -> None:
    with pytest.raises(ValueError, match="ports"):
        compose_spec.PyCompose.from_yaml("services: {a: {image: b, ports: 1.5}}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_serve_config_fits_ray_s_schema_and_builds_the_application() -> None:
    schema = pytest.importorskip("ray.serve.schema")
    from thirtytwo.scale import serve as module

    config = schema.ServeDeploySchema.model_validate(yaml.safe_load(ray_service()["serveConfigV2"]))
    (application,) = config.applications
    name, _, attribute = application.import_path.partition(":")
    assert name == module.__name__
    bound = getattr(module, attribute)(application.args)
    front = bound._bound_deployment
    assert front.num_replicas == application.args["fronts"]
    (models,) = (argument for argument in front.init_args if hasattr(argument, "_bound_deployment"))
    scaling = models._bound_deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 12)


def node_types(cluster: dict[str, Any]) -> dict[str, Any]:
    """The groups of pods as Ray's autoscaler, a container that KubeRay adds to the head, reads them."""
    module = pytest.importorskip("ray.autoscaler._private.kuberay.autoscaling_config")
    names = {"name": "thirtytwo-raycluster", "namespace": "default"}
    config = module._derive_autoscaling_config_from_ray_cr({"metadata": names, "spec": cluster})
    assert config["idle_timeout_minutes"] == 5
    types: dict[str, Any] = config["available_node_types"]
    return types


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_ray_s_autoscaler_reads_the_cluster() -> None:
    types = node_types(ray_service()["rayClusterConfig"])
    head, workers = types["headgroup"], types["workers"]
    assert head["resources"]["CPU"] == 0, "the head runs no replicas"
    assert (workers["min_workers"], workers["max_workers"]) == (2, 4)
    assert workers["resources"]["CPU"] == 4
    assert workers["resources"]["memory"] == 8 * 2**30
    (application,) = yaml.safe_load(ray_service()["serveConfigV2"])["applications"]
    asked = application["args"]
    needed = asked["fronts"] + asked["max_replicas"] * asked["threads"]
    assert needed <= workers["max_workers"] * workers["resources"]["CPU"], "all replicas find a core"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("key", ["groupName", "maxReplicas", "template"])
def test_ray_s_autoscaler_refuses_mistakes(key: str) -> None:
    cluster = ray_service()["rayClusterConfig"]
    (group,) = cluster["workerGroupSpecs"]
    group[key.upper()] = group.pop(key)
    with pytest.raises(KeyError, match=key):
        node_types(cluster)


def test_ray_asks_for_its_token() -> None:
    assert ray_service()["rayClusterConfig"]["authOptions"] == {"mode": "token"}


def test_versions_are_those_installed() -> None:
    version = ray_service()["rayClusterConfig"]["rayVersion"]
    assert version == package_version("ray") or package_version("ray") == "0+unknown"
    for name in ("kubernetes.yaml", "compose.yaml", "rayservice.yaml"):
        text = (DEPLOY / name).read_text(encoding="utf-8")
        assert f":{package_version('thirtytwo')}" in text or package_version("thirtytwo") == "0+unknown"
