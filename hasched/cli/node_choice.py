"""Which nodes a command is about, several at once, and what is shown of them afterwards."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from hasched.cli.settings import Settings

if TYPE_CHECKING:
    from hasched.client.sync import Client
    from hasched.model.views import NodeView

Function = TypeVar("Function", bound=Callable[..., Any])


class Choice(NamedTuple):
    """Nodes by name, or by what they are."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    pool: str

    def find(self, client: Client) -> list[str]:
        """The nodes that are meant. None at all is a mistake, and so are names together with what chooses."""
        if bool(self.names) == bool(self.labels or self.pool):
            raise click.UsageError("name the nodes, or choose them with --label and --pool")
        if self.names:
            return list(dict.fromkeys(self.names))
        return [view.id for view in self.among(client.nodes().nodes)]

    def among(self, nodes: list[NodeView]) -> list[NodeView]:
        """Those that are what is asked for. None at all is a mistake, unless nothing is asked for."""
        from hasched.cli.specs import read_pairs
        from hasched.model.errors import NotFound

        wanted = read_pairs(self.labels, "--label").items()
        chosen = [view for view in nodes if wanted <= view.labels.items() and self.pool in ("", view.pool)]
        if not chosen and (self.labels or self.pool):
            what = " and ".join((*self.labels, *([f"the pool {self.pool}"] if self.pool else [])))
            raise NotFound(f"no node has {what}", self._hint(nodes), code="no_such_node")
        return chosen

    def _hint(self, nodes: list[NodeView]) -> str:
        """What was perhaps meant, of the first that no node has."""
        from hasched.model.kinds import suggest_name

        labels = {f"{key}={value}": None for view in nodes for key, value in view.labels.items()}
        pools = {view.pool: None for view in nodes}
        for given, known in (*((label, labels) for label in self.labels), (self.pool, pools)):
            if given and given not in known:
                return suggest_name(given, known, "see `hasched node list`")
        return "see `hasched node list`"


def choice_of_nodes(function: Function) -> Function:
    """Arguments and options that become the function's `choice`."""

    @wraps(function)
    def choose(*arguments: Any, names: tuple[str, ...], labels: tuple[str, ...], pool: str, **options: Any) -> Any:
        return function(*arguments, choice=Choice(names, labels, pool), **options)

    options = (
        click.argument("names", metavar="[NODE]...", nargs=-1),
        click.option(
            "--label", "labels", multiple=True, metavar="KEY=VALUE", help="All nodes with this label; of several, all."
        ),
        click.option("--pool", default="", metavar="POOL", help="All nodes of this pool."),
    )
    decorated: Any = choose
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def change_nodes(settings: Settings, choice: Choice, change: Callable[[Client, str], NodeView]) -> None:
    """Have the change made to each node that is meant, and show them."""
    with settings.client() as client:
        views = [change(client, name) for name in choice.find(client)]
    show_nodes(settings, views)


def show_nodes(settings: Settings, views: list[NodeView]) -> None:
    from hasched.cli.output import print_json
    from hasched.model.views import NodePage

    if settings.as_json:
        print_json(NodePage(nodes=views))
    else:
        for view in views:
            click.echo(f"{view.id}  {view.status}{_left(view)}")


def _left(view: NodeView) -> str:
    """How far a drain is."""
    from hasched.cli.output import clock

    drain = view.drain
    if drain is None or drain.drained:
        return ""
    until = f" until {clock(drain.deadline_ms)}" if drain.deadline_ms and not drain.expired else ""
    return f"  {view.running} running{until}"
