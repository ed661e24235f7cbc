"""The page: one file, and all text in it is text."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

from peephole.report import Figure, Page, Table, Text
from peephole.report.figures import figure


class Words(HTMLParser):
    """Tags and visible text, as a browser would find them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def written(page: Page, folder: Path) -> str:
    page.write(folder / "page.html")
    return (folder / "page.html").read_text()


def test_markup_shows_as_text_wherever_it_stands(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>&amp;"
    with figure(tmp_path / "a.png") as drawn:
        drawn.subplots().set_title("$x_{<b>}$ and $")
    page = Page(evil, evil)
    page.add(
        evil,
        Text(evil),
        Table([evil], [[evil]], evil),
        Figure(tmp_path / "a.png", evil),
    )
    words = Words(written(page, tmp_path))
    assert "script" not in words.tags
    # Title, heading, subtitle, section, text, header, cell and both captions.
    assert words.text.count(evil) == 9


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    with figure(tmp_path / "figures" / "a.png") as drawn:
        drawn.subplots().plot([1, 2])
    page = Page("t")
    page.add("s", Figure(tmp_path / "figures" / "a.png", "c"))
    html = written(page, tmp_path)
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert len(sources) == 1
    data = base64.b64decode(sources[0].removeprefix("data:image/png;base64,"))
    assert data == (tmp_path / "figures" / "a.png").read_bytes()


def test_numbers_stand_to_the_right_and_none_is_a_dash(tmp_path: Path) -> None:
    page = Page("t")
    page.add("s", Table(["a", "b"], [["x", 0.123456], ["y", None], ["z", 1234567]]))
    html = written(page, tmp_path)
    assert '<td class="number">0.1235</td>' in html
    assert '<td class="number">–</td>' in html
    assert '<td class="number">1,234,567</td>' in html
    assert "<td>x</td>" in html


def test_an_empty_table_is_a_header(tmp_path: Path) -> None:
    page = Page("t")
    page.add("s", Table(["a"], []))
    assert Words(written(page, tmp_path)).tags.count("td") == 0
