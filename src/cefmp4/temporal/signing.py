"""Signs what goes into the engine, and refuses what comes out of it without our signature: whoever
reaches the engine's port could put orders and answers into it."""

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import structlog
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.converter import (
    ActivitySerializationContext,
    BinaryNullPayloadConverter,
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverter,
    EncodingPayloadConverter,
    JSONPlainPayloadConverter,
    PayloadCodec,
    PayloadConverter,
    SerializationContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)
from temporalio.exceptions import ApplicationError

from cefmp4.jobs.flow import Answer
from cefmp4.model.job import Step

log = structlog.get_logger()

UNSIGNED = "unsigned"
NO_ANSWER = Answer(step=Step.DISCARD, attempt=UNSIGNED, summary={})
_SIGNATURE = "cefmp4-hmac-sha256"
_REFUSED = "cefmp4/refused"


class SignedPayloads(PayloadCodec, WithSerializationContext):
    """The signature covers the job: what was signed for one is worth nothing in another. The bytes
    stay as they are, so that the engine's own page can show them."""

    def __init__(self, key: bytes, job_id: str = "") -> None:
        self._key = key
        self._job_id = job_id

    def with_context(self, context: SerializationContext) -> "SignedPayloads":
        if isinstance(context, WorkflowSerializationContext | ActivitySerializationContext):
            return SignedPayloads(self._key, context.workflow_id or "")
        return self

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        signed = [_copy(payload) for payload in payloads]
        for payload in signed:
            payload.metadata[_SIGNATURE] = self._signature_of(payload)
        return signed

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._checked(payload) for payload in payloads]

    def _checked(self, payload: Payload) -> Payload:
        plain = _copy(payload)
        told = plain.metadata.pop(_SIGNATURE, b"")
        if hmac.compare_digest(told, self._signature_of(plain)):
            return plain
        return Payload(metadata={"encoding": _REFUSED.encode()}, data=self._job_id.encode())

    def _signature_of(self, payload: Payload) -> bytes:
        mac = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in (self._job_id.encode(), payload.metadata["encoding"], payload.data):
            mac.update(len(part).to_bytes(8, "big"))
            mac.update(part)
        return mac.hexdigest().encode()


class _RefusedPayload(EncodingPayloadConverter):
    """An answer that is refused is no answer to any step, and a detail of a failure is none: the
    engine has some of its own. Anything else ends what it came to."""

    def __init__(self, *, is_of_failure: bool) -> None:
        self._is_of_failure = is_of_failure

    @property
    def encoding(self) -> str:
        return _REFUSED

    def to_payload(self, value: Any) -> Payload | None:
        return None

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        if self._is_of_failure:
            return None
        _tell_of_refusal(payload.data.decode())
        if type_hint is Answer:
            return NO_ANSWER
        raise ApplicationError("not signed by us", type=UNSIGNED, non_retryable=True)


class _Payloads(CompositePayloadConverter):
    """JSON, and nothing else."""

    def __init__(self, *, is_of_failure: bool = False) -> None:
        super().__init__(
            BinaryNullPayloadConverter(),
            _Json(),
            _RefusedPayload(is_of_failure=is_of_failure),
        )


class _Json(JSONPlainPayloadConverter):
    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        """What we signed as something else is no answer either."""
        try:
            return super().from_payload(payload, type_hint)
        except (TypeError, ValueError):
            if type_hint is Answer:
                return NO_ANSWER
            raise


class _Failures(DefaultFailureConverter):
    def from_failure(self, failure: Failure, payload_converter: PayloadConverter) -> BaseException:
        return super().from_failure(failure, _Payloads(is_of_failure=True))


@lru_cache(maxsize=1000)
def _tell_of_refusal(job_id: str) -> None:
    """Once of each job: what it was told is read again with each of its steps."""
    log.warning(
        "the engine holds what we did not sign: refused",
        job_id=job_id,
        hint="is TEMPORAL_CODEC_KEY the same on all hosts?",
    )


def data_converter(key: bytes) -> DataConverter:
    return replace(
        DataConverter.default,
        payload_converter_class=_Payloads,
        failure_converter_class=_Failures,
        payload_codec=SignedPayloads(key),
    )


def text_in(payload: Payload) -> str:
    """Of a signal; empty where it is refused, or is something else."""
    if payload.metadata["encoding"] != b"json/plain":
        _tell_of_refusal(payload.data.decode())
        return ""
    text = json.loads(payload.data)
    return text if isinstance(text, str) else ""


def _copy(payload: Payload) -> Payload:
    copy = Payload()
    copy.CopyFrom(payload)
    return copy
