from cefmp4.ingest.habits import MAX_LAG, MIN_LAG, PROBATION, REMEMBERED, FolderHabits


def test_a_writer_that_rewrites_everything_makes_the_next_files_wait() -> None:
    habits = FolderHabits()
    assert habits.learn("cam/a.mp4", sent_early=10, changed=10, head_changed=False)
    assert habits.waits_for_close("cam/b.mp4")
    assert not habits.waits_for_close("cam/b.mkv")
    assert not habits.waits_for_close("other/b.mp4")


def test_it_gets_another_chance_after_some_files() -> None:
    habits = FolderHabits()
    habits.learn("cam/a.mp4", sent_early=10, changed=10, head_changed=False)
    for _ in range(PROBATION):
        assert habits.waits_for_close("cam/a.mp4")
        habits.learn("cam/a.mp4", sent_early=0, changed=0, head_changed=False)
    assert not habits.waits_for_close("cam/a.mp4")


def test_a_changed_part_doubles_the_lag_up_to_a_limit() -> None:
    habits = FolderHabits()
    for _ in range(20):
        habits.learn("a.mp4", sent_early=30, changed=2, head_changed=False)
    assert habits.lag_for("a.mp4") == MAX_LAG


def test_a_changed_head_alone_is_what_writers_do() -> None:
    habits = FolderHabits()
    assert not habits.learn("a.mp4", sent_early=30, changed=1, head_changed=True)
    assert habits.lag_for("a.mp4") == MIN_LAG


def test_it_survives_a_restart_and_garbage() -> None:
    habits, again = FolderHabits(), FolderHabits()
    habits.learn("cam/a.mp4", sent_early=10, changed=10, head_changed=False)
    again.load_json(habits.to_json())
    assert again.waits_for_close("cam/b.mp4")
    for garbage in ("", "[]", "[1]", '{"a": 1}', '{"a": {"lag": "x", "waits": 0}}', "null"):
        again.load_json(garbage)
        assert not again.waits_for_close("cam/b.mp4")


def test_folders_without_number_leave_those_that_taught_last() -> None:
    habits = FolderHabits()
    for number in range(5 * REMEMBERED):
        habits.learn(f"{number}/a.mp4", sent_early=0, changed=0, head_changed=False)
    assert habits.to_json() == "{}"
    for number in range(REMEMBERED + 10):
        habits.learn(f"{number}/a.mp4", sent_early=10, changed=10, head_changed=False)
        habits.learn("cam/a.mp4", sent_early=10, changed=10, head_changed=False)
    assert habits.waits_for_close("cam/b.mp4")
    assert not habits.waits_for_close("0/b.mp4")
    assert len(habits._habits) == REMEMBERED
