"""Settings of the app and of Streamlit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from thirtytwo.machine import ANY_ADDRESS, LOOPBACK, address, as_prefix, network_address

IMAGE_MB, MODEL_MB, ZIP_MB = 50, 500, 200
"""Maximum size of an uploaded image, model and ZIP file, in MB; a ZIP file is in memory while it arrives."""

_SERIF = '"Iowan Old Style", "Palatino Linotype", Palatino, "URW Palladio L", Georgia, "Liberation Serif", serif'
_SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Liberation Sans", sans-serif'
_LIGHT = {
    "backgroundColor": "#fcfbf8",
    "secondaryBackgroundColor": "#f1efe8",
    "textColor": "#1e2226",
    "primaryColor": "#1c5f79",
    "borderColor": "#dedad0",
    "blueTextColor": "#1c5f79",
    "blueBackgroundColor": "#e7f0f3",
}
_DARK = {
    "backgroundColor": "#15181b",
    "secondaryBackgroundColor": "#22272c",
    "textColor": "#e7e4de",
    "primaryColor": "#5ba7c4",
    "borderColor": "#353b42",
    "blueTextColor": "#8cc8df",
    "blueBackgroundColor": "#1a2a32",
}


LOCAL = "127.0.0.1"
PORT = 8033
"""Port to listen on if none is set; if it is taken, the next free one."""


class AppSettings(BaseModel):
    """Settings of the app. The options of `thirtytwo app` are built from these fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    models: tuple[str, ...] = ()
    """Models to list first, before bundled ones and runs under ./runs."""
    host: str = LOCAL
    """Address to listen on."""
    port: int | None = Field(None, ge=0, le=65535)
    """Port to listen on; 0 picks a free one."""
    base_path: Annotated[str, AfterValidator(as_prefix)] = ""
    """Path prefix below which a proxy serves the app, such as /images."""
    data_root: Path | None = None
    """Folder to look for known data sets in."""

    @property
    def is_local(self) -> bool:
        """Whether only users of this machine can reach the app, so that they may enter paths on it."""
        return self.host in LOOPBACK

    @property
    def own_url(self) -> str:
        """The address of the app for a browser on this machine."""
        host = LOCAL if self.host in ANY_ADDRESS else self.host
        return address(host, self.port or 0) + self.base_path

    @property
    def network_url(self) -> str | None:
        """The address of the app for other devices in the network; None where they cannot reach it."""
        host = network_address() if self.host in ANY_ADDRESS else self.host
        return None if self.is_local or host is None else address(host, self.port or 0) + self.base_path


def streamlit_options(settings: AppSettings, port: int, *, open_browser: bool) -> dict[str, Any]:
    """Streamlit's options: no telemetry, no file watching, and the theme of the reports."""
    hosts = sorted(LOOPBACK) if settings.is_local else []
    return {
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "none",
        "client.showErrorLinks": False,
        "client.toolbarMode": "minimal",
        "global.developmentMode": False,
        "logger.hideWelcomeMessage": True,
        "logger.level": "error",
        "runner.magicEnabled": False,
        "server.address": settings.host,
        "server.baseUrlPath": settings.base_path.strip("/"),
        "server.allowedHosts": hosts,
        "server.enableCORS": True,
        "server.enableXsrfProtection": True,
        "server.fileWatcherType": "none",
        "server.headless": not open_browser,
        "server.maxUploadSize": MODEL_MB,
        "server.port": port,
        "server.runOnSave": False,
        "server.showEmailPrompt": False,
        "theme.baseRadius": "6px",
        "theme.font": _SANS,
        "theme.headingFont": _SERIF,
        "theme.headingFontWeights": [600, 600, 600, 600, 600, 600],
        **{f"theme.light.{key}": value for key, value in _LIGHT.items()},
        **{f"theme.dark.{key}": value for key, value in _DARK.items()},
    }
