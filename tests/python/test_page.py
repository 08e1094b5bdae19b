"""The web page: what it asks for as JSON, always; the page itself in headless Chromium, where there is one."""

from __future__ import annotations

import datetime
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from browser import Browser
from service import Service, make_token, numbers

import pheon


def every_kind(rows: int = 500) -> pa.Table:
    ids = range(rows)
    day = datetime.date(2026, 1, 1)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "text": pa.array([f"text {i}" for i in ids], pa.large_string()),
            "price": pa.array([None if i % 5 == 0 else i / 7 for i in ids]),
            "whole": pa.array([i / 7 for i in ids]),
            "truth": pa.array([i % 2 == 0 for i in ids]),
            "day": pa.array([day for _ in ids]),
            "at": pa.array([i * 10**6 for i in ids], pa.timestamp("us", "UTC")),
            "seconds": pa.array(ids, pa.timestamp("s")),
            "list": pa.array([[i] for i in ids], pa.list_(pa.int32())),
            "large": pa.array([[i] for i in ids], pa.large_list(pa.int32())),
            "struct": pa.array([{"a": i, "b": "x"} for i in ids]),
            "kind": pa.array(["a" if i % 2 else "b" for i in ids]).dictionary_encode(),
            "raw": pa.array([b"x"] * rows, pa.binary(1)),
            "small": pa.array([i % 100 for i in ids], pa.uint8()),
        }
    )


@pytest.fixture
def service(store: pheon.Store, store_path: Path) -> Iterator[Service]:
    store.put("things", every_kind(), key="id")
    store.put("words", numbers(3000), key="k", unique=True)
    store.put("pairs", pa.table({"a": [1, 1, 2], "b": ["x", "y", "x"], "v": [1, 2, 3]}), key=["a", "b"])
    store.put("odd", pa.table({"<script>alert(2)</script>": ["<img src=x onerror=alert(1)>"]}))
    with Service(store_path, "--limit", "page_rows_max=50", "--limit", "slow_query=1ms") as running:
        yield running


def test_datasets_and_rows(service: Service, store: pheon.Store) -> None:
    store.upsert("words", numbers(10, 2995))
    listed = {d["name"]: d for d in service.api("datasets")}
    assert list(listed) == sorted(["things", "words", "pairs", "odd"])
    assert (listed["words"]["rows"], listed["words"]["version"], listed["words"]["key"]) == (3005, 2, ["k"])
    assert 0 < listed["words"]["resident"] <= listed["words"]["bytes"] * 2
    shown = service.api("datasets/words?offset=2990")
    assert (shown["rows"], shown["segments"], shown["offset"], len(shown["preview"])) == (3005, 2, 2990, 15)
    assert shown["preview"][-1] == ["k003004", "3004"]
    assert [v["version"] for v in shown["versions"]] == [1, 2]
    old = service.api("datasets/words?version=1")
    assert (old["rows"], old["version"], old["preview"][0]) == (3000, 1, ["k000000", "0"])
    assert service.http("/api/datasets/none")[0] == 404
    assert service.http("/api/datasets/words?version=9")[0] == 404
    assert service.http("/api/datasets/..%2Fstore")[0] == 404


def test_verdicts_are_those_of_the_report(service: Service, store: pheon.Store) -> None:
    shown = service.api("datasets/things")
    report = store.table("things").zero_copy_report()
    there = {column["name"]: column["copies"] for column in shown["columns"]}
    assert set(service.api("me")["consumers"]) == set(report.consumers)
    for verdict in report:
        assert there[verdict.column][verdict.consumer] == (None if verdict.zero_copy else verdict.reason), verdict


def test_the_key_probe(service: Service, store: pheon.Store) -> None:
    found = service.api("datasets/words/probe", {"key": "k000123"})
    assert (found["found"], found["first_row"], found["rows"]) == (1, 123, [["k000123", "123"]])
    assert found["first_ns"] > 0
    assert found["median_ns"] > 0
    [step] = found["steps"]
    assert step["bucket"] < step["buckets"]
    assert (step["keys"], step["row"], step["hidden"]) == (3000, 123, False)
    assert step["candidates"] >= 1
    missing = service.api("datasets/words/probe", {"key": "none"})
    assert (missing["found"], missing["first_row"], missing["rows"]) == (0, None, [])
    assert missing["steps"][0]["row"] is None
    store.delete("words", ["k000123"])
    hidden = service.api("datasets/words/probe", {"key": "k000123"})
    assert hidden["found"] == 0
    assert any(step["hidden"] for step in hidden["steps"])
    assert service.api("datasets/words/probe", {"key": "k000123", "version": 1})["found"] == 1
    assert service.api("datasets/pairs/probe", {"key": [1, "y"]})["rows"] == [["1", "y", "2"]]
    assert service.api("datasets/things/probe", {"key": 7})["first_row"] == 7
    for name, key in (("words", 7), ("pairs", [1]), ("pairs", "x"), ("odd", "x"), ("words", ["a", "b"])):
        status, text = service.http(f"/api/datasets/{name}/probe", {"key": key})
        assert status == 400, (name, key, text)


def test_sql_reads_and_no_more_than_the_limit(service: Service, store: pheon.Store) -> None:
    answer = service.api("sql", {"sql": "select k, v from words where k < 'k000003'"})
    assert answer["rows"] == [["k000000", "0"], ["k000001", "1"], ["k000002", "2"]]
    assert [(c["name"], c["number"]) for c in answer["columns"]] == [("k", False), ("v", True)]
    assert answer["more"] is False
    many = service.api("sql", {"sql": "select * from words"})
    assert (len(many["rows"]), many["more"]) == (50, True)
    exact = service.api("sql", {"sql": "select * from words limit 50"})
    assert (len(exact["rows"]), exact["more"]) == (50, False)
    assert "PheonScan" in json.dumps(service.api("sql", {"sql": "explain select * from words where k = 'x'"}))
    for change in (
        "delete from words",
        "drop table words",
        "insert into words values ('x', 1)",
        "create table n (a int)",
    ):
        status, text = service.http("/api/sql", {"sql": change})
        assert status in {400, 403}, (change, text)
    for wrong, expected in (("selec", 400), ("select * from none", 404), ("", 400)):
        status, text = service.http("/api/sql", {"sql": wrong})
        assert (status, "error" in text) == (expected, True), (wrong, text)
    assert store.versions("words")[-1].version == 1
    assert "n" not in store


def test_headers_hosts_and_methods(service: Service) -> None:
    with urllib.request.urlopen(service.page) as answer:
        policy = answer.headers["content-security-policy"]
        text = answer.read().decode()
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?://|style=|onclick|<script>", text), "nothing inline, nothing from elsewhere"
    for asset in ("page.js", "page.css"):
        status, text = service.http(f"/{asset}")
        assert status == 200
        assert not re.search(r"https?://", text)
        assert "innerHTML" not in text
    request = urllib.request.Request(service.page, headers={"host": "evil.invalid"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 421
    refused.value.close()
    assert service.http("/api/login")[0] == 405
    assert service.http("/nothing")[0] == 404


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as opened:
        yield opened


def rows(table: str) -> str:
    return f"document.querySelectorAll('#{table} tbody tr').length"


def choose(browser: Browser, dataset: str) -> None:
    name = json.dumps(dataset)
    browser.until(f"[...document.querySelectorAll('#datasets button')].some((b) => b.textContent === {name})")
    browser.run(f"[...document.querySelectorAll('#datasets button')].find((b) => b.textContent === {name}).click()")
    browser.until(f"document.querySelector('#name').textContent === {name}")


def test_the_page(browser: Browser, service: Service, tmp_path: Path) -> None:
    browser.open(service.page)
    assert browser.until(rows("datasets")) == 4
    choose(browser, "words")
    assert browser.until(rows("preview")) == 100
    browser.click("#next")
    browser.until("document.querySelector('#place').textContent === '101 to 200 of 3,000'")
    browser.click("[data-panel=key]")
    browser.fill("#key", "k000123")
    browser.click("#probe button")
    browser.until(rows("steps"))
    assert "1 row" in browser.text("#timing")
    assert "k000123" in browser.text("#found")
    browser.click("[data-panel=columns]")
    assert "in place" in browser.text("#columns")
    browser.click("[data-panel=connect]")
    snippets = browser.text("#snippets")
    assert service.location in snippets
    assert 'store.table("words")' in snippets
    browser.fill("#sql", "select count(*) as n from words")
    browser.click("#run")
    browser.until(rows("answer"))
    assert "3000" in browser.text("#answer")
    browser.fill("#sql", "select nothing from words")
    browser.click("#run")
    browser.until("!document.querySelector('#problem').hidden")
    assert "nothing" in browser.text("#problem")
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    # A statement that is refused is told of in the log of the browser; nothing else is.
    assert [p for p in browser.problems if "400" not in p] == []


def probe(browser: Browser, key: str) -> str:
    """What the page says of a key: the rows that have it, or its problem."""
    browser.run("document.querySelector('#timing').replaceChildren()")
    browser.fill("#key", key)
    browser.click("#probe button")
    browser.until("document.querySelector('#timing').textContent || !document.querySelector('#problem').hidden")
    return browser.text("#problem") or browser.text("#found")


def test_keys_reach_the_server_as_they_were_given(browser: Browser, store: pheon.Store, store_path: Path) -> None:
    large = 2**53
    ids = pa.table({"id": [large, large + 1], "n": [1, 1], "v": ["even", "odd"]})
    store.put("ids", ids, key=["id", "n"])
    store.put("large", ids, key="id")
    store.put("truths", pa.table({"b": [False, True], "v": ["no", "yes"]}), key="b")
    with Service(store_path) as service:
        browser.open(service.page)
        for dataset, keys in (
            ("ids", {f"[{large + 1}, 1]": "odd", f" [{large}, 1] ": "even", "5": "JSON list", "[1": "JSON list"}),
            ("large", {str(large + 1): "odd", str(large): "even"}),
            ("truths", {"true": "yes", " False ": "no", "no": "true or false", "": "true or false"}),
        ):
            choose(browser, dataset)
            for key, found in keys.items():
                assert found in probe(browser, key), (dataset, key)


def test_a_refusal_in_plain_text_is_shown_as_it_is(browser: Browser, service: Service) -> None:
    browser.open(service.page)
    browser.until(rows("datasets"))
    browser.run("document.querySelector('#sql').value = 'x'.repeat(5000000)")
    browser.click("#run")
    browser.until("!document.querySelector('#problem').hidden")
    assert "Unexpected token" not in browser.text("#problem")
    assert "limit" in browser.text("#problem")


def test_a_server_at_all_addresses_is_reached_by_the_pages_own(
    browser: Browser, store: pheon.Store, store_path: Path
) -> None:
    store.put("words", numbers(3))
    with Service(store_path, "--listen", "0.0.0.0:0", "--insecure") as service:
        browser.open(service.page)
        choose(browser, "words")
        browser.until("document.querySelector('#snippets').textContent.includes('pheon.connect')")
        shown = browser.run("document.querySelector('#snippets').textContent")
        assert "0.0.0.0" not in shown
        assert f"grpc://127.0.0.1:{service.port}" in shown


def test_a_query_is_cancelled_on_the_page(browser: Browser, service: Service) -> None:
    long = "select count(*) from range(1, 400000) a, range(1, 400000) b where (a.value * b.value) % 7 = 3"
    browser.open(service.page)
    browser.until(rows("datasets"))
    browser.fill("#sql", long)
    browser.click("#run")
    browser.until("!document.querySelector('#stop').hidden")
    browser.until(rows("running"))
    browser.click("#stop")
    browser.until("document.querySelector('#said').textContent === 'cancelled'")
    browser.until("!document.querySelector('#none-running').hidden")
    browser.click("#run")
    browser.until(rows("running"))
    browser.click("#running button")
    browser.until("!document.querySelector('#problem').hidden")
    assert "cancelled" in browser.text("#problem")


def test_text_stays_text(browser: Browser, service: Service) -> None:
    browser.open(service.page)
    browser.until(rows("datasets"))
    choose(browser, "odd")
    browser.until(rows("preview"))
    assert "<img src=x onerror=alert(1)>" in browser.text("#preview")
    assert browser.run("document.querySelectorAll('img, #preview script').length") == 0
    assert browser.problems == []


def test_log_in_and_out(browser: Browser, store: pheon.Store, store_path: Path, tmp_path: Path) -> None:
    store.put("seen", numbers(3))
    store.put("secret", numbers(3))
    secret = make_token(tmp_path / "tokens.toml", "alice", read="seen")
    with Service(store_path, "--token-file", str(tmp_path / "tokens.toml")) as service:
        browser.open(service.page)
        browser.until("!document.querySelector('#login').hidden")
        browser.fill("#secret", "wrong")
        browser.click("#login button")
        browser.until("!document.querySelector('#problem').hidden")
        browser.fill("#secret", secret)
        browser.click("#login button")
        browser.until(rows("datasets"))
        assert "secret" not in browser.text("#datasets")
        kept = browser.run("JSON.stringify(sessionStorage) + JSON.stringify(localStorage) + document.cookie")
        assert "pheon-session_" in kept
        assert secret not in kept
        browser.open(service.page)
        browser.until(rows("datasets"))
        browser.click("#logout")
        browser.until("document.readyState === 'complete' && !document.querySelector('#login').hidden")
        assert browser.run("sessionStorage.length") == 0
        assert service.event("pheon::audit", method="login")["principal"] == "alice"


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_nothing_sticks_out(browser: Browser, service: Service, width: int) -> None:
    browser.resize(width, 900)
    for dark in (False, True):
        browser.dark(dark)
        browser.open(service.page)
        browser.until(rows("datasets"))
        choose(browser, "things")
        browser.until(rows("preview"))
        assert browser.run("document.documentElement.scrollWidth") <= width
        shade = browser.run("getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).map(Number)[0]")
        assert (shade < 100) == dark, "light and dark"
