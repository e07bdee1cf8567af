"""Tables: text and HTML of one description."""

from html.parser import HTMLParser

import numpy as np

from jaxinit import report
from jaxinit._basics.table import Table, Tabular


class Parsed(HTMLParser):
    """The rows of a table in HTML, each cell as (tag, side, text)."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.styles, self.open = [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag == "br":
            return
        self.open.append(tag)
        style = dict(attrs).get("style", "")
        if tag == "tr":
            self.rows.append([])
            self.styles.append(style)
        if tag in ("td", "th"):
            assert "padding" in style
            self.rows[-1].append((tag, style.rpartition(": ")[2], ""))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] = (*self.rows[-1][-1][:2], data)


TABLE = Table(
    ["name", "size", "law"],
    [["a", "1", "x<y>"], ["long", "2,000", "z"]],
    left=(0, 2),
    notes=["two & two", "below"],
    marks={1: "wrong"},
)


def test_text():
    assert TABLE.text().splitlines() == [
        "name   size  law",
        "a         1  x<y>",
        "long  2,000  z     wrong",
        "two & two",
        "below",
    ]


def test_html():
    html = TABLE.html()
    parsed = Parsed(html)
    head, first, second = parsed.rows
    assert head[:2] == [("th", "left", "name"), ("th", "right", "size")]
    assert first == [
        ("td", s, t)
        for s, t in zip(
            ("left", "right", "left", "left"), ("a", "1", "x<y>", ""), strict=True
        )
    ]
    assert second[-1] == ("td", "left", "wrong")
    assert ["background" in style for style in parsed.styles] == [False, False, True]
    assert "two &amp; two<br>below" in html


def test_nothing_is_wrong_and_nothing_below():
    table = Table(["name"], [["a"]])
    assert table.text() == "name\na"
    html = table.html()
    assert "background" not in html
    assert "caption" not in html
    assert Parsed(html).rows == [[("th", "left", "name")], [("td", "left", "a")]]


def test_what_prints_as_a_table_is_one_in_notebooks():
    class Made(Tabular):
        def _table(self):
            return TABLE

    assert str(Made()) == TABLE.text()
    assert Made()._repr_html_() == TABLE.html()


def test_control_characters_are_escaped():
    table = Table(["leaf", "n"], [["a\nb\x1b", "1"]], marks={0: "x\ty"})
    assert table.text().splitlines() == ["leaf      n", "a\\nb\\x1b  1  x\\ty"]
    assert "a\\nb\\x1b" in table.html()


def test_reports_escape_them_too():
    shown = str(report.report({"a\nb": np.ones(3)}))
    assert [line.split()[0] for line in shown.splitlines()] == ["leaf", "a\\nb"]
