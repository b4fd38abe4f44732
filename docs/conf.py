"""Configuration of Sphinx. `make docs` builds the site; a warning is an error."""

import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conv_impls import __version__

project, author, release = "conv-impls", "conv-impls developers", __version__
project_copyright = "conv-impls developers, MIT license"
extensions = ["myst_nb", "numpydoc", "sphinx.ext.autodoc", "sphinx_copybutton", "docs.extensions.site"]
exclude_patterns = ["build", "**/.ipynb_checkpoints"]
html_theme, html_title = "furo", f"conv-impls {release}"
html_static_path, html_css_files = ["static"], ["site.css"]

# A name in single backticks is a link if it is documented, else code.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Notebooks have no outputs; they run at each build. One compares with torch, which is not always installed.
nb_execution_mode, nb_execution_timeout, nb_execution_raise_on_error = "force", 300, True
nb_execution_excludepatterns = [] if find_spec("torch") else ["*autograd*"]
nb_merge_streams = True
# The message about compiling kernels.
nb_output_stderr = "remove"
