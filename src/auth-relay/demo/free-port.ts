/** TCP ports for the demo, held until their programs bind them. */
import { createServer } from 'node:net'

/** A TCP port that no other process can bind until it is released. */
export type HeldPort = { readonly port: number; release(): Promise<void> }

/**
 * Reserves a port, or with 0 any free port, so that several ports can be chosen without a
 * duplicate. Rejects with the system's error.
 */
export const holdPort = (host: string, port: number): Promise<HeldPort> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen({ host, port }, () => {
      const address = server.address()
      const release = (): Promise<void> => new Promise(released => server.close(() => released()))
      if (address === null || typeof address === 'string') reject(new Error('no port was given'))
      else resolve({ port: address.port, release })
    })
  })
