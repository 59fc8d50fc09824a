/** The path of a log line from the syslogd of this host to authd, by the files of that syslogd. */

import { readdirSync, readFileSync, type Stats, statSync } from 'node:fs'
import { join } from 'node:path'
import { formatSocketAddress } from '../../process/socket-address.ts'
import type { Settings } from '../../settings/settings.ts'
import { advice, type Finding, fine, unsafe } from './finding.ts'

/**
 * The rule for rsyslog in deploy/rsyslog/to-authd-tcp.conf, in one line. Its queue keeps lines
 * while authd is stopped.
 */
export const omfwdRule = (port: number): string =>
  `mail.info action(type="omfwd" target="127.0.0.1" port="${port}" protocol="tcp" tcp_framing="octet-counted" ` +
  'queue.type="LinkedList" queue.size="100000" queue.timeoutEnqueue="0" action.resumeRetryCount="-1" action.resumeInterval="2")'

/** Where the syslogds of this kind of system have their settings, below /etc. */
const SYSLOG_FILES = [
  'rsyslog.conf',
  'rsyslog.d',
  'syslog.conf',
  'syslog-ng/syslog-ng.conf',
  'syslog-ng/conf.d',
] as const

/**
 * Checks the path from syslogd to authd: the FIFO, whether a program writes to it, and which
 * accounts and networks can.
 */
export function checkSyslog({ authd }: Pick<Settings, 'authd'>, etc = '/etc'): readonly Finding[] {
  if (authd.syslog_fifo === '' && authd.syslog_listen.length === 0) return []
  const lines = SYSLOG_FILES.flatMap(name => filesOf(join(etc, name))).flatMap(linesOf)
  return [
    ...checkFifo(authd.syslog_fifo, authd.user === '' ? 'auth-relay' : authd.user, lines),
    ...checkDelivery(authd.syslog_listen, lines),
    ...checkNetwork(lines),
  ]
}

function checkFifo(path: string, user: string, lines: readonly SyslogLine[]): Finding[] {
  const about = 'authd.syslog_fifo'
  if (path === '') return []
  const makeFifo = `mkfifo -m 600 ${path} && chown ${user} ${path}`
  const status = statOf(path)
  if (status === undefined) {
    return [unsafe(about, `${path} does not exist`, `mkdir -p ${join(path, '..')} && ${makeFifo}`)]
  }
  if (!status.isFIFO()) return [unsafe(about, `${path} is not a FIFO`, `rm ${path} && ${makeFifo}`)]
  if ((status.mode & 0o022) !== 0) {
    const mode = (status.mode & 0o7777).toString(8).padStart(4, '0')
    return [unsafe(about, `others may write to ${path} (${mode}), and so grant any address`, `chmod 600 ${path}`)]
  }
  return [
    lines.some(({ text }) => text.includes(path))
      ? fine(about, `${path} is there, and the system's syslogd writes to it`)
      : advice(
          about,
          `no syslogd of this host writes to ${path}`,
          `add to /etc/rsyslog.d/40-auth-relay-authd.conf: mail.* |${path}`,
        ),
  ]
}

function checkDelivery(addresses: Settings['authd']['syslog_listen'], lines: readonly SyslogLine[]): Finding[] {
  return addresses.flatMap(address => {
    if (address.kind !== 'tcp' || address.port === 0) return []
    const where = formatSocketAddress(address)
    const port = new RegExp(`\\b${address.port}\\b`)
    return lines.some(({ text }) => /omfwd|@@|network\(|tcp\(/.test(text) && port.test(text)) ||
      lines.some(({ text }) => new RegExp(`port="?${address.port}\\b`).test(text))
      ? [fine('authd.syslog_listen', `the system's syslogd sends to ${where}`)]
      : [
          advice(
            'authd.syslog_listen',
            `no syslogd of this host sends to ${where}`,
            `add to /etc/rsyslog.d/40-auth-relay-authd.conf: ${omfwdRule(address.port)}`,
          ),
        ]
  })
}

/**
 * A sender that can write to this syslogd can open the relay for any address (CVE-2001-1075). So
 * syslogd must not accept lines from the network.
 */
function checkNetwork(lines: readonly SyslogLine[]): Finding[] {
  return lines
    .filter(
      ({ text }) =>
        /^\$(UDPServerRun|InputTCPServerRun)\b|^input\(.*type="im(udp|tcp|relp|ptcp)"|\b(udp|tcp|network|syslog)\s*\(.*\bport\s*\(/i.test(
          text,
        ) && !/address="(127\.|::1|localhost)|ip\(["']?127\.|action\(|destination\b/i.test(text),
    )
    .map(({ file, line, text }) =>
      unsafe(
        'syslogd',
        `it accepts lines from the network (${file}:${line}: ${text}): each host that sends it a line can open the relay`,
        'let it listen on 127.0.0.1 alone, or not at all',
      ),
    )
}

type SyslogLine = { readonly file: string; readonly line: number; readonly text: string }

/** The lines of a file without comments and empty lines; none if the file cannot be read. */
function linesOf(file: string): readonly SyslogLine[] {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch {
    return [] // a directory, or not readable for this account
  }
  return text
    .split('\n')
    .map((each, index) => ({ file, line: index + 1, text: each.trim() }))
    .filter(each => each.text !== '' && !each.text.startsWith('#'))
}

function filesOf(path: string): readonly string[] {
  const status = statOf(path)
  if (status === undefined) return []
  return status.isDirectory() ? readdirSync(path).map(name => join(path, name)) : [path]
}

const statOf = (path: string): Stats | undefined => statSync(path, { throwIfNoEntry: false })
