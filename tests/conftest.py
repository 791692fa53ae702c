"""What all tests share."""

pytest_plugins = [
    "tests.support.postgres_server",
    "tests.support.servers",
    "tests.support.sqs_server",
    "tests.support.temporal_server",
]
