"""What is refused is told until the same is allowed."""

from cefmp4.errors import AccessDeniedError
from cefmp4.refusals import Refusals


def test_each_operation_is_a_right_of_its_own() -> None:
    refusals = Refusals("S3")
    refusals.allowed("PutObject")
    assert refusals.reasons == []
    refusals.refused("PutObject", AccessDeniedError("status 403", hint="not told"))
    refusals.refused("UploadPart", AccessDeniedError("status 401"))
    assert refusals.reasons == ["S3 refuses us: status 403", "S3 refuses us: status 401"]
    refusals.allowed("PutObject")
    assert refusals.reasons == ["S3 refuses us: status 401"]
