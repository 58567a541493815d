import contextlib
import gzip
import hashlib
import logging
import socket

import numpy as np
import pytest

from minitorch_attn.data import download
from minitorch_attn.data.download import RemoteFile, Source, data_folder

from .server import Site, serve

pytest.importorskip("pooch")

NAME = "numbers.gz"
CONTENT = np.random.default_rng(0).bytes(300_000)
ARCHIVE = gzip.compress(CONTENT, mtime=0)
FILE = RemoteFile(
    NAME,
    len(ARCHIVE),
    hashlib.sha256(ARCHIVE).hexdigest(),
    "sha256:" + hashlib.sha256(CONTENT).hexdigest(),
)


@pytest.fixture(autouse=True)
def only_this_computer(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("MINITORCH_ATTN_DATA", raising=False)
    logging.getLogger("pooch").setLevel("WARNING")


@pytest.fixture
def mirrors():
    """Start servers, one per site; gives a source whose mirrors they are."""
    with contextlib.ExitStack() as running:

        def start(*sites, file=FILE):
            addresses = tuple(running.enter_context(serve(site)) for site in sites)
            return Source("Numbers", "numbers", addresses, (file,))

        yield start


def nobody():
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_downloaded_once_and_then_found(mirrors, tmp_path):
    site = Site({NAME: ARCHIVE})
    source = mirrors(site)
    assert source.read(NAME, tmp_path) == CONTENT
    assert source.read(NAME, tmp_path) == CONTENT
    assert site.requests == [(NAME, None)]
    assert (tmp_path / "numbers" / NAME).read_bytes() == ARCHIVE
    assert files(tmp_path) == [NAME]


def test_a_mirror_that_fails_hands_over_to_the_next(mirrors, tmp_path):
    good = Site({NAME: ARCHIVE})
    source = mirrors(Site(), good)
    source = Source(source.title, source.folder, (nobody(), *source.mirrors), source.files)
    assert source.read(NAME, tmp_path) == CONTENT
    assert len(good.requests) == 1


def test_what_a_mirror_answers_is_passed_on(mirrors, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{NAME}: answers 404 Not Found"):
        mirrors(Site()).read(NAME, tmp_path)


def test_a_file_of_another_length_is_refused_before_it_is_fetched(mirrors, tmp_path):
    page = Site({NAME: b"<html>Please log in</html>"})
    with pytest.raises(FileNotFoundError, match=f"offers 26 bytes, the file has {len(ARCHIVE):,}"):
        mirrors(page).read(NAME, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("announce", [True, False])
def test_a_file_with_wrong_bytes_is_thrown_away_and_never_used(mirrors, tmp_path, announce):
    wrong = Site({NAME: ARCHIVE[:-1] + b"!"}, announce=announce)
    with pytest.raises(FileNotFoundError, match="another sha256"):
        mirrors(wrong).read(NAME, tmp_path)
    assert files(tmp_path) == []
    assert mirrors(wrong, Site({NAME: ARCHIVE})).read(NAME, tmp_path) == CONTENT


def test_a_broken_connection_is_resumed_where_it_broke(mirrors, tmp_path):
    site = Site({NAME: ARCHIVE}, breaks=[100_000, 200_000])
    assert mirrors(site).read(NAME, tmp_path) == CONTENT
    starts = [int(r.removeprefix("bytes=").removesuffix("-")) for _, r in site.requests[1:]]
    assert len(starts) == 2 and 0 < starts[0] <= 100_000 < starts[1] <= 200_000


def test_a_part_left_by_an_earlier_session_is_resumed(mirrors, tmp_path):
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers" / f"{NAME}.part").write_bytes(ARCHIVE[:123_456])
    site = Site({NAME: ARCHIVE})
    assert mirrors(site).read(NAME, tmp_path) == CONTENT
    assert site.requests == [(NAME, "bytes=123456-")]
    assert files(tmp_path) == [NAME]


def test_a_part_that_is_complete_needs_no_network(tmp_path):
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers" / f"{NAME}.part").write_bytes(ARCHIVE)
    source = Source("Numbers", "numbers", (nobody(),), (FILE,))
    assert source.read(NAME, tmp_path) == CONTENT


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * (len(ARCHIVE) + 1), b"x" * len(ARCHIVE)])
def test_a_part_with_wrong_bytes_is_fetched_afresh(mirrors, tmp_path, left):
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers" / f"{NAME}.part").write_bytes(left)
    assert mirrors(Site({NAME: ARCHIVE})).read(NAME, tmp_path) == CONTENT
    assert files(tmp_path) == [NAME]


def test_a_server_that_cannot_resume_sends_all_of_it_again(mirrors, tmp_path):
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers" / f"{NAME}.part").write_bytes(ARCHIVE[:100_000])
    site = Site({NAME: ARCHIVE}, ranges=False)
    assert mirrors(site).read(NAME, tmp_path) == CONTENT
    assert site.requests == [(NAME, "bytes=100000-")]


def test_a_server_that_sends_another_part_than_was_asked_for_is_not_trusted(mirrors, tmp_path):
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers" / f"{NAME}.part").write_bytes(ARCHIVE[:100_000])
    confused = Site({NAME: ARCHIVE}, shift=5)
    with pytest.raises(FileNotFoundError, match="another part of the file"):
        mirrors(confused).read(NAME, tmp_path)
    assert mirrors(confused, Site({NAME: ARCHIVE})).read(NAME, tmp_path) == CONTENT


def test_a_server_that_dies_for_good_leaves_its_part_to_the_next_mirror(mirrors, tmp_path):
    dying = Site({NAME: ARCHIVE}, breaks=[100_000, 100_000, 100_000, 100_000])
    good = Site({NAME: ARCHIVE})
    assert mirrors(dying, good).read(NAME, tmp_path) == CONTENT
    ((_, resumed),) = good.requests
    assert resumed is not None and int(resumed[6:-1]) > 0


def test_a_server_that_dies_for_good_leaves_its_part_to_the_next_session(mirrors, tmp_path):
    with pytest.raises(FileNotFoundError, match="connection broke"):
        mirrors(Site({NAME: ARCHIVE}, breaks=[100_000] * 9)).read(NAME, tmp_path)
    assert files(tmp_path) == [f"{NAME}.part"]
    assert mirrors(Site({NAME: ARCHIVE})).read(NAME, tmp_path) == CONTENT


def test_a_server_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "READ_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(FileNotFoundError, match=f"{NAME}: no answer in time"):
            Source("Numbers", "numbers", (address,), (FILE,)).read(NAME, tmp_path)


def test_offline_the_message_says_what_where_and_how(tmp_path):
    one, two = nobody(), nobody()
    source = Source("Numbers", "numbers", (one, two), (FILE,))
    with pytest.raises(FileNotFoundError) as caught:
        source.read(NAME, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"Numbers needs {NAME}: it is not on this computer and could not")
    assert f"{tmp_path / 'numbers' / NAME}\n" in message
    assert f"{one}{NAME}: no connection" in message and f"{two}{NAME}: no connection" in message
    assert f"{FILE.size:,} bytes, sha256 {FILE.sha256}" in message
    assert "root=" in message and "MINITORCH_ATTN_DATA" in message and "digits()" in message


def test_without_download_nothing_is_fetched(mirrors, tmp_path):
    site = Site({NAME: ARCHIVE})
    with pytest.raises(FileNotFoundError, match=r"download=False(.|\n)*Mirrors:\n  http"):
        mirrors(site).read(NAME, tmp_path, download=False)
    assert site.requests == [] and files(tmp_path) == []


@pytest.mark.parametrize(
    "place", ["numbers/numbers.gz", "numbers.gz", "numbers/numbers", "numbers"]
)
@pytest.mark.parametrize(
    "data",
    [ARCHIVE, gzip.compress(CONTENT, 1, mtime=0), CONTENT],
    ids=["as published", "zipped otherwise", "not zipped"],
)
def test_a_file_placed_by_hand_is_known_by_its_content(tmp_path, place, data):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    source = Source("Numbers", "numbers", (nobody(),), (FILE,))
    assert source.read(NAME, tmp_path, download=False) == CONTENT


def test_a_file_whose_content_is_not_known_must_be_the_archive_itself(tmp_path):
    archive_only = RemoteFile(NAME, FILE.size, FILE.sha256)
    source = Source("Numbers", "numbers", (nobody(),), (archive_only,))
    (tmp_path / NAME).write_bytes(gzip.compress(CONTENT, 1, mtime=0))
    with pytest.raises(FileNotFoundError, match="damaged, or another file"):
        source.read(NAME, tmp_path, download=False)
    (tmp_path / NAME).write_bytes(ARCHIVE)
    assert source.read(NAME, tmp_path, download=False) == ARCHIVE


@pytest.mark.parametrize(
    "damaged",
    [
        ARCHIVE[:1000],
        ARCHIVE[:-1],
        ARCHIVE[:5000] + b"?" + ARCHIVE[5001:],
        ARCHIVE[:10] + b"\xff" * 10 + ARCHIVE[20:],
        b"",
        CONTENT[:-1],
    ],
    ids=["cut off", "end missing", "byte wrong", "block wrong", "empty", "unzipped and cut off"],
)
def test_a_damaged_file_is_moved_aside_with_a_warning_and_replaced(mirrors, tmp_path, damaged):
    path = tmp_path / "numbers" / NAME
    path.parent.mkdir()
    path.write_bytes(damaged)
    with pytest.warns(UserWarning, match=rf"{NAME} is damaged .* moved to {NAME}\.corrupt"):
        assert mirrors(Site({NAME: ARCHIVE})).read(NAME, tmp_path) == CONTENT
    assert files(tmp_path) == [NAME, f"{NAME}.corrupt"]
    assert path.with_name(f"{NAME}.corrupt").read_bytes() == damaged


def test_a_damaged_file_stays_where_it_is_without_download(tmp_path):
    path = tmp_path / "numbers" / NAME
    path.parent.mkdir()
    path.write_bytes(ARCHIVE[:-1])
    source = Source("Numbers", "numbers", (nobody(),), (FILE,))
    with pytest.raises(FileNotFoundError, match=rf"{NAME} \(damaged, or another file\)"):
        source.read(NAME, tmp_path, download=False)
    assert path.read_bytes() == ARCHIVE[:-1]


def test_the_folder_is_root_then_the_environment_then_the_users_cache(tmp_path, monkeypatch):
    assert data_folder().name == "minitorch_attn"
    monkeypatch.setenv("MINITORCH_ATTN_DATA", str(tmp_path / "mine"))
    assert data_folder() == tmp_path / "mine"
    assert data_folder(tmp_path) == tmp_path


def test_a_download_outside_a_terminal_prints_no_progress_bar(mirrors, tmp_path, capfd):
    mirrors(Site({NAME: ARCHIVE})).read(NAME, tmp_path)
    assert capfd.readouterr() == ("", "")
