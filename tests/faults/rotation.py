"""Credentials that live for seconds, as those of a role do: a file that the client library reads
through its `credential_process`, and a server that refuses all tokens but the last."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

from tests.faults import s3_faults
from tests.faults.s3_proxy import Exchange
from tests.faults.world import World

# The client library fetches new ones when less than 15 minutes are left: in 2 seconds from now.
LIFE = timedelta(minutes=15, seconds=2)


class Rotation:
    def __init__(self, world: World) -> None:
        self._keys = (world.s3_server.access_key, world.s3_server.secret_key)
        self._file = world.folder / "credentials.json"
        self._serial = 0
        self.refused = 0
        config = world.folder / "aws-config"
        config.write_text(f"[default]\ncredential_process = cat {self._file}\n")
        world.settings |= {
            "S3_ACCESS_KEY_ID": "",
            "S3_SECRET_ACCESS_KEY": "",
            "AWS_CONFIG_FILE": str(config),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def _token(self) -> str:
        return f"token-{self._serial}"

    async def renew(self) -> None:
        """From now on the former token is of no use."""
        self._serial += 1
        document = {
            "Version": 1,
            "AccessKeyId": self._keys[0],
            "SecretAccessKey": self._keys[1],
            "SessionToken": self._token,
            "Expiration": (datetime.now(UTC) + LIFE).isoformat(),
        }
        beside = self._file.with_suffix(".new")
        await asyncio.to_thread(beside.write_text, json.dumps(document))
        beside.replace(self._file)

    async def fault(self, exchange: Exchange) -> bool:
        request = exchange.request
        query = parse_qs(urlsplit(request.target).query)
        (signed,) = query.get("X-Amz-Security-Token", [""])
        if self._token in (signed, request.headers.get("x-amz-security-token")):
            return await exchange.forward()
        self.refused += 1
        return await s3_faults.refused(400, "ExpiredToken")(exchange)
