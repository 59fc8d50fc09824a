import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { duplexPair } from 'node:stream'
import { afterAll, describe, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { capabilityLines } from '../../../src/pop3/reply.ts'
import { MaildropService } from '../../../src/pop3d/serve-maildrop.ts'
import type { Engine } from '../../../src/sockets/engine.ts'
import { StreamConnection } from '../../../src/sockets/stream-connection.ts'
import { isRoot, OWNER } from '../../harness/pop3/maildir.ts'
import { NODE, PROGRAM, socketPair, WorkersForTests } from '../../harness/pop3/pop3d.ts'
import {
  type Connect,
  inputLength,
  readTranscripts,
  runTranscript,
  type TranscriptSettings,
} from '../../harness/pop3/transcript.ts'
import { acceptedSocket } from '../../harness/processes/accepted-socket.ts'
import { BOTH_ENGINES } from '../../harness/processes/engines.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const root = temporaryDirectory()
afterAll(() => root.remove())

const transcripts = readTranscripts(`${import.meta.dirname}/../../transcripts/pop3d`)
const log = createLog('pop3d', { write: () => {} })

/**
 * `pop3d MAILDIR` as inetd, tcpserver and a checker start it: descriptors 0 and 1 are the client's
 * connection.
 */
const standalone: Connect = async (maildir, { compat, sizes, extraBlank, isWritten }) => {
  const { client, server } = await socketPair()
  const environment = {
    COMPAT: compat,
    SIZES: isWritten.sizes ? sizes : undefined,
    EXTRA_BLANK: isWritten.extraBlank ? String(extraBlank) : undefined,
    AUTHRELAY_ANNOUNCED: '1',
  }
  const child = spawn(NODE, [PROGRAM, maildir], {
    stdio: [server, server, 'inherit'],
    env: Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== undefined)),
    ...(isRoot ? OWNER : {}),
  })
  const ended = once(child, 'exit')
  server.destroy()
  return {
    socket: client,
    closed: ended.then(([code]) => {
      expect(code).toBe(0)
    }),
  }
}

/** Sessions of one worker for each combination of settings, started as popup's monitor does. */
const workers = new WorkersForTests(root.path)
afterAll(() => workers.stop())

function serviceFor({ compat, sizes, extraBlank }: TranscriptSettings): MaildropService {
  const capabilities = capabilityLines('TRANSACTION', {
    user: true,
    sasl: [],
    stls: false,
    loginDelay: 0,
    expire: 'NEVER',
    implementation: 'auth-relay',
  })
  return new MaildropService({
    compat,
    sizes,
    extraBlank,
    lock: 'none',
    idleTime: 1_200_000,
    capabilities,
  })
}

/** A session inside the test's process, on a pair of streams. */
const inProcess: Connect = async (maildir, settings) => {
  const [socket, server] = duplexPair()
  const connection = new StreamConnection(server, server)
  return { socket, closed: serviceFor(settings).serve(connection, maildir, new Uint8Array(0), log) }
}

/** The same over a TCP connection that an engine accepted. */
const overEngine =
  (engine: Engine): Connect =>
  async (maildir, settings) => {
    const { client, socket, close } = await acceptedSocket(engine)
    const clientClosed = once(client, 'close')
    const served = serviceFor(settings).serve(socket.open(), maildir, new Uint8Array(0), log)
    return { socket: client, closed: Promise.all([served, clientClosed]).then(close) }
  }

test('there are transcripts', () => {
  expect(transcripts.length).toBeGreaterThan(50)
})

describe.each(transcripts)('$name', transcript => {
  // Sessions in one piece and octet by octet run over the engines, below.
  test('cut at every octet', async () => {
    // A client without octets needs one run.
    const cuts = Array.from({ length: Math.max(1, inputLength(transcript)) }, (_, index) => index + 1)
    while (cuts.length > 0) {
      await Promise.all(cuts.splice(0, 32).map(cut => runTranscript(transcript, root.path, inProcess, cut)))
    }
  })

  test('by pop3d started for one session', () => runTranscript(transcript, root.path, standalone, 'whole'))

  test('by a worker', () => runTranscript(transcript, root.path, workers.connect, 'whole'))

  test('by a worker that received the connection from the login process', () =>
    runTranscript(transcript, root.path, workers.handOver, 'whole'))

  describe.each(BOTH_ENGINES)('over engine $name', ({ engine }) => {
    test('in one piece', () => runTranscript(transcript, root.path, overEngine(engine), 'whole'))

    test('octet by octet', () => runTranscript(transcript, root.path, overEngine(engine), 'everywhere'))
  })
})
