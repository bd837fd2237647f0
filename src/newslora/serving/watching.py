"""A folder whose sub-folders are adapters: they are served as they come, replaced as they change, removed as they go."""

import asyncio
from pathlib import Path

from newslora.errors import NewsloraError, SettingsError
from newslora.serving.context import Context
from newslora.serving.keys import NAME

MARKS = ("newslora.json", "manifest.json")  # an adapter or export folder, a run folder
Stamp = tuple[tuple[str, int, int], ...]  # name, size and time of each file


class Watch:
    """Keeps the service as the folder is. A folder that cannot be served is told of in the log and tried again when it changes.

    Args:
        context: the server's parts.
        folder: the watched one.
        fixed: names given on the command line, which the folder does not touch.

    Raises:
        SettingsError: no such folder.
    """

    def __init__(self, context: Context, folder: Path, fixed: tuple[str, ...] = ()) -> None:
        if not folder.is_dir():
            raise SettingsError(f"There is no folder '{folder}' to watch. Make it, or name another with --watch.")
        self.context, self.folder, self.fixed = context, folder, fixed
        self._seen: dict[str, Stamp] = {}
        self._served: set[str] = set()

    async def follow(self) -> None:
        """Look again whenever something in the folder has changed and come to rest."""
        from watchfiles import awatch

        async for _ in awatch(self.folder, step=100, debounce=3000):
            await self.look()

    async def look(self) -> None:
        """Load what is new or changed, remove what has gone."""
        found = await asyncio.to_thread(self._found)
        for name in sorted(self._served - set(found)):
            self._served.discard(name)
            self._seen.pop(name, None)
            try:
                await asyncio.to_thread(self.context.remove, name)
            except NewsloraError as error:  # removed over HTTP meanwhile
                self.context.log.warning("watch", adapter=name, message=str(error))
        for name, stamp in sorted(found.items()):
            if self._seen.get(name) == stamp:
                continue
            self._seen[name] = stamp
            try:
                await asyncio.to_thread(self.context.load, name, self.folder / name)
                self._served.add(name)
            except NewsloraError as error:
                self.context.log.error("watch", adapter=name, message=str(error))

    def _found(self) -> dict[str, Stamp]:
        """Sub-folders that hold an adapter, with what tells whether they have changed."""
        found = {}
        for path in self.folder.iterdir():
            if (
                NAME.fullmatch(path.name)
                and path.name not in self.fixed
                and any((path / mark).is_file() for mark in MARKS)
            ):
                found[path.name] = _stamp(path)
        return found


def _stamp(folder: Path) -> Stamp:
    files = [*folder.glob("*"), *folder.glob("adapter/*")]
    told = []
    for path in sorted(files):
        try:
            state = path.stat()
        except OSError:  # gone between the two calls
            continue
        if path.is_file():
            told.append((str(path.relative_to(folder)), state.st_size, state.st_mtime_ns))
    return tuple(told)
