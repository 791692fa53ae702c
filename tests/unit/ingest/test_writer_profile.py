from cefmp4.ingest.writer_profile import MAX_LAG, MIN_LAG, PROBATION, REMEMBERED, WriterProfiles


def test_a_writer_that_rewrites_everything_makes_the_next_files_wait() -> None:
    writer_profiles = WriterProfiles()
    writer_profiles.learn("cam/a.mp4", sent_early=10, changed=10, head_changed=False)
    assert writer_profiles.waits_for_close("cam/b.mp4")
    assert not writer_profiles.waits_for_close("cam/b.mkv")
    assert not writer_profiles.waits_for_close("other/b.mp4")


def test_it_gets_another_chance_after_some_files() -> None:
    writer_profiles = WriterProfiles()
    writer_profiles.learn("cam/a.mp4", sent_early=10, changed=10, head_changed=False)
    for _ in range(PROBATION):
        assert writer_profiles.waits_for_close("cam/a.mp4")
        writer_profiles.learn("cam/a.mp4", sent_early=0, changed=0, head_changed=False)
    assert not writer_profiles.waits_for_close("cam/a.mp4")


def test_a_changed_part_doubles_the_lag_up_to_a_limit() -> None:
    writer_profiles = WriterProfiles()
    for _ in range(20):
        writer_profiles.learn("a.mp4", sent_early=30, changed=2, head_changed=False)
    assert writer_profiles.lag_for("a.mp4") == MAX_LAG


def test_a_changed_head_alone_is_what_writers_do() -> None:
    writer_profiles = WriterProfiles()
    writer_profiles.learn("a.mp4", sent_early=30, changed=1, head_changed=True)
    assert writer_profiles.lag_for("a.mp4") == MIN_LAG
    assert not writer_profiles.waits_for_close("a.mp4")


def test_it_survives_a_restart_and_garbage() -> None:
    writer_profiles, again = WriterProfiles(), WriterProfiles()
    writer_profiles.learn("cam/a.mp4", sent_early=10, changed=10, head_changed=False)
    again.load_json(writer_profiles.to_json())
    assert again.waits_for_close("cam/b.mp4")
    for garbage in ("", "[]", "[1]", '{"a": 1}', '{"a": {"lag": "x", "waits": 0}}', "null"):
        again.load_json(garbage)
        assert not again.waits_for_close("cam/b.mp4")


def test_folders_without_number_leave_those_that_taught_last() -> None:
    writer_profiles = WriterProfiles()
    for number in range(5 * REMEMBERED):
        writer_profiles.learn(f"{number}/a.mp4", sent_early=0, changed=0, head_changed=False)
    assert writer_profiles.to_json() == "{}"
    for number in range(REMEMBERED + 10):
        writer_profiles.learn(f"{number}/a.mp4", sent_early=10, changed=10, head_changed=False)
        writer_profiles.learn("cam/a.mp4", sent_early=10, changed=10, head_changed=False)
    assert writer_profiles.waits_for_close("cam/b.mp4")
    assert not writer_profiles.waits_for_close("0/b.mp4")
    assert len(writer_profiles._writer_profiles) == REMEMBERED
