"""The documentation site: ``make docs`` builds it from the pages of this repository, offline.

The source folder is the root of the repository, so that a link between two pages is the same on the repository's page
and in the site. ``repository_pages`` makes tables of contents, source pages and captions; ``check_links`` reads the
result.
"""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))  # of the notebooks
os.environ["MATPLOTLIBRC"] = str(DOCS / "matplotlibrc")
os.environ["IPYTHONDIR"] = str(DOCS / "_build" / "ipython")  # not the settings of whoever builds the site
settings = DOCS / "_build" / "ipython" / "profile_default" / "ipython_kernel_config.py"
settings.parent.mkdir(parents=True, exist_ok=True)
settings.write_text("c.HistoryManager.enabled = False\nc.IPKernelApp.log_level = 'ERROR'  # the socket is local\n")
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # a kernel of IPython says otherwise that it cannot be debugged

import nbclient  # noqa: E402

import hebb  # noqa: E402

nbclient.NotebookClient.iopub_timeout.default_value = 300  # else outputs that come late are lost without an error

project = "hebb"
author = "The hebb authors"
copyright = "the hebb authors"  # noqa: A001 - Sphinx names it
version = release = hebb.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "myst_nb",
    "repository_pages",
]
root_doc = "README"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/**.md",
    "records/**.md",
    "benchmarks/README.md",
    "figures/README.md",
    "search_configs/README.md",
    "tests/**/README.md",
    "tests/README.md",
]
exclude_patterns = [".*", "**/__pycache__", "docs/_*", "hebb", "hebb_data", "build", "dist"]

nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!hebb\.).*"),  # other projects' pages cannot be asked offline
    ("py:.*", r".*\.(Entry|Drive)"),  # type variables
    ("py:class", r"hebb\.config\.(data_spec|specs|vocabulary|classifier|settle)\..*"),  # names of the inside
    ("py:class", r"hebb\.(analysis\.(fates|difference|matching)|storage\.curves|nn\.local_loss)\..*"),
]
suppress_warnings = ["config.cache"]
add_module_names = False
toc_object_entries_show_parents = "hide"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

myst_heading_anchors = 4
myst_enable_extensions = ["html_image"]
nb_execution_mode = os.environ.get("HEBB_DOCS_NOTEBOOKS", "force")  # off: pages without outputs, in a third of the time
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True

html_theme = "furo"
html_title = f"hebb {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
highlight_language = "none"
pygments_style = "friendly"
pygments_dark_style = "monokai"
copybutton_exclude = ".linenos, .gp, .go"
