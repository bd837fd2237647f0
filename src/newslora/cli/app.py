"""The command line: its commands and what an error becomes. Each command parses, calls one function, shows what came back."""

import atexit
import contextlib
import os
import signal
import sys
from io import TextIOWrapper
from types import FrameType
from typing import NoReturn, TextIO, cast

import cyclopts
from cyclopts import App

from newslora import __version__
from newslora.cli import audit, bench, compare, evaluate, explain, export, keys, predict, serve, train
from newslora.cli.help import HelpFormatter
from newslora.cli.output import Output, complain
from newslora.cli.refused import refused
from newslora.errors import InterruptedRun, NewsloraError, StorageError
from newslora.runtime import collect_seldom, end_process, keep_freed_memory

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = App(
    name="newslora",
    version=__version__,
    help="Fine-tune a pretrained text encoder with LoRA into a text classifier, evaluate it, and run it on files and over "
    "HTTP.\n\nFirst try: newslora train quickstart",
    help_format="plaintext",
    help_formatter=HelpFormatter(),
    suppress_keyboard_interrupt=False,  # `main` says a word about it
)
for command in (
    train.train,
    evaluate.evaluate,
    compare.compare,
    audit.audit,
    predict.predict,
    explain.explain,
    export.export,
    serve.serve,
    keys.keys,
    keys.feedback,
    evaluate.report,
    bench.bench,
):
    app.command(command)
app.command(train.list_settings, name="settings")


def run() -> NoReturn:
    """`main` as a process of its own, without the interpreter's own end.

    That looks through all that torch and transformers have loaded once more, and takes about half as long as their import, when
    nothing is left to do. What is registered first is called last: threads were waited for by then, and whatever else was
    to be done at the end is done.
    """
    code = 1  # where an error comes that nobody expected
    occupy_closed_streams()
    atexit.register(lambda: end_process(code))
    heed_sigterm()
    try:
        code = main()
    except SystemExit as ended:  # of a fit that a signal stopped
        code = ended.code if isinstance(ended.code, int) else 1
        raise
    sys.exit(code)


def occupy_closed_streams() -> None:
    """Put nothing in the place of standard streams that were closed (`>&-`), where they were.

    A file that is opened later would get such a stream's number, and hold what libraries print; and libraries ask Python's
    streams whether they are a terminal. Standard input stays away, so that who needs it can tell.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


def heed_sigterm() -> None:
    """Let SIGTERM end a container's first process, for which the system ignores signals that have no handler.

    Parts that have something to save or to finish set handlers of their own meanwhile.
    """
    if os.getpid() != 1:
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise InterruptedRun("Stopped.", number)

    signal.signal(signal.SIGTERM, stop)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code (see the README)."""
    # no telemetry and no advice from libraries in the middle of our output
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    keep_freed_memory()
    collect_seldom()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale without a letter of some label ends no command
    with contextlib.redirect_stdout(cast("TextIO", Output(sys.stdout))):
        code = _run(arguments)
        with contextlib.suppress(OSError):  # after another error: that one was told, and its code stands
            sys.stdout.flush()
    return code


def _run(arguments: list[str] | None) -> int:
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()  # a full disk may refuse no more than the last, buffered lines
    except (NewsloraError, InterruptedRun) as error:
        complain(str(error))
        return error.exit_code
    except cyclopts.CycloptsError as error:
        complain(f"{error}{_advice(error)}")
        return EXIT_USAGE
    except KeyboardInterrupt:
        complain("Stopped.")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output left, as `head` does
        pass
    except Exception as error:
        if (sentence := refused(error)) is None:
            raise
        complain(sentence)
        return StorageError.exit_code
    return 0


def _advice(error: cyclopts.CycloptsError) -> str:
    """Where to read on; and of an option that is the name of a setting, how that is given."""
    command = " ".join(("newslora", *(error.command_chain or ())))
    return f"{_as_setting(error)} `{command} --help` shows how."


def _as_setting(error: cyclopts.CycloptsError) -> str:
    if not isinstance(error, cyclopts.UnknownOptionError) or tuple(error.command_chain or ()) != ("train",):
        return ""
    from newslora.config import setting_fields
    from newslora.stock_names import our_setting, said_here

    given = error.token.keyword or error.token.value  # which of them depends on what stands before
    name = given.lstrip("-").partition("=")[0].replace("-", "_")
    keys = [key for key, _ in setting_fields() if name in (key, key.rpartition(".")[2])]
    if not keys and (ours := our_setting(name)) is not None:
        keys = [ours]
    return f" Settings are given as {' or '.join(f'--set {key}=VALUE' for key in keys)}." if keys else said_here(name)
