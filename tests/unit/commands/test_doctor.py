"""What the doctor says of the settings themselves."""

from typing import Any

import pytest

from cefmp4.commands.doctor import examine_configuration
from cefmp4.config.settings import Settings
from cefmp4.model.diagnosis import Level

TOKEN = "sixteen characters"


@pytest.mark.parametrize(
    ("settings", "level", "advice"),
    [
        ({}, Level.OK, ""),
        ({"http_host": "0.0.0.0", "publish_host": "127.0.0.1"}, Level.OK, ""),
        ({"http_host": "0.0.0.0"}, Level.WARN, "API_TOKEN"),
        ({"http_host": "0.0.0.0", "publish_host": "10.0.0.5"}, Level.WARN, "API_TOKEN"),
        ({"http_host": "0.0.0.0", "api_token": TOKEN}, Level.WARN, "TLS"),
        ({"http_host": "127.0.0.1", "api_token": TOKEN}, Level.OK, ""),
    ],
)
def test_a_port_that_others_reach(settings: dict[str, Any], level: Level, advice: str) -> None:
    (found,) = examine_configuration(Settings(**settings))
    assert found.level is level
    assert advice in found.advice
    assert TOKEN not in f"{found.detail} {found.advice}"
