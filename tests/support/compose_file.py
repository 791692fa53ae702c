"""docker-compose.yml, resolved as Compose does it, and what each service makes of it."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values
from podman_compose import var_interpolate

from cefmp4.compose.prepare import write_keys
from cefmp4.config.reading import load_settings
from cefmp4.config.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKER_COMPOSE = shutil.which("docker-compose") or ""
OURS = ("app", "worker")
IMAGE = dict(
    pair.split("=", 1)
    for block in re.findall(r"^ENV ((?:.*\\\n)*.*)", (ROOT / "Dockerfile").read_text(), re.M)
    for pair in block.replace("\\\n", " ").split()
)


@dataclass(frozen=True, slots=True)
class Project:
    """`services` as Compose would start them, with what `.env` adds to their environment."""

    services: dict[str, Any]
    keys: Path

    def environment(self, service: str) -> dict[str, str]:
        found = self.services[service].get("environment", {})
        return {name: str(value) for name, value in found.items()}

    def prepare(self) -> Path:
        """Where the service of that name has put what it makes."""
        self.keys.mkdir(exist_ok=True)
        write_keys(self.keys, self.environment("prepare"))
        return self.keys

    def mount(self, service: str) -> dict[str, Any]:
        """The one folder of this machine that it sees."""
        (mount,) = (mount for mount in self.services[service]["volumes"] if _is_bind(mount))
        return {**mount, "read_only": str(mount.get("read_only", False)).lower() == "true"}

    def port(self, service: str) -> tuple[str, str, str]:
        (port,) = self.services[service]["ports"]
        return str(port["host_ip"]), str(port["published"]), str(port["target"])


def _is_bind(mount: Any) -> bool:
    return isinstance(mount, dict) and mount["type"] == "bind"


def in_python(folder: Path) -> Project:
    """Compose's interpolation as podman-compose has it; `environment` wins over `env_file`."""
    variables = _variables(folder)

    def interpolated(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: interpolated(value) for name, value in node.items()}
        if isinstance(node, list):
            return [interpolated(value) for value in node]
        return var_interpolate(node, variables) if isinstance(node, str) else node

    services = interpolated(yaml.safe_load(COMPOSE.read_text()))["services"]
    for service in services.values():
        for file in service.get("env_file", []):
            assert file == {"path": ".env", "required": False}
            service["environment"] = {**variables, **service["environment"]}
        for mount in service.get("volumes", []):
            if _is_bind(mount):
                mount["source"] = os.path.normpath(folder / mount["source"])
    return Project(services, folder / "keys")


def _variables(folder: Path) -> dict[str, str]:
    found = dotenv_values(folder / ".env")
    return {name: value for name, value in found.items() if value is not None}


def in_docker(folder: Path) -> Project:
    """By Compose itself, where it is installed; it needs no engine for that."""
    shutil.copy(COMPOSE, folder)
    done = subprocess.run(
        [DOCKER_COMPOSE, "--profile", "*", "config", "--format", "json"],
        cwd=folder,
        capture_output=True,
        env={},
        check=True,
    )
    return Project(json.loads(done.stdout)["services"], folder / "keys")


Resolve = Callable[[str], Project]


@pytest.fixture(params=[in_python, in_docker] if DOCKER_COMPOSE else [in_python])
def resolve(request: pytest.FixtureRequest, tmp_path: Path) -> Resolve:
    def resolved(text: str) -> Project:
        (tmp_path / ".env").write_text(text)
        project: Project = request.param(tmp_path)
        return project

    return resolved


@pytest.fixture(autouse=True)
def untouched_environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def settings_in(project: Project, service: str) -> Settings:
    """What the service makes of its environment."""
    os.environ.clear()
    os.environ.update(IMAGE | project.environment(service))
    return load_settings(env_file=project.prepare() / ".env")[0]
