"""Asks whether anybody listens at WEBHOOK_URL. Nothing is told there."""

import asyncio
import ssl
from urllib.parse import urlsplit

from cefmp4.config.webhooks import WebhookSettings
from cefmp4.model.diagnosis import Diagnosis, ok, warn

_SUBJECT = "WEBHOOK_URL"
CONNECT_S = 5.0
_PORTS = {"http": 80, "https": 443}


async def examine_webhooks(settings: WebhookSettings) -> list[Diagnosis]:
    if settings.webhook_url is None:
        return []
    url, place = urlsplit(settings.webhook_address), settings.webhook_place
    is_secure = url.scheme == "https"
    advice = "what happens here is told there as soon as it answers, for days"
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(
                url.hostname, url.port or _PORTS[url.scheme], ssl=is_secure or None
            )
        writer.close()
    except TimeoutError:
        return [warn(_SUBJECT, f"{place} does not answer within {CONNECT_S:g} s", advice)]
    except ssl.SSLError as error:
        detail = f"{place} speaks no TLS that is trusted here: {error.reason}"
        return [warn(_SUBJECT, detail, "whoever signed its certificate must be known here")]
    except OSError as error:
        return [warn(_SUBJECT, f"{place} does not answer: {error.strerror or error}", advice)]
    return [ok(_SUBJECT, f"somebody listens at {place}")]
