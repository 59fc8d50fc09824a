import { existsSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import type { Demo } from './prepare-demo.ts'

const STRANGER = 'somebody@example.org'

/**
 * What a visitor of the demo sees: the addresses, the account, and commands to copy. The commands
 * work in the directory `cwd`;
 * `running` is our own program file, from which the path of `bin/auth-relay` follows.
 */
export function formatBanner(demo: Demo, cwd: string, running: string): string {
  const { ports, user, password, domain } = demo
  const send = `swaks --server 127.0.0.1:${ports.smtp} --from ${user}@${domain} --to ${STRANGER}`
  const open = `curl --silent --show-error --insecure --user ${user}:${password} pop3s://127.0.0.1:${ports.pop3s}/1`
  const show = `${quote(commandPath(cwd, running))} show --config ${quote(pathFrom(cwd, demo.config))}`
  return `
The auth-relay demo is running.

  POP3   127.0.0.1:${ports.pop3}
  POP3S  127.0.0.1:${ports.pop3s}   certificate of its own making
  SMTP   127.0.0.1:${ports.smtp}   relays for addresses that have opened a mailbox, and for no other
  page   http://127.0.0.1:${ports.status}/   what happens, for your browser
  account ${user}, password ${password}, address ${user}@${domain}

Try in another terminal, in ${cwd}:

1. Send mail to a stranger. The relay is closed: 553.
   ${send}

2. Open the mailbox. Then repeat command 1: now the relay is open.
   ${open}

3. See who may relay, and until when.
   ${show}

Nothing leaves this machine. Ctrl-C stops everything. What happens:

`
}

/**
 * How our command is called from `cwd`: by its launcher where we run from a built tree, by npm's
 * link to it where npm installed us.
 */
function commandPath(cwd: string, running: string): string {
  const root = dirname(dirname(running))
  const launcher = [join(root, 'bin/auth-relay'), join(root, '../.bin/auth-relay')].find(path => existsSync(path))
  return launcher === undefined ? 'auth-relay' : pathFrom(cwd, launcher)
}

/** The shorter of the relative path downwards and the absolute path. */
function pathFrom(cwd: string, path: string): string {
  const short = relative(cwd, path)
  return short.startsWith('..') || short === '' ? path : short
}

/** A word for the shell. */
const quote = (word: string): string => (/^[\w./@:+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)
