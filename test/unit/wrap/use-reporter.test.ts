import { once } from 'node:events'
import { createServer } from 'node:net'
import { afterAll, expect, test } from 'vitest'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { parseRelayUse } from '../../../src/wire/relay-use.ts'
import { UseReporter } from '../../../src/wrap/use-reporter.ts'
import { eventually } from '../../harness/eventually.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const directory = temporaryDirectory()
afterAll(() => directory.remove())

test('uses reach authd, also those of a time when it was away; nobody waits for it', async () => {
  const path = `${directory.path}/uses.sock`
  const ip = parseIpAddress('192.0.2.7')
  if (ip === undefined) throw new Error('no address')
  const reporter = new UseReporter(path, 20)
  reporter.report({ ip, at: 1, door: 'gate' })
  // Long enough for the first attempt to fail.
  await new Promise(resolve => setTimeout(resolve, 300))
  let heard = ''
  const server = createServer(socket =>
    socket.on('data', piece => {
      heard += String(piece)
    }),
  )
  server.listen(path)
  await once(server, 'listening')
  reporter.report({ ip, at: 2, door: 'policy' })
  await eventually('heard', () => heard.includes('at=2'))
  expect(heard.trim().split('\n').map(parseRelayUse)).toEqual([
    { ip, at: 1, door: 'gate' },
    { ip, at: 2, door: 'policy' },
  ])
  reporter.report({ ip, at: 3, door: 'gate' })
  reporter.close()
  await eventually('the last one too', () => heard.includes('at=3'))
  server.close()
})
