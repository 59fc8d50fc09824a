import { once } from 'node:events'
import { duplexPair } from 'node:stream'
import fc from 'fast-check'
import { afterAll, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { MaildropService } from '../../../src/pop3d/serve-maildrop.ts'
import { StreamConnection } from '../../../src/sockets/stream-connection.ts'
import { makeMaildir, parseFile, stateOf } from '../../harness/pop3/maildir.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const root = temporaryDirectory()
afterAll(() => root.remove())

const FILES = ['new/A "Subject: a\\n\\n.one\\ntwo"', 'cur/B:2,S ""', 'new/C,S=3 "\\r\\n\\n"'].map(parseFile)
const UNTOUCHED = stateOf(makeMaildir(root.path, FILES))
const CAPABILITIES = ['TOP', 'UIDL']

/** Sends these pieces and closes; returns the output of the server. */
async function converse(maildir: string, pieces: readonly Buffer[], compat: 'none' | 'qmail'): Promise<string> {
  const service = new MaildropService({
    compat,
    sizes: 'wire',
    extraBlank: false,
    lock: 'none',
    idleTime: 1_200_000,
    capabilities: CAPABILITIES,
  })
  const faults: string[] = []
  const log = createLog('pop3d', { level: 'error', write: line => faults.push(line) })
  const [client, server] = duplexPair()
  const connection = new StreamConnection(server, server)
  const served = service.serve(connection, maildir, new Uint8Array(0), log)
  let text = ''
  client.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
  })
  for (const piece of pieces) client.write(piece)
  client.end()
  await Promise.all([served, once(client, 'end')])
  expect(faults.filter(line => line.includes('session_failed'))).toEqual([])
  return text
}

const command = fc
  .tuple(
    fc.constantFrom('STAT', 'LIST', 'UIDL', 'RETR', 'TOP', 'DELE', 'RSET', 'LAST', 'NOOP', 'CAPA', 'QUIT', 'rubbish'),
    fc.constantFrom('', ' 1', ' 2', ' 3', ' 4', ' 1 1', ' x', ' 0', '\0', '  2  0 '),
    fc.constantFrom('\r\n', '\n', '\r\r\n', ''),
  )
  .map(parts => Buffer.from(parts.join('')))
const octets = fc.uint8Array({ maxLength: 700 }).map(list => Buffer.from(list))
const conversation = fc.array(fc.oneof({ weight: 5, arbitrary: command }, { weight: 1, arbitrary: octets }), {
  maxLength: 20,
})

test('any input is answered in whole lines, and without QUIT nothing changes', async () => {
  await fc.assert(
    fc.asyncProperty(conversation, fc.constantFrom('none' as const, 'qmail' as const), async (pieces, compat) => {
      const maildir = makeMaildir(root.path, FILES)
      const text = await converse(maildir, pieces, compat)
      expect(text).toMatch(/^\+OK \r\n/)
      expect(text).toMatch(/\r\n$/)
      const sentText = Buffer.concat(pieces).toString('latin1')
      if (!/(^|\n)quit/i.test(sentText)) expect(stateOf(maildir)).toEqual(UNTOUCHED)
    }),
    { numRuns: 500 },
  )
})

test('the answers do not depend on the pieces of the input', async () => {
  const cuts = fc.array(fc.nat(300), { maxLength: 6 })
  await fc.assert(
    fc.asyncProperty(fc.array(command, { maxLength: 15 }), cuts, async (commands, places) => {
      const whole = Buffer.concat(commands)
      const ends = [...places.filter(place => place < whole.length).sort((a, b) => a - b), whole.length]
      const pieces = ends.map((end, index) => whole.subarray(ends[index - 1] ?? 0, end))
      const [one, two] = [makeMaildir(root.path, FILES), makeMaildir(root.path, FILES)]
      expect(await converse(two, pieces, 'none')).toBe(await converse(one, [whole], 'none'))
      expect(stateOf(two)).toEqual(stateOf(one))
    }),
    { numRuns: 300 },
  )
})
