"""No two recordings ever meet under one key, nor a recording and what is made of another: for any
template, any names, and in any order."""

from dataclasses import dataclass

from hypothesis import example, given
from hypothesis import strategies as st

from cefmp4.model import names

STARTED_AT = 1_795_255_200.0
ID = "20261121T100000Z-{:08x}"

_PIECES = [
    "hls", "hls~", "HLS", "analysis", ".cefmp4-probe", "streams", "a", "b", "r.mp4", "r", ".mp4",
    "r.mp4.metadata.json", ".metadata.json", "metadata.json", "x.metadata~.json", "master.m3u8",
    "result.json", "0123456789abcdef", "x" * 255, "\N{VIDEO CAMERA}" * 60, "%01", "\x01", "~",
    "line\nbreak", "\udcff\udcfe", " ", "..mp4", ID.format(0), ID.format(1),
    f"r~{ID.format(0)}.mp4", f"r~{ID.format(1)}.mp4", f"r.mp4~{ID.format(1)}",
]  # fmt: skip
_NAMES = st.one_of(
    st.sampled_from(_PIECES),
    st.binary(min_size=1, max_size=40).map(
        lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_").decode("utf-8", "surrogateescape")
    ),
).filter(lambda name: name not in (".", ".."))
_RELPATHS = st.lists(_NAMES, min_size=1, max_size=8).map("/".join)
_TEMPLATES = st.sampled_from(
    [
        names.DEFAULT_KEY_TEMPLATE, "{filename}", "{relpath}", "{stem}", "{stem}.metadata.json~",
        "{date:hls}/{filename}", "{date:hls}/{date:%Y}/{relpath}", "{host}/{filename}",
        "{stem}{date:.metadata.json}", "{filename}/{stem}", "{stream_id}", "{date:%n}{stem}",
        "{stem}.metadata{date:.json}", "h{stem}/{filename}", "{relpath}/{stream_id}.json",
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Recording:
    template: str
    relpath: str


_RECORDINGS = st.lists(st.builds(Recording, _TEMPLATES, _RELPATHS), min_size=2, max_size=8)


def _store(recordings: list[Recording], taken: set[str]) -> list[tuple[str, str]]:
    """Keys as intake gives them: one that is reserved, or lies there already, is not taken."""
    given_out = []
    for number, one in enumerate(recordings):
        stream_id = ID.format(number)
        key = names.object_key(
            one.template,
            stream_id=stream_id,
            relpath=one.relpath,
            started_at=STARTED_AT,
            host="hls",
        )
        while key in taken or names.metadata_key(key) in taken:
            key = names.next_key(key, stream_id)
        taken |= {key, names.metadata_key(key)}
        given_out.append((stream_id, key))
    return given_out


@given(_RECORDINGS)
@example([Recording("{filename}", "a/r.mp4"), Recording("{filename}", "b/r.mp4")])
@example([Recording("{relpath}", "r.mp4.metadata.json"), Recording("{relpath}", "r.mp4")])
@example([Recording("{relpath}", f"hls/{ID.format(1)}/master.m3u8")] * 2)
@example([Recording("{filename}", f"r~{ID.format(1)}.mp4"), Recording("{filename}", "r.mp4")] * 3)
def test_recordings_and_what_is_made_of_them_never_meet(recordings: list[Recording]) -> None:
    given_out = _store(recordings, set())
    keys = [key for _, key in given_out]
    documents = [names.metadata_key(key) for key in keys]
    assert len({*keys, *documents}) == 2 * len(recordings)
    for made in (*keys, *documents):
        assert not made.startswith(tuple(f"{root}/" for root in names.OWN_ROOTS))
        assert made.isprintable()
        assert 0 < len(made.encode()) <= 1024
    for key in keys:
        assert not names.is_own_key(key)
        assert key not in names.OWN_ROOTS
    for document in documents:
        assert names.is_own_key(document)


@given(_RECORDINGS, _RELPATHS)
def test_what_lies_there_already_is_left_alone(recordings: list[Recording], older: str) -> None:
    """Whoever put it there: an older version, which spelled names as they are, or a stranger."""
    there = {names.key_safe(older)[:500], names.metadata_key(names.key_safe(older)[:500])}
    for _, key in _store(recordings, set(there)):
        assert not there & {key, names.metadata_key(key)}


@given(_TEMPLATES, _RELPATHS, _RELPATHS)
def test_different_paths_stay_different(template: str, one: str, other: str) -> None:
    """Of what S3 can spell; what it cannot may meet, and is told apart by the reservation."""
    if names.key_safe(one) == names.key_safe(other):
        return
    first, second = (
        names.object_key("{relpath}", stream_id="s", relpath=path, started_at=0.0, host="h")
        for path in (one, other)
    )
    assert first != second
