from __future__ import annotations

import sys

import pytest

from evaluators.consent import consent
from merge_core.errors import DocumentError, MergeError
from search.run.check import check
from search.run.resume import open_for
from search.spec import study_file
from search.storage import bulk, stored
from search.storage.locate import open_study
from search.storage.open import open_record
from tests.search import toy

SECRET = "hunter2-SECRET"


@pytest.fixture(autouse=True)
def nothing_is_waited_for(monkeypatch):
    monkeypatch.setattr(stored, "PATIENCE", -1)


@pytest.mark.parametrize(
    "name",
    [
        *("a%20b", "%", "what?", "what?x=1", "x{}", "{0}", "#x", "a b", "ü", "a&b=c", "@:", "-x"),
        *("q'uo\"te", "[x]*", "a\\b", "~t", "new\nline"),
    ],
)
@pytest.mark.slow
def test_study_in_a_folder_of_any_name_is_run_and_found(name, tmp_path):
    spec = toy.spec_of(toy.SHORT, tmp_path / name)
    before = len(toy.searched(spec).trials)
    assert [x.name for x in tmp_path.iterdir()] == [name]
    assert [x.name for x in (tmp_path / name / "results").iterdir()] == ["study.db"]
    assert len(open_record(spec.storage, spec.name).trials) == before
    assert open_study(spec.storage)[0].folder == tmp_path / name


def one_line(url, **how):
    with pytest.raises(MergeError) as refused:
        open_record(url, **how)
    assert "\n" not in str(refused.value)
    assert SECRET not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("scheme", "module", "package"),
    [
        ("postgresql+psycopg2", "psycopg2", "psycopg2-binary"),
        ("postgresql+psycopg", "psycopg", "'mergetune[postgres]'"),
        ("postgres+psycopg", "psycopg", "'mergetune[postgres]'"),
        ("postgresql", "psycopg", "'mergetune[postgres]'"),
        ("postgres", "psycopg", "'mergetune[postgres]'"),
        ("mysql+pymysql", "pymysql", "'mergetune[mysql]'"),
        ("mysql+mysqldb", "MySQLdb", "mysqlclient"),
        ("mysql", "pymysql", "'mergetune[mysql]'"),
        ("mariadb", "pymysql", "'mergetune[mysql]'"),
    ],
)
def test_driver_that_is_not_installed_is_named_with_its_package(
    scheme, module, package, monkeypatch
):
    others = () if "+" in scheme else ("psycopg2", "MySQLdb")
    for name in (module, *others):
        monkeypatch.setitem(sys.modules, name, None)
    said = one_line(f"{scheme}://u:{SECRET}@127.0.0.1:1/x", name="s", create=True)
    assert said.startswith(f"storage {scheme}://u:***@127.0.0.1:1/x: ")
    assert said.endswith(f"no module {module!r}; pip install {package}")


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}@h:port/db",
        f"postgresql://u:{SECRET}@[::1/db",
        f"oddbase://u:{SECRET}@h/db",
        f"postgresql://u:{SECRET}@",
        f"u:{SECRET}@h/db",
        f"mysql://u@h/db?password={SECRET}&=",
    ],
)
def test_malformed_url_is_one_line_without_its_password(url):
    assert one_line(url, name="s", create=True)


def test_file_that_is_no_database_is_one_line(tmp_path):
    (tmp_path / "x.db").write_bytes(b"not a database " * 100)
    said = one_line(f"sqlite:///{tmp_path / 'x.db'}")
    url = f"sqlite:///{tmp_path / 'x.db'}"
    rest = "cannot be opened: file is not a database; name another file"
    assert said == f"storage {url}: {rest}"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_storage_in_memory_is_refused_by_file_and_by_command(url, tmp_path):
    with pytest.raises(MergeError, match="outlives the run"):
        open_study(url)
    with pytest.raises(DocumentError, match=r"study\.yaml:\d+: storage: expected a file that out"):
        toy.spec_of(toy.SHORT + f'storage: "{url}"\n', tmp_path)


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A study file whose storage has a password in it, and what opens it: an SQLite file."""
    import optuna

    class Storage(optuna.storages.RDBStorage):
        def __init__(self, url, how, *, create):
            super().__init__(f"sqlite:///{tmp_path / 'remote.db'}")

    monkeypatch.setattr(bulk, "BulkStorage", Storage)

    def write(storage):
        file = tmp_path / "study.yaml"
        file.write_text(toy.SHORT + f'storage: "{storage}"\n')
        return file

    return write


def everything(tmp_path):
    return (tmp_path / "remote.db").read_bytes()


@pytest.mark.parametrize("form", ["u:{}@h/db", "h/db?user=u&password={}"])
def test_password_in_a_study_file_is_neither_shown_nor_stored(form, remote, tmp_path, capsys):
    file = remote("postgresql://" + form.format(SECRET))
    spec = study_file.read(file)
    record = toy.searched(spec)
    assert SECRET in spec.storage
    assert SECRET.encode() not in everything(tmp_path)
    shown = [repr(spec), str(spec), str(check(file).facts), record.url, repr(spec.data)]
    assert not [text for text in shown if SECRET in text]
    with pytest.raises(MergeError) as refused:
        open_for(
            study_file.read(file).model_copy(update={"data": {**spec.data, "items": {"search": 9}}})
        )
    assert SECRET not in str(refused.value)
    assert open_for(study_file.read(file)).trials == record.trials


def test_variable_in_storage_is_stored_by_its_name(remote, tmp_path, monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", SECRET)
    file = remote("postgresql://u:${DB_PASSWORD}@localhost/db")
    record = toy.searched(study_file.read(file))
    assert record.about["study"]["storage"] == "postgresql://u:${DB_PASSWORD}@localhost/db"
    assert SECRET.encode() not in everything(tmp_path)
    assert record.url == "postgresql://u:***@localhost/db"
    monkeypatch.setenv("DB_PASSWORD", "another")  # a password that changed is no other study
    assert open_for(study_file.read(file)).trials == record.trials


def test_database_is_read_without_the_variables_of_its_study(remote, monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", SECRET)
    record = toy.searched(study_file.read(remote("postgresql://u:${DB_PASSWORD}@localhost/db")))
    monkeypatch.delenv("DB_PASSWORD")
    assert open_study("postgresql://other@h/db")[1].trials == record.trials


URLS = {  # a stranger's text of storage -> the host that a variable goes to; None: this machine
    "postgresql://u:${DB_PASSWORD}@evil.example/db": "evil.example",
    "postgresql://${DB_PASSWORD}@evil.example:99/db": "evil.example",
    "mysql+pymysql://u:p@Evil.Example/${DB_PASSWORD}": "Evil.Example",
    "postgresql://u:${DB_PASSWORD}@127.0.0.1@evil.example/db": None,
    "postgresql://u:${DB_PASSWORD}@evil.example\\@127.0.0.1/db": None,
    "postgresql://u:${DB_PASSWORD}@127.0.0.1,evil.example/db": None,
    "postgresql://u:${DB_PASSWORD}@[2001:db8::1]/db": "2001:db8::1",
    "postgresql://u:p@${DB_PASSWORD}.evil.example/db": None,
    "postgresql://u:${DB_PASSWORD}@/db?host=evil.example": None,
    "postgresql://u:${DB_PASSWORD}@localhost/db?service=evil": None,
}


@pytest.mark.parametrize(("url", "host"), URLS.items())
def test_a_variable_of_a_study_file_goes_only_to_hosts_that_the_user_names(
    url, host, remote, monkeypatch
):
    monkeypatch.setenv("DB_PASSWORD", SECRET)
    file = remote(url.replace("\\", "\\\\"))
    for use in (lambda: open_for(study_file.read(file)), lambda: open_study(str(file))):
        with pytest.raises(MergeError, match=r"(goes only to hosts|may lead to another)") as told:
            use()
        assert SECRET not in str(told.value)
    if host is not None:
        assert f"--send-key DB_PASSWORD={host} if" in str(told.value)
        with consent(send_keys=[f"DB_PASSWORD={host if ':' not in host else f'[{host}]'}"]):
            assert open_for(study_file.read(file)).trials == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", ""])
def test_to_this_machine_every_variable_may_go(host, remote, monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", SECRET)
    file = remote(f"postgresql://u:${{DB_PASSWORD}}@{host}/db?sslmode=require")
    assert open_for(study_file.read(file)).trials == []


def test_other_keys_do_not_take_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("NAME_OF_STUDY", SECRET)
    text = toy.SHORT.replace("name: short", 'name: "${NAME_OF_STUDY}"')
    assert toy.spec_of(text, tmp_path).name == "${NAME_OF_STUDY}"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (
            "postgressql://h/db",
            "no such kind of database, got 'postgressql'; write one of sqlite, ",
        ),
        ("postgressql://h/db", "did you mean 'postgresql'?"),
        ("postgresql://h:port/db", "expected a number as its port"),
        ("mysql://h:port/db", "expected a number as its port"),
        ("sqlite://results/x.db", "expected three slashes before a path, sqlite:///results/x.db"),
        ("journal://x.log", "expected three slashes before a path, journal:///x.log"),
        ("journal:///x.log?a=1", "expected the path of a file, without options after it"),
        ("sqlite:///x.db?timeuot=30", "SQLite has no option 'timeuot' here, expected timeout, "),
        ("sqlite:///x.db?timeuot=30", "did you mean 'timeout'?"),
        ("sqlite:///x.db?timeout=soon", "option timeout: expected a number, got 'soon'"),
        ("sqlite:///x.db?isolation_level=ANY", "expected one of DEFERRED, IMMEDIATE, EXCLUSIVE"),
        (
            f"grpc://u:{SECRET}@h:1",
            "expected grpc://host:port of Optuna's proxy, got grpc://u:***@h:1",
        ),
        ("grpc://h:0", "expected grpc://host:port"),
        ("grpc://h:1/db", "expected grpc://host:port"),
    ],
)
def test_a_wrong_url_says_what_is_wrong(url, why, tmp_path):
    assert why in one_line(url, name="s", create=True)


def test_a_wrong_url_is_refused_where_it_stands_in_a_study_file(tmp_path):
    with pytest.raises(DocumentError, match=r"study\.yaml:\d+: storage: SQLite has no option 'a'"):
        toy.spec_of(toy.SHORT + 'storage: "sqlite:///x.db?a=1"\n', tmp_path)


@pytest.mark.parametrize("options", ["?timeout=30", "?timeout=0.5&isolation_level=IMMEDIATE"])
@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+pysqlite"])
def test_options_of_sqlite_work_in_a_study_file_and_on_the_command_line(
    scheme, options, tmp_path, monkeypatch
):
    text = toy.SHORT + f'storage: "{scheme}:///sub/x.db{options}"\n'
    spec = toy.spec_of(text, tmp_path / "study")
    record = toy.searched(spec)
    connected = record._stored._study._storage._backend._door.options
    assert connected["timeout"] == float(options.partition("=")[2].partition("&")[0])
    (spec.folder / "study.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    for study in ("study", f"{scheme}:///study/sub/x.db{options}", "sqlite:///study/sub/x.db"):
        assert open_study(study)[0].folder == spec.folder
        assert open_study(study)[1].trials == record.trials


def test_a_journal_is_found_as_an_sqlite_file_is(tmp_path, monkeypatch):
    text = toy.SHORT + 'storage: "journal:///sub/x.log"\n'
    spec = toy.spec_of(text, tmp_path / "study")
    record = toy.searched(spec)
    (spec.folder / "study.yaml").write_text(text)
    assert [x.name for x in (spec.folder / "sub").iterdir()] == ["x.log"]
    monkeypatch.chdir(tmp_path)
    for study in ("study", "journal:///study/sub/x.log"):
        assert open_study(study)[0].folder == spec.folder
        assert open_study(study)[1].trials == record.trials
    with pytest.raises(MergeError, match=rf"journal:///{tmp_path}/x\.log: no such file"):
        open_study("journal:///x.log")
    assert not (tmp_path / "x.log").exists()


def test_a_relative_path_starts_at_the_study_file_and_on_the_command_line_here(
    tmp_path, monkeypatch
):
    spec = toy.spec_of(toy.SHORT + 'storage: "sqlite:///sub/x.db"\n', tmp_path / "study")
    toy.searched(spec)
    assert (tmp_path / "study" / "sub" / "x.db").is_file()
    monkeypatch.chdir(tmp_path)
    assert open_study("sqlite:///study/sub/x.db")[0].folder == tmp_path / "study"
    with pytest.raises(MergeError, match=rf"sqlite:///{tmp_path}/sub/x\.db: no such file"):
        open_study("sqlite:///sub/x.db")


def test_a_folder_whose_path_looks_like_a_url_is_a_folder(tmp_path, monkeypatch):
    toy.searched(toy.spec_of(toy.SHORT, tmp_path / "a:" / "b"))
    (tmp_path / "a:" / "b" / "study.yaml").write_text(toy.SHORT)
    monkeypatch.chdir(tmp_path)
    assert open_study("a://b")[1].trials


def test_variables_are_filled_in_once(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTER", "x${INNER}")
    monkeypatch.setenv("INNER", "wrong")
    toy.searched(toy.spec_of(toy.SHORT + 'storage: "sqlite:///${OUTER}.db"\n', tmp_path))
    assert (tmp_path / "x${INNER}.db").is_file()
    toy.searched(toy.spec_of(toy.SHORT, tmp_path / "${OUTER}"))
    assert (tmp_path / "${OUTER}" / "results" / "study.db").is_file()
