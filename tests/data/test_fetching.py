"""One file from a server that cuts connections, ignores ranges, lies about lengths and is busy."""

import logging
import time
from pathlib import Path

import pytest
import requests

from lungdet.data.download import fetching
from lungdet.data.download.fetching import DownloadError, Patience, fetch
from tests.fake_server import BODY, Resource, serving

QUICK = Patience(attempts=4, wait=0, longest_wait=0.01, timeout=600)


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def get(server, tmp_path):
    """Fetch a resource into tmp_path/file."""

    def get(resource: Resource | None, patience=QUICK, **more) -> Path:
        if resource:
            server.resources["/file"] = resource
        with requests.Session() as session:
            fetch(session, f"{server.address}/file", tmp_path / "file", patience, advice="Look there.", **more)
        return tmp_path / "file"

    return get


def test_a_cut_connection_goes_on_where_it_stopped(get):
    resource = Resource(cuts=[200_000, 150_000])
    assert get(resource).read_bytes() == BODY
    assert resource.requests == [None, "bytes=200000-", "bytes=350000-"]
    assert resource.sent == len(BODY)


def test_an_address_that_leads_to_another_is_asked_again_from_the_start_of_the_way(get, server):
    # Hosts hand out addresses that hold for minutes.
    way, goal = Resource(answers=[(302, {"Location": "/goal"})] * 2), Resource(cuts=[200_000])
    server.resources["/goal"] = goal
    assert get(way).read_bytes() == BODY
    assert way.requests == goal.requests == [None, "bytes=200000-"]


def test_a_later_call_goes_on_where_the_one_before_gave_up(get, tmp_path):
    with pytest.raises(DownloadError, match=r"brought nothing: 1.*run again to go on"):
        get(Resource(cuts=[200_000, 0]), Patience(1, 0, 0, 600))
    assert not (tmp_path / "file").exists()
    resource = Resource()
    assert get(resource).read_bytes() == BODY
    assert resource.sent == len(BODY) - 200_000
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_attempts_are_counted_from_the_last_that_brought_something(get):
    assert get(Resource(cuts=[60_000] * 8)).read_bytes() == BODY  # eight cuts, four attempts


def test_a_server_that_ignores_ranges_is_asked_anew(get):
    resource = Resource(cuts=[200_000], ranges=False)
    assert get(resource).read_bytes() == BODY
    assert resource.requests == [None, "bytes=200000-"]
    assert resource.sent == len(BODY) + 200_000


def test_a_server_that_ignores_ranges_and_always_cuts_is_given_up(get):
    resource = Resource(cuts=[200_000] * 50, ranges=False)
    with pytest.raises(DownloadError, match="brought nothing: 4"):
        get(resource)
    assert len(resource.requests) < 10


def test_a_file_that_changed_meanwhile_is_not_mixed_with_the_old_one(get):
    with pytest.raises(DownloadError):
        get(Resource(cuts=[200_000, 0]), Patience(1, 0, 0, 600))
    newer = BODY[::-1]
    assert get(Resource(newer, etag='"2"')).read_bytes() == newer


def test_a_file_of_another_length_is_not_mixed_with_the_old_one_where_versions_are_not_told(get):
    with pytest.raises(DownloadError):
        get(Resource(cuts=[200_000, 0], etag=""), Patience(1, 0, 0, 600))
    newer = BODY[::-1] + b"more"
    assert get(Resource(newer, etag="")).read_bytes() == newer


def test_an_answer_shorter_than_announced_is_gone_on_with(get):
    resource = Resource(announce=len(BODY) + 10, cuts=[len(BODY)] * 20)
    with pytest.raises(DownloadError, match="brought nothing"):
        get(resource)
    assert len(resource.requests) >= QUICK.attempts


def test_a_length_other_than_stated_is_refused_unread_after_some_attempts(get, tmp_path):
    resource = Resource()
    with pytest.raises(DownloadError, match=r"has 500,000 bytes instead of 500,001.*Look there"):
        get(resource, length=500_001)
    assert len(resource.requests) == QUICK.attempts
    assert list(tmp_path.iterdir()) == []


def test_a_cut_is_noticed_by_the_stated_length_where_the_server_announces_none(get):
    resource = Resource(announce=False, cuts=[200_000])
    assert get(resource, length=len(BODY)).read_bytes() == BODY
    assert resource.requests == [None, None]


def test_a_missing_file_is_an_error_at_once(get, server):
    with pytest.raises(DownloadError, match=rf"{server.address}/file answers 404 Not Found\. Look there\."):
        get(None)


def test_a_web_page_instead_of_the_file_is_an_error_at_once(get):
    resource = Resource(b"<html>Press the button</html>", kind="text/html; charset=utf-8")
    with pytest.raises(DownloadError, match="a web page, not file"):
        get(resource)
    assert len(resource.requests) == 1


def test_a_busy_server_is_asked_again(get):
    resource = Resource(answers=[(503, {}), (429, {}), (502, {"Retry-After": "nonsense"})])
    assert get(resource).read_bytes() == BODY
    assert len(resource.requests) == 4


@pytest.mark.parametrize(("longest", "waited"), [(60, 7), (3, 3)])
def test_retry_after_is_granted_within_bounds(get, monkeypatch, longest, waited):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    get(Resource(answers=[(503, {"Retry-After": "7"})]), Patience(4, 1, longest, 600))
    assert waits == [waited]


def test_waits_double_up_to_the_longest(get, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(DownloadError, match=r"503 Service Unavailable; .* 6"):
        get(Resource(answers=[(503, {})] * 9), Patience(6, 1, 5, 600))
    assert waits == [0, 1, 2, 4, 5]


def test_a_server_that_is_not_there_is_asked_some_times(tmp_path):
    with requests.Session() as session, pytest.raises(DownloadError, match=r"9/file broke off \(.*refused\); .*: 4"):
        fetch(session, "http://127.0.0.1:9/file", tmp_path / "file", QUICK)


def test_an_address_that_is_none_is_an_error_at_once(tmp_path):
    with requests.Session() as session, pytest.raises(DownloadError, match=r"cannot be fetched.*Look there"):
        fetch(session, "ftp://127.0.0.1/file", tmp_path / "file", QUICK, advice="Look there.")


def test_progress_counts_each_byte_once(get):
    counts = []
    get(Resource(cuts=[200_000]), advance=counts.append)
    assert sum(counts) == len(BODY)
    counts = []
    (get(Resource(cuts=[200_000], ranges=False), advance=counts.append)).unlink()
    assert sum(counts) == len(BODY)


def test_progress_is_a_line_a_minute_in_a_log(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(fetching, "LINE_SECONDS", 0)
    with fetching.progress("a.zip", 4_000_000) as advance:
        advance(1_000_000)
    assert caplog.messages == ["a.zip: 1.0 MB of 4.0 MB"]
