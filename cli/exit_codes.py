"""What the command's exit says; README and `xadapt --help` list the same."""

# 0: all is well
FAILED = 1
USER = 2  # something the user gave cannot be used
RESUMABLE = 75  # stopped by a signal, with what was done kept: the same command goes on
INTERRUPTED = 130  # stopped before any stage ran
UNREAD = 141  # whoever read the output has left, as `head` does: what a shell reports of SIGPIPE
