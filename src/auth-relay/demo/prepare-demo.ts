/** The demo: its ports, accounts and settings, and the text that explains it on the screen. */

import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { errorCodeOf, TemporaryFault, UsageFault } from '../../base/errors.ts'
import { type Ids, isRoot } from '../../process/privileges.ts'
import { programBeside } from '../../process/worker-process.ts'
import { ensureSecretFile, hashPassword, writePrivateFile } from '../secrets.ts'
import { formatSettings } from '../text/settings-text.ts'
import { openDemoDirectory, smtpdCommand } from './demo-directory.ts'
import { type HeldPort, holdPort } from './free-port.ts'
import { ensureSampleMaildrop } from './sample-maildrop.ts'

/** Facts for the visitor of the demo. */
type Demo = {
  readonly config: string
  readonly ports: DemoPorts
  readonly user: string
  readonly password: string
  readonly domain: string
  /** False: every program runs under the visitor's account, which is not root. */
  readonly separated: boolean
  /**
   * Where sockets, database and mail are; differs from the settings' directory when that is closed
   * to other accounts.
   */
  readonly runtime: string
  readonly dir: string
}

export type DemoPorts = {
  readonly pop3: number
  readonly pop3s: number
  readonly smtp: number
  readonly status: number
}

type Environment = Readonly<Record<string, string | undefined>>

const HOST = '127.0.0.1'
/**
 * Drain time of sessions after Ctrl-C, in seconds. The value is small, because the user waits for
 * the shell prompt.
 */
const DRAIN_S = 1
const DOMAIN = 'demo.example'
const USER = 'demo'
const PASSWORD = 'demo'
const PORTS = { pop3: 1110, pop3s: 1995, smtp: 1025, status: 8110 } as const
const PORT_VARIABLES = { pop3: 'POP3_PORT', pop3s: 'POP3S_PORT', smtp: 'SMTP_PORT', status: 'STATUS_PORT' } as const

/**
 * Ids without accounts: a new machine has no accounts for auth-relay, and the demo creates none.
 */
const IDS = {
  authd: 61190,
  login: 61191,
  tls: 61192,
  gate: 61193,
  status: 61194,
  mail: 61195,
  database: 61196,
} as const

/**
 * Writes the demo's settings, secrets, account and sample maildrop into a directory, each only if
 * it is missing. The settings are written at every start.
 * @throws UsageFault if a port is invalid, or the directory cannot be made.
 */
export async function prepareDemo(wantedDir: string, environment: Environment): Promise<Demo> {
  const ports = await choosePorts(environment)
  const { dir, runtime } = openDemoDirectory(wantedDir)
  const separated = isRoot()
  const own: Ids = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
  const ids = (uid: number): Ids => (separated ? { uid, gid: uid } : own)
  const account = (uid: number): string => `${ids(uid).uid}:${ids(uid).gid}`
  const maildir = join(runtime, 'mail', USER, 'Maildir')
  const mail = ids(IDS.mail)
  makeDirectories(runtime, separated ? mail : undefined)
  ensureSampleMaildrop(maildir, separated ? mail : undefined)
  ensureSecretFile(join(dir, 'sslhack.pass'))
  await ensurePasswd(join(dir, 'passwd'), mail, join(runtime, 'mail', USER))
  const config = join(dir, 'auth-relay.toml')
  const text = formatSettings(
    {
      '': {
        configured: true,
        run_dir: join(runtime, 'run'),
        state_dir: join(runtime, 'state'),
        syslog: false,
      },
      database: { embedded: true, embedded_user: account(IDS.database) },
      grants: { grant_loopback: true },
      popup: {
        listen: [`${HOST}:${ports.pop3}`],
        hostname: DOMAIN,
        login_user: account(IDS.login),
        checker: 'passwd-file',
        passwd_file: join(dir, 'passwd'),
        ssl_hack_pass: join(dir, 'sslhack.pass'),
        drain_time: DRAIN_S,
      },
      sslwrap: {
        listener: [{ listen: `${HOST}:${ports.pop3s}`, backend: `${HOST}:${ports.pop3}` }],
        user: account(IDS.tls),
        workers: 1,
        cert: join(dir, 'tls.crt'),
        key: join(dir, 'tls.key'),
        drain_time: DRAIN_S,
      },
      authd: {
        user: separated ? account(IDS.authd) : '',
        socket: join(runtime, 'run', 'authd.sock'),
        usage_socket: join(runtime, 'run', 'usage.sock'),
        usage_users: [account(IDS.gate)],
      },
      wrap: {
        listen: [`${HOST}:${ports.smtp}`],
        smtpd: [...smtpdCommand(demoSmtpd(), runtime), DOMAIN, USER, maildir],
        user: account(IDS.gate),
        smtpd_user: account(IDS.mail),
        drain_time: DRAIN_S,
      },
      'status-page': { listen: `${HOST}:${ports.status}`, user: account(IDS.status) },
    },
    {
      head: ['Written by auth-relay up --demo, and replaced at every start: change nothing here.'],
      withDefaults: false,
    },
  )
  writePrivateFile(config, text)
  return { config, ports, user: USER, password: PASSWORD, domain: DOMAIN, separated, runtime, dir }
}

function makeDirectories(runtime: string, mail: Ids | undefined): void {
  for (const name of ['run', 'state', 'mail', join('mail', USER)]) {
    const path = join(runtime, name)
    if (mkdirSync(path, { recursive: true }) !== undefined) chmodSync(path, 0o755)
  }
  if (mail !== undefined) chownSync(join(runtime, 'mail', USER), mail.uid, mail.gid)
}

/**
 * A passwd file with the one account. An existing line is kept only if it names the same maildrop.
 */
async function ensurePasswd(path: string, { uid, gid }: Ids, home: string): Promise<void> {
  const tail = `:${uid}:${gid}:${home}:Maildir\n`
  if (existsSync(path) && readFileSync(path, 'utf8').endsWith(tail)) return
  writePrivateFile(path, `${USER}:${await hashPassword(PASSWORD)}${tail}`)
}

/** The file of the SMTP server, built or as source, beside this program. */
const demoSmtpd = (): string =>
  programBeside('demo-smtpd').replace(/\/demo-smtpd\/main\.ts$/, '/auth-relay/demo/smtpd.ts')

async function choosePorts(environment: Environment): Promise<DemoPorts> {
  const held: HeldPort[] = []
  const choose = async (service: keyof DemoPorts): Promise<number> => {
    const port = await choosePort(service, environment)
    held.push(port)
    return port.port
  }
  try {
    return {
      pop3: await choose('pop3'),
      pop3s: await choose('pop3s'),
      smtp: await choose('smtp'),
      status: await choose('status'),
    }
  } finally {
    for (const port of held) await port.release()
  }
}

/**
 * 0 in the environment means a free port. A port in use is reported at once, with the variable that
 * changes it.
 */
async function choosePort(service: keyof DemoPorts, environment: Environment): Promise<HeldPort> {
  const variable = PORT_VARIABLES[service]
  const text = environment[variable] ?? String(PORTS[service])
  if (!/^\d{1,5}$/.test(text) || Number(text) > 65_535) {
    throw new UsageFault(`${variable}=${text} is not a port: write a number from 0 (any free port) to 65535`)
  }
  try {
    return await holdPort(HOST, Number(text))
  } catch (error) {
    // The port of the page may differ, because the screen names it.
    if (service === 'status' && environment[variable] === undefined) return holdPort(HOST, 0)
    const why = errorCodeOf(error) === 'EACCES' ? 'needs root' : 'is in use'
    throw new TemporaryFault(
      `port ${text} on ${HOST} ${why}: stop the other server, or choose another port: ${variable}=0 takes a free one`,
      error,
    )
  }
}

const STRANGER = 'somebody@example.org'

/**
 * The text on the screen: the addresses, the account, and commands to copy. The commands work in
 * the directory `cwd`. `running` is the program file of this process, from which the path of
 * `bin/auth-relay` follows.
 */
export function formatBanner(demo: Demo, cwd: string, running: string): string {
  const { ports, user, password, domain } = demo
  const send = `swaks --server 127.0.0.1:${ports.smtp} --from ${user}@${domain} --to ${STRANGER}`
  const open = `curl --silent --show-error --insecure --user ${user}:${password} pop3s://127.0.0.1:${ports.pop3s}/1`
  const show = `${quote(commandPath(cwd, running))} show --config ${quote(pathFrom(cwd, demo.config))}`
  return `
The auth-relay demo is running.

  POP3   127.0.0.1:${ports.pop3}
  POP3S  127.0.0.1:${ports.pop3s}   self-signed certificate
  SMTP   127.0.0.1:${ports.smtp}   relays for addresses that have opened a mailbox, and for no other
  page   http://127.0.0.1:${ports.status}/   what happens, for your browser
  account ${user}, password ${password}, address ${user}@${domain}

Try in another terminal, in ${cwd}:

1. Send mail to an address elsewhere. The relay is closed: 553.
   ${send}

2. Open the mailbox. Then repeat command 1: now the relay is open.
   ${open}

3. List the addresses that may relay, and until when.
   ${show}

Nothing leaves this machine. Ctrl-C stops everything. What happens:

`
}

/**
 * The command of auth-relay as seen from `cwd`: the launcher in a built tree, or npm's link to it
 * after an installation by npm.
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

/** Quotes an argument for the shell. */
const quote = (word: string): string => (/^[\w./@:+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)
