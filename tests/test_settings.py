"""Settings: where they come from, which are refused, and what is never shown."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hutch.domain.sizes import GiB, MiB
from hutch.errors import ConfigurationError
from hutch.services.vault import new_password
from hutch.settings import PREFIX, Settings, load_settings
from hutch.settings_text import as_toml


def _load(tmp_path: Path, text: str = "", /, **environment: str) -> Settings:
    file = tmp_path / "hutch.toml"
    file.write_text(text)
    return load_settings(file, {PREFIX + key.upper(): value for key, value in environment.items()})


def test_without_anything_there_are_defaults(tmp_path: Path) -> None:
    assert load_settings(environment={"HUTCH_DATA": str(tmp_path)}) == Settings(data=tmp_path)


def test_the_environment_beats_the_file_and_a_flag_beats_both(tmp_path: Path) -> None:
    file = tmp_path / "hutch.toml"
    file.write_text("listen_port = 1111\nquota_cpus = 11\nquota_instances = 1")
    found = load_settings(
        file,
        {"HUTCH_LISTEN_PORT": "2222", "HUTCH_QUOTA_CPUS": "22"},
        listen_port=3333,
        listen_host=None,
    )
    assert (found.listen_port, found.quota_cpus, found.quota_instances) == (3333, 22, 1)
    assert found.listen_host == Settings().listen_host


def test_the_file_is_named_by_the_environment_or_lies_in_the_data_folder(tmp_path: Path) -> None:
    named = tmp_path / "named.toml"
    named.write_text("quota_cpus = 7")
    assert load_settings(environment={"HUTCH_CONFIG": str(named)}).quota_cpus == 7
    (tmp_path / "hutch.toml").write_text("quota_cpus = 8")
    assert load_settings(environment={"HUTCH_DATA": str(tmp_path)}).quota_cpus == 8
    assert load_settings(environment={}, data=tmp_path).quota_cpus == 8


def test_every_key_can_be_set_by_the_environment(tmp_path: Path) -> None:
    texts = {
        name: ",".join(value) if isinstance(value, list) else str(value)
        for name, value in Settings(data=tmp_path).model_dump().items()
        if value != ""
    }
    assert _load(tmp_path, **texts) == Settings(data=tmp_path)


def test_sizes_and_lists_are_written_as_people_write_them(tmp_path: Path) -> None:
    found = _load(
        tmp_path,
        'default_memory = "2GiB"\nquota_disk = 1073741824\ntrusted_proxies = ["192.0.2.1"]',
        default_disk="30G",
    )
    assert (found.default_memory, found.quota_disk, found.default_disk) == (
        2 * GiB, GiB, 30 * GiB,
    )  # fmt: skip
    assert found.trusted_proxies == ["192.0.2.1"]
    assert _load(tmp_path, trusted_proxies="192.0.2.1, ::1").trusted_proxies == ["192.0.2.1", "::1"]


BAD = {
    "listen_port": ["0", "65536", "-1", "80.5", "http", "", "true"],
    "ssh_port_first": ["1023", "65536"],
    "ssh_port_last": ["80", "99999"],
    "default_cpus": ["0", "-1", "1025", "two", "9e99"],
    "default_memory": ["0", "-4GiB", "127MiB", "4 gigabytes", "9e99", "", "2PiB"],
    "default_disk": ["1MiB", "lots"],
    "default_processes": ["0", "63", "1000001"],
    "quota_instances": ["-1", "many"],
    "quota_cpus": ["-1"],
    "quota_memory": ["-1GiB", "nothing"],
    "quota_disk": ["9e99"],
    "overcommit_cpus": ["0.5", "101", "nan", "inf", "x"],
    "overcommit_memory": ["0"],
    "overcommit_disk": ["-1"],
    "disk_reserve": ["-1", "x"],
    "snapshots_per_instance": ["-1", "1001"],
    "keys_per_user": ["0"],
    "operations_at_once": ["0", "257"],
    "operation_lease_seconds": ["0", "nan", "601", "inf"],
    "operation_attempts": ["0"],
    "reconcile_seconds": ["0", "3601"],
    "events_days": ["0"],
    "operations_days": ["0"],
    "login_failures": ["0"],
    "login_window_seconds": ["0"],
    "login_days": ["0", "3651"],
    "largest_body": ["0", "-1", "x"],
    "public_url": ["hutch.example.org", "https://hutch.example.org/", "ftp://x", "https://a b"],
    "apps_domain": ["apps", "*.apps.example.org", "apps.example.org.", "-a.example.org", "a/b.c"],
    "log_level": ["verbose", ""],
    "log_format": ["xml"],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in BAD.items() for v in values])
def test_a_bad_value_of_the_environment_is_refused_with_key_and_value(
    tmp_path: Path, key: str, value: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _load(tmp_path, **{key: value})
    assert key in caught.value.message
    assert repr(value) in caught.value.message
    assert "environment variable " + PREFIX + key.upper() in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("listen_port", "true"),
        ("listen_port", '"http"'),
        ("listen_port", "[80]"),
        ("default_memory", "-5"),
        ("default_memory", "0"),
        ("default_memory", "true"),
        ("default_memory", str(2**70)),
        ("default_disk", "5"),
        ("quota_memory", "-1"),
        ("quota_instances", "true"),
        ("quota_instances", str(2**40)),
        ("disk_reserve", "-1"),
        ("largest_body", "-1"),
        ("largest_body", "0"),
        ("overcommit_cpus", "nan"),
        ("events_days", str(10**12)),
        ("login_window_seconds", str(10**15)),
        ("trusted_proxies", "[1]"),
        ("data", "7"),
        ("log_level", "[]"),
    ],
)
def test_a_bad_value_of_the_file_is_refused_with_key_value_and_file(
    tmp_path: Path, key: str, value: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _load(tmp_path, f"{key} = {value}")
    assert key in caught.value.message
    assert str(tmp_path / "hutch.toml") in caught.value.message
    assert caught.value.hint


def test_a_refusal_says_what_is_allowed(tmp_path: Path) -> None:
    for key, value, allowed in (
        ("listen_port", "0", "greater than or equal to 1"),
        ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("default_memory", "much", "512MiB or 4GiB"),
        ("database_url", "mysql://x", "sqlite:/// or postgresql://"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            _load(tmp_path, **{key: value})
        assert allowed in caught.value.message


@pytest.mark.parametrize(
    ("public_url", "wrong"),
    [
        ("", "needs public_url"),
        ("https://apps.example.org", "must not be below apps_domain"),
        ("https://hutch.apps.example.org:8443", "must not be below apps_domain"),
    ],
)
def test_hutch_itself_is_not_at_a_host_of_an_app(
    tmp_path: Path, public_url: str, wrong: str
) -> None:
    with pytest.raises(ConfigurationError, match=wrong):
        _load(tmp_path, public_url=public_url, apps_domain="apps.example.org")
    beside = _load(tmp_path, public_url="https://myapps.example.org", apps_domain="s.example.org")
    assert beside.apps_domain == "s.example.org"


def test_ports_that_go_backwards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ssh_port_last must not be below ssh_port_first"):
        _load(tmp_path, "ssh_port_first = 30000\nssh_port_last = 29000")


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="unknown key 'listen_prot'") as caught:
        _load(tmp_path, "listen_prot = 80")
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize("text", ["listen_port =", "a = 1\na = 2", "[[[", "\udcff", '"'])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "hutch.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigurationError, match=str(file)):
        load_settings(file, {})


def test_a_file_that_is_named_and_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_settings(tmp_path / "nothing.toml", {})


@pytest.mark.parametrize("scheme", ["mysql", "postgresql+psycopg2", "sqlite:relative", "postgres"])
def test_the_password_in_the_databases_url_is_never_shown(tmp_path: Path, scheme: str) -> None:
    password = new_password()
    with pytest.raises(ConfigurationError) as caught:
        _load(tmp_path, database_url=f"{scheme}://hutch:{password}@host/name")
    assert password not in str(caught.value.as_dict())
    with pytest.raises(ConfigurationError) as caught:
        _load(tmp_path, f'database_url = "{scheme}://hutch:{password}@host/name"')
    assert password not in str(caught.value.as_dict())
    found = _load(tmp_path, database_url=f"postgresql://hutch:{password}@host/name")
    assert password in found.database
    assert password not in repr(found)
    assert password not in str(found)


def test_an_empty_url_is_a_file_in_the_data_folder(tmp_path: Path) -> None:
    assert _load(tmp_path, data=str(tmp_path)).database == f"sqlite:///{tmp_path}/hutch.db"


def test_the_file_that_is_written_says_what_every_key_means() -> None:
    text = as_toml()
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert len(field.description) > 20
        assert f"# {field.description}\n#{name} = " in text
    assert tomllib.loads(text) == {}, "a default is a comment"


def test_every_default_that_is_shown_is_the_default(tmp_path: Path) -> None:
    lines = [line.removeprefix("#") for line in as_toml().splitlines()]
    shown = "\n".join(line for line in lines if line.split(" = ")[0] in Settings.model_fields)
    assert _load(tmp_path, shown) == Settings()


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "data": text.map(lambda name: "/srv/" + name.replace("\0", "")),
            "listen_host": text,
            "database_url": text.map(lambda name: "postgresql://" + name),
            "trusted_proxies": st.lists(text),
            "listen_port": st.integers(1, 65535),
            "overcommit_cpus": st.floats(1, 100),
            "quota_memory": st.integers(0, 1024 * GiB),
            "default_memory": st.integers(128 * MiB, GiB),
            "log_format": st.sampled_from(["json", "console"]),
        },
    )
)
def test_what_is_written_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    wanted = Settings(**values)
    file = tmp_path_factory.getbasetemp() / "written.toml"
    file.write_text(as_toml(wanted), encoding="utf-8", newline="")
    assert load_settings(file, {}) == wanted


def test_settings_cannot_be_changed_behind_anyones_back() -> None:
    with pytest.raises(Exception, match="frozen"):
        Settings().listen_port = 1  # type: ignore[misc]
