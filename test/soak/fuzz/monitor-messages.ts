import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { parseFromLogin } from '../../../src/wire/workers/login-process.ts'
import { type FuzzTarget, promise } from './fuzz-target.ts'
import { mutated } from './mutation.ts'

const attempt = { n: 1, id: '7f3a.12', login: 'ann', method: 'pass', ip: '192.0.2.7', tls: false }
const MESSAGES = [
  { type: 'ready' },
  {
    type: 'verify',
    ...attempt,
    port: 40_000,
    localIp: '192.0.2.1',
    localPort: 110,
    secret: 'sesame',
    timestamp: '<a@b>',
  },
  { type: 'attempt', ...attempt },
  { type: 'outcome', n: 1, outcome: 'yes' },
  { type: 'cancel', n: 1 },
  { type: 'preambleRefused', ip: '192.0.2.7', reason: 'badpass' },
].map(message => JSON.stringify(message))
const WORDS = [
  ...MESSAGES,
  '"ip":"127.0.0.1"',
  '"type":"outcome"',
  'null',
  '{}',
  '[]',
  'true',
  '1e400',
  '"n":-1',
  '"n":1.5',
]

/** Messages to the monitor from a login process, which an attacker may control. */
export const monitorMessages: FuzzTarget = {
  name: 'monitor-messages',
  attempt(random) {
    const text = mutated(random, random.pick(MESSAGES), WORDS)
    let message: unknown
    try {
      message = JSON.parse(text)
    } catch {
      return // the channel drops it before the reader
    }
    const received = parseFromLogin(message)
    if (received === undefined || !('ip' in received)) return
    promise(parseIpAddress(received.ip) === received.ip, 'an address that is none', text)
    if ('login' in received) promise(!received.login.includes('\0'), 'a NUL in a login', text)
  },
}
