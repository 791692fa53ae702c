"""Where a queue is, by its address, and what a server that is none of SQS can make us believe."""

import pytest
from aiohttp import web
from tests.support.sqs_server import KEYS

from cefmp4.config.settings import Settings
from cefmp4.errors import CefError, PermanentError, ServerUnreachableError, TransientError
from cefmp4.jobs.sources.sqs_queue import Queue, QueueConfig, open_queue, queue_config
from cefmp4.retry import no_waiting


@pytest.mark.parametrize(
    ("url", "region", "endpoint"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/jobs", "eu-west-1", None),
        ("https://sqs.us-gov-west-1.amazonaws.com/123456789012/jobs", "us-gov-west-1", None),
        ("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/jobs.fifo", "cn-north-1", None),
        ("https://queue.amazonaws.com/123456789012/jobs", "us-east-1", None),
        ("https://eu-west-2.queue.amazonaws.com/123456789012/jobs", "eu-west-2", None),
        (
            "https://sqs-fips.us-east-2.amazonaws.com/123456789012/jobs",
            "us-east-2",
            "https://sqs-fips.us-east-2.amazonaws.com",
        ),
        (
            "https://vpce-0ab.sqs.eu-west-1.vpce.amazonaws.com/123456789012/jobs",
            "eu-west-1",
            "https://vpce-0ab.sqs.eu-west-1.vpce.amazonaws.com",
        ),
        (
            "https://sqs.eu-west-1.api.aws/123456789012/jobs",
            "eu-west-1",
            "https://sqs.eu-west-1.api.aws",
        ),
        (
            "http://sqs.us-east-1.localhost.localstack.cloud:4566/000000000000/jobs",
            "us-east-1",
            "http://sqs.us-east-1.localhost.localstack.cloud:4566",
        ),
        ("http://elasticmq:9324/000000000000/jobs.fifo", "eu-north-1", "http://elasticmq:9324"),
        ("http://[::1]:9324/queue/jobs", "eu-north-1", "http://[::1]:9324"),
        ("https://amazonaws.com.evil/1/jobs", "eu-north-1", "https://amazonaws.com.evil"),
    ],
)
def test_the_address_says_where_the_queue_is(url: str, region: str, endpoint: str | None) -> None:
    config = queue_config(Settings(aws_sqs_queue_url=url, aws_region="eu-north-1"))
    assert (config.region, config.endpoint_url, config.url) == (region, endpoint, url)
    assert config.name == url.rpartition("/")[2]


def test_without_any_other_region_it_is_that_of_the_bucket() -> None:
    settings = Settings(aws_sqs_queue_url="http://box:1/1/jobs", s3_region_name="eu-south-1")
    assert queue_config(settings).region == "eu-south-1"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (200, "<html>hello</html>", PermanentError),
        (200, "{}", PermanentError),
        (500, "<html>oops</html>", TransientError),
        (404, "<html>nothing</html>", CefError),
        (200, '{"Attributes": null}', PermanentError),
        (200, '{"Attributes": {"VisibilityTimeout": "x", "RedrivePolicy": "["}}', type(None)),
        (400, '{"__type": "com.amazonaws.sqs#QueueDoesNotExist"}', PermanentError),
        (400, '{"__type": "com.amazon.coral.service#ThrottlingException"}', TransientError),
    ],
)
async def test_whatever_it_answers_is_one_of_our_errors(
    status: int, text: str, error: type[object]
) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=text, content_type="application/x-amz-json-1.0")

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        with no_waiting():
            outcome = await _outcome(f"http://{host}:{port}")
    finally:
        await runner.cleanup()
    assert isinstance(outcome, error)


async def _outcome(endpoint: str) -> CefError | None:
    config = QueueConfig(url=f"{endpoint}/1/jobs", region="eu-west-1", endpoint_url=endpoint)
    async with open_queue(config) as queue:
        try:
            await queue.facts()
        except CefError as error:
            return error
    return None


async def test_a_server_that_hangs_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hangs:
        async def receive_message(self, **params: object) -> None:
            raise TimeoutError

    queue = Queue(Hangs(), QueueConfig(url="http://box/1/jobs", region="eu-west-1"))
    with pytest.raises(ServerUnreachableError, match="did not answer ReceiveMessage"):
        await queue.receive(10, hidden_s=30)


@pytest.mark.parametrize("is_our_fault", [True, False])
async def test_of_a_batch_each_message_is_minded(is_our_fault: bool) -> None:
    """Some servers say that all went well, and then of which it did not."""

    class Fails:
        async def change_message_visibility_batch(self, **params: object) -> dict[str, object]:
            failed = {"Id": "1", "SenderFault": is_our_fault, "Code": "ReceiptHandleIsInvalid"}
            return {"Failed": [failed]}

    queue = Queue(Fails(), QueueConfig(url="http://box/1/jobs", region="eu-west-1"))
    if is_our_fault:
        assert await queue.hide({"one": 5, "other": 5}) == {"other"}
        return
    with no_waiting(), pytest.raises(TransientError, match="ReceiptHandleIsInvalid"):
        await queue.hide({"one": 5, "other": 5})
