"""Makes the bucket on the S3 server of docker-compose.yml."""

import asyncio
import sys

from cefmp4.config.reading import load_settings
from cefmp4.embedded.bucket import make_bucket
from cefmp4.errors import CefError

SERVER = "http://minio:9000"


def main(server: str = SERVER) -> int:
    try:
        settings, _ = load_settings()
        secret = settings.s3_secret_access_key
        if settings.s3_endpoint_url != server:
            print("S3_ENDPOINT_URL names another server, which has its buckets")
        elif settings.s3_access_key_id and secret:
            asyncio.run(
                make_bucket(
                    server,
                    settings.s3_bucket_name,
                    access_key=settings.s3_access_key_id,
                    secret_key=secret.get_secret_value(),
                    region=settings.s3_region_name,
                )
            )
    except CefError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
