"""Where the command begins: until a command is at work, Ctrl-C ends the process by its signal, without a traceback.

Layer: tools. Loads nothing before that is so.
"""

import signal


def main() -> None:
    """Run the command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where whoever started us has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from tools.main import main as run  # noqa: PLC0415 - takes half a second, in which somebody may change their mind

    run()
