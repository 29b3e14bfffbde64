"""Settings: precedence, origins, units, and errors that say what to do."""

from __future__ import annotations

import pytest

from cluster.config import all_keys, load
from cluster.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def write_file(text: str):
        path = tmp_path / "skerry.toml"
        path.write_text(text)
        return path

    return write_file


def refused(*arguments, **keywords) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(*arguments, **keywords)
    assert caught.value.code == "bad-config"
    assert caught.value.hint
    return caught.value


def test_flags_beat_environment_beats_file_beats_defaults(write):
    path = write(
        '[log]\nlevel = "error"\nformat = "json"\n[raft]\nelection_timeout_ms = 200\n[cluster]\nname = "reef"\n'
    )
    environ = {"SKERRY_LOG_LEVEL": "warning", "SKERRY_RAFT_ELECTION_TIMEOUT_MS": "300", "PATH": "/bin"}
    loaded = load(path, environ, {"log.level": "debug", "log.format": None})
    config = loaded.config
    assert (config.log.level, config.log.format) == ("debug", "json")
    assert (config.raft.election_timeout_ms, config.cluster.name) == (300, "reef")
    assert config.replica.listen_links == "127.0.0.1:7100"
    assert loaded.origin("log.level") == "flag log.level"
    assert loaded.origin("raft.election_timeout_ms") == "env SKERRY_RAFT_ELECTION_TIMEOUT_MS"
    assert loaded.origin("log.format") == f"file {path}:3"
    assert loaded.origin("cluster.name") == f"file {path}:7"
    assert loaded.origin("replica.id") == "default"


def test_durations_and_sizes_are_read_with_their_units(write):
    path = write('[raft]\nelection_timeout_ms = "1.5s"\nmax_message_bytes = "512KiB"\n')
    config = load(path, {"SKERRY_TRACE_ROLL_BYTES": "3MB", "SKERRY_AGENT_CPU": "1.5"}, {"agent.memory": "2Gi"}).config
    assert (config.raft.election_timeout_ms, config.raft.max_message_bytes) == (1500, 512 * 1024)
    assert config.trace.roll_bytes == 3_000_000
    assert (config.agent.cpu_millicores, config.agent.memory_bytes) == (1500, 2 << 30)


def test_lists_maps_and_booleans_are_read_from_text_and_from_tables(write):
    text = {
        "SKERRY_REPLICA_PEERS": "n1=127.0.0.1:1, n2=[::1]:2",
        "SKERRY_AGENT_REPLICAS": "a:1, b:2",
        "SKERRY_AGENT_STOP_WORKLOADS_ON_EXIT": "True",
    }
    from_text = load(None, text).config
    from_file = load(
        write(
            '[replica.peers]\nn1 = "127.0.0.1:1"\nn2 = "[::1]:2"\n'
            '[agent]\nreplicas = ["a:1", "b:2"]\nstop_workloads_on_exit = true\n'
        )
    ).config
    assert from_text == from_file
    assert from_text.replica.peers == {"n1": "127.0.0.1:1", "n2": "[::1]:2"}
    assert from_text.agent.replicas == ("a:1", "b:2")
    assert from_text.agent.stop_workloads_on_exit is True


@pytest.mark.parametrize(
    ("text", "key", "line", "hint"),
    [
        ("[raft]\n\nelection_timeout_ms = 'fast'", "raft.election_timeout_ms", 3, "150ms"),
        ("[raft]\nelection_timeout_ms = 1", "raft.election_timeout_ms", 2, "from 50 to 60000"),
        ("[raft]\nelection_timeout_ms = '0.5ms'", "raft.election_timeout_ms", 2, "duration"),
        ("[raft]\nmax_message_bytes = '1parsec'", "raft.max_message_bytes", 2, "64MiB"),
        ("[raft]\nmax_message_bytes = true", "raft.max_message_bytes", 2, "64MiB"),
        ("[replica]\nlisten_api = '127.0.0.1'", "replica.listen_api", 2, "host:port"),
        ("[replica]\nlisten_api = '127.0.0.1:70000'", "replica.listen_api", 2, "host:port"),
        ("[replica]\nid = 'N 1'", "replica.id", 2, "a-z"),
        ("[replica.peers]\nn1 = 'nowhere'", "replica.peers", 1, "host:port"),
        ("[log]\nlevel = 'loud'", "log.level", 2, "debug, info"),
        ("[agent]\ncpu = '3x'", "agent.cpu", 2, "500m"),
        ("[agent]\nstop_workloads_on_exit = 'maybe'", "agent.stop_workloads_on_exit", 2, "true or false"),
    ],
)
def test_a_bad_value_names_key_file_line_and_allowed_form(write, text, key, line, hint):
    path = write(text)
    error = refused(path)
    assert key in error.message
    assert error.details["origin"] == f"file {path}:{line}"
    assert hint in error.hint


def test_a_bad_value_of_environment_or_flag_names_the_variable_or_flag():
    error = refused(None, {"SKERRY_RAFT_ELECTION_TIMEOUT_MS": "x"})
    assert error.details["origin"] == "env SKERRY_RAFT_ELECTION_TIMEOUT_MS"
    error = refused(None, {}, {"raft.election_timeout_ms": "x"})
    assert error.details["origin"] == "flag raft.election_timeout_ms"


@pytest.mark.parametrize(
    ("file", "environ", "flags", "near"),
    [
        ("[raft]\nelecton_timeout_ms = 1\n", {}, {}, "raft.election_timeout_ms"),
        ("[raaft]\nelection_timeout_ms = 1\n", {}, {}, "raft.election_timeout_ms"),
        ("clusster = 1\n", {}, {}, "cluster"),
        ("", {"SKERRY_LOG_LEVL": "info"}, {}, "SKERRY_LOG_LEVEL"),
        ("", {}, {"log.levl": "info"}, "log.level"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_match(write, file, environ, flags, near):
    assert f"did you mean {near}?" in refused(write(file), environ, flags).hint


def test_variables_of_the_command_line_are_not_mistaken_for_settings():
    load(None, {"SKERRY_ADDRESS": "x", "SKERRY_TOKEN": "y", "SKERRY_NO_SKIPS": "1"})


def test_a_file_that_is_missing_not_toml_not_text_or_huge_is_a_clear_error(write, tmp_path):
    assert "cannot be read" in refused(tmp_path / "none.toml").message
    assert "is not TOML" in refused(write("[raft\n")).message
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "not text" in refused(tmp_path / "binary").message
    assert "larger than" in refused(write("#" * (2 << 20))).message


def test_secrets_are_shown_nowhere(write):
    path = write('[security]\nlink_token = "very-secret-link"\napi_token = "very-secret-api"\n')
    loaded = load(path)
    shown = str(loaded.show()) + repr(loaded.config) + repr(loaded)
    assert "very-secret" not in shown
    assert {row.value for row in loaded.show() if row.key in ("security.link_token", "security.api_token")} == {"***"}
    error = refused(write('[security]\nlink_token = "very secret"\n'))
    assert "very secret" not in str(error)


def test_a_token_file_is_read_and_excludes_the_token_itself(write, tmp_path):
    (tmp_path / "token").write_text("from-the-file-01\n")
    flags = {"security.link_token_file": str(tmp_path / "token")}
    loaded = load(None, {}, flags)
    assert loaded.config.security.link_token == "from-the-file-01"
    assert loaded.origin("security.link_token") == f"file {tmp_path / 'token'}"
    assert "both" in refused(None, {"SKERRY_SECURITY_LINK_TOKEN": "another-token"}, flags).message
    (tmp_path / "token").write_text("\n")
    assert "empty" in refused(None, {}, flags).message
    (tmp_path / "token").write_text("short")
    assert "short" not in str(refused(None, {}, flags))


def test_required_settings_are_asked_for_by_name_with_the_three_ways_to_set_them():
    loaded = load(None, {}, {"replica.id": "n1"})
    loaded.require("replica.id")
    with pytest.raises(ConfigError) as caught:
        loaded.require("replica.id", "replica.dir")
    assert "replica.dir" in caught.value.message
    assert "SKERRY_REPLICA_DIR" in caught.value.hint


def test_every_setting_is_described_and_appears_in_show():
    keys = all_keys()
    assert all(key.description for key in keys.values())
    assert [row.key for row in load().show()] == list(keys)
