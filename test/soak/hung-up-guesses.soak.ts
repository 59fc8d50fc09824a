import { readFileSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { hashPassword } from '../../src/auth-relay/secrets.ts'
import { eventually } from '../harness/eventually.ts'
import { type PopupStack, startPopup } from '../harness/pop3/popup-stack.ts'
import { TEST_PASSWORD } from '../harness/stack.ts'
import { logIn } from './crowd.ts'
import { table } from './table.ts'

const PER_SECOND = 300
const SECONDS = 30
/** Limit for a right login, in milliseconds. */
const LIMIT_MS = 2000
/** Time from PASS to the reset in that test, in milliseconds. */
const HANG_UP_MS = 200
/** Logins under way at the server behind, in the test with such a server. */
const AT_SERVER = 16
/** State of a connection in /proc/net/tcp. */
const ESTABLISHED = '01'
/** Limit for the growth of the monitor under attack, in octets. */
const GROWTH = 128 * 1_048_576

let running: PopupStack
let inFront: PopupStack
beforeAll(async () => {
  const hash = await hashPassword(TEST_PASSWORD)
  // The default limits, delays and hash. A PROXY header contains the address of each client.
  running = await startPopup(
    stack => {
      const file = `${stack.directory}/passwd-as-shipped`
      writeFileSync(file, `ann:${hash}:61221:61221:${stack.directory}/mail/ann:Maildir\n`, { mode: 0o600 })
      return {
        passwd_file: file,
        fail_delays: [2, 4, 8, 15],
        ssl_hack_trust: ['127.0.0.254'],
        // As after a restart, when each right login needs its hash.
        auth_cache_time: 0,
      }
    },
    { '': { log_level: 'error' } },
  )
})
beforeAll(async () => {
  // The server behind is the popup above, which delays refusals and hashes.
  inFront = await startPopup(
    {
      checker: 'upstream',
      upstream: `127.0.0.1:${running.stack.port('popup', 0, 'proxy_listen')}`,
      upstream_proxy: true,
      fail_delays: [2, 4, 8, 15],
      checker_processes: AT_SERVER,
    },
    { '': { log_level: 'error' } },
  )
})
afterAll(async () => {
  await inFront?.stop()
  await running?.stop()
})

/** Connections that the processes of popup have open to that port. */
function connectionsTo(port: number): number {
  const [, ...rows] = readFileSync('/proc/net/tcp', 'latin1').trim().split('\n')
  const remote = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  return rows.filter(row => {
    const [, , peer = '', state] = row.trim().split(/\s+/)
    return state === ESTABLISHED && peer.endsWith(remote)
  }).length
}

/** A connection with a PROXY header that contains this client address. */
function clientOf(ip: string, stack = running.stack): Socket {
  const socket = connect({ host: '127.0.0.1', port: stack.port('popup', 0, 'proxy_listen') })
  const family = ip.includes(':') ? 6 : 4
  socket.on('error', () => {}) // a guess that hangs up is reset
  socket.write(`PROXY TCP${family} ${ip} ${family === 6 ? '2001:db8::1' : '192.0.2.1'} 40000 110\r\n`)
  return socket
}

const random = (below: number): string => Math.floor(Math.random() * below).toString(16)
let guesses = 0

const guesser = (): Socket => {
  guesses += 1
  return clientOf(`2001:db8:${random(4096)}:${random(65_536)}::1`)
}

/**
 * The way in which a client disconnects while its password waits, and the network of every second
 * right login.
 *
 * If the client has read nothing, popup receives a reset and cancels the check, so that a neighbour
 * in the same /32 does not wait.
 *
 * After the reply to USER, popup receives the end of the client's half, and the client may still
 * read the answer. The check stays, and the queue of the networks keeps other /32s from waiting.
 */
const GUESSES = {
  'with a reset': {
    guess: () => {
      const socket = guesser()
      socket.pause()
      socket.write(`USER x${guesses}\r\nPASS y\r\n`, () => socket.destroy())
    },
    neighbours: '2001:db8:ffff',
  },
  'with a plain close': {
    guess: () => {
      const socket = guesser()
      const name = `x${guesses}`
      let read = ''
      socket.on('data', chunk => {
        read += chunk.toString('latin1')
        // Reads the greeting and the reply to USER, so that nothing is left unread.
        if (read.split('\n').length === 3) socket.write('PASS y\r\n', () => socket.destroy())
      })
      socket.write(`USER ${name}\r\n`)
    },
    neighbours: '3fff:0:ffff',
  },
} as const

const residentOctets = (): number => {
  const status = readFileSync(`/proc/${running.stack.program('popup').pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024
}

let networks = 0
/**
 * Milliseconds until the right password is answered with +OK, from a new address. Every second
 * client has an IPv6 address in the network `v6`.
 */
async function rightLogin(v6: string): Promise<number> {
  networks += 1
  const n = networks
  const socket = clientOf(n % 2 === 0 ? `198.51.${n >> 8}.${n & 255}` : `${v6}:${n.toString(16)}::1`)
  const started = performance.now()
  try {
    expect(await logIn(socket, 'ann')).toBe(true)
    return performance.now() - started
  } finally {
    socket.destroy()
  }
}

test.each(Object.entries(GUESSES))(
  `${PER_SECOND} guesses a second from fresh networks that hang up %s delay a right login by less than ${LIMIT_MS} ms`,
  {
    retry: 2,
    timeout: 120_000,
  },
  async (how, { guess, neighbours }) => {
    const quiet = await rightLogin(neighbours)
    const before = residentOctets()
    const begun = guesses
    const started = performance.now()
    const attack = setInterval(() => {
      const due = ((performance.now() - started) / 1000) * PER_SECOND
      while (guesses - begun < due) guess()
    }, 10)
    const times: number[] = []
    let peak = before
    try {
      while (performance.now() - started < SECONDS * 1000) {
        times.push(await rightLogin(neighbours))
        peak = Math.max(peak, residentOctets())
        await pause(300)
      }
    } finally {
      clearInterval(attack)
    }
    const seconds = (performance.now() - started) / 1000
    const sorted = times.toSorted((a, b) => a - b)
    const shown = (time: number | undefined): string => `${(time ?? Number.NaN).toFixed(1)} ms`
    console.log(
      table('a right login, its hash as auth-relay passwd writes it', [
        { when: 'quiet', median: shown(quiet), worst: shown(quiet), logins: '1' },
        {
          when: `${((guesses - begun) / seconds).toFixed(0)} guesses/s that hang up ${how}`,
          median: shown(sorted[Math.floor(sorted.length / 2)]),
          worst: shown(sorted.at(-1)),
          logins: `${sorted.length}`,
        },
      ]),
    )
    console.log(
      `  monitor: ${(before / 1_048_576).toFixed(0)} MiB before, ${(peak / 1_048_576).toFixed(0)} MiB at most`,
    )
    expect((guesses - begun) / seconds).toBeGreaterThan(PER_SECOND * 0.8)
    expect(sorted.at(-1)).toBeLessThan(LIMIT_MS)
    expect(peak - before).toBeLessThan(GROWTH)
  },
)

test(`${PER_SECOND} guesses a second that hang up leave at most ${AT_SERVER} connections to the server behind`, {
  retry: 2,
  timeout: 120_000,
}, async () => {
  const port = running.stack.port('popup', 0, 'proxy_listen')
  const started = performance.now()
  let sent = 0
  const attack = setInterval(() => {
    const due = ((performance.now() - started) / 1000) * PER_SECOND
    while (sent < due) {
      sent += 1
      const socket = clientOf(`2001:db8:${random(4096)}:${random(65_536)}::1`, inFront.stack)
      const name = `u${sent}`
      socket.pause()
      socket.write(`USER ${name}\r\nPASS y\r\n`, () => setTimeout(() => socket.resetAndDestroy(), HANG_UP_MS))
    }
  }, 10)
  let most = 0
  try {
    while (performance.now() - started < SECONDS * 1000) {
      most = Math.max(most, connectionsTo(port))
      await pause(50)
    }
  } finally {
    clearInterval(attack)
  }
  console.log(`  connections to the server behind: at most ${most}, after ${sent} guesses`)
  expect(most).toBeGreaterThan(0)
  expect(most).toBeLessThanOrEqual(AT_SERVER)
  await eventually('the connections to the server behind are closed', () => connectionsTo(port) === 0)
})
