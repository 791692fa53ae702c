"""Keys and names, hostile ones included."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefmp4.config.ingest import DEFAULT_GLOBS
from cefmp4.model import names

FACTS = {"stream_id": "20261121T100000Z-0a1b2c3d", "started_at": 1_795_255_200.0, "host": "cam"}


def key(template: str, relpath: str) -> str:
    return names.object_key(
        template,
        stream_id=FACTS["stream_id"],  # type: ignore[arg-type]
        relpath=relpath,
        started_at=FACTS["started_at"],  # type: ignore[arg-type]
        host=FACTS["host"],  # type: ignore[arg-type]
    )


def test_default_template() -> None:
    assert (
        key(names.DEFAULT_KEY_TEMPLATE, "a/b/rec 1.mp4")
        == "streams/20261121T100000Z-0a1b2c3d/rec 1.mp4"
    )


def test_every_field() -> None:
    template = "{host}/{date:%Y/%m/%d}/{relpath}/{stem}"
    assert key(template, "a/r.mp4") == "cam/2026/11/21/a/r.mp4/r"


def test_the_next_key_keeps_folder_and_suffix() -> None:
    assert names.next_key("a.b/r.mp4", "ID") == "a.b/r~ID.mp4"
    assert names.next_key("a.b/r", "ID") == "a.b/r~ID"
    assert names.next_key("a/.mp4", "ID") == "a/~ID.mp4"
    longest = key("{relpath}", "x" * 2000)
    following = names.next_key(longest, "ID")
    assert following not in (longest, names.next_key(longest, "OTHER"))
    assert len(following) <= names.MAX_KEY_BYTES


def test_a_key_is_known_by_the_name_of_its_file() -> None:
    stream_id = names.new_stream_id(1_795_255_200.0, "folder")
    assert names.bears_name("a/r.mp4", "r.mp4")
    assert names.bears_name(names.next_key("a/r.mp4", stream_id), "r.mp4")
    assert not names.bears_name(names.next_key("a/x.mp4", stream_id), "r.mp4")
    assert not names.bears_name("a/xr.mp4", "r.mp4")


@pytest.mark.parametrize(
    ("relpath", "expected"),
    [
        ("hls/a.mp4", "hls~/a.mp4"),
        ("hls~/a.mp4", "hls~~/a.mp4"),
        ("hls.mp4", "hls.mp4"),
        ("hlsx/a.mp4", "hlsx/a.mp4"),
        ("cam/hls/a.mp4", "cam/hls/a.mp4"),
        ("hls", "hls~"),
        ("analysis/a.mp4", "analysis~/a.mp4"),
        (".cefmp4-probe/a.mp4", ".cefmp4-probe~/a.mp4"),
        ("a.mp4.metadata.json", "a.mp4.metadata~.json"),
        ("a.mp4.metadata~.json", "a.mp4.metadata~~.json"),
        ("hls/a.metadata.json", "hls~/a.metadata~.json"),
        (".metadata.json", ".metadata~.json"),
        ("metadata.json", "metadata.json"),
    ],
)
def test_names_that_look_like_ours_are_spelled_otherwise(relpath: str, expected: str) -> None:
    assert key("{relpath}", relpath) == expected


def test_what_is_ours_is_known_by_its_key() -> None:
    stream_id = names.new_stream_id(1_795_255_200.0)
    for ours in (f"hls/{stream_id}/master.m3u8", f"analysis/{stream_id}/x", "a.mp4.metadata.json"):
        assert names.is_own_key(ours)
    assert names.is_own_key(".cefmp4-probe/0123456789abcdef")
    for subject in ("w0123456789abcdef0123", "x0123456789abcdef0123"):  # of what is no stream
        assert names.is_own_key(f"hls/{subject}/1080p.a1/init.mp4")
    others = ("hls/a.mp4", f"hls/{stream_id}.mp4", "hls/wedding/a.mp4", "a.json")
    for other in (*others, ".cefmp4-probe/a.mp4"):
        assert not names.is_own_key(other)


def test_every_file_that_is_watched_by_default_has_a_media_type() -> None:
    kinds = {names.content_type_of(glob) for glob in DEFAULT_GLOBS} - {"application/mxf"}
    assert {kind.partition("/")[0] for kind in kinds} == {"video", "audio"}
    assert names.content_type_of("A.3GP") == "video/3gpp"


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("streams/{name}", "unknown field"),
        ("fixed", "share one key"),
        ("/{filename}", "does not start"),
        ("{filename", "not a valid template"),
        ("{filename:>9999999}", "only {date}"),
        ("hls/{filename}", "CefMP4's own"),
        ("analysis/{relpath}", "CefMP4's own"),
        (".cefmp4-probe/{relpath}", "CefMP4's own"),
        ("{filename}.metadata.json", "CefMP4's own"),
    ],
)
def test_bad_templates_are_refused_with_a_sentence(template: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        names.check_key_template(template)


@given(st.binary(min_size=1, max_size=255).filter(lambda raw: b"/" not in raw and b"\0" not in raw))
def test_any_file_name_makes_a_key_that_s3_can_list(raw: bytes) -> None:
    name = raw.decode("utf-8", "surrogateescape")
    made = key(names.DEFAULT_KEY_TEMPLATE, name)
    assert made.encode("utf-8")
    assert made.isprintable()
    assert len(made.encode()) + len(names.METADATA_SUFFIX) <= 1024


def test_long_paths_are_shortened_and_stay_different() -> None:
    deep = "/".join(["d" * 200] * 7)
    first, second = key("{relpath}", deep + "/a.mp4"), key("{relpath}", deep + "/b.mp4")
    assert first != second
    assert max(len(first), len(second)) <= names.MAX_KEY_BYTES


def test_stream_ids_are_found_in_keys() -> None:
    stream_id = names.new_stream_id(1_795_255_200.0)
    assert names.stream_id_in(f"streams/{stream_id}/x.mp4") == stream_id
    assert names.stream_id_in("streams/x.mp4") is None
    assert names.folder_tag_in(stream_id) == ""


def test_a_stream_id_shows_the_folder_it_is_from() -> None:
    mine = names.new_stream_id(1_795_255_200.0, "folder-1")
    assert names.stream_id_in(f"{mine}_x.mp4") == mine
    assert names.folder_tag_in(f"streams/{mine}/x.mp4") == names.folder_tag("folder-1")
    assert names.folder_tag("folder-1") != names.folder_tag("folder-2")
    assert names.folder_tag_in("streams/x.mp4") == ""


@pytest.mark.parametrize(
    "name",
    [".r.mp4.Xy12Zz", "r.mp4.part", "r.mp4.tmp", "r.crdownload", "sedAb12Cd", "rec-temp-7.mp4"],
)
def test_temporary_names(name: str) -> None:
    assert names.is_temporary(name)


@pytest.mark.parametrize("name", ["r.mp4", "sediment.mp4", "-r.mp4", "tmp.mp4", "party.mp4"])
def test_names_that_only_look_temporary(name: str) -> None:
    assert not names.is_temporary(name)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        pytest.param(names.new_stream_id(0), True, id="a new one"),
        ("20260101T000000Z-0badcafe", True),
        ("20260101T000000Z-12340badcafe", True),
        ("x" + "0" * 20, True),
        ("w" + "f" * 20, True),
        ("20260101T000000Z-0badcafe/", False),
        ("20260101T000000Z-0badcafe\n", False),
        ("20260101T000000Z-0badcafe.", False),
        ("２0260101T000000Z-0badcafe", False),  # noqa: RUF001  # a digit that is none of ours
        ("..", False),
        ("", False),
    ],
)
def test_what_outputs_can_lie_under(text: str, is_one: bool) -> None:
    assert names.is_subject(text) is is_one
