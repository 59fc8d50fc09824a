#!/usr/bin/python3
"""A checkpassword program for tests: ACCOUNTS in argv[1] is `login:password:uid:home,...`; the rest is the program."""
import os
import signal
import sys

login, secret, timestamp = [field.decode("latin-1") for field in os.read(3, 513).split(b"\0")[:3]]
os.close(3)
if login == "crash":
    os.kill(os.getpid(), signal.SIGKILL)
if login == "temporary":
    sys.exit(111)
if login == "misuse":
    sys.exit(2)
if login == "sleep":
    signal.pause()
for account in sys.argv[1].split(","):
    name, password, uid, home = account.split(":")
    if name == login and password == secret:
        if os.geteuid() == 0 and uid != "0":
            os.setgroups([])
            os.setgid(int(uid))
            os.setuid(int(uid))
        os.chdir(home)
        os.environ.update(USER=name, HOME=home)
        if os.environ.get("RECORD"):
            with open(os.environ["RECORD"] + "." + str(os.getpid()), "w") as record:
                record.write("\n".join(f"{key}={value}" for key, value in sorted(os.environ.items())))
        os.execvp(sys.argv[2], sys.argv[2:])
sys.exit(1)
