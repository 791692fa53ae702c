"""Makes a bucket on an S3 server by one signed request, without loading an S3 client for it."""

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Keys

from cefmp4.errors import ServerUnreachableError, SettingsError


async def make_bucket(
    endpoint_url: str, bucket: str, *, access_key: str, secret_key: str, region: str
) -> None:
    """A bucket that is there already is no error."""
    url = f"{endpoint_url}/{bucket}"
    request = AWSRequest("PUT", url, data=b"")
    request.headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD"
    SigV4Auth(Keys(access_key, secret_key), "s3", region).add_auth(request)
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session,
            session.put(url, headers=dict(request.headers.items())) as response,
        ):
            answer = await response.text()
    except (TimeoutError, aiohttp.ClientError) as error:
        raise ServerUnreachableError(f"making the bucket {bucket}: {error}") from error
    if response.status == 400 and "InvalidBucketName" in answer:
        raise SettingsError(
            f"S3_BUCKET_NAME={bucket}: a bucket name has 3 to 63 small letters, digits and hyphens"
        )
    if response.status not in (200, 409):
        raise ServerUnreachableError(f"making the bucket {bucket}: status {response.status}")
