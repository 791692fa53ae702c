"""The attacker of these tests really is somebody else: a test that attacks as ourselves proves
nothing."""

import os

from tests.support.other_user import OTHER_UID, folder_for_all, needs_two_users, run_as_other


@needs_two_users
def test_the_other_user_has_none_of_our_rights() -> None:
    attack = run_as_other(
        "import os; print(os.getuid(), os.getgid(), os.getgroups()); "
        "print(open('/proc/self/status').read())"
    )
    assert attack.code == 0, attack.errors
    assert attack.output.startswith(f"{OTHER_UID} {OTHER_UID} []")
    assert "CapEff:\t0000000000000000" in attack.output


@needs_two_users
def test_a_folder_for_all_can_be_entered_and_what_is_ours_in_it_cannot_be_read() -> None:
    with folder_for_all() as folder:
        (folder / "open").write_text("seen")
        (folder / "ours").touch(0o600)
        os.chmod(folder / "ours", 0o600)
        read = "import sys; print(open(sys.argv[1]).read())"
        assert run_as_other(read, str(folder / "open")).output == "seen\n"
        assert "PermissionError" in run_as_other(read, str(folder / "ours")).errors
