import { chownSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { pathOf } from '../../test/harness/runner/describe-with.ts'
import { overlayPrefix } from './overlay.ts'

/** The maildrops of a bench. Every server has the same, with the same password and hash. */
export type PopSite = {
  /** A folder of the bench that other accounts may enter. */
  readonly directory: string
  readonly owner: { readonly uid: number; readonly gid: number }
  readonly users: readonly string[]
  /** crypt(3) of the password of all users. */
  readonly hash: string
  /** The Maildir itself of a user. */
  readonly maildir: (user: string) => string
  /** A folder with the same messages in mbox form, one file a user. */
  readonly mailboxes: string
  /** Number of concurrent sessions that a server must accept. */
  readonly sessions: number
}

/** Starts the server of another project. */
export type PeerCommand = {
  readonly command: readonly string[]
  /** Every important setting, for the report. */
  readonly settings: string
}

export type PopPeer = {
  readonly name: string
  /** The Debian package of the reported version. */
  readonly debianPackage: string
  /** True if it is installed; otherwise it is unpacked. */
  readonly installed: boolean
  readonly command: (site: PopSite, port: number) => PeerCommand
}

/** Parts of a Dovecot besides a clear-text port and accounts in a file. */
export type DovecotParts = {
  readonly tls?: { readonly port: number; readonly certificate: string; readonly key: string }
  /** Lines of the userdb, in place of the one that reads the accounts from a file. */
  readonly userdb?: string
}

export function dovecot(
  site: PopSite,
  name: string,
  port: number,
  tuning: string,
  { tls, userdb }: DovecotParts = {},
): PeerCommand {
  const { directory, owner, users, hash, maildir } = site
  const own = `${directory}/${name}`
  mkdirSync(`${own}/index`, { recursive: true })
  chownSync(`${own}/index`, owner.uid, owner.gid)
  const accounts = users.map(user => `${user}:{CRYPT}${hash}:${owner.uid}:${owner.gid}::${maildir(user)}::\n`)
  writeFileSync(`${own}/users`, accounts.join(''))
  const settings = `protocols = pop3
listen = 127.0.0.1
${tls === undefined ? 'ssl = no' : 'ssl = yes\nssl_min_protocol = TLSv1.2'}
disable_plaintext_auth = no
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:~/:INDEX=${own}/index/%u
mail_max_userip_connections = 0
passdb {
  driver = passwd-file
  args = ${own}/users
}
userdb {
  ${userdb ?? `driver = passwd-file\n  args = ${own}/users`}
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
${tuning}`
  const listener = `service pop3-login {
  inet_listener pop3 {
    port = ${port}
  }
  inet_listener pop3s {
    port = ${tls?.port ?? 0}
  }
}
${tls === undefined ? '' : `ssl_cert = <${tls.certificate}\nssl_key = <${tls.key}\n`}base_dir = ${own}/run
state_dir = ${own}/state
log_path = ${own}/log
`
  writeFileSync(`${own}/dovecot.conf`, settings + listener)
  return { command: [pathOf('dovecot') ?? 'dovecot', '-F', '-c', `${own}/dovecot.conf`], settings }
}

/**
 * The fastest settings found: long-lived processes with many sessions each; no fsync, no flags
 * written.
 */
export const TUNING = `auth_cache_size = 10M
mail_fsync = never
mail_always_cache_fields = size.virtual size.physical pop3.uidl
maildir_very_dirty_syncs = yes
pop3_no_flag_updates = yes
default_vsz_limit = 0
service pop3-login {
  service_count = 0
  process_min_avail = 2
  client_limit = 5000
}
service pop3 {
  service_count = 0
  client_limit = 100
  process_min_avail = 2
  process_limit = 4000
}
service anvil {
  client_limit = 10000
}
service auth {
  client_limit = 10000
}
`

const underBatch = ({ command, settings }: PeerCommand): PeerCommand => {
  const policy = ['chrt', '--batch', '0']
  return { command: [...policy, ...command], settings: `started by ${policy.join(' ')}\n${settings}` }
}

/** The defaults, with limits for the sessions of a bench. */
const roomy = ({ sessions }: PopSite): string => `service pop3-login {
  process_limit = ${sessions * 4}
}
service pop3 {
  process_limit = ${sessions * 4}
}
`

/**
 * The accounts of the host and the users of the bench, as system accounts with shadow passwords.
 */
function accounts({ users, owner, hash, maildir }: PopSite, ...services: readonly string[]): Record<string, string> {
  const lines = users.map(user => `${user}:x:${owner.uid}:${owner.gid}::${maildir(user)}:/bin/sh\n`)
  const own = services.map((name, n) => `${name}:x:${61_240 + n}:${owner.gid}::/:/bin/false\n`)
  return {
    '/etc/passwd': readFileSync('/etc/passwd', 'utf8') + lines.join('') + own.join(''),
    '/etc/shadow': users.map(user => `${user}:${hash}:19000:0:99999:7:::\n`).join(''),
  }
}

/** Checks passwords with /etc/shadow only. */
const PAM = 'auth required pam_unix.so\naccount required pam_permit.so\n'

const tcpserver = ({ sessions }: PopSite, port: number, ...program: readonly string[]): readonly string[] => [
  pathOf('tcpserver') ?? 'tcpserver',
  // D: TCP_NODELAY. Without it the answers wait for the client's acknowledgement.
  '-DHRl0',
  '-b',
  '512',
  '-c',
  String(sessions * 2),
  '127.0.0.1',
  String(port),
  ...program,
]

export function courier(site: PopSite, port: number): PeerCommand {
  const { directory, owner, users, hash, maildir, sessions } = site
  const own = `${directory}/courier`
  const people = users.map(
    user => `${user}\tuid=${owner.uid}|gid=${owner.gid}|home=${maildir(user)}|mail=${maildir(user)}|pop3pw=${hash}\n`,
  )
  const authdaemon = 'authmodulelist="authuserdb"\ndaemons=5\nDEBUG_LOGIN=0\nauthdaemonvar=/run/courier/authdaemon\n'
  const prefix = overlayPrefix({
    packages: [
      'courier-pop',
      'courier-base',
      'courier-authlib',
      'courier-authlib-userdb',
      'libcourier-unicode4',
      'libltdl7',
    ],
    directory: own,
    files: { '/etc/courier/authdaemonrc': authdaemon, '/etc/courier/userdb': people.join('') },
  })
  const many = String(sessions * 2)
  const tcpd = [
    'couriertcpd',
    '-address=127.0.0.1',
    `-maxprocs=${many}`,
    `-maxperip=${many}`,
    '-nodnslookup',
    '-noidentlookup',
  ]
  // The database of users is made in a separate namespace, and the next namespace sees it.
  const script = `${prefix.map(quoted).join(' ')} makeuserdb -f '${own}/etc/courier/userdb'
exec ${prefix.map(quoted).join(' ')} sh -c 'mkdir -p /run/courier/authdaemon
setpriv --pdeathsig TERM /usr/lib/courier/courier-authlib/authdaemond 2>/dev/null &
exec env MAILDIRPATH=. POP3AUTH= POP3AUTH_ORIG=PLAIN POP3_PROXY=0 ${tcpd.join(' ')} ${port} \\
  /usr/lib/courier/courier/courierpop3login /usr/lib/courier/courier/courierpop3d . 2>/dev/null'`
  return { command: ['sh', '-c', script], settings: `${tcpd.join(' ')}\n${authdaemon}` }
}

const quoted = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`

function popa3d(site: PopSite, port: number): PeerCommand {
  const prefix = overlayPrefix({
    packages: ['popa3d'],
    directory: `${site.directory}/popa3d`,
    files: { ...accounts(site, 'popa3d'), '/etc/pam.d/popa3d': PAM },
    state: ['popa3d'],
    mailboxes: site.mailboxes,
  })
  const run = tcpserver(site, port, 'popa3d')
  return { command: [...prefix, ...run], settings: `${run.join(' ')}\nmailboxes in mbox form\n${PAM}` }
}

function solidPop3d(site: PopSite, port: number): PeerCommand {
  const prefix = overlayPrefix({
    packages: ['solid-pop3d', 'liblockfile1'],
    directory: `${site.directory}/solid-pop3d`,
    files: { ...accounts(site, 'spop3d'), '/etc/pam.d/solid-pop3d': PAM },
    state: ['solid-pop3d/bulletins'],
  })
  const run = tcpserver(site, port, 'solid-pop3d', '-n', '.', '-t', 'maildir')
  return { command: [...prefix, ...run], settings: `${run.join(' ')}\n${PAM}` }
}

/** The peers of auth-relay. Debian 12 has no qmail-pop3d. */
export const POP_PEERS: readonly PopPeer[] = [
  {
    name: 'dovecot tuned',
    debianPackage: 'dovecot-pop3d',
    installed: true,
    command: (site, port) => dovecot(site, 'tuned', port, TUNING),
  },
  {
    // auth-relay sets this policy itself (decision 10). Dovecot has no setting for it, and gains
    // more.
    name: 'dovecot tuned, SCHED_BATCH',
    debianPackage: 'dovecot-pop3d',
    installed: true,
    command: (site, port) => underBatch(dovecot(site, 'batch', port, TUNING)),
  },
  {
    name: 'dovecot default',
    debianPackage: 'dovecot-pop3d',
    installed: true,
    command: (site, port) => dovecot(site, 'default', port, roomy(site)),
  },
  { name: 'courier', debianPackage: 'courier-pop', installed: false, command: courier },
  { name: 'popa3d', debianPackage: 'popa3d', installed: false, command: popa3d },
  { name: 'solid-pop3d', debianPackage: 'solid-pop3d', installed: false, command: solidPop3d },
]
