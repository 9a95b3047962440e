"""What Airflow finds by the entry point `airflow.plugins`.

Every Airflow process imports this module, so it imports nothing that is not there already.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.configuration import conf

try:
    from airflow.sdk.plugins_manager import AirflowPlugin
except ImportError:  # before 3.2
    from airflow.plugins_manager import AirflowPlugin  # type: ignore[no-redef,assignment,unused-ignore]

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]

PATH = "/flowservice"
_NAME = "Flow Service"
# Before 3.1 Airflow shows no pages of others.
_HAS_PAGES = hasattr(AirflowPlugin, "external_views")


async def page(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """The page's ASGI application, imported when somebody first asks for it."""
    await (await asyncio.to_thread(_application))(scope, receive, send)


def _application() -> Any:
    from airflow_flowservice.plugins.page_app import application

    return application()


def _href(query: str = "") -> str:
    """The page's address below that of Airflow, which may have a path of its own; only with a slash it is found."""
    return f"{urlsplit(conf.get('api', 'base_url', fallback='')).path.rstrip('/')}{PATH}/{query}"


def _views() -> list[dict[str, Any]]:
    icons = {"icon": _href("static/icon.svg"), "icon_dark_mode": _href("static/icon-dark.svg")}
    return [
        {
            "name": _NAME,
            "href": _href(),
            "destination": "nav",
            "category": "browse",
            "url_route": "flowservice",
            **icons,
        },
        {
            "name": _NAME,
            "href": _href("?dag_id={DAG_ID}"),
            "destination": "dag",
            "url_route": "flowservice-dag",
            **icons,
        },
    ]


class FlowServicePlugin(AirflowPlugin):
    """Adds the page to the menu Browse and, with the DAG chosen, to each DAG's page."""

    name = "flowservice"
    fastapi_apps: list[Any] = [{"app": page, "url_prefix": PATH, "name": _NAME}] if _HAS_PAGES else []
    external_views: list[Any] = _views() if _HAS_PAGES else []
