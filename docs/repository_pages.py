"""MkDocs hook: pages of the repository outside docs/ become pages of the site, and links between them keep working.

A page links as on disk, relative to its own folder. On the site docs/ is the root. Links to other files of the
repository, such as scripts, become text; a missing image is an error.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "CHANGELOG.md", "benchmarks/README.md",
    "inandout/diffusion/surface-diffusion/README.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "experiments").glob("*.md")),
)  # fmt: skip
IMAGES = tuple(sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "experiments").glob("*.[jp][pn]g")))
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add pages and images. README.md keeps its name, because docs/index.md is the first page."""
    for name in PAGES + IMAGES:
        file = File.generated(config, name, abs_src_path=str(ROOT / name))
        if name == "README.md":
            file.dest_uri = file.url = "readme.html"
        files.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links of a page."""
    source = page.file.src_uri
    folder = posixpath.dirname(source if source in PAGES else f"docs/{source}")

    def rewrite(found: re.Match[str]) -> str:
        mark, text, link = found.groups()
        path, hash_, anchor = link.partition("#")
        if "://" in path or not path:
            return found[0]
        target = posixpath.normpath(posixpath.join(folder, path)).removeprefix("docs/")
        if files.get_file_from_path(target) is None:
            if mark:
                raise PluginError(f"{source}: the image {link} is not part of the site")
            return str(text)
        return f"{mark}[{text}]({posixpath.relpath(target, posixpath.dirname(source) or '.')}{hash_}{anchor})"

    # HTML tags, as of <picture>, are left to the browser: their files lie beside the first page.
    return re.sub(r'(src|srcset)="docs/', r'\1="', LINK.sub(rewrite, markdown))
