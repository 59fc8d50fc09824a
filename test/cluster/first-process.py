"""Process 1 of a database node's PID namespace. It starts the programs that its standard input names, and reaps each orphan.

A line of the input is one JSON object: {"argv": [...], "env": {...}, "log": "FILE"}. A killed postmaster is an orphan. Without
reaping it would stay a zombie, and Patroni would report it as a running server.
"""
import json
import os
import signal
import sys


def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0] > 0:
            pass
    except ChildProcessError:
        pass


signal.signal(signal.SIGCHLD, reap)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.execvpe(order["argv"][0], order["argv"], {**os.environ, **order["env"]})
    print("started", flush=True)
