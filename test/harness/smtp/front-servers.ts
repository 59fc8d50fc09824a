import { spawnSync } from 'node:child_process'
import { chownSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { inPackage, PACKAGE_IDS, unpackedPackage } from '../hosts/unpacked-package.ts'
import type { Need } from '../runner/describe-with.ts'
import { command } from '../runner/describe-with.ts'

/**
 * A message that a mail server has accepted: its envelope sender, and its content if the server
 * stores the content unchanged.
 */
export type AcceptedMessage = { readonly sender: string; readonly content: string }

/** A mail server that the gate starts for each connection, on a socket pair behind the front. */
export type FrontServer = {
  readonly name: string
  readonly needs: readonly Need[]
  /** Makes the files of the server in an empty folder, and returns the command that starts it. */
  readonly prepare: (home: string) => readonly string[]
  /** All messages that the server has accepted, in no order. */
  readonly messages: (home: string) => readonly AcceptedMessage[]
  /** The server's reply to a second MAIL in one transaction. */
  readonly secondMail: 250 | 503
}

const QMAIL_SMTPD = new URL('./qmail-smtpd.ts', import.meta.url).pathname

const folder = (path: string, owner?: number): void => {
  mkdirSync(path)
  if (owner !== undefined) chownSync(path, owner, owner)
}
const filesIn = (path: string): readonly string[] => (existsSync(path) ? readdirSync(path) : [])
const latin1 = (path: string): string => readFileSync(path, 'latin1')

const qmail: FrontServer = {
  name: 'the double of qmail-smtpd',
  needs: [],
  prepare: home => [process.execPath, '--disable-warning=ExperimentalWarning', QMAIL_SMTPD, `${home}/saw`],
  messages: home =>
    (existsSync(`${home}/saw.messages`) ? latin1(`${home}/saw.messages`) : '')
      .split('\n')
      .filter(line => line !== '')
      .map(line => ({ sender: line.split(' ')[1] ?? '', content: '' })),
  secondMail: 250,
}

const exim: FrontServer = {
  name: 'exim4 -bs',
  needs: [unpackedPackage('exim4-daemon-light')],
  prepare: home => {
    for (const name of ['spool', 'log']) folder(`${home}/${name}`, PACKAGE_IDS.exim)
    writeFileSync(
      `${home}/exim.conf`,
      `primary_hostname = mx.example.org
spool_directory = ${home}/spool
log_file_path = ${home}/log/%slog
queue_only = true
host_lookup =
rfc1413_query_timeout = 0s
acl_smtp_rcpt = recipient
begin acl
recipient:
  accept hosts = :
  deny message = relay not permitted
`,
      { mode: 0o644 },
    )
    return [...inPackage('exim4-daemon-light'), '/usr/sbin/exim4', '-C', `${home}/exim.conf`, '-bs']
  },
  messages: home =>
    filesIn(`${home}/spool/input`)
      .filter(name => name.endsWith('-H'))
      .map(name => {
        const [, , sender = ''] = latin1(`${home}/spool/input/${name}`).split('\n')
        return {
          sender: sender.slice(1, -1),
          content: latin1(`${home}/spool/input/${name.replace(/H$/, 'D')}`),
        }
      }),
  secondMail: 503,
}

const sendmail: FrontServer = {
  name: 'sendmail -bs',
  needs: [command('m4'), unpackedPackage('sendmail-bin')],
  prepare: home => {
    folder(`${home}/queue`)
    writeFileSync(`${home}/hosts`, '127.0.0.1 mx.example.org localhost\n')
    writeFileSync(
      `${home}/sendmail.mc`,
      `divert(-1)dnl
include(\`/usr/share/sendmail/cf/m4/cf.m4')dnl
divert(0)dnl
OSTYPE(\`linux')dnl
define(\`confDOMAIN_NAME', \`mx.example.org')dnl
define(\`QUEUE_DIR', \`${home}/queue')dnl
define(\`ALIAS_FILE', \`')dnl
define(\`STATUS_FILE', \`')dnl
define(\`HELP_FILE', \`')dnl
define(\`confPID_FILE', \`${home}/pid')dnl
define(\`confTO_IDENT', \`0')dnl
define(\`confDELIVERY_MODE', \`queueonly')dnl
FEATURE(\`accept_unresolvable_domains')dnl
MAILER(\`local')dnl
MAILER(\`smtp')dnl
LOCAL_CONFIG
Cwexample.org
`,
    )
    const [file = '', ...args] = [...inPackage('sendmail-bin'), 'm4', '-D_CF_DIR_=/usr/share/sendmail/cf/']
    const made = spawnSync(file, [...args, `${home}/sendmail.mc`], { encoding: 'utf8' })
    if (made.status !== 0) throw new Error(`m4: ${made.stderr}`)
    writeFileSync(`${home}/sendmail.cf`, made.stdout)
    const start = `mount --bind ${home}/hosts /etc/hosts && hostname mx.example.org && exec "$@"`
    const program = ['/usr/libexec/sendmail/sendmail', `-C${home}/sendmail.cf`, '-bs']
    return [...inPackage('sendmail-bin'), 'unshare', '--uts', 'sh', '-c', start, 'start', ...program]
  },
  messages: home =>
    filesIn(`${home}/queue`)
      .filter(name => name.startsWith('qf'))
      .map(name => ({
        sender: /^S<?([^>\n]*)/m.exec(latin1(`${home}/queue/${name}`))?.[1] ?? '',
        content: latin1(`${home}/queue/df${name.slice(2)}`),
      })),
  secondMail: 503,
}

/**
 * `check` advises against this server, because it does not check addresses. It has the oldest rule
 * for the end of a message.
 */
const postfix: FrontServer = {
  name: 'sendmail -bs of Postfix',
  needs: [unpackedPackage('postfix')],
  prepare: home => {
    for (const name of ['data', 'queue', 'queue/pid']) folder(`${home}/${name}`)
    for (const name of ['active', 'incoming', 'maildrop', 'public', 'private'])
      folder(`${home}/queue/${name}`, PACKAGE_IDS.postfix)
    chownSync(`${home}/data`, PACKAGE_IDS.postfix, PACKAGE_IDS.postfix)
    writeFileSync(
      `${home}/main.cf`,
      `compatibility_level = 3.6
queue_directory = ${home}/queue
data_directory = ${home}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
shlib_directory = /usr/lib/postfix
meta_directory = ${home}
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.example.org
mydestination = example.org
local_recipient_maps =
alias_maps =
smtpd_tls_security_level = none
import_environment = MAIL_CONFIG
alternate_config_directories = ${home}
`,
    )
    writeFileSync(`${home}/master.cf`, '')
    return [...inPackage('postfix'), '/usr/sbin/sendmail', '-C', home, '-bs']
  },
  messages: home =>
    filesIn(`${home}/queue/maildrop`).map(name => {
      const records = latin1(`${home}/queue/maildrop/${name}`)
      return { sender: /S.([^@\0-\x1f]+@example\.org)/s.exec(records)?.[1] ?? '', content: records }
    }),
  secondMail: 503,
}

export const FRONT_SERVERS: readonly FrontServer[] = [qmail, exim, sendmail, postfix]
