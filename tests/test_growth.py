"""How cost grows: what is kept becomes pictures and sentences, and the recording that grows is measured on the way."""

from __future__ import annotations

import asyncio
import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import growth
from benchmarks.graph import Line, graph, short

RESULTS = growth.Results(
    measured="2026-03-14",
    machine={"cores": "2"},
    found={
        "live": {"a call": [(1, 40.0), (100, 41.0), (10_000, 80.0)], "a session's first call": []},
        "batches": {"with two bodies": [(10, 30.0), (3000, 8.0)]},
        "pages": {"sessions": [(10_000, 8.0), (100_000, 90.0), (10_000_000, 9.0)]},
    },
)


def test_a_sentence_says_how_much_more_it_is_or_that_it_is_not() -> None:
    told = " ".join(growth.part(RESULTS).split())
    assert "2026-03-14, cores 2." in told
    assert "A call: 40 µs with 1 live session, 80 µs with 10k: 2 times as much for 10,000 times as many." in told
    assert "Sessions: 8 ms with 10k lines in the file, 9 ms with 10M, at most 90 ms between: no more." in told
    assert "With two bodies: 30 µs with 10 calls in a batch, 8 µs with 3k: less." in told
    assert "first call" not in told


def test_every_picture_of_the_document_is_drawn(tmp_path: Path) -> None:
    growth.draw(RESULTS, tmp_path)
    named = re.findall(r"\(images/(.+?)\)", growth.part(RESULTS))
    assert named == ["growth-live.svg", "growth-batches.svg", "growth-pages.svg"]
    assert sorted(named) == sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("log", [False, True])
def test_a_graph_is_a_picture_that_says_what_it_shows(log: bool) -> None:
    lines = [Line(f"<{number}>", [(10, number), (5000, number + 0.1)]) for number in range(1, 9)]
    lines.insert(0, Line("nothing", []))
    picture = graph("Cost & size", "lines", "µs a line", lines, log=log)
    root = ET.fromstring(picture)
    svg = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in root.iter(f"{svg}text")]
    assert texts[0] == "Cost & size"
    assert [text for text in texts if text and text.startswith("<")] == [f"<{number}>" for number in range(6, 0, -1)]
    said = root.findtext(f"{svg}desc") or ""
    assert said.startswith("µs a line by lines. <1>: 1 at 10, 1.1 at 5k; ")
    places = [float(y) for path in root.iter(f"{svg}path") for y in re.findall(r" (\d+\.\d)", path.attrib["d"])]
    names = sorted(float(text.attrib["y"]) for text in root.iter(f"{svg}text") if "name" in text.get("class", ""))
    assert all(44 <= place <= 256 for place in places)
    assert all(below - above >= 14.9 for above, below in pairwise(names))
    assert "prefers-color-scheme: dark" in (root.findtext(f"{svg}style") or "")


def test_numbers_are_short() -> None:
    assert [short(number) for number in (0, 2.5, 250, 1000, 12_500, 10_000_000)] == [
        "0", "2.5", "250", "1k", "12.5k", "10M",
    ]  # fmt: skip


def test_a_recording_is_measured_while_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "_ROOT", tmp_path)
    found = asyncio.run(growth.database(1500))
    for lines in found.values():
        for name, points in lines.items():
            assert len(points) == 1, name
            assert all(x > 0 and y > 0 for x, y in points), name
    assert found["pages"].keys() == {"overview of an hour", "overview of everything", "sessions", "tools", "errors",
        "a session"}  # fmt: skip
    assert 1500 <= found["database"]["writing a line"][0][0] < 4000
    assert not list((tmp_path / ".cache" / "bench").glob("*.db*"))


def test_room_is_looked_for_before_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "_ROOT", tmp_path)
    with pytest.raises(SystemExit, match="--events"):
        asyncio.run(growth.database(10**15))
