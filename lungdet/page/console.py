"""Console: the tables and sentences of a page where commands are typed."""

from collections.abc import Sequence

from rich import box, table
from rich.console import Console
from rich.text import Text

from lungdet.page.document import Table
from lungdet.page.markup import plain


def opened() -> Console:
    """Standard output; where it is no terminal nothing is folded, cut or coloured."""
    console = Console()
    return console if console.is_terminal else Console(width=1000, color_system=None)


def say(console: Console, text: str, style: str = "") -> None:
    """A line as it is read, without markup."""
    console.print(Text(plain(text), style), soft_wrap=True)


def show_commands(console: Console, commands: Sequence[tuple[str, str]]) -> None:
    """Commands to paste, each with what it is for."""
    for command, purpose in commands:
        console.print(Text.assemble((f"{purpose}:", "dim"), f"\n  {command}"), soft_wrap=True)


def show_table(console: Console, cells: Table, title: str | None = None) -> None:
    """A table, its notes below."""
    printed = table.Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for number, column in enumerate(cells.columns):
        justify = "left" if number < cells.text_columns else "right"
        printed.add_column(Text(plain(column)), justify=justify, overflow="fold")
    for row in cells.rows:
        printed.add_row(*[Text(plain(cell)) for cell in row])
    console.print(printed)
    for note in cells.notes:
        say(console, note, "dim")
