"""Questions to Temporal: how long they may take, and what its errors mean."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, GetSystemInfoRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from cefmp4.errors import (
    AccessDeniedError,
    CefError,
    PermanentError,
    ServerUnreachableError,
    UnknownJobError,
)
from cefmp4.reachability import TEMPORAL
from cefmp4.temporal import refusals

LOOK_S = 2.0  # somebody waits for the answer
CHANGE_S = 10.0
ASKED_EVERY_S = 5.0
_NO_ANSWER = {
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.INTERNAL,
}
_REFUSED = {RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.PERMISSION_DENIED}
_ANYTHING = "requests"  # whoever is refused one is refused all
_JOB_ID = re.compile(r"[\w.-]{1,200}", re.ASCII)


def is_job_id(text: str) -> bool:
    """Whether a job of ours can be called so. Nothing else becomes part of a query."""
    return _JOB_ID.fullmatch(text) is not None


@asynccontextmanager
async def asking(
    client: Client, job_id: str = "", *, within_s: float = LOOK_S
) -> AsyncIterator[None]:
    """Around requests. The first one of a client connects, which no time-out of its own ends."""
    try:
        async with asyncio.timeout(within_s):
            yield
        TEMPORAL.allowed(_ANYTHING)
    except RPCError as error:
        raise _told(_meant(error, client, job_id)) from error
    except TimeoutError:
        raise _told(refusals.silence(_address_of(client))) from None
    except RuntimeError as error:
        if not refusals.is_of_connecting(error):
            raise
        raise _told(refusals.meant_by(error, _address_of(client))) from error


def _meant(error: RPCError, client: Client, job_id: str) -> Exception:
    if error.status is RPCStatusCode.NOT_FOUND:
        if "amespace" in error.message:
            return refusals.no_namespace(client.namespace)
        return UnknownJobError(f"there is no job {job_id!a}")
    if error.status in _REFUSED:
        return refusals.unauthorized(_address_of(client))
    return refusals.silence(_address_of(client)) if error.status in _NO_ANSWER else error


def _told(error: Exception) -> Exception:
    """To health checks and metrics."""
    if isinstance(error, ServerUnreachableError):
        TEMPORAL.failed(error)
        return error
    TEMPORAL.answered()
    if isinstance(error, AccessDeniedError):
        TEMPORAL.refused(_ANYTHING, error)
    return error


def _address_of(client: Client) -> str:
    return str(client.service_client.config.target_host)


async def kept_days(client: Client) -> int:
    """How long ended jobs stay listed. Raises CefError where nobody answers, or lets us in."""
    async with asking(client):
        found = await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=client.namespace)
        )
    return found.config.workflow_execution_retention_ttl.ToTimedelta().days


async def version_of(client: Client) -> str:
    async with asking(client):
        found = await client.workflow_service.get_system_info(GetSystemInfoRequest())
    return found.server_version


async def keep_asking(client: Client) -> None:
    """For as long as it runs, an outage is told of: whoever waits for work is told of none, and
    would wait for ever where the namespace is gone. Raises PermanentError then."""
    while True:
        try:
            await kept_days(client)
        except refusals.NoNamespaceError as error:
            raise PermanentError(f"{error.args[0]} any more", hint=error.hint) from None
        except CefError:
            pass  # it is told of
        await asyncio.sleep(ASKED_EVERY_S)
