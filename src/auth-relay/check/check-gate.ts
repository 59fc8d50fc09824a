/** Checks of the gate's surroundings on this host: the cdb of tcprules, Postfix and Exim. */

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { messageOf } from '../../base/errors.ts'
import { isReadable } from '../../base/files.ts'
import { idsOf, isRoot } from '../../process/privileges.ts'
import { formatSocketAddress } from '../../process/socket-address.ts'
import type { Settings, ShownSetting } from '../../settings/settings.ts'
import { Cdb } from '../../wire/cdb.ts'
import { parseTcpRule, parseTcpRules } from '../../wire/tcprules.ts'
import {
  accountWithGroups,
  mayAccount,
  type ProgramAccount,
  rightsFindings,
  type UnitFacts,
  unitFacts,
} from './check-rights.ts'
import { advice, type Finding, fine, unsafe } from './finding.ts'
import { sandboxFindings } from './sandbox.ts'

/** Maximum number of faults that are named for one file. */
const MAX_FAULTS = 5

/**
 * Checks the gate's files of tcprules with the rights of the gate's account. These are the rules
 * that the gate reads for each connection, the site's rules, and the directory of the cdb export.
 */
export function checkTcpRules(
  settings: Settings,
  unit: (name: string) => UnitFacts | undefined = unitFacts,
): readonly Finding[] {
  const { wrap } = settings
  const account = accountOfGate(wrap.user, unit('auth-relay-wrap.service'))
  return [
    ...(wrap.rules === '' || wrap.listen.length === 0
      ? []
      : rightsFindings('wrap.rules', () => checkRulesFile(wrap.rules, account))),
    ...checkCdbExport(settings, account),
  ]
}

/** Without readable rules the gate closes each connection with 421, as tcpserver closes it. */
function checkRulesFile(path: string, account: ProgramAccount): readonly Finding[] {
  const about = 'wrap.rules'
  const refused = 'every client gets 421'
  const hidden = sandboxFindings(about, account.sandbox, path, 'read', refused)
  if (hidden.length > 0) return hidden
  if (!existsSync(path)) {
    return [unsafe(about, `${path} does not exist: ${refused}`, 'create it with tcprules, or remove wrap.rules')]
  }
  if (!mayAccount(account, 'r', path)) {
    return [unsafe(about, `${account.name} cannot read ${path}: ${refused}`, `chmod a+r ${path}`)]
  }
  try {
    new Cdb(readFileSync(path)).get('')
    return [fine(about, `${account.name} can read ${path}`)]
  } catch (error) {
    return [unsafe(about, `${path}: ${messageOf(error)}: ${refused}`, 'name a cdb of tcprules')]
  }
}

function checkCdbExport({ wrap, grants }: Settings, account: ProgramAccount): readonly Finding[] {
  if (wrap.tcprules_cdb === '') {
    return wrap.tcprules_static === ''
      ? []
      : [
          advice(
            'wrap.tcprules_static',
            'it has no effect without tcprules_cdb',
            'set tcprules_cdb, or remove tcprules_static',
          ),
        ]
  }
  return [
    ...rightsFindings('wrap.tcprules_cdb', () => checkDirectory(wrap.tcprules_cdb, account)),
    ...(wrap.tcprules_static === ''
      ? []
      : rightsFindings('wrap.tcprules_static', () => checkRules(wrap.tcprules_static, account))),
    ...(grants.ipv6_prefix === 128 ? [] : [LOST_NETWORKS]),
  ]
}

const LOST_NETWORKS = advice(
  'grants.ipv6_prefix',
  "the tcpserver of Debian's ucspi-tcp-ipv6 finds no network in tcprules_cdb whose prefix holds a group of zeros (2001:db8:0:5::/64)",
  'let the resident gate listen, or use ucspi-tcp6',
)

const THIS_ACCOUNT: ProgramAccount = {
  name: 'this account',
  ids: { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 },
  groups: [],
}

function accountOfGate(user: string, facts: UnitFacts | undefined): ProgramAccount {
  const sandbox = facts?.sandbox
  if (user === '' || !isRoot()) return { ...THIS_ACCOUNT, sandbox }
  try {
    return { name: user, ids: idsOf(user, 'wrap.user'), groups: facts?.groups ?? [], sandbox }
  } catch {
    return { ...THIS_ACCOUNT, sandbox } // Another finding reports the missing account.
  }
}

function checkDirectory(cdb: string, account: ProgramAccount): readonly Finding[] {
  const about = 'wrap.tcprules_cdb'
  const directory = dirname(cdb)
  const closed = sandboxFindings(about, account.sandbox, directory, 'write', 'the gate cannot replace the cdb')
  if (closed.length > 0) return closed
  return mayAccount(account, 'w', directory) && mayAccount(account, 'x', directory)
    ? [fine(about, `${account.name} can replace ${cdb}`)]
    : [
        unsafe(
          about,
          `${account.name} cannot make files in ${directory}`,
          `give the cdb its own directory: install -d -o ${account.name === THIS_ACCOUNT.name ? 'ACCOUNT' : account.ids.uid} DIRECTORY`,
        ),
      ]
}

function checkRules(path: string, account: ProgramAccount): readonly Finding[] {
  const about = 'wrap.tcprules_static'
  const hidden = sandboxFindings(about, account.sandbox, path, 'read', 'the gate cannot read the rules')
  if (hidden.length > 0) return hidden
  if (!existsSync(path))
    return [unsafe(about, `${path} does not exist`, 'write the rules there; an empty file suffices')]
  if (!mayAccount(account, 'r', path)) {
    return [unsafe(about, `${account.name} cannot read ${path}`, `chmod a+r ${path}`)]
  }
  let text: Buffer
  try {
    text = readFileSync(path)
  } catch (error) {
    return [unsafe(about, messageOf(error), 'name a rules text of tcprules')]
  }
  const { records, faults } = parseTcpRules(text)
  if (faults.length > 0) {
    return faults
      .slice(0, MAX_FAULTS)
      .map(({ line, reason }) =>
        unsafe(about, `${path}:${line}: ${reason}`, 'the rules before the fault stay in force until it is corrected'),
      )
  }
  const byName = records.find(({ key, data }) => /^(?:[^@]*@)?=/.test(key) && !parseTcpRule(data).allow)
  return [
    fine(about, `${path} has ${records.length} rules`),
    ...(byName === undefined
      ? []
      : [
          advice(
            about,
            `${byName.key}:deny does not override a grant: tcpserver finds the address before the name`,
            'deny addresses',
          ),
        ]),
  ]
}

/** Names the settings that are written by a former name. */
export const checkNames = (shown: readonly ShownSetting[]): readonly Finding[] =>
  shown.flatMap(({ section, name, formerName, origin }) =>
    formerName === undefined
      ? []
      : [
          advice(
            `${section}.${formerName}`,
            `is called ${name} now; the former name stays valid`,
            origin.kind === 'environment' ? `rename ${origin.variable}` : `write ${name}`,
          ),
        ],
  )

/** Services of the gate, by the name of the setting. */
type ServiceSettings = Pick<Settings['wrap'], 'policy_listen' | 'socketmap_listen' | 'query_listen'>

/**
 * Checks whether a Postfix of this host reaches the gate's Unix sockets that its main.cf names. An
 * smtpd in a chroot, as on Debian, resolves an absolute path inside the queue directory. A relative
 * path begins there with and without a chroot. An account without write access to a socket cannot
 * connect.
 */
export function checkPostfix({ wrap }: { readonly wrap: ServiceSettings }, etc = '/etc/postfix'): readonly Finding[] {
  const main = logicalLines(textOf(join(etc, 'main.cf')))
  const setting = (name: string): string | undefined =>
    main.map(line => new RegExp(`^${name}\\s*=\\s*(\\S+)`).exec(line)?.[1]).findLast(value => value !== undefined)
  const queue = setting('queue_directory') ?? '/var/spool/postfix'
  const isChrooted = logicalLines(textOf(join(etc, 'master.cf'))).some(line => {
    const [, , , , chroot, , , command] = line.split(/\s+/)
    return command === 'smtpd' && chroot === 'y'
  })
  return unixSockets(wrap).flatMap(({ name, about, path }): readonly Finding[] => {
    const relative = path.startsWith(`${queue}/`) ? path.slice(queue.length + 1) : undefined
    const isRelative = relative !== undefined && main.some(line => namesSocket(line, relative))
    if (!isRelative && !main.some(line => namesSocket(line, path))) return []
    const inside = isChrooted && !isRelative ? join(queue, path) : path
    if (inside !== path && statSync(inside, { throwIfNoEntry: false })?.isSocket() !== true) {
      return [
        unsafe(
          about,
          `the smtpd of Postfix runs in the chroot ${queue} and cannot reach ${path}: it defers all mail`,
          `${relative === undefined ? '' : `write unix:${relative} in main.cf, or `}use inet:127.0.0.1:10040 in main.cf and ${name} = ["127.0.0.1:10040"], or write n in the chroot column of smtpd in master.cf`,
        ),
      ]
    }
    const refused = accessFindings(about, inside, setting('mail_owner') ?? 'postfix', 'postfix')
    if (refused.length > 0) return refused
    return isChrooted ? [fine(about, `the smtpd of Postfix reaches ${path} in its chroot`)] : []
  })
}

/** The configuration that Debian's Exim reads. */
const EXIM_CONFIGURATION = '/var/lib/exim4/config.autogenerated'

/** Parts of Exim's query, and the rules that the query service can check with each of them. */
const QUERY_PARTS = [
  { key: 'sender_encoded', kind: 'senders', missing: 'the sender, so that no rule for senders' },
  {
    key: 'recipient_encoded',
    kind: 'recipient domains',
    missing: 'the recipient, so that no rule for recipient domains',
  },
  { key: 'instance', kind: 'limits', missing: 'the message, so that no limit' },
] as const
/** A kind of rules about mail, in the words of a warning. */
export type RuleKind = (typeof QUERY_PARTS)[number]['kind']

/** Returns the lines of Exim that query the gate. A line may continue after a backslash. */
function eximQueries({ query_listen }: ServiceSettings, text: string): readonly string[] {
  const asked = query_listen.map(address =>
    address.kind === 'unix' ? `readsocket{${address.path}}` : `readsocket{inet:${formatSocketAddress(address)}}`,
  )
  return text
    .replace(/\\\n[ \t]*/g, '')
    .split('\n')
    .filter(line => asked.some(socket => line.includes(socket)))
}

const lacks = (lines: readonly string[], key: string): boolean => lines.some(line => !line.includes(` ${key}=`))

/**
 * Returns the rules that Exim enforces by the query service. If the configuration cannot be read,
 * all: Debian's has mode 0640. Without Exim none, because then only `explain` and the exec mode
 * send queries.
 */
export function rulesOfExim(wrap: ServiceSettings, configuration = EXIM_CONFIGURATION): ReadonlySet<RuleKind> {
  const isUnreadable = existsSync(configuration) && !isReadable(configuration)
  const lines = isUnreadable ? [] : eximQueries(wrap, textOf(configuration))
  if (wrap.query_listen.length === 0 || (lines.length === 0 && !isUnreadable)) return new Set()
  return new Set(QUERY_PARTS.filter(({ key }) => !lacks(lines, key)).map(({ kind }) => kind))
}

/** Checks whether Debian's Exim may connect to the Unix sockets that its configuration names. */
export function checkExim(
  { wrap }: { readonly wrap: ServiceSettings },
  { configuration = EXIM_CONFIGURATION, account = 'Debian-exim' } = {},
): readonly Finding[] {
  const text = textOf(configuration)
  const access = unixSockets(wrap).flatMap(({ about, path }) =>
    text.includes(`readsocket{${path}}`) ? accessFindings(about, path, account, 'exim4') : [],
  )
  const lines = eximQueries(wrap, text)
  return [
    ...access,
    ...QUERY_PARTS.filter(({ key }) => lacks(lines, key)).map(({ key, missing }) =>
      advice(
        'wrap.query_listen',
        `the query of Exim does not name ${missing} of a device or of [wrap] holds there`,
        `use the lines of INSTALL, section Exim, with ${key}=`,
      ),
    ),
  ]
}

const unixSockets = (wrap: ServiceSettings) =>
  (['policy_listen', 'socketmap_listen', 'query_listen'] as const).flatMap(name =>
    wrap[name].flatMap(address =>
      address.kind === 'unix' ? [{ name, about: `wrap.${name}`, path: address.path }] : [],
    ),
  )

/**
 * Unsafe if the account of a mail server cannot connect to the socket of a gate that runs. Without
 * root no account can be tried.
 */
function accessFindings(about: string, path: string, name: string, unit: string): readonly Finding[] {
  const status = statSync(path, { throwIfNoEntry: false })
  if (!isRoot() || status?.isSocket() !== true) return []
  const account = accountWithGroups(name)
  if (account === undefined) return []
  return rightsFindings(about, () => {
    if (mayAccount(account, 'w', path)) return []
    const group = spawnSync('getent', ['group', String(status.gid)], { encoding: 'utf8' }).stdout?.split(':')[0] ?? ''
    return [
      unsafe(
        about,
        `the account ${name} may not connect to ${path}, so the mail server gets no answer and the relay stays closed`,
        `adduser ${name} ${group === '' ? status.gid : group} && systemctl restart ${unit}`,
      ),
    ]
  })
}

const namesSocket = (line: string, path: string): boolean =>
  [...line.matchAll(/unix:([^\s,{}]+)/g)].some(([, named = '']) => named === path || named.startsWith(`${path}:`))

/** Lines of postconf(5): one that begins with a blank continues the line before. */
const logicalLines = (text: string): readonly string[] =>
  text
    .split('\n')
    .filter(line => !/^\s*(#|$)/.test(line))
    .join('\n')
    .replace(/\n\s+/g, ' ')
    .split('\n')

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return '' // this host has no Postfix
  }
}
