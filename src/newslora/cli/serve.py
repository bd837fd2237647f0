"""`newslora serve`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from newslora.cli.common import DeviceFlag, SetFlags
from newslora.cli.output import complain


def serve(
    *runs: str,
    host: str | None = None,
    port: int | None = None,
    keys: Path | None = None,
    open: Annotated[bool, Parameter(negative="")] = False,
    adapters_root: Path | None = None,
    watch: Path | None = None,
    feedback: str | None = None,
    device: DeviceFlag = None,
    settings: SetFlags = None,
) -> None:
    """Serve adapters over HTTP, with a page at / and the API's description at /docs.

    On SIGTERM /ready turns 503, accepted requests are finished, and the exit code is 0. Logs are JSON lines on standard
    error, without texts and keys. Needs the extra 'serve'.

    Parameters
    ----------
    runs
        Run, adapter or export folders, as PATH or NAME=PATH; by default an adapter has its folder's name. Requests that name
        no adapter go to the first one.
    host
        Address to listen on; by default 127.0.0.1.
    port
        Port to listen on; by default 8080; 0 for any free one.
    keys
        File of API keys (`newslora keys add`); without it, all requests from this machine are allowed.
    open
        Listen to other machines without keys.
    adapters_root
        Folder from which PUT /v1/adapters/NAME may load.
    watch
        Folder whose sub-folders are served, also as they are added, changed and removed.
    feedback
        Database for corrections: sqlite:///corrections.db, or postgresql://user@host/name with the password in PGPASSWORD.
    settings
        Any other setting of the server as key=value (docs/serving.md lists them); may be repeated.
    """
    from newslora.config import parse_assignment
    from newslora.errors import InterruptedRun, MissingExtraError, SettingsError
    from newslora.serving.settings import ServeSettings, serve_settings

    values: dict[str, Any] = dict(parse_assignment(text, ServeSettings) for text in settings or [])
    flags = {
        "host": host,
        "port": port,
        "keys": keys,
        "adapters_root": adapters_root,
        "watch": watch,
        "feedback": feedback,
        "device": device,
    }
    values |= {key: value for key, value in flags.items() if value is not None} | ({"open": True} if open else {})
    resolved = serve_settings(values)
    adapters = named(runs)
    if not adapters and resolved.watch is None and resolved.adapters_root is None:
        raise SettingsError("There is nothing to serve: name a run, or a folder with --watch or --adapters-root.")
    try:
        from newslora.serving import server
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("newslora"):
            raise
        raise MissingExtraError("Serving", "serve") from None
    from newslora.runfolder import adapter_in
    from newslora.runtime import end_process
    from newslora.serving.service import Service
    from newslora.serving.watch import check_watched

    # all before the server says that it listens, for who waits for that would send requests to a server about to end
    for folder in adapters.values():
        adapter_in(folder)
    if resolved.watch is not None:
        check_watched(resolved.watch)
    service = Service(resolved)
    service.share_threads()
    try:
        server.serve(adapters, resolved, service, lambda line: print(line, flush=True))
    except InterruptedRun as ended:  # threads may still compute, and a normal end would wait for them
        complain(str(ended))
        end_process(ended.exit_code)


def named(runs: Sequence[str]) -> dict[str, Path]:
    """`PATH` or `NAME=PATH` -> folders by name.

    Raises:
        SettingsError: a name that none can have, or two of one name.
    """
    from newslora.errors import SettingsError
    from newslora.serving.keys import NAME, NAME_RULE

    found: dict[str, Path] = {}
    for text in runs:
        name, folder = _named(text)
        if not NAME.fullmatch(name):
            raise SettingsError(f"'{name}' is not a valid adapter name. {NAME_RULE} Give it one: 'NAME={folder}'.")
        if name in found:
            raise SettingsError(f"Two adapters are called '{name}': {found[name]} and {folder}. Give one as NAME=PATH.")
        found[name] = folder
    return found


def _named(text: str) -> tuple[str, Path]:
    """Name and folder. What stands before a = is a name; one that is not allowed, only where the whole is not a path."""
    from newslora.serving.keys import NAME

    name, sign, path = text.partition("=")
    if sign and (NAME.fullmatch(name) or not ("/" in name or Path(text).exists())):
        return name, Path(path)
    return _folder_name(Path(text)), Path(text)


def _folder_name(folder: Path) -> str:
    """The run's name for RUN/adapter, else the folder's own."""
    whole = folder.absolute()
    return whole.parent.name if whole.name == "adapter" else whole.name
