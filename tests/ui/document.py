"""A page as a test reads it: parsed, with everything that a strict browser would refuse found."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from xml.etree import ElementTree

VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})


@dataclass
class Node:
    tag: str
    attributes: dict[str, str]
    children: list[Node | str] = field(default_factory=list)

    def __iter__(self):  # type: ignore[no-untyped-def]  # yields every node below, itself first
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child

    @property
    def text(self) -> str:
        """All text below, blanks in a row as one."""
        parts = [child if isinstance(child, str) else child.text for child in self.children]
        return " ".join("".join(parts).split())

    def all(self, tag: str = "", **attributes: str) -> list[Node]:
        """Find nodes by tag and attributes; `_` stands for `-`, at the end of a name for nothing."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            node
            for node in self
            if (not tag or node.tag == tag) and all(node.attributes.get(k) == v for k, v in wanted.items())
        ]

    def one(self, tag: str = "", **attributes: str) -> Node:
        (node,) = self.all(tag, **attributes)
        return node


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute twice: {tag} {names}"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(node)
        if tag not in VOID:
            self._open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def parsed(html: str) -> Node:
    """Parse a page, or fail where an element is not closed by its own end."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    assert parser.root is parser._open[-1], f"<{parser._open[-1].tag}> stays open"
    return parser.root


def offences(page: Node) -> list[str]:
    """Return what the pages' content security policy, or a reader without eyes, would stumble over."""
    found = []
    ids = [node.attributes["id"] for node in page if "id" in node.attributes]
    found += [f"id {each} twice" for each in set(ids) if ids.count(each) > 1]
    for node in page:
        found += [f"{node.tag} {name}" for name in node.attributes if name == "style" or name.startswith("on")]
        if node.tag in {"style", "iframe", "object", "embed", "base"}:
            found.append(node.tag)
        if node.tag == "script" and (not node.attributes.get("src", "").startswith("/static/") or node.text):
            found.append("an inline script")
        address = node.attributes.get("href", node.attributes.get("src", "/"))
        if not address.startswith(("/", "?", "#")):
            found.append(f"{node.tag} leads to {address}")
        for name in ("aria-labelledby", "aria-controls", "aria-describedby"):
            if name == "aria-controls" and node.attributes.get("aria-expanded") == "false":
                continue  # what it opens may not be there yet
            found += [
                f"{name} {each} leads nowhere" for each in node.attributes.get(name, "").split() if each not in ids
            ]
        if node.tag == "table" and not (node.children and any(n.tag == "caption" for n in node if n is not node)):
            found.append("a table without a caption")
    return found


def outside(svg: str) -> list[str]:
    """Return what of a picture lies outside of its view box; fails where it is not well-formed XML."""
    root = ElementTree.fromstring(svg)
    left, top, width, height = (float(each) for each in root.attrib["viewBox"].split())
    found = []

    def check(what: str, x: float, y: float) -> None:
        if not (left - 0.01 <= x <= left + width + 0.01 and top - 0.01 <= y <= top + height + 0.01):
            found.append(f"{what} at {x}, {y}")

    for parent in root.iter():
        for node in parent:
            place = {name: float(node.attrib.get(name, 0)) for name in ("x", "y", "x1", "y1", "x2", "y2", "cx", "cy")}
            if parent.tag in {"defs", "pattern"}:
                continue
            if node.tag == "rect":
                w, h = float(node.attrib["width"]), float(node.attrib["height"])
                assert min(w, h) >= 0
                check("rect", place["x"], place["y"])
                check("rect's end", place["x"] + w, place["y"] + h)
            elif node.tag == "line":
                check("line", place["x1"], place["y1"])
                check("line's end", place["x2"], place["y2"])
            elif node.tag == "circle":
                check("circle", place["cx"], place["cy"])
            elif node.tag == "text":
                check("text", place["x"], place["y"])
            elif node.tag == "polyline":
                for point in node.attrib["points"].split():
                    x, y = point.split(",")
                    check("point", float(x), float(y))
    return found
