from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from raft.errors import NoQuorum, OutcomeUnknown
from skerry import startup
from skerry.cli import root
from skerry.cli.common import exit_words, find_target
from skerry.errors import ApiError, DevError, JobFailed, NotPlaced, Unreachable, UsageError, exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobFailed("it failed"), 1),
        (UsageError("what"), 2),
        (NotPlaced("not in time"), 3),
        (NoQuorum("no majority"), 4),
        (Unreachable("nobody"), 4),
        (ApiError({"code": "no-quorum", "detail": "x"}, 503), 4),
        (ApiError({"code": "missing-token", "detail": "x"}, 401), 5),
        (ApiError({"code": "anything", "detail": "x"}, 403), 5),
        (OutcomeUnknown("deadline"), 6),
        (ApiError({"code": "odd", "outcome": "unknown", "detail": "x"}, 504), 6),
        (ApiError({"code": "never-fits", "detail": "x"}, 422), 1),
    ],
)
def test_every_error_has_the_exit_code_of_the_contract(error, code):
    assert exit_code(error) == code


def test_an_error_with_json_output_is_one_object_on_standard_output(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert root.run(["status", "-o", "json"]) == 2
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert answer["v"] == 1
    assert answer["ok"] is False
    assert answer["error"]["code"] == "usage"
    assert "skerry dev" in answer["error"]["hint"]


@pytest.mark.parametrize("arguments", [["nonsense"], ["run"], ["status", "--nonsense"], ["dev", "--replicas", "x"]])
def test_a_wrong_command_line_is_a_usage_error(arguments, capsys):
    assert root.run(arguments) == 2
    assert "Error" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('name = "x"\ncommnd = ["a"]\n', "commnd"),
        ('name = "x"\ncommand = ["a"]\n[resources]\nrequests = { cpu = "1x" }\n', "1x"),
        ("name = ", "TOML"),
    ],
)
def test_a_bad_job_file_is_refused_before_anything_is_sent(content, said, tmp_path, capsys):
    (tmp_path / "job.toml").write_text(content)
    assert root.run(["run", str(tmp_path / "job.toml"), "--address", "127.0.0.1:1", "--token", "t"]) == 1
    printed = capsys.readouterr()
    assert said in printed.err
    assert "[bad-job]" in printed.err


def test_a_wrong_amount_for_a_development_node_is_a_usage_error(tmp_path, capsys):
    assert root.run(["dev", "--dir", str(tmp_path / "c"), "--agent-cpu", "lots"]) == 2
    assert "--agent-cpu takes" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_an_unexpected_exception_is_our_bug_and_says_so(monkeypatch, capsys):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(root.root, "main", broken)
    assert root.run([]) == 70
    assert "bug in Skerry" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = "import sys; from skerry.cli.root import run; run(['--help']); print([m for m in HEAVY if m in sys.modules])"
    heavy = "HEAVY = ('aiohttp', 'numpy', 'msgspec', 'structlog', 'asyncio', 'rich')\n"
    ran = subprocess.run([sys.executable, "-c", heavy + code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_every_command_of_the_list_can_be_loaded():
    for name in root.COMMANDS:
        command = root.root.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        assert command.help, f"{name} has no help"


def test_a_shadowed_package_is_refused_at_start(tmp_path, monkeypatch):
    foreign = tmp_path / "agents"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("")
    ran = subprocess.run(
        [sys.executable, "-c", "from skerry import startup; print(startup.problem())"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
    )
    assert "'agents'" in ran.stdout
    assert str(foreign) in ran.stdout


def test_assertions_off_is_refused_at_start():
    ran = subprocess.run([sys.executable, "-O", "-m", "skerry", "--help"], capture_output=True, text=True)
    assert ran.returncode == 70
    assert "-O" in ran.stderr


def test_our_own_packages_are_accepted():
    assert startup.problem() is None


def test_the_address_and_token_of_flags_win_over_the_dev_directory(tmp_path):
    (tmp_path / "token").write_text("secret\n")
    ready = {"apis": {"n1": "http://127.0.0.1:1"}, "token_file": str(tmp_path / "token")}
    (tmp_path / "dev.json").write_text(json.dumps(ready))
    with pytest.raises(UsageError, match="no cluster is known"):
        find_target(None, None, "table", 1.0, tmp_path)  # its supervisor was killed
    lock = (tmp_path / "dev.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    from_directory = find_target(None, None, "table", 1.0, tmp_path)
    assert from_directory.addresses == ("http://127.0.0.1:1",)
    assert from_directory.token == "secret"
    from_flags = find_target("10.0.0.1:7200, 10.0.0.2:7200", "other", "table", 1.0, tmp_path)
    assert from_flags.addresses == ("10.0.0.1:7200", "10.0.0.2:7200")
    assert from_flags.token == "other"
    lock.close()


def test_a_damaged_dev_file_is_named(tmp_path: Path):
    (tmp_path / "dev.json").write_text("{")
    with pytest.raises(DevError, match=r"dev\.json cannot be read"):
        find_target(None, None, "table", 1.0, tmp_path)


def test_an_exit_is_told_in_words_and_never_invented():
    known = {"status_known": True, "code": 0, "signal": None, "reason": "exited"}
    oom = {"status_known": True, "code": None, "signal": 9, "reason": "oom"}
    lost = {"status_known": False, "code": None, "signal": None, "reason": "lost"}
    assert [exit_words(e) for e in (known, oom, lost, None)] == ["code 0", "signal 9 (oom)", "unknown (lost)", "-"]
