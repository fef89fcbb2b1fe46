"""Check the links of the built site: every page, picture and anchor that a page of it points to must be there.

python docs/check_links.py FOLDER

Sphinx checks the links of the sources. This checks what readers get: the theme's, the API's and the notebooks' too.
Nothing is asked over the network.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links and the anchors of a page.

    Attributes:
        links: addresses of what the page points to or shows.
        anchors: names that a link may end with.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the links and the anchor of a tag."""
        values = {name: value for name, value in attrs if value is not None}
        self.links |= {values[name] for name in ("href", "src") if name in values}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}


def broken(folder: Path) -> list[str]:
    """Return a line for each link of the site that leads nowhere."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    return sorted(
        f"{path.relative_to(folder.resolve())}: {link}"
        for path, page in pages.items()
        for link in page.links
        if not _leads_somewhere(path, link, pages)
    )


def _leads_somewhere(path: Path, link: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return parts.scheme in ("data", "mailto") or "." in parts.netloc
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target not in pages:
        return target.is_file()
    return unquote(parts.fragment) in pages[target].anchors


def main() -> int:
    """Print what is broken; return the exit code."""
    (folder,) = map(Path, sys.argv[1:])
    lines = broken(folder)
    sys.stderr.writelines(f"broken link: {line}\n" for line in lines)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
