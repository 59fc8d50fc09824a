import { connect } from 'node:net'
import { parentPort, workerData } from 'node:worker_threads'
import { clientAddress, logIn } from './crowd.ts'

/**
 * The rate of wrong passwords, each on a new connection, and the addresses and logins that are used
 * in rotation.
 */
export type GuesserOrder = {
  readonly port: number
  readonly perSecond: number
  readonly addresses: number
  readonly logins: number
}
/** Counts so far. */
export type GuesserReport = {
  readonly begun: number
  readonly refused: number
  readonly accepted: number
  readonly lost: number
}

const TICK_MS = 10

function isOrder(data: unknown): data is GuesserOrder {
  return typeof data === 'object' && data !== null && 'perSecond' in data && 'port' in data && 'logins' in data
}

if (parentPort !== null && isOrder(workerData)) {
  const { port, perSecond, addresses, logins } = workerData
  const counts = { begun: 0, refused: 0, accepted: 0, lost: 0 }
  const guess = async (n: number): Promise<void> => {
    const socket = connect({ host: '127.0.0.1', port, localAddress: clientAddress(n % addresses) })
    try {
      if (await logIn(socket, `guess${n % logins}`, `wrong${n}`)) counts.accepted += 1
      else counts.refused += 1
    } catch {
      counts.lost += 1
    } finally {
      socket.destroy()
    }
  }
  const started = performance.now()
  // The clock sets the rate, because an attacker does not wait for slow servers.
  setInterval(() => {
    const due = Math.floor(((performance.now() - started) / 1000) * perSecond)
    while (counts.begun < due) void guess(counts.begun++)
  }, TICK_MS)
  setInterval(() => parentPort?.postMessage({ ...counts } satisfies GuesserReport), 100)
}
