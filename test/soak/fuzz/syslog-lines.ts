import { DIALECTS } from '../../../src/syslog/dialects.ts'
import { LoginRecognizer } from '../../../src/syslog/login-recognizer.ts'
import { SyslogFraming } from '../../../src/syslog/syslog-framing.ts'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { ATTACK_PIECES, FAILURE_TEMPLATES } from '../../unit/syslog/attack-lines.ts'
import { FORMS, LOGINS, NO_LOGINS } from '../../unit/syslog/known-lines.ts'
import { type FuzzTarget, promise } from './fuzz-target.ts'
import { cut, mutated } from './mutation.ts'
import type { Random } from './random.ts'

const believer = () => new LoginRecognizer({ dialects: DIALECTS, imap: true, ownFiles: true })
/** No text here contains a session line, so that one recognizer serves all texts. */
const shared = believer()
const forms = Object.values(FORMS)

const attack = (random: Random): string => {
  let text = ''
  for (let left = random.int(6); left > 0; left--)
    text += random.oneIn(2) ? random.pick(ATTACK_PIECES) : random.octets(12).replaceAll('\n', '')
  return text
}

/** A failure line of any form that contains an attacker's text. */
function forgedFailure(random: Random): void {
  const [tag, template] = random.pick(FAILURE_TEMPLATES)
  const message = template.replaceAll('{}', () => attack(random))
  const line = random.pick(forms)(tag, '4242', message)
  promise(shared.recognize(line, 0).verdict === 'ignore', 'opened by a failure line', line)
}

/** A true login with a hostile login name: the address is still that of the connection. */
function hostileName(random: Random): void {
  const { dialect, tag, pid = '', message, grants } = random.pick(LOGINS)
  if (grants === undefined || !message.includes(grants.login)) return
  const name = random.oneIn(4) ? attack(random) : mutated(random, grants.login, ATTACK_PIECES)
  // vchkpw writes a colon between name and address; names of accounts contain no colon (passwd(5),
  // vpasswd).
  if (dialect === 'vchkpw' && name.includes(':')) return
  const line = random.pick(forms)(
    tag,
    pid,
    message.replaceAll(grants.login, () => name),
  )
  const verdict = shared.recognize(line, 0)
  if (verdict.verdict === 'grant') promise(verdict.ip === grants.ip, `opened ${verdict.ip}, not ${grants.ip}`, line)
}

/**
 * The required form of a line in that dialect, derived from the specification and not from the
 * code.
 */
const TRUE_LOGIN: Readonly<Record<string, RegExp>> = {
  ipop3d: /(?:Login|Auth|APOP|Authenticated) user=\S+ host=/,
  vchkpw:
    /vchkpw(?:-\w+)?: (?:\(\S+\) login success \S+:|system password login success \S+:|login success \S+:|login \[\S+\] from )/,
  'qmail-pop3d': /authrelay v=1 ev=login ip=/,
  dovecot: /(?:pop3|imap)-login: (?:Info: )?(?:Login|Logged in): user=</,
  'dovecot-proxy': /(?:pop3|imap)-login: (?:Info: )?proxy\(.*\): [Ss]tarted proxying to .*: user=</s,
  courier: /LOGIN, user=/,
  cyrus: /login: .*User logged in|event=login\.good /s,
  qpopper: /POP login by user "|Stats: /,
  'solid-pop3d': /user \S+ authenticated/,
  teapop: /Successful login for /,
  tpop3d: /began session for `/,
  'gnu-pop3d': /User \S+ logged in/,
  'vm-pop3d': /User \S+ logged in from /,
  perdition: /Auth: .* status="ok"$/s,
  cucipop: /\S+ [\d.]+ \d+, \d+ \(\d+\), \d+ \(\d+\)$/s,
  popa3d: /Authentication passed for /,
}

/**
 * Any known line with a change at any place. A line that opens the relay still reports a login and
 * contains the address.
 */
function changedLine(random: Random): void {
  const known = random.oneIn(4) ? random.pick(NO_LOGINS) : random.pick(LOGINS)
  const whole = random.pick(forms)(known.tag, known.pid ?? '', known.message)
  const line = mutated(random, whole, ATTACK_PIECES)
  const verdict = believer().recognize(line, 0)
  if (verdict.verdict === 'ignore') return
  promise(TRUE_LOGIN[verdict.dialect]?.test(line) === true, `opened as ${verdict.dialect}`, line)
  const named = line.split(/[^0-9A-Fa-f:._]+/).flatMap(word => [word, word.replaceAll('_', ':')])
  const endings = named.flatMap(word => [word, ...suffixes(word), word.replace(/:\d+$/, '')])
  promise(
    endings.some(word => parseIpAddress(word) === verdict.ip),
    `opened ${verdict.ip}, which is not there`,
    line,
  )
}

/** `user:192.0.2.7`, written without a character that ends the name. */
const suffixes = (word: string): readonly string[] =>
  [...word.matchAll(/[:._]/g)].map(({ index }) => word.slice(index + 1))

/** The second line of a two-line daemon counts only after the first line of the same process. */
function twoLines(random: Random): void {
  const [tag, session, success] = random.pick([
    ['popa3d', 'Session from 203.0.113.9', 'Authentication passed for ann'],
    ['vm-pop3d', 'Connect from 203.0.113.9', "User 'ann' logged in"],
    ['solid-pop3d', 'connect from 203.0.113.9', 'user ann authenticated'],
  ] as const)
  const recognizer = believer()
  const form = random.pick(forms)
  recognizer.recognize(form(tag, '7', session), 0)
  const line = mutated(random, form(tag, '7', success), ATTACK_PIECES)
  const verdict = recognizer.recognize(line, 0)
  if (verdict.verdict === 'ignore') return
  const isSecondLine = verdict.ip === '203.0.113.9' && /7/.test(line)
  const namesAddress = line.includes(verdict.ip) || ATTACK_PIECES.some(piece => line.includes(piece.trim()))
  promise(isSecondLine || namesAddress, `opened ${verdict.ip}`, line)
}

/** Syslog over TCP: the lines do not depend on the pieces of the stream. */
function stream(random: Random): void {
  const { tag, pid = '', message } = random.pick(LOGINS)
  const line = random.pick(forms)(tag, pid, message)
  const counted = random.oneIn(2)
  const frame = counted ? `${Buffer.byteLength(line)} ${line}` : `${line}\n`
  const octets = Buffer.from(mutated(random, frame + frame, [frame, '8193 ', '9999999 ', '0 ']), 'latin1')
  const read = (pieces: readonly Buffer[]): string => {
    const framing = new SyslogFraming()
    const frames = pieces.map(piece => framing.push(piece))
    const end = frames.at(-1)?.isInvalid ?? false
    return JSON.stringify([frames.flatMap(({ lines }) => lines), frames.reduce((sum, f) => sum + f.overlong, 0), end])
  }
  promise(read([octets]) === read(cut(random, octets)), 'other lines when cut', octets.toString('latin1'))
}

/**
 * Prefixes and every dialect: only a true success line opens the relay, and only for its own
 * address.
 */
export const syslogLines: FuzzTarget = {
  name: 'syslog-lines',
  attempt: random =>
    random.pick([forgedFailure, forgedFailure, hostileName, changedLine, changedLine, twoLines, stream])(random),
}
