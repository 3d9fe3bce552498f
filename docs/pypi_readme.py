"""Make the README that a package index shows: links and pictures lead to the repository, whose address is in pyproject.toml."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Readme(MetadataHookInterface):
    """A metadata hook of Hatchling."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the readme."""
        text = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, metadata["urls"]["Repository"])}


def absolute(text: str, repository: str) -> str:
    """The text with absolute links; those to headings of its own and those that are absolute stay as they are."""
    text = re.sub(r"(!\[[^\]]*\])\((?![a-z]+:|#)", rf"\1({repository}/raw/main/", text)
    return re.sub(r"(?<!!)(\[[^\]]*\])\((?![a-z]+:|#)", rf"\1({repository}/blob/main/", text)
