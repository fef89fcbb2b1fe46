"""What the site makes of the pages of a repository, as a Sphinx extension.

The pages are plain Markdown that reads well where the repository is shown. This adds what only a site has: the table of
contents, made from the lists of the index pages; captions of code that a reader saves as a file; a page for every
source file that a page links to.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

LOG = logging.getLogger(__name__)
INDEX = "docs/README"
"""The page whose lists are the table of contents of the site."""
SOURCES = "source"
"""Folder of the site with the source files."""

FENCE = re.compile(r"^(```|~~~)(\w+) +([\w.-]+\.\w+)$", re.MULTILINE)
HEADING = re.compile(r"^## (.*)$", re.MULTILINE)
ENUM = re.compile(r"<\w+\.\w+: ('[^']*'|[^>]*)>")
"""A member of an enumeration as Python writes it, with the value that stands for it."""
FACTORY = re.compile(r"(\w+)=<factory>")
COLUMNS = re.compile(r"\S {2,}\S")
RETURNED = (".TrainedRun", ".FinishedSearch", ".BestConfiguration", ".Network", ".Block")
"""Classes of which users get objects and make none."""
LINK = re.compile(r"\]\(([^)#:\s]+)((?:#[^)\s]*)?)\)")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the steps below to the events of a build."""
    for kind in PyObject.doc_field_types:
        kind.label = {"variable": "Attributes"}.get(kind.name, kind.label)  # as docstrings call them, not Variables
    app.connect("source-read", _read)
    app.connect("doctree-read", _sources, priority=100)  # before Sphinx copies what is linked
    app.connect("env-purge-doc", _purge)
    app.connect("env-merge-info", _merge)
    app.connect("env-updated", _check_addresses)
    app.connect("html-collect-pages", _source_pages)
    app.connect("build-finished", _start_page)
    app.connect("autodoc-process-docstring", _sentence, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", _formulas)
    app.connect("autodoc-process-signature", _fields)
    app.connect("autodoc-process-signature", _typed, priority=400)
    app.connect("doctree-read", _columns)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# -- the text of a page ----------------------------------------------------------------------------------------


def _read(app: Sphinx, page: str, source: list[str]) -> None:
    text = LINK.sub(lambda link: _to_page(app, page, link), source[0])
    text = FENCE.sub(r"\1{code-block} \2\n:caption: \3", text)
    source[0] = text + _contents(app, page)


def _to_page(app: Sphinx, page: str, link: re.Match[str]) -> str:
    """Return a link with the page that stands for a linked folder."""
    path, heading = link.groups()
    folder = (Path(app.srcdir) / page).parent / path
    if not folder.is_dir():
        return link[0]
    names = ("README.md", "__init__.py", "record.yaml")
    name = next((name for name in names if (folder / name).exists()), None)
    if name is None:
        LOG.warning("the folder %s has no page", path, location=page, type="repository_pages")
        return link[0]
    return f"]({path.rstrip('/')}/{name}{heading})"


def _contents(app: Sphinx, page: str) -> str:
    """Return the hidden tables of contents of an index page."""
    if page == app.config.root_doc:
        sections = {"": [INDEX], **_sections(app)}
        return "".join(_toctree(pages, title) for title, pages in sections.items())
    if page.rpartition("/")[2] != "README" or page == INDEX:
        return ""
    return _toctree(_below(app, page))


def _sections(app: Sphinx) -> dict[str, list[str]]:
    """Return the pages that each section of the index lists."""
    _, *parts = HEADING.split((Path(app.srcdir) / f"{INDEX}.md").read_text(encoding="utf-8"))
    return {title: _linked(app, INDEX, text) for title, text in zip(parts[::2], parts[1::2], strict=True)}


def _linked(app: Sphinx, page: str, text: str) -> list[str]:
    """Return the pages that a text links to, in their order, each once."""
    folder = posixpath.dirname(page)
    paths = (_to_page(app, page, link)[2:-1].partition("#")[0] for link in LINK.finditer(text))
    names = (posixpath.normpath(posixpath.join(folder, path)).removesuffix(".md") for path in paths)
    return [name for name in dict.fromkeys(names) if name in app.env.found_docs]


def _below(app: Sphinx, page: str) -> list[str]:
    """Return the pages below the folder of an index: those that it links to, then the others."""
    folder = page.removesuffix("README")
    text = (Path(app.srcdir) / f"{page}.md").read_text(encoding="utf-8")
    pages = [name for name in app.env.found_docs if name.startswith(folder) and name != page]
    nested = [name for name in pages if name.removesuffix("/README").count("/") == page.count("/")]
    linked = [name for name in _linked(app, page, text) if name in nested]
    return [*linked, *sorted(set(nested) - set(linked))]


def _toctree(pages: list[str], caption: str = "") -> str:
    if not pages:
        return ""
    lines = [":hidden:", *([f":caption: {caption}"] if caption else []), "", *(f"/{name}" for name in pages)]
    return "\n\n```{toctree}\n" + "\n".join(lines) + "\n```\n"


def _formulas(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Keep the signs of a formula from being read as markup: docstrings write |w| and a * b as they stand."""
    for i, line in enumerate(lines):
        pieces = line.split("``")  # every second one is code
        pieces[::2] = [re.sub(r"(?<!\\)([|*])", r"\\\1", piece) for piece in pieces[::2]]
        lines[i] = "``".join(pieces)


def _sentence(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Let the first line of an attribute be a sentence: napoleon takes what stands before a colon for its type."""
    if what in ("attribute", "data", "property"):
        lines.insert(0, "")


def _typed(
    app: Sphinx, what: str, name: str, thing: object, options: object, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Show defaults as a user types them; what calls return, and nobody constructs, has no parameters."""
    if what == "class" and name.endswith(RETURNED):
        return "", returns
    if signature is None:
        return None
    for name_of_member, value in _members(thing).items():
        signature = signature.replace(name_of_member, repr(value))
    return FACTORY.sub(lambda field: f"{field[1]}={_made(thing, field[1])}", ENUM.sub(r"\1", signature)), returns


def _members(thing: object) -> dict[str, str]:
    """Return the values of the members of enumerations among the defaults of a signature, by how Sphinx writes them."""
    try:
        parameters = inspect.signature(thing).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return {}
    defaults = [p.default for p in parameters if isinstance(p.default, enum.Enum)]
    return {f"{type(member).__name__}.{member.name}": member.value for member in defaults}


def _made(thing: object, name: str) -> str:
    """Write the default that a dataclass makes for a field, as a call where it is a record of its own."""
    assert isinstance(thing, type)
    assert dataclasses.is_dataclass(thing)
    factory = next(field.default_factory for field in dataclasses.fields(thing) if field.name == name)
    assert factory is not dataclasses.MISSING
    value = factory()
    return f"{type(value).__name__}()" if dataclasses.is_dataclass(value) else ENUM.sub(r"\1", repr(value))


def _columns(app: Sphinx, doctree: nodes.document) -> None:
    """Mark text in columns, which must scroll on a phone and not wrap."""
    for block in doctree.findall(nodes.literal_block):
        if block.get("language") == "text" and COLUMNS.search(block.astext()):
            block["classes"].append("columns")


def _fields(
    app: Sphinx, what: str, name: str, thing: type, options: object, signature: str | None, returns: str | None
) -> tuple[str, None] | None:
    """Show the fields of a record whose own ``__new__`` hides them."""
    if what != "class" or not dataclasses.is_dataclass(thing) or not (signature or "").startswith("(*values"):
        return None
    parameters = list(inspect.signature(thing.__init__).parameters.values())[1:]
    shown = (p.name if p.default is p.empty else f"{p.name}={_default(p.default)}" for p in parameters)
    return f"(*, {', '.join(shown)})", None


def _default(value: object) -> str:
    return ENUM.sub(r"\1", repr(value)) if isinstance(value, bool | int | float | str | tuple | None) else "..."


# -- files that are no pages -----------------------------------------------------------------------------------


def _sources(app: Sphinx, doctree: nodes.document) -> None:
    """Let a link to a source file lead to its page in the site."""
    page = app.env.docname
    for link in list(doctree.findall(addnodes.download_reference)):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link["reftarget"]))
        _files(app.env).setdefault(page, set()).add(path)
        address = f"{'../' * page.count('/')}{SOURCES}/{path}.html"
        link.replace_self(nodes.reference("", "", *link.children, refuri=address, internal=True))


def _files(env: BuildEnvironment) -> dict[str, set[str]]:
    """Return the source files that each page links to."""
    if not hasattr(env, "linked_files"):
        env.linked_files = {}  # type: ignore[attr-defined]
    files: dict[str, set[str]] = env.linked_files  # type: ignore[attr-defined]
    return files


def _purge(app: Sphinx, env: BuildEnvironment, page: str) -> None:
    _files(env).pop(page, None)


def _merge(app: Sphinx, env: BuildEnvironment, pages: set[str], other: BuildEnvironment) -> None:
    _files(env).update({page: files for page, files in _files(other).items() if page in pages})


def _source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    for path in sorted(set().union(*_files(app.env).values())):
        text = (Path(app.srcdir) / path).read_text(encoding="utf-8")
        try:
            lexer = get_lexer_for_filename(path)
        except ClassNotFound:
            lexer = TextLexer()
        code = highlight(text, lexer, HtmlFormatter(linenos="inline"))
        heading = f'<h1 class="source">{path.replace("/", "/<wbr>")}</h1>'
        yield f"{SOURCES}/{path}", {"title": path, "body": f"{heading}\n{code}"}, "page.html"


# -- the whole -------------------------------------------------------------------------------------------------


def _check_addresses(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Warn of external addresses that no browser could open; nothing is asked over the network."""
    for page in env.found_docs:
        for link in env.get_doctree(page).findall(nodes.reference):
            address = link.get("refuri", "")
            parts = urlsplit(address)
            if parts.scheme in ("http", "https") and not re.fullmatch(r"[\w-]+(\.[\w-]+)+(:\d+)?", parts.netloc):
                LOG.warning("%s is not an address", address, location=page, type="repository_pages")
    return []


def _start_page(app: Sphinx, error: Exception | None) -> None:
    """Let the folder of the site open with its first page."""
    if error is None and app.builder.format == "html":
        start = f'<!doctype html>\n<meta http-equiv="refresh" content="0; url={app.config.root_doc}.html">\n'
        (Path(app.outdir) / "index.html").write_text(start, encoding="utf-8")
