import type { Program } from '../harness/processes/program.ts'

/**
 * Environment of a program whose memory is measured: each of its processes opens an inspector on a
 * free port of loopback.
 */
export const INSPECTED = { NODE_OPTIONS: '--inspect=127.0.0.1:0' }

const ADDRESS = /^Debugger listening on (ws:\/\/127\.0\.0\.1:\d+\/[\w-]+)$/

/** Octets in use after garbage collection, in each process of a program started with INSPECTED. */
export async function liveMemory(program: Program): Promise<number> {
  const addresses = program.lines.flatMap(line => ADDRESS.exec(line)?.[1] ?? [])
  const used = await Promise.all(addresses.map(usedIn))
  return used.reduce((sum, octets) => sum + octets, 0)
}

/** 0 for a process that has ended. */
async function usedIn(address: string): Promise<number> {
  const socket = new WebSocket(address)
  const opened = await new Promise<boolean>(resolve => {
    socket.addEventListener('open', () => resolve(true), { once: true })
    socket.addEventListener('error', () => resolve(false), { once: true })
  })
  if (!opened) return 0
  const ask = (id: number, method: string, params: object = {}): Promise<string> => {
    socket.send(JSON.stringify({ id, method, params }))
    return new Promise(resolve => {
      const onMessage = ({ data }: MessageEvent): void => {
        if (!String(data).includes(`"id":${id},`)) return
        socket.removeEventListener('message', onMessage)
        resolve(String(data))
      }
      socket.addEventListener('message', onMessage)
    })
  }
  // Twice, because the second collection frees the objects that finalizers released in the first.
  await ask(1, 'HeapProfiler.collectGarbage')
  await ask(2, 'HeapProfiler.collectGarbage')
  const expression = '(({ heapUsed, external }) => heapUsed + external)(process.memoryUsage())'
  const answer = await ask(3, 'Runtime.evaluate', { expression })
  socket.close()
  const value = /"value":(\d+)/.exec(answer)?.[1]
  if (value === undefined) throw new Error(`no figure in ${answer}`)
  return Number(value)
}
