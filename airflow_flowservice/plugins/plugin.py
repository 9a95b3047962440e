# SPDX-License-Identifier: Apache-2.0
"""Airflow plugin, found by the entry point `airflow.plugins`.

Every Airflow process imports this module, so it imports only modules that Airflow has already imported.
"""

from __future__ import annotations

import asyncio
import sys
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
# Airflow before 3.1 does not show pages of plugins.
_HAS_PAGES = hasattr(AirflowPlugin, "external_views")


async def page(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Run the page's ASGI application; the first request imports it."""
    await (await asyncio.to_thread(_application))(scope, receive, send)


def _application() -> Any:
    from airflow_flowservice.plugins.page_app import application

    return application()


def _href(query: str = "") -> str:
    """Return the path of the page, including the path of `[api] base_url`.

    Without the slash after the page's path, Airflow's UI would show itself inside the frame.
    """
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
    """Plugin that adds the page to the menu Browse and, with the DAG selected, to the page of each DAG."""

    name = "flowservice"
    fastapi_apps: list[Any] = [{"app": page, "url_prefix": PATH, "name": _NAME}] if _HAS_PAGES else []
    external_views: list[Any] = _views() if _HAS_PAGES else []

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:
        """Import modules of tasks and DAG files in the components that fork a process for each of them."""
        component = "".join(sys.argv[1:2])
        if component in ("scheduler", "dag-processor"):
            from airflow_flowservice.plugins.preload import preload

            preload(component)
