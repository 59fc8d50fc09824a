import { randomBytes } from 'node:crypto'
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { descriptorOf } from '../../../src/base/node-internals.ts'
import { sendDescriptor } from '../../../src/libc/descriptor-passing.ts'
import { programBeside } from '../../../src/process/worker-process.ts'
import { CHANNEL_LINE, formatHandoff } from '../../../src/wire/workers/maildrop-worker.ts'
import { eventually } from '../../harness/eventually.ts'
import { isRoot, makeMaildir, OWNER, parseFile, stateOf } from '../../harness/pop3/maildir.ts'
import { Pop3Client } from '../../harness/pop3/pop3-client.ts'
import { PROGRAM, socketPair, WorkerForTests } from '../../harness/pop3/pop3d.ts'
import { run } from '../../harness/processes/program.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const root = temporaryDirectory()
afterAll(() => root.remove())

const started: WorkerForTests[] = []
afterEach(async () => {
  for (const worker of started.splice(0)) await worker.stop()
})
async function start(
  ...settings: Parameters<typeof WorkerForTests.start> extends [string, ...infer Rest] ? Rest : never
) {
  const worker = await WorkerForTests.start(root.path, ...settings)
  started.push(worker)
  return worker
}
const maildirOf = (...files: readonly string[]) => makeMaildir(root.path, files.map(parseFile))

test('the program beside another program belongs to the same build', () => {
  expect(programBeside('pop3d', '/opt/auth-relay/dist/popup.js')).toBe('/opt/auth-relay/dist/pop3d.js')
  expect(PROGRAM).toMatch(/\/dist\/pop3d\.js$/)
})

describe('a worker', () => {
  test('serves many sessions on many maildrops, pipelined behind the ticket', async () => {
    const worker = await start()
    const maildirs = Array.from({ length: 20 }, (_, index) => maildirOf(`new/${index} "number ${index}\\n"`))
    await Promise.all(
      maildirs.map(async (maildir, index) => {
        const client = new Pop3Client(worker.open(worker.ticket({ maildir }), 'STAT\r\nRETR 1\r\nQUIT\r\n'))
        const octets = `number ${index}\r\n`.length
        expect(await client.rest()).toBe(`+OK \r\n+OK 1 ${octets}\r\n+OK \r\nnumber ${index}\r\n.\r\n+OK \r\n`)
        expect(stateOf(maildir)).toEqual([`cur/${index}:2, "number ${index}\\n"`])
      }),
    )
  })

  test('runs with the ids of the owner alone', async () => {
    const worker = await start()
    const client = new Pop3Client(worker.open(worker.ticket({ maildir: maildirOf() })))
    expect(await client.line()).toBe('+OK ')
    const status = readFileSync(`/proc/${worker.worker.child.pid}/status`, 'utf8')
    const uid = isRoot ? OWNER.uid : process.getuid?.()
    const gid = isRoot ? OWNER.gid : process.getgid?.()
    expect(/^Uid:\s+(.*)$/m.exec(status)?.[1]).toBe(`${uid}\t${uid}\t${uid}\t${uid}`)
    expect(/^Gid:\s+(.*)$/m.exec(status)?.[1]).toBe(`${gid}\t${gid}\t${gid}\t${gid}`)
    if (isRoot) expect(/^Groups:[ \t]*(.*)$/m.exec(status)?.[1]?.trim()).toBe('')
    expect(await client.say('QUIT')).toBe('+OK ')
  })

  test.runIf(isRoot)('does not start as uid 0', async () => {
    const worker = await start({ ids: null })
    expect((await worker.worker.ended).code).toBe(100)
  })

  test('accepts only tickets of the monitor, each once', async () => {
    const worker = await start()
    const maildir = maildirOf('cur/A "x\\n"')
    const refusal = '-ERR [SYS/TEMP] temporary authentication failure\r\n'
    const answerTo = (ticket: string) => new Pop3Client(worker.open(ticket, 'STAT\r\nQUIT\r\n')).rest()
    const good = worker.ticket({ maildir })
    expect(await answerTo(good)).toBe('+OK \r\n+OK 1 3\r\n+OK \r\n')
    expect(await answerTo(good)).toBe(refusal)
    const forged = worker.ticket({ maildir }, randomBytes(32))
    const other = worker.ticket({ maildir }).replace(/maildir=\S+/, 'maildir=/etc')
    const expired = worker.ticket({ maildir, expires: Math.floor(Date.now() / 1000) })
    for (const ticket of [forged, other, expired, '', 'STAT', 'x'.repeat(20_000)]) {
      expect(await answerTo(ticket)).toBe(refusal)
    }
  })

  test('names the fault of a maildrop in the reply', async () => {
    const worker = await start()
    const answerTo = (maildir: string) => new Pop3Client(worker.open(worker.ticket({ maildir }))).rest()
    expect(await answerTo('/nonexistent')).toBe('-ERR this user has no $HOME/Maildir\r\n')
    expect(await answerTo('/etc/passwd')).toBe('-ERR this user has no $HOME/Maildir\r\n')
    expect(await answerTo('/')).toBe('-ERR unable to scan $HOME/Maildir\r\n')
  })

  test('ends when it is idle, and not earlier', async () => {
    const worker = await start({ workerIdle: 1 })
    const client = new Pop3Client(worker.open(worker.ticket({ maildir: maildirOf() })))
    expect(await client.line()).toBe('+OK ')
    // The idle time of this worker would have begun earlier than that of one that starts now.
    const later = await start({ workerIdle: 1 })
    expect((await later.worker.ended).code).toBe(0)
    expect(await client.say('NOOP')).toBe('+OK ')
    expect(await client.say('QUIT')).toBe('+OK ')
    expect(await worker.worker.ended).toEqual({ code: 0, signal: null, hung: false })
  })

  test.each(['SIGTERM', 'the end of its monitor'])('completes its sessions after %s', async how => {
    const worker = await start()
    const maildir = maildirOf('new/A "x\\n"')
    const client = new Pop3Client(worker.open(worker.ticket({ maildir })))
    expect(await client.line()).toBe('+OK ')
    if (how === 'SIGTERM') worker.worker.child.kill('SIGTERM')
    else worker.worker.channel.close()
    expect(await client.say('DELE 1')).toBe('+OK ')
    expect(await client.say('QUIT')).toBe('+OK ')
    expect((await worker.worker.ended).code).toBe(0)
    expect(stateOf(maildir)).toEqual([])
  })

  test('a crash removes no message, and the next worker on the socket continues', async () => {
    const worker = await start()
    const maildir = maildirOf('new/A "x\\n"')
    const client = new Pop3Client(worker.open(worker.ticket({ maildir })))
    expect(await client.line()).toBe('+OK ')
    expect(await client.say('DELE 1')).toBe('+OK ')
    worker.worker.child.kill('SIGKILL')
    expect(await client.rest()).toBe('')
    expect(stateOf(maildir)).toEqual(['new/A "x\\n"'])
  })

  test('two sessions on one maildrop see the same messages, and each deletes its own', async () => {
    const worker = await start()
    const maildir = maildirOf('cur/A "x\\n"', 'cur/B "y\\n"')
    const [one, two] = [0, 1].map(() => new Pop3Client(worker.open(worker.ticket({ maildir }))))
    if (one === undefined || two === undefined) throw new Error('two clients')
    expect([await one.line(), await two.line()]).toEqual(['+OK ', '+OK '])
    expect(await one.say('DELE 1')).toBe('+OK ')
    expect(await two.say('STAT')).toBe('+OK 2 6')
    expect(await one.say('QUIT')).toBe('+OK ')
    expect(await two.say('RETR 1')).toBe('-ERR unable to open that message')
    expect(await two.say('DELE 1')).toBe('+OK ')
    expect(await two.say('QUIT')).toBe('+OK ')
    expect(stateOf(maildir)).toEqual(['cur/B "y\\n"'])
  })

  test('lock = "exclusive" refuses a second session with [IN-USE]', async () => {
    const worker = await start({ lock: 'exclusive' })
    const other = await start({ lock: 'exclusive' })
    const maildir = maildirOf('cur/A "x\\n"')
    const holder = new Pop3Client(worker.open(worker.ticket({ maildir })))
    expect(await holder.line()).toBe('+OK ')
    for (const second of [worker, other]) {
      const refused = new Pop3Client(second.open(second.ticket({ maildir })))
      expect(await refused.rest()).toBe('-ERR [IN-USE] maildrop is in use\r\n')
    }
    expect(await holder.say('QUIT')).toBe('+OK ')
    const next = new Pop3Client(other.open(other.ticket({ maildir }), 'QUIT\r\n'))
    expect(await next.rest()).toBe('+OK \r\n+OK \r\n')
  })

  test('the lock of a process that has ended does not delay a session', async () => {
    const maildir = maildirOf('cur/A "x\\n"')
    const worker = await start({ lock: 'exclusive' })
    const holder = new Pop3Client(worker.open(worker.ticket({ maildir })))
    expect(await holder.line()).toBe('+OK ')
    worker.worker.child.kill('SIGKILL')
    await worker.worker.ended
    const other = await start({ lock: 'exclusive' })
    const next = new Pop3Client(other.open(other.ticket({ maildir }), 'QUIT\r\n'))
    expect(await next.rest()).toBe('+OK \r\n+OK \r\n')
    // The content of the file does not matter, only its lock.
    writeFileSync(`${maildir}/pop3d.lock`, 'rubbish')
    const again = new Pop3Client(other.open(other.ticket({ maildir }), 'QUIT\r\n'))
    expect(await again.rest()).toBe('+OK \r\n+OK \r\n')
  })
})

describe('a login process that hands connections over', () => {
  /** A channel as in src/popup/login. */
  async function channelTo({ socket }: WorkerForTests) {
    const lines = connect({ path: socket, allowHalfOpen: true })
    lines.on('error', () => {}) // the worker may close it at any time
    let receivedText = ''
    lines.on('data', chunk => {
      receivedText += String(chunk)
    })
    lines.write(`${CHANNEL_LINE}\n`)
    await eventually('the channel is open', () => receivedText.startsWith(`${CHANNEL_LINE}\n`))
    const pass = async (n: number, ticket: string, readAhead = ''): Promise<Pop3Client> => {
      const { client, server } = await socketPair()
      const message = `${formatHandoff({ n, octets: readAhead.length, ticket })}\n${readAhead}`
      expect(sendDescriptor(descriptorOf(lines), descriptorOf(server), message)).toBe(message.length)
      server.destroy()
      return new Pop3Client(client)
    }
    return { lines, pass, received: () => receivedText.slice(CHANNEL_LINE.length + 1) }
  }
  const isClosed = (socket: Socket) => eventually('closed', () => socket.destroyed || socket.readableEnded)

  test('sends the octets that it has read too, and is notified at the end of each session', async () => {
    const worker = await start()
    const channel = await channelTo(worker)
    const maildirs = ['one', 'two'].map(name => maildirOf(`cur/${name} "${name}\\n"`))
    const [first = '', second = ''] = maildirs.map(maildir => worker.ticket({ maildir }))
    const one = await channel.pass(1, first, 'STAT\r\nNO')
    const two = await channel.pass(2, second)
    expect([await one.line(), await one.line()]).toEqual(['+OK ', '+OK 1 5'])
    expect(await one.say('OP')).toBe('+OK ')
    expect(await two.line()).toBe('+OK ')
    expect(channel.received()).toBe('')
    expect(await two.say('QUIT')).toBe('+OK ')
    two.end()
    await eventually('the end of the session is reported', () => channel.received() === 'ended n=2\n')
    expect(await one.say('QUIT')).toBe('+OK ')
    one.end()
    await eventually('the end of the session is reported', () => channel.received() === 'ended n=2\nended n=1\n')
    channel.lines.destroy()
  })

  test('needs a ticket of the monitor for each', async () => {
    const worker = await start()
    const channel = await channelTo(worker)
    const refusal = '-ERR [SYS/TEMP] temporary authentication failure\r\n'
    const good = worker.ticket({ maildir: maildirOf() })
    expect(await (await channel.pass(1, good, 'QUIT\r\n')).rest()).toBe('+OK \r\n+OK \r\n')
    for (const [index, ticket] of [good, good.replace(/maildir=\S+/, 'maildir=/etc'), 'STAT'].entries()) {
      expect(await (await channel.pass(index + 2, ticket, 'STAT\r\n')).rest()).toBe(refusal)
    }
    channel.lines.destroy()
  })

  test.each(['handoff n=1 octets=0 x\n', 'STAT\r\n', `${'x'.repeat(200_000)}`])(
    'and violates the protocol is closed, and others are served',
    async words => {
      const worker = await start()
      const channel = await channelTo(worker)
      channel.lines.write(words)
      await isClosed(channel.lines)
      const other = await channelTo(worker)
      const client = await other.pass(1, worker.ticket({ maildir: maildirOf() }), 'QUIT\r\n')
      expect(await client.rest()).toBe('+OK \r\n+OK \r\n')
      other.lines.destroy()
    },
  )

  test('ends its sessions when it ends, and no message is removed', async () => {
    const worker = await start()
    const channel = await channelTo(worker)
    const maildir = maildirOf('new/A "x\\n"')
    const client = await channel.pass(1, worker.ticket({ maildir }), 'DELE 1\r\n')
    expect([await client.line(), await client.line()]).toEqual(['+OK ', '+OK '])
    channel.lines.destroy()
    expect(await client.rest()).toBe('')
    expect(stateOf(maildir)).toEqual(['new/A "x\\n"'])
  })

  test('is notified before an idle worker ends; the worker serves connections that were sent before the notice was read', async () => {
    const worker = await start({ workerIdle: 0.2 })
    const channel = await channelTo(worker)
    await eventually('the end of the worker is reported', () => channel.received() === 'closing\n')
    const client = await channel.pass(1, worker.ticket({ maildir: maildirOf('cur/A "x\\n"') }), 'STAT\r\n')
    channel.lines.end()
    expect([await client.line(), await client.line()]).toEqual(['+OK ', '+OK 1 3'])
    // A client connects again: the worker accepts new channels.
    const next = await channelTo(worker)
    const other = await next.pass(1, worker.ticket({ maildir: maildirOf() }))
    expect(await other.line()).toBe('+OK ')
    for (const each of [client, other]) {
      expect(await each.say('QUIT')).toBe('+OK ')
      each.end()
    }
    await isClosed(channel.lines)
    await eventually('the end of the worker is reported', () => next.received().includes('closing\n'))
    next.lines.end()
    expect((await worker.worker.ended).code).toBe(0)
  })

  test('cannot use a ticket a second time with the next worker', async () => {
    const worker = await start({ workerIdle: 0.2 })
    const used: unknown[] = []
    worker.worker.channel.onMessage(message => used.push(message))
    const ticket = worker.ticket({ maildir: maildirOf() })
    expect(await new Pop3Client(worker.open(ticket, 'QUIT\r\n')).rest()).toBe('+OK \r\n+OK \r\n')
    await worker.worker.ended
    const id = / id=(\S+)/.exec(ticket)?.[1]
    const expires = Number(/ expires=(\d+)/.exec(ticket)?.[1])
    expect(used.at(-1)).toEqual({ type: 'usedTickets', tickets: [{ id, expires }] })
    const next = await start({ key: worker.key, usedTickets: [{ id: id ?? '', expires }] })
    expect(await new Pop3Client(next.open(ticket, 'QUIT\r\n')).rest()).toMatch(/^-ERR/)
  })

  test.runIf(isRoot)('is identified by its uid, for any mode of the socket', async () => {
    const worker = await start({ loginUid: OWNER.uid + 1 })
    const script = `use Socket; $SIG{PIPE} = 'IGNORE'; socket(my $s, AF_UNIX, SOCK_STREAM, 0); connect($s, pack_sockaddr_un($ARGV[0])) or die;
      syswrite($s, "$ARGV[1]\n"); my $n = sysread($s, my $x, 99); print defined $n && $n > 0 ? "received $x" : "silence"`
    const ask = async (uid: number, line = worker.ticket({ maildir: maildirOf() })) => {
      const ids = ['setpriv', '--reuid', `${uid}`, '--clear-groups', '--']
      const { lines } = await run([...ids, 'timeout', '5', 'perl', '-e', script, worker.socket, line])
      return lines.join('\n')
    }
    chmodSync(worker.socket, 0o666)
    chmodSync(root.path, 0o755)
    expect(await ask(OWNER.uid + 1)).toMatch(/^received \+OK/)
    expect(await ask(OWNER.uid + 1, CHANNEL_LINE)).toBe(`received ${CHANNEL_LINE}`)
    expect(await ask(OWNER.uid - 1)).toBe('silence')
    expect(await ask(OWNER.uid - 1, CHANNEL_LINE)).toBe('silence')
  })
})
