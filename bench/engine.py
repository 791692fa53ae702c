"""The engine of jobs of a place."""

from bench.place import Place
from cefmp4.temporal.connect import EngineClient, EngineConfig, connect


async def engine(where: Place) -> EngineClient:
    config = EngineConfig(
        address=where.temporal_address, codec_key=where.temporal_codec_key.encode()
    )
    return await connect(config, identity="bench")
