"""``treadle new``."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from treadle.errors import StartupError

FOLDER = Path(__file__).with_name("templates")
TEMPLATES = {
    "agent": "a graph that runs offline: state, one node, and a question to a human",
    "custom-app": "the same, with HTTP routes of your own beside the API",
}


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path())
@click.option(
    "--template",
    type=click.Choice(list(TEMPLATES)),
    prompt="Template: " + "; ".join(f"{name} ({text})" for name, text in TEMPLATES.items()) + "\n",
    help="What to begin with; asked for if not given.",
)
def new(path: Path, template: str) -> None:
    """Begin a project in the folder PATH: a langgraph.json and a graph that runs."""
    folders = [FOLDER / name for name in dict.fromkeys(("agent", template))]
    sources = {file.name: file for folder in folders for file in sorted(folder.glob("*.*"))}
    for name in sources:
        if (path / name).exists():
            raise StartupError(
                f"{path / name} is there already: nothing was written. Name another folder."
            )
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name, source in sources.items():
            shutil.copyfile(source, path / name)
    except OSError as error:
        raise StartupError(f"{path} cannot be written to: {error.strerror}.") from None
    click.echo(f"Made {', '.join(sources)} in {path.resolve()}.")
    click.echo(f"  treadle dev --config {path / 'langgraph.json'}")
